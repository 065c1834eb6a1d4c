#!/usr/bin/env bash
# A reload that refuses one name under an allowed wildcard ends what that name was granted, its
# open connection too, and nothing of its siblings.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

sandbox_up
listen tcp 443
dns_set good.wild.example.com 203.0.113.8
dns_set bad.wild.example.com 203.0.113.9
policy() {
  write_policy <<END
version: 1
mode: enforce
dns: {servers: [$DNS4]}
collections:
$1
  - name: names
    priority: 200
    action: allow
    rules:
      - {name: wild, fqdns: ["*.wild.example.com"], ports: [443]}
END
}
policy ""
start_egressd "$POLICY"
expect_ok "one name under the wildcard" resolve good.wild.example.com 443 -4
expect_ok "another" resolve bad.wild.example.com 443 -4
HOLD_TIMEOUT=500 hold_open 203.0.113.8 443
good_out=$HOLD_OUT good_in=$HOLD_IN
HOLD_TIMEOUT=500 hold_open 203.0.113.9 443
bad_out=$HOLD_OUT bad_in=$HOLD_IN
expect_hold_ok "open connection to the name to be refused"

policy '  - name: refused
    priority: 100
    action: deny
    rules:
      - {name: bad, fqdns: [bad.wild.example.com], ports: ["*"], protocols: [any]}'
reload_egressd
expect_errno EPERM "$(reason_gone)" "its address now" tcp 203.0.113.9 443
line=$(hold_echo)
check "its open connection is cut: $line" grep -q "^errno=" <<<"$line"
HOLD_OUT=$good_out HOLD_IN=$good_in
expect_hold_ok "open connection to its sibling"
expect_ok "new connection to its sibling's address" tcp 203.0.113.8 443
expect_ok "its sibling by name" resolve good.wild.example.com 443 -4
check "list knows the sibling" grep -qF '"203.0.113.8"' <<<"$(ctl list --json)"

policy ""
reload_egressd
expect_ok "the name again" resolve bad.wild.example.com 443 -4
: "$bad_out" "$bad_in"
finish
