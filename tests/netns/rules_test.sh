#!/usr/bin/env bash
# The order of judgement and its ranges: a deny collection above an allow, a longer prefix, port
# ranges to their last port, addresses and groups.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

sandbox_up
listen tcp 22 999 1000 1500 2000 2001 65535
write_policy <<END
version: 1
mode: enforce
dns:
  servers: [$DNS4]
addressGroups:
  office: [203.0.113.64/26, "2001:db8:a::/64"]
collections:
  - name: closed
    priority: 100
    action: deny
    rules:
      - {name: one host, addresses: [203.0.113.66, "2001:db8:a::66"], ports: ["*"], protocols: [any]}
      - {name: no ssh, addresses: [203.0.113.96/27], ports: [22], protocols: [tcp]}
  - name: open
    priority: 200
    action: allow
    rules:
      - {name: office, addressGroups: [office], ports: [22, 1000-2000, 65535], protocols: [tcp]}
END
start_egressd "$POLICY"
for address in 203.0.113.65 2001:db8:a::65; do
  for port in 22 1000 1500 2000 65535; do
    expect_ok "in range" tcp "$address" "$port"
  done
  for port in 999 2001; do
    expect_errno EPERM port_not_allowed "just outside the range" tcp "$address" "$port"
  done
done
for address in 203.0.113.66 2001:db8:a::66; do
  expect_errno EPERM deny_rule "denied above the allow" tcp "$address" 22
done
check "the record names the rule" \
  audit_records 0 '"deny_rule"' '"203.0.113.66"' '"collection":"closed"' '"rule":"one host"' >/dev/null
expect_errno EPERM deny_rule "denied port of a prefix" tcp 203.0.113.100 22
expect_ok "other port of that prefix" tcp 203.0.113.100 1000
expect_ok "last address of the prefix" tcp 203.0.113.127 1000
expect_errno EPERM default_deny "first address after it" tcp 203.0.113.128 1000
expect_errno EPERM default_deny "last address before it" tcp 203.0.113.63 1000
expect_errno EPERM default_deny "next IPv6 prefix" tcp 2001:db8:a:1::1 1000
finish
