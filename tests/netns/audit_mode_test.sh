#!/usr/bin/env bash
# mode: audit lets everything pass and records what enforce would refuse.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

sandbox_up
listen tcp 22 udp 5353
write_policy <<END
version: 1
mode: audit
dns:
  servers: [$DNS4]
collections:
  - name: net
    priority: 200
    action: allow
    rules:
      - {name: ssh, addresses: [203.0.113.0/24], ports: [22], protocols: [tcp]}
END
start_egressd "$POLICY"
would_pass() {
  local what=$1 address=$2 reason=$3 lines before
  shift 3
  lines=$(audit_lines)
  before=$(status_number audit)
  expect_ok "$what passes" "$@"
  check "$what is recorded" wait_until 2 recorded "$lines" '"verdict":"would_deny"' \
    "\"$address\"" "\"reason\":\"$reason\""
  check "$what is counted" test "$(status_number audit)" -gt "$before"
}
recorded() { audit_records "$@" >/dev/null; }
would_pass "TCP" 198.51.100.9 default_deny tcp 198.51.100.9 22
would_pass "TCP over IPv6" 2001:db8:b::9 default_deny tcp 2001:db8:b::9 22
would_pass "UDP" 198.51.100.10 default_deny udp 198.51.100.10 5353
would_pass "another port" 203.0.113.5 port_not_allowed udp 203.0.113.5 5353
# A name without a rule: the question is recorded, and so is the name with each address it gave. The
# other backend reads no DNS.
dns_set api.example.com 198.51.100.30 2001:db8:b::30
if [[ $EGRESSD_BACKEND == bpf ]]; then
  lines=$(audit_lines)
  expect_ok "a name without a rule passes" resolve api.example.com 22
  check "the question is recorded" wait_until 2 recorded "$lines" dns_name_not_allowed '"fqdns":["api.example.com"]'
  check "… and the connection with its name" wait_until 2 recorded "$lines" \
    '"hook":"connect"' default_deny '"fqdns":["api.example.com"]'
  check "nothing is learned of it" test "$(ctl list | grep -c 'api.example.com')" -eq 0
fi
lines=$(audit_lines)
expect_ok "what a rule allows" tcp 203.0.113.5 22
# Longer than what is counted takes to come on record, as what was refused before may now.
sleep 1.2
recorded_anyway=$(audit_records "$lines" '"destination":"203.0.113.5","port":22' || true)
check "… leaves no record: $recorded_anyway" test -z "$recorded_anyway"

if [[ $EGRESSD_BACKEND == bpf ]]; then
  HOLD_TIMEOUT=500 hold_open 198.51.100.30 22
  expect_hold_ok "a connection without a rule"
  reload_egressd # nothing of what was asked is forgotten
fi
sed -i 's/^mode: audit/mode: enforce/' "$POLICY"
if [[ $EGRESSD_BACKEND == bpf ]]; then
  # What was asked while it had no rule is reachable as soon as it has one.
  cp "$POLICY" "$SANDBOX_DIR/without.yaml"
  cat >>"$POLICY" <<END
      - {name: api, fqdns: ["*.example.com"], ports: [22]}
END
  reload_egressd
  expect_hold_ok "the connection lives on under the rule it has now"
  expect_ok "a rule for its name, and no further question" tcp 198.51.100.30 22
  cp "$SANDBOX_DIR/without.yaml" "$POLICY"
fi
reload_egressd
if [[ $EGRESSD_BACKEND == bpf ]]; then
  expect_errno EPERM default_deny "without that rule again" tcp 198.51.100.30 22
  line=$(hold_echo)
  check "the connection is cut: $line" test "${line%% *}" = errno=ETIMEDOUT
fi
expect_errno EPERM default_deny "the same in enforce" tcp 198.51.100.9 22
expect_ok "what a rule allows" tcp 203.0.113.5 22
finish
