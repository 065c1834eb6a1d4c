#!/usr/bin/env bash
# The quick start as a person runs it, with what is built already: twice in a row, and interrupted
# by Ctrl-C in the middle. It says what it must and leaves nothing behind.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source-path=SCRIPTDIR
source tests/netns/sandbox.sh

[[ $EUID -eq 0 ]] || die "needs root (namespaces, cgroups, BPF)"
mount=$(cgroup2_mount) || skip "no cgroup2 hierarchy is mounted"
for tool in dnsmasq nginx openssl curl; do
  command -v "$tool" >/dev/null || skip "$tool is not installed"
done
readonly rows=14
quickstart=""
dir=$(mktemp -d "${TMPDIR:-/tmp}/egressd-quickstart.XXXXXX")
# The last word if something goes wrong: the quick start's own end is its EXIT trap.
leave() {
  if [[ -n $quickstart ]]; then
    kill -TERM -- "-$quickstart" 2>/dev/null || true
    wait "$quickstart" || true
  fi
  rm -rf --one-file-system "$dir"
}
trap leave EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
mkdir "$dir/tmp"

# In a process group of its own, as of a terminal's foreground job; every process it starts and
# every file it makes carries our mark.
start() {
  : >"$dir/out" # or the rows of the run before are seen
  set -m
  TMPDIR=$dir/tmp EGRESSD_QUICKSTART_MARK=$dir scripts/quickstart.sh </dev/null >"$dir/out" 2>&1 &
  quickstart=$!
  set +m
}
end() {
  status=0
  wait "$quickstart" || status=$?
  marked=$quickstart
  quickstart=""
}
ok_rows() { grep -cE '^[*a-z].* 200 [0-9.]+ms +ok .* refused +EPERM .*default_deny *$' "$dir/out"; }
processes() {
  local environ
  grep -lszxF "EGRESSD_QUICKSTART_MARK=$dir" /proc/[0-9]*/environ | while IFS= read -r environ; do
    tr '\0' ' ' 2>/dev/null <"${environ%environ}cmdline" || true
  done
}
nothing_left() {
  local left
  check "$1: no cgroup is left" test ! -e "$mount/egressd-sandbox.$marked"
  left=$(find "$dir/tmp" -mindepth 1)
  check "$1: no file is left${left:+: $left}" test -z "$left"
  # With its processes its namespaces are gone.
  left=$(processes || true)
  check "$1: no process is left${left:+: $left}" test -z "$left"
  left=$(grep -F "$dir" /proc/self/mountinfo || true)
  check "$1: nothing is mounted${left:+: $left}" test -z "$left"
}

for run in first second; do
  start
  end
  check "$run run: exit status 0, not $status" test "$status" -eq 0
  check "$run run: $(ok_rows) rows are ok" test "$(ok_rows)" -eq "$rows"
  check "$run run: says so" grep -q "^All $rows allowed names answered" "$dir/out"
  ((SANDBOX_FAILURES == 0)) || cat "$dir/out"
  nothing_left "$run run"
done

start
middle() { (($(ok_rows) >= 3)); }
wait_until 60 middle || die "no rows after a minute: $(<"$dir/out")"
check "processes carry the mark" test -n "$(processes || true)"
kill -INT -- "-$quickstart"
interrupted=${EPOCHREALTIME/./}
end
check "interrupted: exit status 130, not $status" test "$status" -eq 130
check "interrupted: at once" test $((${EPOCHREALTIME/./} - interrupted)) -lt 10000000
check "interrupted: in the middle, after $(ok_rows) rows" test "$(ok_rows)" -lt "$rows"
nothing_left "interrupted"
finish
