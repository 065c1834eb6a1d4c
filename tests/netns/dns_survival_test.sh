#!/usr/bin/env bash
# The kernel learns names by itself: with the agent killed, fresh names under a wildcard work and
# others stay refused; a restart in the middle of it costs no connection; detach needs no agent.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

sandbox_up
listen tcp 443
# Each name has its own address, so that none is known from another.
for ((i = 1; i <= 200; i++)); do
  printf '203.0.113.%d v%d.wild.test\n' "$i" "$i"
done >>"$SANDBOX_DIR/hosts"
for ((i = 1; i <= 8000; i++)); do
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
# fresh FAMILY PREFIX FIRST LAST: names asked once each and used at once; says how many failed.
# shellcheck disable=SC2016 # expanded by the inner shell
fresh() {
  in_client bash -c 'for ((i = $3; i <= $4; i++)); do "$5" resolve "$2$i.wild.test" 443 "$1"; done' \
    _ "$@" "$EGRESSD_PROBE" 2>&1 | grep -vc '^ok' || true
}
refused() {
  local line
  line=$(probe resolve other.test 443 2>&1) || true
  check "$1: $line" test "${line%% *}" = unresolved
  check "… and never asked" test "$(grep -c 'query.*other.test' "$SANDBOX_DIR/dns.log")" -eq 0
  expect_errno_alone EPERM "its address" tcp 198.51.100.1 443
}
start_egressd "$POLICY"
generation=$(status_number generation)
expect_ok "with the agent" resolve v1.wild.test 443 -4
denied=$(status_number dns_name_not_allowed)
stop_egressd KILL

expect_errno_alone EPERM "no agent: an address nobody asked for" tcp 203.0.113.2 443
check "no agent: 100 fresh names, none fails" test "$(fresh -4 v 2 101)" -eq 0
check "no agent: 20 fresh names over IPv6" test "$(fresh -6 n 1 20)" -eq 0
refused "no agent: a name without a rule"

# Fresh names all the time: through the restart, a second kill -9 and a second restart.
# shellcheck disable=SC2016 # expanded by the inner shell
spawn in_client bash -c 'i=100; until [[ -e $1/stop ]]; do
    "$2" resolve "n$((++i)).wild.test" 443 -6
  done' _ "$SANDBOX_DIR" "$EGRESSD_PROBE" >"$SANDBOX_DIR/knocks" 2>&1
knocker=$REPLY
wait_until 5 lines_above 5 "$SANDBOX_DIR/knocks" || die "no knocks"
start_egressd "$POLICY"
stop_egressd KILL
sleep 0.2
start_egressd "$POLICY"
sleep 0.2
touch "$SANDBOX_DIR/stop"
wait "$knocker" || true
knocks=$(wc -l <"$SANDBOX_DIR/knocks")
check "$knocks fresh names through restart and kill" test "$knocks" -gt 20
check "none failed: $(grep -v '^ok' "$SANDBOX_DIR/knocks" | head -n 3)" \
  test "$(grep -vc '^ok' "$SANDBOX_DIR/knocks")" -eq 0
check "adopted" grep -q '"adopted":true' <<<"$(ctl status --json)"
check "the generation goes on" test "$(status_number generation)" -gt "$generation"
check "refusals without an agent were counted" \
  test "$(status_number dns_name_not_allowed)" -gt "$denied"
list=$(ctl list --json)
check "list: what was learned before the kill" grep -qF '"203.0.113.1"' <<<"$list"
check "list: what was learned without an agent" grep -qF '"203.0.113.101"' <<<"$list"
check "list: its pattern" test "$(grep -c '"pattern":"\*.wild.test"' <<<"$list")" -ge "$knocks"
check "list: who asked" grep -q '"comm":"egressd_probe"' <<<"$list"
check "status: what happened while no agent ran" \
  grep -qE '"meanwhile":\{"denials":[0-9]+,"learned":[1-9]' <<<"$(ctl status --json)"
expect_ok "an address from before the kill" tcp 203.0.113.1 443
expect_unasked other.test "a name without a rule"
expect_ok "a fresh name" resolve v150.wild.test 443 -4

stop_egressd KILL
check "detach without an agent" ctl detach --bpffs "$SANDBOX_BPFFS" >/dev/null
expect_ok "every name can be asked" resolve other.test 443
check "… by the resolver" was_asked A other.test
expect_ok "every address is open" tcp 198.51.100.77 443
# maps.debug and progs.debug are the kernel's own (CONFIG_BPF_PRELOAD).
left=$(on_client find "$SANDBOX_BPFFS" -mindepth 1 ! -name '*.debug')
check "bpffs is empty: $left" test -z "$left"
finish
