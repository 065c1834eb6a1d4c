#!/usr/bin/env bash
# The resolver dies: what it said last stays reachable through grace, and the status says that it
# fails. A name never resolved is not reachable, but is once the resolver is back.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

sandbox_up
listen tcp 443
dns_stop
DNS_TTL=5 dns_start
dns_set good.example.com 203.0.113.7
write_policy <<END
version: 1
mode: enforce
dns:
  servers: [$DNS4]
  grace: 10m
collections:
  - name: names
    priority: 200
    action: allow
    rules:
      - {name: names, fqdns: [good.example.com, late.example.com], ports: [443]}
END
start_egressd "$POLICY"
expect_ok "resolved name" tcp 203.0.113.7 443
dns_stop
failing() {
  ctl status --json | python3 -c '
import json, sys
names = {n["name"]: n for n in json.loads(sys.stdin.readline())["resolver"]}
sys.exit(not (names["good.example.com"]["consecutive_failures"] and names["good.example.com"].get("error")))'
}
check "the status shows the failing name" wait_until 90 failing
expect_ok "its last good answer stays" tcp 203.0.113.7 443
expect_errno EPERM default_deny "the name that never resolved" tcp 203.0.113.8 443
dns_start
dns_set late.example.com 203.0.113.8
reachable() { [[ $(probe tcp 203.0.113.8 443) == ok* ]]; }
check "it is reachable once the resolver is back" wait_until 75 reachable
finish
