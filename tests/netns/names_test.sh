#!/usr/bin/env bash
# Rules for names: an exact name, a wildcard, a name nobody resolves. The address is what the
# resolver's answer says, IPv4 and IPv6.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

sandbox_up
listen tcp 22 443
dns_set api.example.com 203.0.113.7 2001:db8:a::7
dns_set one.wild.example.com 203.0.113.8
dns_set two.wild.example.com 203.0.113.9
dns_set wild.example.com 198.51.100.8
dns_set evilapi.example.com 198.51.100.7
write_policy <<END
version: 1
mode: enforce
dns:
  servers: [$DNS4]
  resolve: [one.wild.example.com]
collections:
  - name: names
    priority: 200
    action: allow
    rules:
      - {name: api, fqdns: [api.example.com], ports: [443]}
      - {name: wild, fqdns: ["*.wild.example.com"], ports: [443]}
END
start_egressd "$POLICY"
expect_ok "exact name" resolve api.example.com 443 -4
expect_ok "exact name, IPv6" resolve api.example.com 443 -6
expect_ok "its address" tcp 203.0.113.7 443
expect_ok "its address, v4-mapped" tcp ::ffff:203.0.113.7 443
expect_ok "name under the wildcard" resolve one.wild.example.com 443 -4
expect_errno EPERM port_not_allowed "another port" tcp 203.0.113.7 22
expect_errno EPERM port_not_allowed "another port, IPv6" tcp 2001:db8:a::7 22
expect_errno EPERM default_deny "address of a sibling" tcp 198.51.100.7 443
expect_errno EPERM default_deny "address of the wildcard's apex" tcp 198.51.100.8 443
list=$(ctl list --json)
check "list names the address" grep -qF '"203.0.113.7"' <<<"$list"
check "status counts the addresses that list shows" \
  test "$(status_number learned_entries)" -eq "$(wc -l <<<"$list")"
check "list names the wildcard" grep -qF '"*.wild.example.com"' <<<"$list"
finish
