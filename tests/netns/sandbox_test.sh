#!/usr/bin/env bash
# The ground under all other tests: without egressd every probe of theirs gets through, so that a
# refusal later is egressd's doing; and the sandbox leaves nothing behind.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

sandbox_up
listen tcp 22 udp 5353 raw:132
web_up
dns_set name.example.com 203.0.113.7 2001:db8::7

for address in 203.0.113.5 198.51.100.9 2001:db8::5; do
  expect_ok "TCP" tcp "$address" 22
  expect_ok "UDP, unconnected" udp "$address" 5353 --send 3
  expect_ok "UDP, connected" udp-connected "$address" 5353 --send 3
  expect_ok "ICMP echo" icmp "$address" 0
  expect_ok "TCP SYN on a raw socket" raw-tcp "$address" 22
  expect_ok "UDP on a raw socket" raw-udp "$address" 5353
  expect_ok "protocol 132" raw:132 "$address" 0
done
expect_ok "TCP, v4-mapped" tcp ::ffff:203.0.113.5 22
expect_ok "UDP, v4-mapped" udp ::ffff:203.0.113.5 5353
expect_ok "a name over IPv4" resolve name.example.com 443 -4
expect_ok "a name over IPv6" resolve name.example.com 443 -6

line=$(probe tcp 203.0.113.5 9) || true
check "a closed port refuses: $line" test "${line%% *}" = errno=ECONNREFUSED
line=$(probe resolve other.example.com 443) || true
check "an unknown name is no name: $line" test "${line%% *}" = unresolved
check "HTTPS answers" test "$(in_client curl -sk https://name.example.com/)" = name.example.com
check "the workload is in the cgroup" \
  test "$(in_client sed -n 's/^0:://p' /proc/self/cgroup)" = "/${SANDBOX_CGROUP##*/}"

dns_set name.example.com 198.51.100.7
check "a changed name has its new address" \
  grep -q '^ok 198.51.100.7 ' <(probe resolve name.example.com 443)

directory=$SANDBOX_DIR
before=$(jobs -p | wc -l)
sandbox_down
check "processes were started" test "$before" -ge 4
check "no process is left" test -z "$(jobs -pr)"
check "no cgroup is left" test ! -e "$SANDBOX_CGROUP"
check "no directory is left" test ! -e "$directory"
finish
