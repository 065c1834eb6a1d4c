#!/usr/bin/env bash
# TCP and UDP, IPv4, IPv6 and v4-mapped: what a network rule allows passes, anything else fails in
# the system call itself. Each refusal got through before egressd started.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

sandbox_up
listen tcp 22 8080 udp 5353 5354
forbidden=(198.51.100.9 2001:db8:b::9 ::ffff:198.51.100.9)
allowed=(203.0.113.5 2001:db8:a::5 ::ffff:203.0.113.5)
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
      - {name: ssh, addresses: [203.0.113.0/24, "2001:db8:a::/48"], ports: [22], protocols: [tcp]}
      - {name: mdns, addresses: [203.0.113.0/24, "2001:db8:a::/48"], ports: [5353], protocols: [udp]}
END
for address in "${forbidden[@]}" "${allowed[@]}"; do
  expect_ok "without egressd" tcp "$address" 22
  expect_ok "without egressd" tcp "$address" 8080
  expect_ok "without egressd" udp "$address" 5353
  expect_ok "without egressd" udp-connected "$address" 5354
done
start_egressd "$POLICY"
for address in "${allowed[@]}"; do
  expect_ok "allowed TCP" tcp "$address" 22
  expect_ok "allowed UDP, unconnected" udp "$address" 5353 --send 5
  expect_ok "allowed UDP, connected" udp-connected "$address" 5353 --send 5
  expect_errno EPERM port_not_allowed "other TCP port" tcp "$address" 8080
  expect_errno EPERM port_not_allowed "TCP port over UDP" udp "$address" 22
  expect_errno EPERM port_not_allowed "UDP port over TCP" tcp "$address" 5353
  expect_errno EPERM port_not_allowed "other UDP port, unconnected" udp "$address" 5354
  expect_errno EPERM port_not_allowed "other UDP port, connected" udp-connected "$address" 5354
done
for address in "${forbidden[@]}"; do
  expect_errno EPERM default_deny "TCP" tcp "$address" 22
  expect_errno EPERM default_deny "UDP, unconnected" udp "$address" 5353
  expect_errno EPERM default_deny "UDP, connected" udp-connected "$address" 5353
done
finish
