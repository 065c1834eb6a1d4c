#!/usr/bin/env bash
# The agent may live in the cgroup it judges: its own DNS passes as resolver traffic, and it still
# re-reads and answers.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

sandbox_up
listen tcp 443
dns_set api.example.com 203.0.113.7
dns_set more.example.com 203.0.113.8
write_policy <<END
version: 1
mode: enforce
dns:
  servers: [$DNS4]
collections:
  - name: names
    priority: 200
    action: allow
    rules:
      - {name: api, fqdns: [api.example.com], ports: [443]}
END
EGRESSD_INSIDE=1 start_egressd "$POLICY"
check "the agent is in the cgroup" grep -qx "$SANDBOX_AGENT" "$SANDBOX_CGROUP/cgroup.procs"
expect_ok "resolved at start" tcp 203.0.113.7 443
expect_errno EPERM default_deny "not yet allowed" tcp 203.0.113.8 443
sed -i 's/api.example.com/api.example.com, more.example.com/' "$POLICY"
reload_egressd
reachable() { [[ $(probe tcp 203.0.113.8 443) == ok* ]]; }
check "resolved under its own enforcement" wait_until 5 reachable
check "as resolver traffic" test "$(status_number resolver)" -gt 0
finish
