#!/usr/bin/env bash
# Break-glass: for a time nothing is refused but all of it recorded, with and without an agent, and
# it ends by itself in the kernel.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

sandbox_up
listen tcp 22
listen udp 22
dns_set elsewhere.example 198.51.100.9
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
      - {name: one host, addresses: [203.0.113.5], ports: [22], protocols: [tcp]}
END
start_egressd "$POLICY"
glass() { on_client "$EGRESSCTL" "$@" --bpffs "$SANDBOX_BPFFS"; }
refused_all() {
  expect_ok "$1: what the policy allows" tcp 203.0.113.5 22
  expect_errno EPERM default_deny "$1: what it does not" tcp 198.51.100.9 22
  expect_errno EPERM default_deny "$1: not by UDP either" udp 198.51.100.9 22
  expect_unasked "$2" "$1"
}
passes_all() {
  expect_ok "$1: what the policy allows" tcp 203.0.113.5 22
  expect_ok "$1: what it does not" tcp 198.51.100.9 22
  expect_ok "$1: by UDP" udp 198.51.100.9 22
  expect_ok "$1: by name" resolve elsewhere.example 22
  expect_ok "$1: a raw socket" icmp 198.51.100.9 0
}

refused_all "closed" one.example
check "opens" glass open --for 10m --reason "job 17 hangs"
passes_all "open"
on_record() { grep -q "\"event\":\"break_glass_$1\".*\"uid\":0,\"comment\":\"$2\"" "$SANDBOX_AUDIT"; }
count_of() { grep -c "\"event\":\"break_glass_$1\"" "$SANDBOX_AUDIT" || true; }
check "the opening is on record" wait_until 5 on_record opened "job 17 hangs"
metric() { on_client curl -sf http://127.0.0.1:9477/metrics | sed -n "s/^$1 //p"; }
check "… and in the metrics" test "$(metric egressd_break_glass_openings_total)" = 1
check "… with its end" test "$(metric egressd_break_glass_open_seconds)" -gt 500
opened() { ctl status | grep -q 'OPEN by break-glass.*uid 0: job 17 hangs'; }
check "status says so, and why" opened
check "what passed is counted" test "$(status_number break_glass)" -ge 4
recorded() { grep -q '"verdict":"would_deny","reason":"default_deny".*"destination":"198.51.100.9","port":22' "$SANDBOX_AUDIT"; }
check "… and recorded as would be denied" wait_until 5 recorded
# Datagrams as well, and a connection whose end the kernel takes for one that was accepted.
HOLD_KIND=hold-udp HOLD_TIMEOUT=500 hold_open 198.51.100.9 22
expect_hold_ok "datagrams sent meanwhile"
udp_in=$HOLD_IN udp_out=$HOLD_OUT
on_client ip neigh add 192.0.2.77 lladdr 02:00:00:00:00:01 dev up0 nud permanent
serve in_server python3 "$PWD/simultaneous_open.py" up0 192.0.2.77
HOLD_TIMEOUT=500 hold_open 192.0.2.77 22
expect_hold_ok "a simultaneous open meanwhile"
both_in=$HOLD_IN both_out=$HOLD_OUT
HOLD_TIMEOUT=500 hold_open 198.51.100.9 22
expect_hold_ok "a connection opened meanwhile"
check "the end is not on record yet" test "$(count_of closed)" -eq 0
check "closes" glass close
check "the end is on record" wait_until 5 on_record closed "job 17 hangs"
line=$(hold_echo)
check "the connection is cut: $line" grep -q "^errno=" <<<"$line"
HOLD_IN=$udp_in HOLD_OUT=$udp_out
line=$(hold_echo)
check "the datagrams are cut: $line" grep -q "^errno=" <<<"$line"
HOLD_IN=$both_in HOLD_OUT=$both_out
line=$(hold_echo)
check "the simultaneous open is cut: $line" grep -q "^errno=" <<<"$line"
refused_all "closed again" two.example
check "closing what is closed is no error" glass close
check "status no longer says so" bash -c '! grep -q OPEN' <<<"$(ctl status)"

check "opens for a second" glass open --for 1s --reason "a short look"
closed() { [[ $(probe tcp 198.51.100.9 22 2>&1) == errno=EPERM* ]]; }
check "ends by itself" wait_until 5 closed

check "both ends are on record" wait_until 5 on_record closed "a short look"
stop_egressd KILL
check "opens without an agent" glass open --for 10m --reason "the agent is dead"
passes_all "open without an agent"
check "closes without an agent" glass close
check "refused without an agent" closed
check "opens for a second" glass open --for 1s --reason "a short look"
expect_ok "open" tcp 198.51.100.9 22
check "ends by itself without an agent" wait_until 5 closed
start_egressd "$POLICY"
all_closed() { (($(count_of closed) == 3)); }
check "put on record by the next agent" wait_until 5 all_closed
check "… once" test "$(count_of opened)" -eq 3
check "the records are valid by the schema" \
  python3 ../support/check_records.py ../../deploy/schema/audit-record-1.json "$SANDBOX_AUDIT" event comment until uid
for wrong in "--for 10 --reason x" "--for 25h --reason x" "--for 0s --reason x" "--for 5m"; do
  # shellcheck disable=SC2086 # several words
  check "refused: open $wrong" bash -c '! "$@" 2>/dev/null' _ "$EGRESSCTL" open $wrong --bpffs "$SANDBOX_BPFFS"
done
finish
