#!/usr/bin/env bash
# Protocols without ports need a network rule, and raw sockets are judged by the packet they send:
# root with CAP_NET_RAW gets no further than a plain socket.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

sandbox_up
listen tcp 22 udp 5353 raw:132
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
      - {name: ping, addresses: [203.0.113.0/26, "2001:db8:a::/48"], ports: ["*"], protocols: [icmp]}
      - {name: ssh, addresses: [203.0.113.0/24, "2001:db8:a::/48"], ports: [22], protocols: [tcp]}
      - {name: mdns, addresses: [203.0.113.0/24, "2001:db8:a::/48"], ports: [5353], protocols: [udp]}
      - {name: sctp, addresses: [203.0.113.0/26, "2001:db8:a::/48"], ports: ["*"], protocols: [sctp]}
END
for address in 198.51.100.9 2001:db8:b::9; do
  expect_ok "without egressd" icmp "$address" 0
  expect_ok "without egressd" raw-tcp "$address" 22
  expect_ok "without egressd" raw-udp "$address" 5353
  expect_ok "without egressd" raw:132 "$address" 0
done
start_egressd "$POLICY"
for address in 203.0.113.5 2001:db8:a::5; do
  expect_ok "ICMP by rule" icmp "$address" 0
  expect_ok "raw TCP to an allowed port" raw-tcp "$address" 22
  expect_ok "raw UDP to an allowed port" raw-udp "$address" 5353
  expect_ok "protocol 132 by rule" raw:132 "$address" 0
  expect_errno EPERM port_not_allowed "raw TCP to another port" raw-tcp "$address" 23
  expect_errno EPERM port_not_allowed "raw UDP to another port" raw-udp "$address" 5354
done
expect_errno EPERM port_not_allowed "ICMP where only TCP and UDP are allowed" icmp 203.0.113.200 0
expect_errno EPERM port_not_allowed "protocol 132 where only TCP and UDP are" raw:132 203.0.113.200 0
for address in 198.51.100.9 2001:db8:b::9; do
  expect_errno EPERM default_deny "ICMP" icmp "$address" 0
  expect_errno EPERM default_deny "raw TCP" raw-tcp "$address" 22
  expect_errno EPERM default_deny "raw UDP" raw-udp "$address" 5353
  expect_errno EPERM default_deny "protocol 132" raw:132 "$address" 0
done
check "SCTP is judged as SCTP" audit_records 0 '"protocol":"sctp"' '"hook":"packet"' >/dev/null
finish
