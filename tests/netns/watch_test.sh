#!/usr/bin/env bash
# egressctl watch shows a refusal when it happens, to a person and as JSON, and ends with the daemon.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

sandbox_up
listen tcp 22
dns_set api.example.com 203.0.113.7
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
      - {name: wild, fqdns: ["*.example.com"], ports: [22]}
END
start_egressd "$POLICY"
watch() {
  spawn on_client "$EGRESSCTL" watch --socket "$SANDBOX_SOCKET" "${@:2}" >"$SANDBOX_DIR/$1" 2>&1
  watcher=$REPLY
  # It says nothing until something happens.
  wait_until 5 knock "$SANDBOX_DIR/$1" || die "watch shows nothing"
}
knock() {
  probe tcp 198.51.100.9 1 >/dev/null || true
  [[ -s $1 ]]
}
shows() { grep -qF -- "$2" "$SANDBOX_DIR/$1"; }

watch text
expect_errno EPERM default_deny "refused" tcp 198.51.100.9 22
check "shown within a second" wait_until 1 shows text ' 198.51.100.9:22 '
line=$(grep -F ' 198.51.100.9:22 ' "$SANDBOX_DIR/text")
check "with reason, protocol and program: $line" grep -qE \
  ' DENIED +default_deny +tcp +198\.51\.100\.9:22 +egressd_probe\[[0-9]+\] uid=0 ' <<<"$line"
expect_ok "allowed" resolve api.example.com 22 -4
expect_errno EPERM default_deny "refused" udp 198.51.100.9 5353
check "the next one too" wait_until 1 shows text ' 198.51.100.9:5353 '
check "but nothing that is allowed" test "$(grep -c 203.0.113.7 "$SANDBOX_DIR/text")" -eq 0
stop_egressd TERM
status=0
wait "$watcher" || status=$?
check "it ends with the daemon, status 3, not $status" test "$status" -eq 3
check "and says so" shows text 'the daemon has gone'

start_egressd "$POLICY"
watch json --json --count 3
expect_errno EPERM default_deny "refused" tcp 198.51.100.9 22
wait_until 2 knock "$SANDBOX_DIR/json" || true
status=0
wait "$watcher" || status=$?
check "--count 3 ends with status 0, not $status" test "$status" -eq 0
check "after three lines" test "$(wc -l <"$SANDBOX_DIR/json")" -eq 3
check "the line is the audit record" grep -qxF -- \
  "$(grep '"port":22,' "$SANDBOX_DIR/json")" "$SANDBOX_AUDIT"
finish
