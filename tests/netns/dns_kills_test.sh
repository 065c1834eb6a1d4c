#!/usr/bin/env bash
# Clients ask for fresh names and connect at once, without pause, while the agent is killed with -9
# and started again and again, at whatever moment: not one fails, and not one address or name
# without a rule gets through.
#   EGRESSD_KILLS=N   how often (200)
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

KILLS=${EGRESSD_KILLS:-200}
[[ -x ${DNS_CLIENT:-} ]] || die "DNS_CLIENT does not name the built dns_client"
CLIENTS=2 PACE_MS=10
# As many as nobody gets through, even at one kill a second.
NAMES=$((KILLS * 100))
sandbox_up
listen tcp 443
# Each name has its own address, so that none is known from another.
awk -v clients=$CLIENTS -v names=$NAMES 'BEGIN {
  for (c = 1; c <= clients; c++) for (i = 0; i < names; i++)
    printf "2001:db8:%x:%x::%x c%d-n%d.wild.test\n", c, i / 65536, i % 65536 + 1, c, i
}' >>"$SANDBOX_DIR/hosts"
dns_set known.test 203.0.113.77
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
generation=$(status_number generation)

export EGRESSD_CLIENT_PACE_MS=$PACE_MS
pids=()
for ((c = 1; c <= CLIENTS; c++)); do
  spawn in_client "$DNS_CLIENT" tcp6 0 "$NAMES" "c$c-n%d.wild.test" >"$SANDBOX_DIR/client$c" 2>&1
  pids+=("$REPLY")
done
spawn in_client "$DNS_CLIENT" forbidden 0 "$NAMES" "n%d.other.test" 198.51.100.9 \
  >"$SANDBOX_DIR/forbidden" 2>&1
pids+=("$REPLY")

in_force=0
for ((i = 1; i <= KILLS; i++)); do
  stop_egressd KILL
  launch_egressd "$POLICY"
  if ((i % 4 == 0)); then
    wait_until 15 egressd_in_force || die "egressd does not enforce: $(ctl status)"
    in_force=$((in_force + 1))
  else
    # Anywhere from its first instruction to some time in force.
    sleep "0.$(printf '%03d' $((RANDOM % 250)))"
  fi
  ((i % 100 != 0)) || printf '%d kills\n' "$i"
done
wait_until 15 egressd_in_force || die "egressd does not enforce: $(ctl status)"
for pid in "${pids[@]}"; do
  check "process $pid was at it until the end" kill -TERM "$pid"
done
for pid in "${pids[@]}"; do
  wait "$pid" || true
done
total=0
for ((c = 1; c <= CLIENTS; c++)); do
  line=$(tail -n 1 "$SANDBOX_DIR/client$c")
  check "client $c: $line" grep -qx 'names [1-9][0-9]* connections [1-9][0-9]* refused 0 failed 0' \
    "$SANDBOX_DIR/client$c"
  line=${line#names }
  total=$((total + ${line%% *}))
done
check "$total fresh names while the agent was killed $KILLS times, $in_force of them in force" \
  test "$total" -gt $((KILLS * 5))
read -r _ names _ _ _ refused _ failed < <(tail -n 1 "$SANDBOX_DIR/forbidden")
check "$names forbidden names and connections: $refused refused, $failed not" \
  test "$names" -gt $((KILLS * 5)) -a "$refused" -eq $((2 * names)) -a "$failed" -eq 0
check "no question for a forbidden name left" \
  test "$(grep -c 'query.*other.test' "$SANDBOX_DIR/dns.log")" -eq 0
check "adopted" grep -q '"adopted":true' <<<"$(ctl status --json)"
check "the generation goes on" test "$(status_number generation)" -gt "$generation"
expect_ok "a fresh name" resolve c1-n$((NAMES - 1)).wild.test 443 -6
expect_errno EPERM default_deny "an address nobody asked for" tcp 203.0.113.77 443
finish
