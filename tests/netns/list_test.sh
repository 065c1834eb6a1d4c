#!/usr/bin/env bash
# What an operator is told of learned addresses: `list` shows the end the kernel keeps, the log each
# new address of a name once, and records from the time without an agent name their rules.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

DNS_TTL=900 sandbox_up
listen tcp 443
dns_set one.wild.test 203.0.113.1
dns_set two.wild.test 203.0.113.2
write_policy <<END
version: 1
mode: enforce
dns: {servers: [$DNS4], grace: 100}
collections:
  - name: blocked
    priority: 100
    action: deny
    rules:
      - {name: legacy, addresses: [198.51.100.9], ports: ["*"], protocols: [any]}
  - name: names
    priority: 200
    action: allow
    rules:
      - {name: wild, fqdns: ["*.wild.test"], ports: [443]}
END
start_egressd "$POLICY"
expect_ok "a name" resolve one.wild.test 443 -4
left() {
  ctl list --json | grep -F "\"$1\"" | grep -o '"expires_in_seconds":[0-9]*' | grep -o '[0-9]*$'
}
logged() { grep -F -- "$1 -> $2, " "$SANDBOX_DIR/egressd.log" | grep -qF " info "; }
times_logged() { grep -cF -- "$1 -> " "$SANDBOX_DIR/egressd.log" || true; }
check "logged: name, address" wait_until 2 logged one.wild.test 203.0.113.1
check "… from whom, who asked" grep -qE \
  "one.wild.test -> 203.0.113.1, ttl 900 s, learned from the answer of $DNS4, asked by egressd_probe" \
  "$SANDBOX_DIR/egressd.log"
seconds=$(left 203.0.113.1)
check "time left: TTL and grace: $seconds" test "$seconds" -gt 900 -a "$seconds" -le 1000

# A shorter TTL later on does not bring the end closer, in the kernel and in the list.
dns_stop
DNS_TTL=60 dns_start
expect_ok "asked again" resolve one.wild.test 443 -4
sleep 0.3
seconds=$(left 203.0.113.1)
check "time left after an answer with a short TTL: $seconds" test "$seconds" -gt 900
check "not logged again" test "$(times_logged one.wild.test)" -eq 1
dns_set one.wild.test 203.0.113.1 203.0.113.7
expect_ok "asked once more" resolve one.wild.test 443 -4
check "logged again: it has another address" wait_until 2 grep -q 'one.wild.test -> .*203.0.113.7' \
  "$SANDBOX_DIR/egressd.log"

stop_egressd KILL
lines=$(audit_lines)
expect_errno_alone EPERM "no agent: a deny rule" tcp 198.51.100.9 443
expect_ok "no agent: a name" resolve two.wild.test 443 -4
sed -i 's/name: legacy/name: changed/' "$POLICY"
start_egressd "$POLICY"
recorded() { audit_records "$@" >/dev/null; }
check "its record names the rule of that time" wait_until 2 recorded "$lines" '"deny_rule"' \
  '"collection":"blocked"' '"rule":"legacy"'
check "list: by the pattern, with the kernel's end" test "$(left 203.0.113.1)" -gt 900
check "logged by the next agent" logged two.wild.test 203.0.113.2

warned() { ctl status --json | grep -q 'refused DNS questions or learned answers have no record'; }
check "status: no records of DNS lost" eval '! warned'
kill -STOP "$SANDBOX_AGENT"
in_client /usr/bin/python3 - <<'END'
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for i in range(10000):
    try:
        s.sendto(b"\1\1\1\0\0\1\0\0\0\0\0\0\5other\4test\0\0\1\0\1", ("192.0.2.1", 53))
    except PermissionError:
        pass
END
kill -CONT "$SANDBOX_AGENT"
check "status: records of DNS lost" wait_until 5 warned
finish
