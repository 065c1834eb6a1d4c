#!/usr/bin/env bash
# A new policy holds from the moment the reload is done, also for connections that were open.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

sandbox_up
listen tcp 22 23
open() {
write_policy <<END
version: 1
mode: enforce
dns:
  servers: [$DNS4]
collections:
  - name: net
    priority: 200
    action: allow
    rules:
      - {name: net, addresses: [$1], ports: [22], protocols: [tcp]}
END
}
open 203.0.113.0/24
start_egressd "$POLICY"
expect_ok "allowed at first" tcp 203.0.113.5 22
expect_errno EPERM default_deny "refused at first" tcp 198.51.100.9 22
HOLD_TIMEOUT=500 hold_open 203.0.113.5 22
expect_hold_ok "open connection"
open 198.51.100.0/24
reload_egressd
expect_ok "allowed now" tcp 198.51.100.9 22
expect_errno EPERM default_deny "refused now" tcp 203.0.113.5 22
line=$(hold_echo)
check "the open connection is cut: $line" grep -q "^errno=" <<<"$line"
open 203.0.113.0/24
reload_egressd
expect_ok "allowed again" tcp 203.0.113.5 22

# A pipe gives its bytes once: the hash is that of those which were read.
hash_of() { ctl status --json | grep -o '"policy_hash":"[^"]*"'; }
before=$(hash_of)
cp "$POLICY" "$SANDBOX_DIR/same.yaml"
open 198.51.100.0/24
reload_egressd
other=$(hash_of)
rm "$POLICY"
mkfifo "$POLICY"
cat "$SANDBOX_DIR/same.yaml" >"$POLICY" &
reload_egressd
expect_ok "a policy that can be read only once" tcp 203.0.113.5 22
check "policy_hash is of the bytes in force: $(hash_of)" test "$(hash_of)" = "$before"
check "… and tells policies apart: $other" test "$other" != "$before"
finish
