#!/usr/bin/env bash
# The way out: egressctl detach, with and without a running agent, leaves nothing behind.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

sandbox_up
listen tcp 22
write_policy <<END
version: 1
mode: enforce
dns:
  servers: [$DNS4]
collections:
  - name: elsewhere
    priority: 200
    action: allow
    rules:
      - {name: one host, addresses: [203.0.113.250], ports: [22], protocols: [tcp]}
END
pinned() { on_client find "$SANDBOX_BPFFS" -name 'egressd_*'; }
# Not `bpftool cgroup show`: it asks for more than kernels before 6.0 have, and then shows nothing.
attached() {
  if [[ $EGRESSD_BACKEND == nft ]]; then
    on_client nft list tables
  else
    bpftool link show | grep -w "cgroup_id $(stat -c %i "$SANDBOX_CGROUP")" || true
  fi
}
for agent in running dead; do
  expect_ok "before" tcp 198.51.100.9 22
  start_egressd "$POLICY"
  expect_errno EPERM default_deny "enforced" tcp 198.51.100.9 22
  check "programs are attached" test -n "$(attached)"
  if [[ $agent == dead ]]; then stop_egressd KILL; fi
  check "detach with the agent $agent" ctl detach --bpffs "$SANDBOX_BPFFS"
  expect_ok "the same probe" tcp 198.51.100.9 22
  expect_ok "a raw socket" icmp 198.51.100.9 0
  check "nothing is pinned" test -z "$(pinned)"
  check "nothing is attached" test -z "$(attached)"
  if [[ $agent == running ]]; then
    ended() { ! kill -0 "$SANDBOX_AGENT" 2>/dev/null; }
    check "the agent ends" wait_until 5 ended
    SANDBOX_AGENT=""
  fi
done
finish
