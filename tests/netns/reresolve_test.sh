#!/usr/bin/env bash
# A name moves: the new address becomes reachable by itself, the old one is refused as expired
# after its time. With an open connection the agent keeps it reachable; without an agent it ends
# too, and the connection goes on. A name that stays is reachable all the time, with no grace to
# hide a late refresh. TTLs count as at least a minute, so this takes two.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

sandbox_up
listen tcp 443 udp 443
dns_stop
DNS_TTL=5 dns_start
dns_set moving.example.com 203.0.113.7
dns_set staying.example.com 203.0.113.9
dns_set held.example.com 203.0.113.5
write_policy <<END
version: 1
mode: enforce
dns:
  servers: [$DNS4]
  grace: 0
collections:
  - name: names
    priority: 200
    action: allow
    rules:
      - {name: names, fqdns: [moving.example.com, staying.example.com, held.example.com], ports: [443],
         protocols: [tcp, udp]}
END
start_egressd "$POLICY"
expect_ok "old address" tcp 203.0.113.7 443
expect_errno EPERM default_deny "new address, too early" tcp 203.0.113.8 443
hold_open 203.0.113.5 443
# Datagrams of sockets that are not connected: an open connection is what keeps an address.
# shellcheck disable=SC2016 # expanded by the inner shell
spawn in_client bash -c 'until [[ -e $1/stop ]]; do "$2" udp 203.0.113.9 443; sleep 0.05; done' \
  _ "$SANDBOX_DIR" "$EGRESSD_PROBE" >"$SANDBOX_DIR/knocks" 2>&1
knocker=$REPLY
dns_set moving.example.com 203.0.113.8
dns_set held.example.com 203.0.113.6
reachable() { [[ $(probe tcp 203.0.113.8 443) == ok* ]]; }
check "the new address becomes reachable" wait_until 75 reachable
withdrawn() {
  sleep 0.5
  ! ctl list --json | grep -qF '"address":"203.0.113.7"'
}
check "the old one is withdrawn" wait_until 30 withdrawn
expect_errno EPERM expired "the old one" tcp 203.0.113.7 443
expect_ok "a name that stays" tcp 203.0.113.9 443
# Later than any refresh that comes after the end of a minute.
sleep 8
touch "$SANDBOX_DIR/stop"
wait "$knocker" || true
check "$(wc -l <"$SANDBOX_DIR/knocks") knocks at the name that stays" lines_above 100 "$SANDBOX_DIR/knocks"
check "none was refused" test "$(grep -vc '^ok' "$SANDBOX_DIR/knocks")" -eq 0
expect_ok "the new address of the name with a connection" tcp 203.0.113.6 443
expect_ok "and its old one" tcp 203.0.113.5 443
stop_egressd KILL
refused() { [[ $(probe tcp 203.0.113.5 443) == errno=EPERM* ]]; }
check "without an agent it ends" wait_until 110 refused
expect_hold_ok "the connection to it goes on"
finish
