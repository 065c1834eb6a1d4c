#!/usr/bin/env bash
# egressctl exec: one command under a policy of its own, and nothing left behind.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

sandbox_up
listen tcp 22
dns_set allowed.example 203.0.113.5
write_policy <<END
version: 1
mode: enforce
dns:
  servers: [$DNS4]
collections:
  - name: one
    priority: 200
    action: allow
    rules:
      - {name: named, fqdns: [allowed.example], ports: [22], protocols: [tcp]}
      - {name: host, addresses: [203.0.113.9], ports: [22], protocols: [tcp]}
END
TMP=$SANDBOX_DIR/tmp
mkdir "$TMP"
# Where another user finds it too.
chmod 711 "$SANDBOX_DIR"
install -m 755 "$EGRESSD_PROBE" "$SANDBOX_DIR/egressd_probe"
PROBE=$SANDBOX_DIR/egressd_probe
OUT=$SANDBOX_DIR/out ERR=$SANDBOX_DIR/err

# run [OPTION…] -- COMMAND…: from within the sandbox's cgroup, so that its own is made there.
run() {
  status=0
  in_client env TMPDIR="$TMP" "$EGRESSCTL" exec --egressd "$EGRESSD" --policy "$POLICY" "$@" \
    >"$OUT" 2>"$ERR" || status=$?
}
# The agent's programs, whatever cgroup they are on.
linked() { bpftool link show | grep -c egressd_ || true; }
before=$(linked)
expect_nothing_left() {
  local left
  left=$(find "$TMP" "$SANDBOX_CGROUP" -mindepth 1 -name 'egressd-exec-*')
  check "$1: no cgroup, no file is left: $left" test -z "$left"
  check "$1: no program is left" wait_until 2 no_more_linked
}
no_more_linked() { (($(linked) <= before)); }
pinned_there() { [[ -n $(on_client find /sys/fs/bpf -path '*/egressd-exec-*/links/egressd_conn4') ]]; }
not_pinned_there() { [[ -z $(on_client find /sys/fs/bpf -name "egressd*") ]]; }
says() { grep -qF -- "$1" "$2"; }
both() { cat "$OUT" "$ERR"; }

# shellcheck disable=SC2016 # expanded by the inner shell
run -- sh -c '"$0" tcp 203.0.113.9 22; "$0" resolve allowed.example 22; cat /proc/self/cgroup' "$PROBE"
check "what rules allow: $(both)" test "$(grep -c ^ok "$OUT")" -eq 2
check "… with status $status" test "$status" -eq 0
check "in a cgroup below the caller's" grep -q "^0::.*/${SANDBOX_CGROUP##*/}/egressd-exec-" "$OUT"
check "… and nothing is said" test ! -s "$ERR"
expect_nothing_left "allowed"

run -- curl -s http://127.0.0.1:9477/healthz
check "no metrics: they are of the machine's agent" test "$status" -eq 7

# shellcheck disable=SC2016
run -- sh -c '"$0" tcp 198.51.100.9 22; "$0" tcp 198.51.100.9 22; "$0" resolve other.example 22; exit 42' \
  "$PROBE"
check "the exit status of the command, $status" test "$status" -eq 42
check "what no rule allows: $(<"$OUT")" test "$(grep -c '^errno=EPERM' "$OUT")" -eq 2
check "the refusals are listed: $(<"$ERR")" grep -qE '^ +2 +198\.51\.100\.9:22/tcp +- +default_deny .*egressd_probe' "$ERR"
check "and the names" grep -qE "$DNS4:53/udp +other\.example +dns_name_not_allowed" "$ERR"
expect_ok "the caller is not judged" tcp 198.51.100.9 22
expect_nothing_left "refused"

# shellcheck disable=SC2016
run --json --summary "$SANDBOX_DIR/summary" --user nobody -- \
  sh -c 'echo to stdout; cat; id -un; echo "$USER"; "$0" tcp 198.51.100.9 22; exit 3' \
  "$PROBE" < <(echo from stdin)
check "status 3: $status" test "$status" -eq 3
check "standard input and output are the command's, as another user: $(<"$OUT")" \
  test "$(head -n 4 "$OUT")" = $'to stdout\nfrom stdin\nnobody\nnobody'
check "nothing on standard error: $(<"$ERR")" test ! -s "$ERR"
check "the summary as JSON" says '"exit_code":3,"total":1,"recorded":1' "$SANDBOX_DIR/summary"
check "… with the denial" says '"verdict":"denied","destination":"198.51.100.9","port":22' \
  "$SANDBOX_DIR/summary"

run --audit --records "$SANDBOX_DIR/seen.jsonl" -- "$PROBE" tcp 198.51.100.9 22
check "audit lets it pass: $(both)" grep -q ^ok "$OUT"
check "… and lists it: $(<"$ERR")" grep -qE '^ +1 +198\.51\.100\.9:22/tcp +- +default_deny' "$ERR"
check "the records are kept" python3 ../support/check_records.py \
  ../../deploy/schema/audit-record-1.json "$SANDBOX_DIR/seen.jsonl" destination comm
check "… for learn" "$EGRESSCTL" learn --from "$SANDBOX_DIR/seen.jsonl" --policy "$POLICY"
run --records /no/such/file -- true
check "125 where they cannot be kept: $(<"$ERR")" test "$status" -eq 125
expect_nothing_left "audit"

# shellcheck disable=SC2016
run -- sh -c 'sleep 1000 & sleep 1000 & kill -USR1 $$'
check "128 + the signal that ended it: $status" test "$status" -eq 138
check "what is left running is killed: $(<"$ERR")" says "left 2 processes running" "$ERR"
expect_nothing_left "processes left"
# A socket made by the caller would be judged as the caller's. Nothing is sent by this one.
exec 8</dev/null 9<>/dev/udp/127.0.0.1/9
run -- sh -c 'read -r line <&8; echo "read $?"; echo hello >&9'
exec 8<&- 9<&-
check "files are handed down: $(both)" says "read 1" "$OUT"
check "network sockets are not: $status" grep -qi "9: bad file descriptor" "$ERR"
run -- "$SANDBOX_DIR/none"
check "127 for what is not there: $status, $(<"$ERR")" test "$status" -eq 127
run -- "$SANDBOX_DIR"
check "126 for what cannot be run: $status" test "$status" -eq 126
expect_nothing_left "not run"
POLICY=$SANDBOX_DIR/none.yaml run -- true
check "125 without a policy: $status" test "$status" -eq 125
printf 'version: 1\nmode: enforce\ncolections: []\n' >"$SANDBOX_DIR/bad.yaml"
POLICY=$SANDBOX_DIR/bad.yaml run -- true
check "errors of the policy as check shows them: $(<"$ERR")" says "bad.yaml:3:" "$ERR"
check "… 125, $status" test "$status" -eq 125
EGRESSD=$SANDBOX_DIR/none run -- true
check "no agent: $status, $(<"$ERR")" test "$status" -eq 125
run --no-such-option -- true
check "125 for a wrong option: $status" test "$status" -eq 125
run --user no-such-user -- true
check "no such user: $status" test "$status" -eq 125
# start COMMAND…: in the background; REPLY is egressctl. A shell's background has SIGINT ignored, and
# what is ignored stays so.
start() {
  : >"$OUT" # or it is "started" before it is
  become in_client env --default-signal=INT,QUIT TMPDIR="$TMP" "$EGRESSCTL" exec \
    --egressd "$EGRESSD" --policy "$POLICY" -- "$@" >"$OUT" 2>"$ERR" </dev/null &
  REPLY=$!
  wait_until 30 says started "$OUT" || die "the command was not started: $(both)"
}
ended() {
  status=0
  wait "$1" || status=$?
}
# shellcheck disable=SC2016
start sh -c 'for s in INT TERM HUP; do trap "echo got $s" $s; done; trap "echo got USR1; exit 7" USR1
  echo started; while :; do sleep 0.02; done'
for signal in INT TERM HUP USR1; do
  kill "-$signal" "$REPLY"
  check "SIG$signal reaches the command" wait_until 5 says "got $signal" "$OUT"
done
ended "$REPLY"
check "… and its status comes back: $status" test "$status" -eq 7
expect_nothing_left "signals"

# The agent gone in between: what is in force stays, and everything is cleaned up.
# shellcheck disable=SC2016 # expanded by the inner shell
start sh -c 'echo started; until [ -e "$1" ]; do sleep 0.02; done; "$0" tcp 198.51.100.9 22' \
  "$PROBE" "$SANDBOX_DIR/go"
kill -KILL "$(pgrep -P "$REPLY" -x egressd)"
check "the agent's end is told" wait_until 5 says "the agent ended early (signal 9)" "$ERR"
: >"$SANDBOX_DIR/go"
ended "$REPLY"
check "enforced without the agent: $(both)" says errno=EPERM "$OUT"
check "the summary says that it cannot know" says "may not be all" "$ERR"
expect_nothing_left "agent killed"

# A signal before the command runs: nothing is run.
become in_client env --default-signal=INT TMPDIR="$TMP" "$EGRESSCTL" exec --egressd "$EGRESSD" \
  --policy "$POLICY" -- echo started >"$OUT" 2>"$ERR" </dev/null &
REPLY=$!
has_begun() { [[ -n $(find "$TMP" -name egressd.log) ]]; }
wait_until 5 has_begun
kill -INT "$REPLY"
ended "$REPLY"
check "SIGINT while the agent starts: $status" test "$status" -eq 130
check "… runs nothing" test ! -s "$OUT"
expect_nothing_left "SIGINT while the agent starts"

# With a BPF file system where it usually is, the pins are there, and go.
on_client mount -t bpf bpf /sys/fs/bpf
start sh -c 'echo started; exec sleep 1000'
check "pinned below /sys/fs/bpf" pinned_there
kill -INT "$REPLY"
ended "$REPLY"
check "a command that dies of SIGINT: $status" test "$status" -eq 130
check "… and gone" not_pinned_there
expect_nothing_left "/sys/fs/bpf"
finish
