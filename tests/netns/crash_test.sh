#!/usr/bin/env bash
# kill -9: enforcement stays and allowed things go on; the next agent adopts what is there without a
# moment of opening, and knows its counters and addresses.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

sandbox_up
listen tcp 22 443
dns_set api.example.com 203.0.113.7
write_policy <<END
version: 1
mode: enforce
dns:
  servers: [$DNS4]
collections:
  - name: all
    priority: 200
    action: allow
    rules:
      - {name: ssh, addresses: [203.0.113.64/26], ports: [22], protocols: [tcp]}
      - {name: api, fqdns: [api.example.com], ports: [443]}
END
start_egressd "$POLICY"
expect_errno EPERM default_deny "refused" tcp 198.51.100.9 22
expect_ok "allowed" tcp 203.0.113.65 22
expect_ok "allowed name" tcp 203.0.113.7 443
hold_open 203.0.113.65 22
denied=$(status_number default_deny)
stop_egressd KILL
expect_errno_alone EPERM "refused without an agent" tcp 198.51.100.9 22
expect_errno_alone EPERM "refused without an agent, UDP" udp 198.51.100.9 22
expect_errno_alone EPERM "refused without an agent, raw" raw-tcp 198.51.100.9 22
expect_ok "allowed without an agent" tcp 203.0.113.65 22
expect_ok "allowed name without an agent" tcp 203.0.113.7 443
expect_hold_ok "a connection goes on"

# The new agent comes up while something knocks all the time: it must never get through.
# shellcheck disable=SC2016 # expanded by the inner shell
spawn in_client bash -c 'until [[ -e $1/stop ]]; do "$2" tcp 198.51.100.9 22; done' \
  _ "$SANDBOX_DIR" "$EGRESSD_PROBE" >"$SANDBOX_DIR/knocks" 2>&1
knocker=$REPLY
dns_stop
start_egressd "$POLICY"
sleep 0.3
touch "$SANDBOX_DIR/stop"
wait "$knocker" || true
check "$(wc -l <"$SANDBOX_DIR/knocks") knocks during the restart" lines_above 10 "$SANDBOX_DIR/knocks"
check "none got through" test "$(grep -vc "^errno=$(errno_of EPERM tcp)" "$SANDBOX_DIR/knocks")" -eq 0
check "adopted" grep -q '"adopted":true' <<<"$(ctl status --json)"
check "the counters went on" test "$(status_number default_deny)" -gt "$((denied + 3))"
expect_ok "the learned address is known with no resolver there" tcp 203.0.113.7 443
expect_errno EPERM default_deny "refused" tcp 198.51.100.9 22
expect_hold_ok "the connection still goes on"
finish
