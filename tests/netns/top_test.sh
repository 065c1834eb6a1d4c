#!/usr/bin/env bash
# egressctl top counts exactly what was refused, by destination, process, pod, rule and reason, with
# and without filters; on a terminal in place, and the terminal is as it was afterwards.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

command -v script >/dev/null || skip "script is missing: run scripts/deps.sh"
/usr/bin/python3 -c 'import pyte' 2>/dev/null || skip "python3-pyte is missing: run scripts/deps.sh"
sandbox_up
write_policy <<END
version: 1
mode: enforce
dns:
  servers: [$DNS4]
collections:
  - name: never
    priority: 100
    action: deny
    rules:
      - {name: telnet, addresses: [198.51.100.99], ports: [23], protocols: [tcp]}
  - name: web
    priority: 200
    action: allow
    rules:
      - {name: api, fqdns: [api.example.com], ports: [443]}
END
dns_set api.example.com 203.0.113.7
start_egressd "$POLICY" --metrics-listen off

# start_top NAME ARGS…: in the background, output in $SANDBOX_DIR/NAME; returns when it gets records.
start_top() {
  local name=$1
  shift
  spawn on_client "$EGRESSCTL" top --socket "$SANDBOX_SOCKET" "$@" \
    >"$SANDBOX_DIR/$name" 2>"$SANDBOX_DIR/$name.err"
  TOP=$REPLY
  wait_until 5 listens "$TOP" || die "top does not start: $(<"$SANDBOX_DIR/$name.err")"
}
# It asks for its signals when the daemon has said yes.
listens() { find "/proc/$1/fd" -lname '*signalfd*' 2>/dev/null | grep -q .; }
# end_top NAME SIGNAL: STATUS is its exit status.
end_top() {
  kill -"$2" "$TOP"
  STATUS=0
  wait "$TOP" || STATUS=$?
}
# holds WHAT NAME EXPRESSION: of the last object in NAME; `rows` maps a row's key to its denials.
holds() {
  local what=$1 file=$SANDBOX_DIR/$2
  shift 2
  if /usr/bin/python3 - "$file" "$1" <<'END'; then pass "$what"; else fail "$what: $1: $(tail -n 1 "$file")"; fi
import json, sys
top = json.loads(open(sys.argv[1]).read().splitlines()[-1])
rows = {row[top["by"]]: row["denied"] for row in top["rows"]}
sys.exit(0 if eval("(" + sys.argv[2] + ")") else 1)
END
}
json_denied() { tail -n 1 "$SANDBOX_DIR/$1" | grep -qF "\"denied\":$2,\"would_deny\""; }

cp "$EGRESSD_PROBE" "$SANDBOX_DIR/alpha"
cp "$EGRESSD_PROBE" "$SANDBOX_DIR/beta"
pod=/kubepods.slice/kubepods-pod6ad2ba8f_6b1c_4f0f_9b65_0d1d2c3b4a59.slice
mkdir -p "$SANDBOX_CGROUP$pod"
# 20 refusals of one process, which the kernel counts, and 5 of five processes; 3 by a rule, 4 in a pod;
# and one thing that is allowed.
# shellcheck disable=SC2016 # expanded by the inner shell
refuse() {
  in_client bash -c 'cd "$1" && for i in {1..20}; do : >/dev/tcp/198.51.100.9/22; done
    for i in {1..5}; do ./alpha tcp 198.51.100.9 22; done
    for i in 1 2 3; do ./beta tcp 198.51.100.99 23; done
    ./alpha resolve api.example.com 443
    echo $$ >"$2/cgroup.procs" && for i in 1 2 3 4; do ./beta udp 2001:db8::9 5353; done' \
    bash "$SANDBOX_DIR" "$SANDBOX_CGROUP$pod" >"$SANDBOX_DIR/refused" 2>&1 || true
  [[ $(grep -cE '^errno=EPERM|tcp.*: Operation not permitted' "$SANDBOX_DIR/refused") -eq 32 ]] ||
    die "not refused: $(<"$SANDBOX_DIR/refused")"
}

# All at once: each gets the same records.
start=()
for by in destination process pod rule reason; do
  start_top "$by" --json --interval 200ms --by "$by"
  start+=("$TOP")
done
start_top filtered --json --interval 200ms --comm beta --port 23 --port 1-22
start+=("$TOP")
start_top nothing --json --interval 200ms --denied --fqdn '*.example.com'
start+=("$TOP")
start_top table --interval 24h --limit 1
table=$TOP
refuse
for by in destination process pod rule reason; do
  check "all are counted by $by" wait_until 5 json_denied "$by" 32
done
check "some came as one record with a count" grep -q '"count":[1-9]' "$SANDBOX_AUDIT"
holds "none is lost" destination 'top["lost"] == 0 and top["not_listed"] == 0'
holds "by destination" destination 'rows == {"198.51.100.9:22/tcp": 25, "198.51.100.99:23/tcp": 3,
  "[2001:db8::9]:5353/udp": 4} and list(rows) == ["198.51.100.9:22/tcp", "[2001:db8::9]:5353/udp",
  "198.51.100.99:23/tcp"]'
holds "by process" process 'rows == {"bash uid=0": 20, "alpha uid=0": 5, "beta uid=0": 7}'
holds "by pod" pod "rows == {'pod 6ad2ba8f-6b1c-4f0f-9b65-0d1d2c3b4a59': 4, '/${SANDBOX_CGROUP##*/}': 28}"
holds "by rule" rule 'rows == {"never/telnet": 3, "(no rule)": 29}'
holds "by reason" reason 'rows == {"default_deny": 29, "deny_rule": 3}'
holds "a filter by process and ports" filtered 'rows == {"198.51.100.99:23/tcp": 3} and top["denied"] == 3'
holds "a filter that matches nothing" nothing 'rows == {} and top["denied"] == 0 and top["seconds"] > 0.1'
holds "a record whole" destination '{"verdict": "denied", "port": 22, "schema": 1}.items() <=
  top["rows"][0]["latest"].items()'
rated() { tail -n 1 "$SANDBOX_DIR/destination" | grep -q '^.*"per_second":0.0,.*"per_second":0.0,.*"per_second":0.0'; }
check "without refusals the rates fall to nothing" wait_until 5 rated
kill -INT "${start[@]}"
wait "${start[@]}" || fail "an interrupt is an error"

# Not a terminal: nothing until it is over.
check "no table before its time" test ! -s "$SANDBOX_DIR/table"
TOP=$table
end_top table INT
check "an interrupt shows what was counted, status 0, not $STATUS" test "$STATUS" -eq 0
check "totals" grep -qE '^egressd, by destination, since [0-9]+s: 32 denied, 0 records lost$' "$SANDBOX_DIR/table"
check "columns" grep -qE '^ +DENIED +PER SEC +LAST +DESTINATION +LAST REASON +LAST PROCESS$' "$SANDBOX_DIR/table"
check "the row" grep -qE \
  '^ +25 +[0-9.]+ +[0-9:]{8} +198\.51\.100\.9:22/tcp +default_deny +(alpha|bash)\[[0-9]+\]$' "$SANDBOX_DIR/table"
check "one row only" test "$(wc -l <"$SANDBOX_DIR/table")" -eq 4

begun=${EPOCHREALTIME/./}
start_top once --for 1s --reason default_deny
probe tcp 198.51.100.9 22 >/dev/null || true
probe tcp 198.51.100.99 23 >/dev/null || true
status=0
wait "$TOP" || status=$?
check "--for ends, status 0, not $status" test "$status" -eq 0
check "after its time" test $((${EPOCHREALTIME/./} - begun)) -ge 1000000
check "with one table of one refusal" grep -qE '^ +1 +[01]\.[09] .* 198\.51\.100\.9:22/tcp ' "$SANDBOX_DIR/once"
check "and no escape sequences" test "$(grep -c $'\x1b' "$SANDBOX_DIR/once")" -eq 0
start_top soon --once --interval 100ms --json
wait "$TOP" || fail "--once failed"
check "--once prints one object" test "$(wc -l <"$SANDBOX_DIR/soon")" -eq 1

# --- on a terminal
# start_screen NAME ROWS COLUMNS ARGS…: TOP is the program, SCRIPT the terminal around it.
start_screen() {
  local name=$1 rows=$2 columns=$3 keys=$SANDBOX_DIR/$1.keys
  shift 3
  mkfifo "$keys"
  exec {KEYS}<>"$keys"
  become on_client script -qec \
    "stty rows $rows cols $columns; exec '$EGRESSCTL' top --socket '$SANDBOX_SOCKET' $*" /dev/null \
    <"$keys" >"$SANDBOX_DIR/$name" 2>&1 &
  SCRIPT=$!
  wait_until 5 screen_listens || die "top does not start: $(<"$SANDBOX_DIR/$name")"
}
screen_listens() {
  TOP=$(<"/proc/$SCRIPT/task/$SCRIPT/children")
  TOP=${TOP%% *}
  [[ -n $TOP ]] && listens "$TOP"
}
screen() { /usr/bin/python3 ./read_screen.py "$SANDBOX_DIR/$1" "$2" "$3" 2>"$SANDBOX_DIR/screen.err"; }
# shown NAME ROWS COLUMNS PATTERN: that some line of the screen matches.
shown() { screen "$1" "$2" "$3" | grep -qE -- "$4"; }
end_screen() {
  STATUS=0
  wait "$SCRIPT" || STATUS=$?
  exec {KEYS}>&-
}
restored() {
  if screen "$2" "$3" "$4" >/dev/null && grep -q $'\x1b\\[?1049l$' "$SANDBOX_DIR/$2"; then
    pass "$1"
  else
    fail "$1: $(<"$SANDBOX_DIR/screen.err")"
  fi
}
echoes() { [[ $(stty -F "$1" -a) == *[^-]echo\ * ]]; }

start_screen term 24 80 --interval 200ms
refuse
check "the screen shows the refusals" wait_until 5 shown term 24 80 \
  '^      25 .* 198\.51\.100\.9:22/tcp +default_deny +(alpha|bash)\['
check "in place: one row of each destination" test "$(screen term 24 80 | grep -c ':23/tcp')" -eq 1
check "the heading goes on" wait_until 5 shown term 24 80 '^egressd, by destination, since [2-9]s: 32 denied'
terminal=$(readlink "/proc/$TOP/fd/1")
check "keys are not echoed" test "$(echoes "$terminal" && echo yes)" = ""
printf q >&"$KEYS"
end_screen
check "q ends it, status 0, not $STATUS" test "$STATUS" -eq 0
restored "the screen is restored" term 24 80

start_screen small 4 40 --interval 24h
check "a small window" wait_until 5 shown small 4 40 '^  DENIED   PER SEC  LAST +DESTINATI'
terminal=$(readlink "/proc/$TOP/fd/1")
printf 'xyz' >&"$KEYS"
probe tcp 198.51.100.9 22 >/dev/null || true
# Redrawn at once for the new size: the next refresh is a day away.
redrawn() {
  stty -F "$terminal" cols $((39 + RANDOM % 2))
  shown small 4 40 '^       1 .* 198\.51\.100'
}
check "another size is a new picture" wait_until 5 redrawn
kill -TERM "$TOP"
end_screen
check "SIGTERM is what it dies of: 143, not $STATUS" test "$STATUS" -eq 143
restored "the screen is restored" small 4 40

start_screen gone 24 80 --interval 200ms
check "the screen is there" wait_until 5 shown gone 24 80 '0 denied'
# Ctrl-Z gives the terminal back, fg takes it again. The terminal stops with the program.
stopped() { [[ $(<"/proc/$SCRIPT/stat") == *') T '* ]]; }
entered() { [[ $(grep -o $'\x1b\\[?1049[hl]' "$SANDBOX_DIR/gone" | tr -d '\n\033') == '[?1049h[?1049l[?1049h' ]]; }
kill -TSTP "$TOP"
check "it can be stopped" wait_until 5 stopped
kill -CONT "$SCRIPT"
check "it left the screen and is back" wait_until 5 entered
stop_egressd TERM
end_screen
check "it ends with the daemon, status 3, not $STATUS" test "$STATUS" -eq 3
check "the screen is restored before the message" grep -qE $'\x1b\\[\\?1049legressctl: the daemon has gone' \
  "$SANDBOX_DIR/gone"
status=0
ctl top --once 2>"$SANDBOX_DIR/none" || status=$?
check "without a daemon: status 3, not $status" test "$status" -eq 3
finish
