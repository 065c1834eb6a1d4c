#!/usr/bin/env bash
# A policy that does not hold water changes nothing: nothing is attached at start, and on reload the
# old one stays.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

sandbox_up
listen tcp 22
run_egressd() {
  on_client "$EGRESSD" run --policy "$POLICY" --cgroup "$SANDBOX_CGROUP" \
    --state-dir "$SANDBOX_DIR/state" --bpffs "$SANDBOX_BPFFS" --socket "$SANDBOX_SOCKET"
}
write_policy <<'END'
version: 1
mode: enforce
collections:
  - name: net
    priority: 200
    action: allow
    rules:
      - {name: bad, addresses: [203.0.113.0/33], ports: [0], protocols: [tcp]}
      - {name: worse, fqdns: ["*contoso.com"], ports: [443]}
END
status=0
run_egressd >"$SANDBOX_DIR/out" 2>&1 || status=$?
cat "$SANDBOX_DIR/out"
check "exit status 2, as of a usage error" test "$status" -eq 2
check "the prefix is named" grep -qE 'policy.yaml:8:[0-9]+: error: .*203.0.113.0/33' "$SANDBOX_DIR/out"
check "the port is named" grep -qE 'policy.yaml:8:[0-9]+: error: .*0' "$SANDBOX_DIR/out"
check "the look-alike is named" grep -qE 'policy.yaml:9:[0-9]+: error: .*contoso' "$SANDBOX_DIR/out"
pins() { on_client find "$SANDBOX_BPFFS" -name 'egressd_*' -o -name 'v[0-9]*'; }
check "nothing is pinned" test -z "$(pins)"
expect_ok "nothing is enforced" tcp 198.51.100.9 22

# Found out only when the maps are there.
write_policy <<'END'
version: 1
mode: enforce
tags: [PythonPackages]
END
cp "$SANDBOX_DIR/resolv.conf" "$SANDBOX_DIR/resolv.conf.good"
: >"$SANDBOX_DIR/resolv.conf"
status=0
run_egressd >"$SANDBOX_DIR/out" 2>&1 || status=$?
cat "$SANDBOX_DIR/out"
check "a server is asked for" grep -q 'resolv.conf names no server' "$SANDBOX_DIR/out"
check "exit status 1" test "$status" -eq 1
check "nothing is pinned" test -z "$(pins)"
cat "$SANDBOX_DIR/resolv.conf.good" >"$SANDBOX_DIR/resolv.conf"

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
start_egressd "$POLICY"
expect_errno EPERM default_deny "a good policy is enforced" tcp 198.51.100.9 22
generation=$(status_number generation)
echo 'mode: [nonsense' >"$POLICY"
kill -HUP "$SANDBOX_AGENT"
warned() { ctl status --json | grep -q 'policy.yaml:[0-9]*:[0-9]*: error'; }
check "the status shows why the reload failed" wait_until 5 warned
check "the generation is as it was" test "$(status_number generation)" -eq "$generation"
expect_errno EPERM default_deny "the old policy is in force" tcp 198.51.100.9 22
finish
