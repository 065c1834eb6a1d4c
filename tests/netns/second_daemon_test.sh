#!/usr/bin/env bash
# Two daemons must not keep their programs and maps in one place: the second ends and says who is
# there, and what the first enforces stays as it is. The way out heeds no lock.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

sandbox_up
listen tcp 22
allow() {
cat <<END
version: 1
mode: enforce
dns:
  servers: [$DNS4]
collections:
  - name: one
    priority: 200
    action: allow
    rules:
      - {name: one host, addresses: [$1], ports: [22], protocols: [tcp]}
END
}
allow 203.0.113.5 >"$POLICY"
start_egressd "$POLICY"
expect_ok "allowed" tcp 203.0.113.5 22
expect_errno EPERM default_deny "refused" tcp 198.51.100.9 22
generation=$(status_number generation)

allow 198.51.100.9 >"$SANDBOX_DIR/other.yaml"
mkdir "$SANDBOX_DIR/state2"
second() {
  status=0
  on_client timeout 10 "$EGRESSD" run --policy "$SANDBOX_DIR/other.yaml" \
    --cgroup "$SANDBOX_CGROUP" --state-dir "$SANDBOX_DIR/state2" --bpffs "$1" \
    --socket "$SANDBOX_DIR/other.sock" >"$SANDBOX_DIR/out" 2>&1 || status=$?
  cat "$SANDBOX_DIR/out"
}
second "$SANDBOX_BPFFS"
check "a second daemon ends with status 1, not $status" test "$status" -eq 1
check "the first is named" grep -qF "process $SANDBOX_AGENT ($EGRESSD run --policy $POLICY" \
  "$SANDBOX_DIR/out"
second "$SANDBOX_BPFFS/"
check "the same directory, written in another way: status 1, not $status" test "$status" -eq 1
expect_ok "still allowed" tcp 203.0.113.5 22
expect_errno EPERM default_deny "still refused" tcp 198.51.100.9 22
check "the generation is as it was" test "$(status_number generation)" -eq "$generation"

check "detach without its socket" on_client "$EGRESSCTL" detach --socket "$SANDBOX_DIR/no.sock" \
  --bpffs "$SANDBOX_BPFFS"
check "the daemon still runs" kill -0 "$SANDBOX_AGENT"
expect_ok "nothing is enforced" tcp 198.51.100.9 22
stop_egressd KILL
start_egressd "$POLICY"
expect_errno EPERM default_deny "a killed daemon holds nothing up" tcp 198.51.100.9 22
finish
