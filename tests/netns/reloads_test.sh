#!/usr/bin/env bash
# Reload after reload, of two policies in turn: nothing grows, no connection that both allow fails
# and none that neither does gets through.
#   EGRESSD_RELOADS=N   how many (100)
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

RELOADS=${EGRESSD_RELOADS:-100}
# What comes before the first measurement: memory pools, caches.
WARM_UP=$((RELOADS / 5))
[[ -x ${DNS_CLIENT:-} ]] || die "DNS_CLIENT does not name the built dns_client"
readonly NEVER=198.51.100.77 ALWAYS=203.0.113.65
policy() {
  cat <<POLICY
version: 1
mode: enforce
dns:
  servers: [$DNS4]
collections:
  - name: net
    priority: 200
    action: allow
    rules:
      - {name: host, addresses: [$1], ports: [22], protocols: [tcp]}
      - {name: both, addresses: [203.0.113.64/26, "fd65:6772::/64"], ports: [22], protocols: [tcp]}
      - {name: names, fqdns: [api.example.com, "*.$2.example.com"], ports: [443]}
POLICY
}
sandbox_up
listen tcp 22 443
dns_set api.example.com 203.0.113.7
policy 203.0.113.5 one >"$SANDBOX_DIR/one.yaml"
policy 198.51.100.9 two >"$SANDBOX_DIR/two.yaml"
cp "$SANDBOX_DIR/one.yaml" "$POLICY"
EGRESSD_LOG_LEVEL=warning start_egressd "$POLICY"

EGRESSD_CLIENT_PACE_MS=3 spawn in_client "$DNS_CLIENT" forbidden 0 100000000 "n%d.other.test" \
  $NEVER >"$SANDBOX_DIR/forbidden" 2>&1
forbidden=$REPLY
# shellcheck disable=SC2016 # expanded by the inner shell
spawn in_client bash -c 'until [[ -e $1/stop ]]; do "$2" tcp "$3" 22; sleep 0.02; done' \
  _ "$SANDBOX_DIR" "$EGRESSD_PROBE" $ALWAYS >"$SANDBOX_DIR/allowed" 2>&1
allowed=$REPLY

fds() { find "/proc/$SANDBOX_AGENT/fd" -mindepth 1 | wc -l; }
rss_kib() { awk '/^VmRSS:/ {print $2}' "/proc/$SANDBOX_AGENT/status"; }
pins() { on_client find "$SANDBOX_BPFFS" -name 'egressd_*' | wc -l; }
# All agents' of the machine. A map ends some time after its last user.
maps() { bpftool -j map show | grep -o '"name":"egressd_[a-z0-9]*"' | wc -l; }

before=$(status_number generation)
errors=0
reloads() {
  local i
  for ((i = 0; i < $1; i++)); do
    if ((i % 2)); then cp "$SANDBOX_DIR/one.yaml" "$POLICY.new"; else cp "$SANDBOX_DIR/two.yaml" "$POLICY.new"; fi
    mv "$POLICY.new" "$POLICY"
    "$EGRESSCTL" reload --socket "$SANDBOX_SOCKET" >/dev/null || errors=$((errors + 1))
    ((i % 1000 != 999)) || printf '%d reloads: %d KiB, %d descriptors\n' $((i + 1)) "$(rss_kib)" "$(fds)"
  done
}
reloads "$WARM_UP"
first_fds=$(fds)
first_pins=$(pins)
first_kib=$(rss_kib)
first_maps=$(maps)
reloads $((RELOADS - WARM_UP))
last_fds=$(fds)
last_kib=$(rss_kib)
check "no reload failed" test "$errors" -eq 0
check "generation $before, now $(status_number generation)" \
  test "$(status_number generation)" -ge $((before + RELOADS))
# A question under way has a socket of its own.
check "after $WARM_UP reloads $first_fds descriptors, now $last_fds" \
  test "$last_fds" -le $((first_fds + 3))
check "pins: $first_pins, now $(pins)" test "$(pins)" -eq "$first_pins"
check "resident: $first_kib KiB, now $last_kib KiB" test "$last_kib" -le $((first_kib + 1024))
# Other agents may run on this machine: only growth by about one a reload is ours.
few_maps() { (($(maps) < first_maps + (RELOADS - WARM_UP) / 2)); }
check "maps in the kernel: $first_maps, now $(maps)" wait_until 5 few_maps

touch "$SANDBOX_DIR/stop"
wait "$allowed" || true
count=$(wc -l <"$SANDBOX_DIR/allowed")
check "$count allowed connections meanwhile, none failed" \
  test "$count" -gt $((RELOADS / 10)) -a "$(grep -vc '^ok' "$SANDBOX_DIR/allowed")" -eq 0
kill -TERM "$forbidden"
wait "$forbidden" || true
read -r _ names _ _ _ refused _ failed < <(tail -n 1 "$SANDBOX_DIR/forbidden")
check "$names forbidden names and connections: $refused refused, $failed not" \
  test "$names" -gt "$RELOADS" -a "$refused" -eq $((2 * names)) -a "$failed" -eq 0
finish
