#!/usr/bin/env bash
# A policy without dns.servers trusts those of /etc/resolv.conf, and a reload those it names by
# then. When their resolver cannot be made, the new policy is in force all the same, and says so.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

sandbox_up
listen tcp 443
dns_set api.example.com 203.0.113.7
dns_set one.wild.example.com 203.0.113.8
dns_set late.example.com 203.0.113.9
allow() {
write_policy <<END
version: 1
mode: enforce
collections:
  - name: names
    priority: 200
    action: allow
    rules:
      - {name: names, fqdns: [$1, "*.wild.example.com"], ports: [443]}
END
}
servers() { printf 'nameserver %s\n' "$@" >"$SANDBOX_DIR/resolv.conf"; }
allow api.example.com
servers "$DNS4"
export EGRESSD_NO_ARES=$SANDBOX_DIR/no-ares
LD_PRELOAD=$EGRESSD_NO_ARES_LIBRARY start_egressd "$POLICY"
expect_ok "a name resolved ahead" tcp 203.0.113.7 443
expect_ok "a name learned from an answer" resolve one.wild.example.com 443 -4
expect_errno EPERM dns_server_not_allowed "another server" ask "$DNS6" 53 --name one.wild.example.com

servers "$DNS6"
allow late.example.com
reload_egressd
reachable() { [[ $(probe tcp "$1" 443) == ok* ]]; }
check "resolved ahead from the new server" wait_until 5 reachable 203.0.113.9
expect_ok "the new server" ask "$DNS6" 53 --name one.wild.example.com
expect_errno EPERM dns_server_not_allowed "the old server" ask "$DNS4" 53 --name one.wild.example.com

dns_set third.example.com 203.0.113.10
servers "$DNS4"
allow third.example.com
touch "$EGRESSD_NO_ARES"
reload_egressd
generation=$(status_number generation)
warnings() { ctl status --json | python3 -c 'import json, sys; print(*json.load(sys.stdin)["warnings"], sep="\n")'; }
says="generation $generation is in force, but its names are not resolved"
check "the status says what is in force: $(warnings)" grep -qF "$says" <<<"$(warnings)"
check "so does the log" grep -qF "$says" "$SANDBOX_DIR/egressd.log"
check "nobody claims that it was refused" \
  test -z "$(grep -h 'reload refused' <(warnings) "$SANDBOX_DIR/egressd.log")"
expect_ok "the new policy's server" ask "$DNS4" 53 --name one.wild.example.com
expect_errno EPERM dns_server_not_allowed "the old policy's" ask "$DNS6" 53 --name one.wild.example.com

rm "$EGRESSD_NO_ARES"
reload_egressd
check "another reload mends it" wait_until 5 reachable 203.0.113.10
check "no warning is left" test -z "$(warnings)"
finish
