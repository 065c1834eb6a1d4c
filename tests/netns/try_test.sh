#!/usr/bin/env bash
# A policy on trial: in force at once, and rolled back unless it is confirmed in time; also if the
# agent dies meanwhile.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

sandbox_up
listen tcp 22
readonly ONE=203.0.113.5 TWO=198.51.100.9
policy() {
  cat <<END
version: 1
mode: enforce
dns:
  servers: [$DNS4]
collections:
  - name: net
    priority: 200
    action: allow
    rules:
      - {name: net, addresses: [$1], ports: [22], protocols: [tcp]}
END
}
policy $ONE | write_policy
next=$SANDBOX_DIR/next.yaml
policy $TWO >"$next"
start_egressd "$POLICY"
only() {
  expect_ok "$3: allowed" tcp "$1" 22
  expect_errno EPERM default_deny "$3: refused" tcp "$2" 22
}
allowed() { [[ $(probe tcp "$1" 22 2>&1) == ok* ]]; }
on_trial() { ctl status | grep -q "on trial for another .* s: $next"; }

only $ONE $TWO "before"
HOLD_TIMEOUT=500 hold_open $ONE 22
expect_hold_ok "open connection"
check "try" ctl try "$next" --for 2s
only $TWO $ONE "on trial"
line=$(hold_echo)
check "what the trial refuses is cut: $line" grep -q "^errno=" <<<"$line"
check "status says so" on_trial
check "rolled back by itself" wait_until 6 allowed $ONE
only $ONE $TWO "rolled back"
check "status no longer says so" bash -c '! grep -q "on trial"' <<<"$(ctl status)"

events() { audit_field event <"$SANDBOX_AUDIT" | tr '\n' ' '; }
check "both are on record" test "$(events)" = "trial_started trial_rolled_back "
check "try" ctl try "$next" --for 1h
only $TWO $ONE "on trial"
check "rollback at once" ctl rollback
only $ONE $TWO "rolled back"
check "there is nothing to roll back" bash -c '! "$@" 2>/dev/null' _ "$EGRESSCTL" rollback --socket "$SANDBOX_SOCKET"

policy not-an-address >"$SANDBOX_DIR/bad.yaml"
check "a wrong policy is not tried" bash -c '"$@" 2>&1 | grep -q "bad.yaml:[0-9]*:[0-9]*: error"' _ "$EGRESSCTL" try "$SANDBOX_DIR/bad.yaml" --for 1h --socket "$SANDBOX_SOCKET"
only $ONE $TWO "unchanged"

# Two trials, one way back.
check "try" ctl try "$next" --for 1h
policy 203.0.113.0/24 >"$SANDBOX_DIR/third.yaml"
check "try another" ctl try "$SANDBOX_DIR/third.yaml" --for 1h
check "rollback" ctl rollback
only $ONE $TWO "back before both"

# The agent dies: the trial goes on in the kernel, and the next start rolls back.
check "try" ctl try "$next" --for 1h
stop_egressd KILL
check "still on trial" allowed $TWO
start_egressd "$POLICY"
only $ONE $TWO "rolled back by the next start"
check "told" grep -q "rolled back to what was in force before" "$SANDBOX_DIR/egressd.log"
# Also if the policy file is of no use by then.
check "try" ctl try "$next" --for 1h
stop_egressd KILL
echo "nonsense: [" >"$POLICY"
start_egressd "$POLICY"
only $ONE $TWO "rolled back to what was kept"
policy $ONE | write_policy

# What is in force then may be neither: nothing is said to be rolled back that is not.
check "try" ctl try "$next" --for 1h
stop_egressd KILL
policy 203.0.113.0/24 | write_policy
start_egressd "$POLICY"
expect_ok "the file that was changed meanwhile" tcp 203.0.113.7 22
check "told" grep -q "which was changed since, is in force instead" "$SANDBOX_DIR/egressd.log"
check "… and on record" test "$(tail -n 1 "$SANDBOX_AUDIT" | audit_field event)" = trial_replaced
policy $ONE | write_policy
check "changed back" wait_until 5 allowed $ONE

chmod 640 "$POLICY"
check "try" ctl try "$next" --for 2s
check "confirm" ctl confirm
check "the policy file is the one tried" cmp "$POLICY" "$next"
check "… with its mode" test "$(stat -c %a "$POLICY")" = 640
sleep 2.2
only $TWO $ONE "confirmed, and the time is over"
stop_egressd
start_egressd "$POLICY"
only $TWO $ONE "… also after a restart"

# The policy file changes during a trial: that is what somebody wants.
policy $ONE >"$next"
check "try" ctl try "$next" --for 1h
policy 203.0.113.0/24 | write_policy
check "the changed file ends the trial" wait_until 5 allowed 203.0.113.7
check "there is nothing to confirm" bash -c '! "$@" 2>/dev/null' _ "$EGRESSCTL" confirm --socket "$SANDBOX_SOCKET"

# What was written to the policy file meanwhile is not lost, even if it is wrong.
policy $TWO >"$next"
check "try" ctl try "$next" --for 1h
policy not-an-address | write_policy
cp "$POLICY" "$SANDBOX_DIR/edited"
check "confirm does not write over it" bash -c '"$@" 2>&1 | grep -q "has been changed since"' _ "$EGRESSCTL" confirm --socket "$SANDBOX_SOCKET"
check "… which stays" cmp "$POLICY" "$SANDBOX_DIR/edited"
check "the trial goes on" on_trial
policy $ONE | write_policy
check "corrected, it ends the trial" wait_until 5 allowed $ONE

# A process that keeps the file open keeps it from being read: status says so.
exec {held}>>"$POLICY"
policy $TWO | write_policy
held() { ctl status | grep -q "a process keeps .*policy.yaml open for writing"; }
check "told that somebody writes" wait_until 5 held
check "not read meanwhile" allowed $ONE
exec {held}>&-
check "read when it is closed" wait_until 5 allowed $TWO
check "no longer told" bash -c '! grep -q "open for writing"' <<<"$(ctl status)"

mkfifo "$SANDBOX_DIR/fifo"
check "a pipe is not tried, and not waited for" bash -c '"$@" 2>&1 | grep -q "no regular file"' _ "$EGRESSCTL" try "$SANDBOX_DIR/fifo" --for 1h --socket "$SANDBOX_SOCKET"

# An agent that is told to end ends the trial: nobody else would in time.
policy $ONE >"$next"
check "try" ctl try "$next" --for 1h
stop_egressd
check "rolled back without an agent" allowed $TWO
start_egressd "$POLICY"
records=../../deploy/schema/audit-record-1.json
check "the end of each trial is on record: $(events)" test "$(events | wc -w)" -eq 21
check "… confirmed" grep -q "trial_started trial_confirmed " <<<"$(events)"
check "… replaced" grep -q "trial_started trial_replaced " <<<"$(events)"
check "… and valid by the schema" python3 ../support/check_records.py "$records" "$SANDBOX_AUDIT" event until policy
finish
