#!/usr/bin/env bash
# An agent with another ABI takes over: its programs are attached before the old ones go, so nothing
# forbidden passes for a moment; what was learned and open connections go on.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

sandbox_up
[[ -x ${EGRESSD_NEXT:-} ]] || die "EGRESSD_NEXT names no program"
listen tcp 443
for ((i = 1; i <= 200; i++)); do
  printf '203.0.113.%d v%d.wild.test\n' "$i" "$i"
done >>"$SANDBOX_DIR/hosts"
for ((i = 1; i <= 4000; i++)); do
  printf '2001:db8:a::%x n%d.wild.test\n' "$i" "$i"
done >>"$SANDBOX_DIR/hosts"
dns_set other.test 198.51.100.1
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
      - {name: wild, fqdns: ["*.wild.test"], ports: [443], protocols: [tcp]}
END
start_egressd "$POLICY"
expect_ok "learned" resolve v1.wild.test 443 -4
hold_open 203.0.113.1 443

# Forbidden knocks and fresh names all the time.
# shellcheck disable=SC2016 # expanded by the inner shell
spawn in_client bash -c 'until [[ -e $1/stop ]]; do "$2" tcp 198.51.100.1 443; done' \
  _ "$SANDBOX_DIR" "$EGRESSD_PROBE" >"$SANDBOX_DIR/knocks" 2>&1
knocker=$REPLY
# shellcheck disable=SC2016 # expanded by the inner shell
spawn in_client bash -c 'i=0; until [[ -e $1/stop ]]; do "$2" resolve "n$((++i)).wild.test" 443 -6; done' \
  _ "$SANDBOX_DIR" "$EGRESSD_PROBE" >"$SANDBOX_DIR/names" 2>&1
asker=$REPLY
wait_until 5 lines_above 5 "$SANDBOX_DIR/names" || die "no names"
versions() { on_client find "$SANDBOX_BPFFS" -maxdepth 1 -name 'v[0-9]*' -printf '%f '; }
before=$(versions)
old=$EGRESSD
for next in "$EGRESSD_NEXT" "$old"; do
  stop_egressd KILL
  EGRESSD=$next start_egressd "$POLICY"
  expect_hold_ok "an open connection"
  expect_ok "an address learned before" tcp 203.0.113.1 443
  check "only its own version is pinned: $(versions)" test "$(versions | wc -w)" -eq 1
  check "another than before" test "$(versions)" != "$before"
  before=$(versions)
  sleep 0.3
done
touch "$SANDBOX_DIR/stop"
wait "$knocker" "$asker" || true
check "$(wc -l <"$SANDBOX_DIR/knocks") knocks" lines_above 10 "$SANDBOX_DIR/knocks"
check "none got through" test "$(grep -vc '^errno=EPERM' "$SANDBOX_DIR/knocks")" -eq 0
names=$(wc -l <"$SANDBOX_DIR/names")
failed=$(grep -v '^ok' "$SANDBOX_DIR/names" || true)
# A question that is under way at the very moment of the change is answered to the old programs.
check "$names fresh names, failed: $failed" test "$(grep -c . <<<"$failed")" -le 2
check "of them, none after the change: $(tail -n 1 "$SANDBOX_DIR/names")" \
  grep -q '^ok' <<<"$(tail -n 1 "$SANDBOX_DIR/names")"
expect_ok "the name goes on being known" tcp 203.0.113.1 443
finish
