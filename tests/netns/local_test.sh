#!/usr/bin/env bash
# What stays on the machine, or was there before egressd, goes on: a pod and the host talk to
# themselves, an accepted connection outlives the start, DHCP is asked.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

sandbox_up
pod_up
command -v nft >/dev/null || skip "needs nft"
in_server nft -f - <<END || skip "no nftables in this kernel"
table netdev wire {
  counter dhcp { }
  counter other { }
  chain in {
    type filter hook ingress device up0 priority 0; policy accept;
    ip daddr 255.255.255.255 udp dport 67 counter name dhcp
    ip daddr 255.255.255.255 udp dport 69 counter name other
  }
}
END
came() {
  local words
  words=$(in_server nft list counter netdev wire "$1")
  words=${words##*packets }
  printf '%s\n' "${words%% *}"
}
came_above() { (($(came "$1") > $2)); }

listen tcp 7000 7100 udp 7001
serve in_client "$EGRESSD_PROBE" listen tcp 7100 udp 7101
serve in_pod "$EGRESSD_PROBE" listen tcp 7100 udp 7101
serve in_client "$EGRESSD_PROBE" accept-once 9002
hold_open "$CLIENT4" 9002 in_server
expect_hold_ok "accepted before egressd"
check "its listener is closed" test -z "$(on_client ss -Hltn 'sport = :9002')"
write_policy <<END
version: 1
mode: enforce
dns:
  servers: [$DNS4]
collections:
  - name: elsewhere
    priority: 200
    action: allow
    rules:
      - {name: one host, addresses: [203.0.113.250], ports: [22], protocols: [tcp]}
END
start_egressd "$POLICY"
expect_hold_ok "it survives the start"
expect_hold_ok "and goes on"
sed -i 's/203.0.113.250/203.0.113.251/' "$POLICY"
reload_egressd
expect_hold_ok "and survives a reload"
expect_errno EPERM default_deny "a connection to that peer from here" tcp "$DNS4" 7000

for address in 127.0.0.1 ::1 "$CLIENT4" "$CLIENT6"; do
  expect_ok "host to itself" tcp "$address" 7100
  expect_ok "host to itself" udp "$address" 7101 --send 3
  expect_ok "host to itself" udp-connected "$address" 7101
done
# A kernel before 5.14 does not say which namespace is the host's (SO_NETNS_COOKIE): as in a pod then.
if python3 -c 'import socket; socket.socket().getsockopt(socket.SOL_SOCKET, 71, 8)' 2>/dev/null; then
  expect_errno EPERM default_deny "host to the world, port of a listener" tcp 198.51.100.9 7100
  expect_errno EPERM default_deny "host to the world, port of a listener" tcp 2001:db8:b::9 7100
else
  expect_errno_alone ETIMEDOUT "host to the world, port of a listener" tcp 198.51.100.9 7100 --timeout 300
fi
line=$(probe tcp "$CLIENT4" 7999) || true
check "a closed port says so: $line" grep -q '^errno=ECONNREFUSED' <<<"$line"

dhcp=$(came dhcp)
line=$(probe udp 255.255.255.255 67 --device up0 --timeout 100) || true
check "DHCP is sent (nobody answers): $line" grep -q '^errno=ETIMEDOUT' <<<"$line"
check "… and arrives" wait_until 2 came_above dhcp "$dhcp"
expect_errno EPERM default_deny "another broadcast" udp 255.255.255.255 69 --device up0
check "… does not arrive" test "$(came other)" -eq 0

# A pod's own namespace has no table of nftables: it is judged where the host forwards it (nft_host).
if [[ $EGRESSD_BACKEND == nft ]]; then finish; fi
on_host=$(declare -f probe)
probe() { in_pod "$EGRESSD_PROBE" "$@"; }
for address in 127.0.0.1 ::1 "$POD4" "$POD6"; do
  expect_ok "pod to itself" tcp "$address" 7100
  expect_ok "pod to itself" udp "$address" 7101 --send 3
  expect_ok "pod to itself" udp-connected "$address" 7101
done
# Somebody in the pod listens on that port, on every address: no way out either.
before=$(status_number default_deny)
line=$(probe tcp 198.51.100.9 7100 --timeout 300) || true
check "pod to the world, port of a listener: $line" grep -q '^errno=\(EPERM\|ETIMEDOUT\) ' <<<"$line"
check "… counted" test "$(status_number default_deny)" -gt "$before"
expect_errno EPERM default_deny "pod to the world" tcp 198.51.100.9 7000
expect_errno EPERM default_deny "pod to the world, IPv6" tcp 2001:db8:b::9 7000
expect_errno EPERM default_deny "pod to the world" udp 198.51.100.9 7001
line=$(probe tcp "$CLIENT4" 7100 --timeout 300) || true
check "pod to the host is judged like any other: $line" grep -q "^errno=" <<<"$line"
eval "$on_host"
line=$(in_server "$EGRESSD_PROBE" tcp "$POD4" 7100) || true
check "the world to the pod: $line" test "${line%% *}" = ok
finish
