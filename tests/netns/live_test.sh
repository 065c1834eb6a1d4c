#!/usr/bin/env bash
# An address with an open connection can be connected to again although DNS has long given another
# and its time is over: in the host and in a pod, over TCP and UDP. Without a connection it cannot,
# nor after the last one was closed, nor once a reload has taken its rule away. A minute for the
# shortest TTL, and more than one for an address that is let go.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

sandbox_up
pod_up
listen tcp 443 udp 443
dns_stop
DNS_TTL=5 dns_start
names=(held.wild idle.wild pod.wild datagram.wild held.other)
for i in "${!names[@]}"; do
  dns_set "${names[i]}.test" "203.0.113.$((10 + i))"
done
# policy [RULE]: wildcards, since exact names are kept resolved by the agent.
policy() {
  write_policy <<END_OF_POLICY
version: 1
mode: enforce
dns:
  servers: [$DNS4]
  grace: 5s
collections:
  - name: open
    priority: 200
    action: allow
    rules:
      - {name: wild, fqdns: ["*.wild.test"], ports: [443], protocols: [tcp, udp]}
$1
END_OF_POLICY
}
policy '      - {name: other, fqdns: ["*.other.test"], ports: [443]}'
start_egressd "$POLICY"
check "status has no warning" test -z "$(ctl status --json | grep -o 'open connections are not kept')"

for name in held.wild idle.wild datagram.wild held.other; do
  expect_ok "$name" resolve "$name.test" 443 -4
done
line=$(in_pod "$EGRESSD_PROBE" resolve pod.wild.test 443 -4) || true
check "pod: $line" test "${line%% *}" = ok
hold_open 203.0.113.12 443 in_pod
hold_open 203.0.113.14 443
HOLD_KIND=hold-udp hold_open 203.0.113.13 443
datagram=$HOLD_PID
hold_open 203.0.113.10 443
for i in "${!names[@]}"; do
  dns_set "${names[i]}.test" "203.0.113.$((110 + i))"
done

# Not asked by connecting: an open connection is what keeps an address.
ended() {
  sleep 0.5
  ! ctl list --json | grep -qF "\"address\":\"$1\""
}
check "the address nobody is connected to ends" wait_until 90 ended 203.0.113.11
expect_errno EPERM expired "it has expired" tcp 203.0.113.11 443
# The others were learned in the same second: past the end of all of them.
sleep 5
expect_ok "new connection beside the open one" tcp 203.0.113.10 443
expect_ok "beside the pod's, from the host" tcp 203.0.113.12 443
line=$(in_pod "$EGRESSD_PROBE" tcp 203.0.113.12 443) || true
check "beside the pod's, from the pod: $line" test "${line%% *}" = ok
expect_ok "beside the datagram socket" udp 203.0.113.13 443
expect_ok "the rule that will go" tcp 203.0.113.14 443
expect_errno EPERM port_not_allowed "no more than its rule allows" tcp 203.0.113.10 80
expect_errno EPERM expired "the twin" tcp 203.0.113.11 443
# grace counts as 40 s at least, and an address is extended by 40 s more.
left() {
  local seconds
  seconds=$(ctl list --json | grep -F "\"address\":\"$1\"" | grep -o '"expires_in_seconds":-\{0,1\}[0-9]*')
  seconds=${seconds##*:}
  ((seconds > 0 && seconds <= 80))
}
check "list: time left of a held address" left 203.0.113.10
check "list: of the pod's" left 203.0.113.12
named() { ctl list --json | grep -F "\"$1\"" | grep -qF "\"fqdn\":\"$2\""; }
check "list: with its name" named 203.0.113.10 held.wild.test

# A new agent finds open connections and keeps their addresses as well.
stop_egressd KILL
start_egressd "$POLICY"

policy ""
reload_egressd
expect_errno EPERM "$(reason_gone)" "a rule that is gone, though a connection is open" tcp 203.0.113.14 443
expect_ok "the others stay" tcp 203.0.113.10 443
check "list: without it" test -z "$(ctl list --json | grep -F '"203.0.113.14"')"

expect_hold_ok "the open connection"
kill "$HOLD_PID" "$datagram"
check "let go" wait_until 110 ended 203.0.113.10
check "and the datagram socket's" wait_until 5 ended 203.0.113.13
expect_errno EPERM expired "after the last connection" tcp 203.0.113.10 443
expect_errno EPERM expired "after the datagram socket" udp 203.0.113.13 443
expect_ok "the pod's is still open" tcp 203.0.113.12 443
finish
