#!/usr/bin/env bash
# A program that cannot be attached: all or nothing. The agent ends with the error, none of its
# programs stays behind, and those of an earlier agent are the ones that were there.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

sandbox_up
listen tcp 22 443
dns_set api.example.com 203.0.113.7
# With an exact name attaching waits for its first answer.
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
attached() { on_client bpftool cgroup show "$SANDBOX_CGROUP" | grep -E '^[0-9]' | sort; }
pinned() { on_client find "$SANDBOX_BPFFS" -name 'egressd_*'; }
run_egressd() {
  status=0
  on_client timeout 20 "$EGRESSD" run --policy "$POLICY" --cgroup "$SANDBOX_CGROUP" \
    --state-dir "$SANDBOX_DIR/state" --bpffs "$SANDBOX_BPFFS" --socket "$SANDBOX_SOCKET" \
    >"$SANDBOX_DIR/out" 2>&1 || status=$?
  cat "$SANDBOX_DIR/out"
}

# Someone else's program, attached so that no second one may be: our own, of an agent that is gone.
start_egressd "$POLICY"
foreign=$SANDBOX_BPFFS/foreign
on_client bpftool prog pin id "$(attached | awk '$NF == "egressd_sockops" {print $1}')" "$foreign"
ctl detach --bpffs "$SANDBOX_BPFFS" >/dev/null
sandbox_reap "$SANDBOX_AGENT" TERM
SANDBOX_AGENT=""
block() { on_client bpftool cgroup attach "$SANDBOX_CGROUP" cgroup_sock_ops pinned "$foreign"; }
block
alone=$(attached)

run_egressd
check "exit status 1, not $status" test "$status" -eq 1
check "the program is named" grep -q 'egressd_sockops.*Operation not permitted' "$SANDBOX_DIR/out"
check "nothing of ours is attached" test "$(attached)" = "$alone"
check "nothing of ours is pinned" test -z "$(pinned)"
expect_ok "nothing is enforced" tcp 198.51.100.9 22

on_client bpftool cgroup detach "$SANDBOX_CGROUP" cgroup_sock_ops pinned "$foreign"
start_egressd "$POLICY"
expect_ok "the name" tcp 203.0.113.7 443
stop_egressd TERM
on_client bpftool link detach pinned "$(pinned | grep links/egressd_sockops)"
block
before=$(attached)
pins=$(pinned)
run_egressd
check "exit status 1, not $status, over an earlier agent's programs" test "$status" -eq 1
check "the program is named" grep -q 'egressd_sockops.*Operation not permitted' "$SANDBOX_DIR/out"
check "the earlier agent's programs are attached" test "$(attached)" = "$before"
check "and pinned" test "$(pinned)" = "$pins"
expect_errno_alone EPERM "refused by them" tcp 198.51.100.9 22
expect_ok "allowed by them" tcp 203.0.113.7 443

on_client bpftool cgroup detach "$SANDBOX_CGROUP" cgroup_sock_ops pinned "$foreign"
start_egressd "$POLICY"
check "with the next agent all programs are new" test -z "$(comm -12 <(printf '%s\n' "$before") <(attached))"
expect_errno EPERM default_deny "refused" tcp 198.51.100.9 22
expect_ok "allowed" tcp 203.0.113.7 443

# A dot in its name is enough for the BPF file system to refuse a directory.
SANDBOX_SOCKET=$SANDBOX_DIR/other.sock SANDBOX_BPFFS=$SANDBOX_BPFFS/not.there run_egressd
check "a directory that cannot be made: status $status" test "$status" -eq 1
check "… is named" grep -q "^create .*/not.there: " "$SANDBOX_DIR/out"
finish
