#!/usr/bin/env bash
# A name moves: the new address becomes reachable by itself, the old one is refused as expired
# after its time and the grace, and a connection to it goes on. TTLs count as at least a minute, so
# this takes one.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

sandbox_up
listen tcp 443
dns_stop
DNS_TTL=5 dns_start
dns_set moving.example.com 203.0.113.7
dns_set staying.example.com 203.0.113.9
write_policy <<END
version: 1
mode: enforce
dns:
  servers: [$DNS4]
  grace: 10s
collections:
  - name: names
    priority: 200
    action: allow
    rules:
      - {name: names, fqdns: [moving.example.com, staying.example.com], ports: [443]}
END
start_egressd "$POLICY"
expect_ok "old address" tcp 203.0.113.7 443
expect_errno EPERM default_deny "new address, too early" tcp 203.0.113.8 443
hold_open 203.0.113.7 443
dns_set moving.example.com 203.0.113.8
reachable() { [[ $(probe tcp 203.0.113.8 443) == ok* ]]; }
check "the new address becomes reachable" wait_until 75 reachable
gone() { [[ $(probe tcp 203.0.113.7 443) == errno=EPERM* ]]; }
check "the old one is withdrawn" wait_until 30 gone
line=$(probe tcp 203.0.113.7 443) || true
check "refused at connect: $line" test "${line%% *}" = errno=EPERM
expect_ok "a name that stays" tcp 203.0.113.9 443
expect_hold_ok "the connection to the old address goes on"
finish
