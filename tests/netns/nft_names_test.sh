#!/usr/bin/env bash
# Names with nftables: exact ones are resolved ahead of use, those of wildcards when they are asked
# for, and their rules hold port by port, with ranges, refusals and audit.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

sandbox_up
command -v nft >/dev/null || skip "needs nft"
EGRESSD_BACKEND=nft
listen tcp 22 80 443 8000 8005 8011
dns_set plain.example.com 203.0.113.1 2001:db8:a::1
dns_set ranged.example.com 203.0.113.2
dns_set shared.example.com 203.0.113.2 203.0.113.3
dns_set audited.example.com 203.0.113.4
dns_set refused.example.com 203.0.113.5
write_policy <<END
version: 1
mode: enforce
dns:
  servers: [$DNS4]
collections:
  - name: closed
    priority: 100
    action: deny
    rules:
      - {name: no web, fqdns: [ranged.example.com], ports: [8005], protocols: [tcp]}
      - {name: none at all, fqdns: ["*.refused.example.com"], ports: [443]}
  - name: open
    priority: 200
    action: allow
    rules:
      - {name: plain, fqdns: [plain.example.com], ports: [443, 80]}
      - {name: ranged, fqdns: [ranged.example.com], ports: [8000-8010], protocols: [tcp]}
      - {name: shared, fqdns: [shared.example.com], ports: [22], protocols: [tcp]}
      - {name: audited, fqdns: [audited.example.com], ports: [443], mode: audit}
END
start_egressd "$POLICY"
for address in 203.0.113.1 2001:db8:a::1; do
  expect_ok "port of the name" tcp "$address" 443
  expect_ok "its other port" tcp "$address" 80
  expect_errno EPERM port_not_allowed "another port" tcp "$address" 22
  expect_errno EPERM port_not_allowed "another protocol" udp "$address" 8000
done
expect_ok "range" tcp 203.0.113.2 8000
expect_errno EPERM deny_rule "a port a rule refuses in it" tcp 203.0.113.2 8005
check "the record names the rule" \
  audit_records 0 '"deny_rule"' '"203.0.113.2"' '"collection":"closed"' '"rule":"no web"' >/dev/null
check "… and the name" audit_records 0 '"deny_rule"' 'ranged.example.com' >/dev/null
expect_errno EPERM port_not_allowed "behind the range" tcp 203.0.113.2 8011
expect_ok "what another name of the address allows" tcp 203.0.113.2 22
expect_errno EPERM port_not_allowed "its other address has that alone" tcp 203.0.113.3 8000
lines=$(audit_lines)
expect_ok "audited" tcp 203.0.113.4 443
recorded() { audit_records "$@" >/dev/null; }
check "… is recorded" wait_until 2 recorded "$lines" '"would_deny"' '"rule":"audited"'
expect_errno EPERM default_deny "an address of no name" tcp 203.0.113.5 443
expect_errno EPERM dns_server_not_allowed "another name server" udp 198.51.100.53 53

# A new policy: other rules for the same names, what was learned stays.
dns_stop
sed -i 's/ports: \[443, 80\]/ports: [22]/' "$POLICY"
reload_egressd
expect_ok "the new port" tcp 203.0.113.1 22
expect_errno EPERM port_not_allowed "the old one" tcp 203.0.113.1 443
expect_ok "range" tcp 203.0.113.2 8000
stop_egressd KILL
expect_ok "without an agent" tcp 203.0.113.1 22
start_egressd "$POLICY"
expect_ok "with the next one, and no resolver there" tcp 203.0.113.1 22
check "it knows what was learned" test "$(status_number learned_entries)" -ge 6

# Another policy: what the wildcard covers, and what a wider rule refuses.
dns_start
dns_set a.wild.example.com 203.0.113.11
dns_set b.wild.example.com 203.0.113.12
dns_set c.ports.example.com 203.0.113.13
write_policy <<END
version: 1
mode: enforce
dns: {servers: [$DNS4], filter: allowlist}
collections:
  - name: closed
    priority: 100
    action: deny
    rules:
      - {name: not that one, fqdns: [b.wild.example.com], ports: ["*"], protocols: [any]}
  - name: open
    priority: 200
    action: allow
    rules:
      - {name: plain, fqdns: [plain.example.com], ports: [22]}
      - {name: wild, fqdns: ["*.wild.example.com"], ports: [443]}
      - {name: ports, fqdns: ["*.ports.example.com"], ports: [8000-8010], protocols: [tcp]}
END
reload_egressd
expect_errno EPERM default_deny "not asked for yet" tcp 203.0.113.11 443
expect_ok "a name under a wildcard" resolve a.wild.example.com 443
expect_errno EPERM port_not_allowed "another port of it" tcp 203.0.113.11 80
expect_ok "under one with a range" resolve c.ports.example.com 8005
expect_errno EPERM port_not_allowed "behind the range" tcp 203.0.113.13 8011
expect_unasked b.wild.example.com "one that is refused"
expect_unasked wild.example.com "the apex"
expect_ok "what was known before" tcp 203.0.113.1 22
stop_egressd KILL
expect_ok "without an agent" tcp 203.0.113.11 443
start_egressd "$POLICY"
expect_ok "with the next one" tcp 203.0.113.11 443
check "which found it" test "$(ctl status --json | grep -c '"adopted":true')" -eq 1

# No room for an answer's addresses: it is not let go, and they stay refused.
stop_egressd
for name in 1 2 3 4 5; do
  for ((i = 1; i <= 250; i++)); do
    printf '198.51.100.%d many%d.wild.example.com\n' "$i" "$name"
  done | sed "s/198.51.100/203.1.$name/" >>"$SANDBOX_DIR/hosts"
done
in_server ip route add local 203.1.0.0/16 dev lo
dns_set d.wild.example.com 203.0.113.14
start_egressd "$POLICY" --max-learned 1024
for name in 1 2 3 4; do
  expect_ok "250 addresses" resolve "many$name.wild.example.com" 443
done
line=$(probe resolve many5.wild.example.com 443) || true
check "250 more are too many: $line" test "${line%% *}" = unresolved
check "the answer was held back" test "$(status_number not_learned)" -ge 1
expect_errno EPERM default_deny "their addresses" tcp 203.1.5.250 443
expect_ok "what is known is reachable" tcp 203.1.4.250 443
ctl detach >/dev/null
sandbox_reap "$SANDBOX_AGENT" TERM
SANDBOX_AGENT=""
check "nothing stays behind" test -z "$(on_client nft list tables)"
finish
