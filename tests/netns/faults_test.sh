#!/usr/bin/env bash
# A system call of the agent fails, whichever: at its first start, when it takes over from another,
# or while it reloads. After each either the old or the new policy is in force as a whole, nothing is
# ever open, and the agent runs, or has ended by itself with a message.
#   faults_test.sh [PHASE…]     first | adopt | reload; default: all
#   EGRESSD_FAULTS=all          each call in turn; default: a sample of a few seconds
#   EGRESSD_FAULTS_CALLS="bpf:ENOMEM …"   which calls fail, and how
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

command -v strace >/dev/null || die "strace is missing: run scripts/deps.sh test"
[[ -x ${DNS_CLIENT:-} ]] || die "DNS_CLIENT does not name the built dns_client"
if [[ ${EGRESSD_UNFILTERED:-} == 1 ]]; then skip "a sanitizer's own calls must not fail"; fi

# In a sample the first call of a kind fails, then each so-manieth.
# shellcheck disable=SC2034 # by reference
declare -A every_first=([bpf]=101 [rename]=3 [mmap]=97)
# shellcheck disable=SC2034
declare -A every_adopt=([bpf]=101 [fsync]=3 [bind]=3)
# shellcheck disable=SC2034
declare -A every_reload=([bpf]=1 [rename]=1 [fsync]=3 [socket]=3 [epoll_ctl]=3 [mmap]=5 [clone]=9)
read -ra calls <<<"${EGRESSD_FAULTS_CALLS:-bpf:ENOMEM openat:EMFILE write:ENOSPC rename:EIO fsync:EIO \
socket:EMFILE bind:EADDRINUSE mmap:ENOMEM clone:EAGAIN epoll_ctl:ENOMEM inotify_init1:EMFILE \
inotify_add_watch:ENOSPC sendto:ENOBUFS sendmsg:ENOBUFS}"

readonly ONE=203.0.113.5 TWO=198.51.100.9 NEVER=198.51.100.77
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
      - {name: host, addresses: [$1], ports: [22], protocols: [tcp]}
      - {name: both, addresses: [192.0.2.64/26, "fd65:6772::/64"], ports: [22], protocols: [tcp]}
      - {name: names, fqdns: [api.example.com, "*.$2.example.com"], ports: [443]}
END
}
sandbox_up
listen tcp 22 443
dns_set api.example.com 203.0.113.7
policy $ONE one >"$SANDBOX_DIR/one.yaml"
policy $TWO two >"$SANDBOX_DIR/two.yaml"
cp "$SANDBOX_DIR/one.yaml" "$POLICY"

# -D: the agent is the child, the tracer its grandchild.
cat >"$SANDBOX_DIR/faulty" <<'END'
#!/bin/sh
exec strace -D -f --seccomp-bpf -qq -o "$SANDBOX_DIR/trace" -e "trace=$FAULT_CALL" -e signal=none \
  -e "inject=$FAULT_CALL:error=$FAULT_ERROR:when=$FAULT_AT" "$FAULT_REAL" "$@"
END
chmod +x "$SANDBOX_DIR/faulty"
export FAULT_CALL FAULT_ERROR FAULT_AT FAULT_REAL=$EGRESSD

attached() { on_client bpftool cgroup show "$SANDBOX_CGROUP" | grep -cE '^[0-9]' || true; }
pinned() { on_client find "$SANDBOX_BPFFS" -name 'egressd_*'; }
injected() { grep -q INJECTED "$SANDBOX_DIR/trace"; }
reached() { [[ $(probe tcp "$1" 22 2>&1) == ok* ]]; }
# Or dead and not waited for.
gone() { ! grep -q '^State:[[:space:]]*[^ZX]' "/proc/$1/status" 2>/dev/null; }
ended() { gone "$SANDBOX_AGENT"; }
settled() { ended || [[ $(ctl status --json 2>/dev/null) == *'"attached":true'* ]]; }
detach() {
  on_client "$EGRESSCTL" detach --socket "$SANDBOX_SOCKET" --bpffs "$SANDBOX_BPFFS" >/dev/null 2>&1 ||
    true
  rm -rf "$SANDBOX_DIR/state"
}

faults=0 survived=0 gone=0 wrong=0
declare -A seen
bad() {
  wrong=$((wrong + 1))
  fail "$phase, call $FAULT_AT of $FAULT_CALL is $FAULT_ERROR: $*"
  tail -n 5 "$SANDBOX_DIR/egressd.log" | sed 's/^/    /'
}

# One policy or the other, not a mixture, and never what neither allows.
judge_whole() {
  local which target generation
  # Looked at between two reloads: a failed call may leave one to the watch on the file.
  for _ in 1 2 3 4 5; do
    which="" generation=$(status_number generation)
    for target in $ONE $TWO $NEVER; do
      if reached "$target"; then which+=" $target"; fi
    done
    [[ $(status_number generation) != "$generation" ]] || break
  done
  case $which in
    " $ONE" | " $TWO") ;;
    *) bad "reachable are:$which" ;;
  esac
  target=$(attached)
  [[ $target == "$programs" ]] || bad "$target programs attached, not $programs"
}

# The agent has ended: by itself, and with a message.
judge_end() {
  local status=0
  wait "$SANDBOX_AGENT" || status=$?
  SANDBOX_AGENT=""
  gone=$((gone + 1))
  ((status > 0 && status < 128)) || bad "the agent ended with status $status"
  [[ -s $SANDBOX_DIR/egressd.log || $FAULT_CALL == write ]] || bad "the agent said nothing"
}

launch_faulty() {
  : >"$SANDBOX_DIR/trace"
  : >"$SANDBOX_DIR/egressd.log"
  EGRESSD=$SANDBOX_DIR/faulty launch_egressd "$POLICY"
  wait_until 20 settled || bad "neither in force nor ended"
}

end_agent() {
  survived=$((survived + 1))
  stop_egressd KILL
}

fault_first() {
  local left
  launch_faulty
  if ended; then
    judge_end
    left="$(attached) attached, pinned: $(pinned)"
    [[ $left == "0 attached, pinned: " ]] || bad "left behind: $left"
  else
    judge_whole
    end_agent
  fi
  detach
}

swap_policy() {
  local next=one
  if cmp -s "$POLICY" "$SANDBOX_DIR/one.yaml"; then next=two; fi
  cp "$SANDBOX_DIR/$next.yaml" "$POLICY.new"
  mv "$POLICY.new" "$POLICY"
}

fault_adopt() {
  swap_policy
  launch_faulty
  if ended; then judge_end; else end_agent; fi
  judge_whole
}

fault_reload() {
  local tracer
  : >"$SANDBOX_DIR/trace"
  : >"$SANDBOX_DIR/egressd.log"
  strace -f -p "$SANDBOX_AGENT" -o "$SANDBOX_DIR/trace" -e "trace=$FAULT_CALL" -e signal=none \
    -e "inject=$FAULT_CALL:error=$FAULT_ERROR:when=$FAULT_AT" 2>"$SANDBOX_DIR/attach" &
  tracer=$!
  wait_until 5 grep -q attached "$SANDBOX_DIR/attach" || die "strace: $(<"$SANDBOX_DIR/attach")"
  swap_policy
  timeout 10 "$EGRESSCTL" reload --socket "$SANDBOX_SOCKET" >/dev/null 2>&1 || true
  kill -INT "$tracer" 2>/dev/null || true
  # It does not notice the end of an agent that died of a signal.
  wait_until 2 gone "$tracer" || kill -KILL "$tracer"
  wait "$tracer" 2>/dev/null || true
  if ended; then
    judge_end
    judge_whole
    start_egressd "$POLICY"
  else
    survived=$((survived + 1))
    judge_whole
  fi
}

sweep() {
  local call every
  local -n table=every_$phase
  for call in "${calls[@]}"; do
    FAULT_CALL=${call%:*} FAULT_ERROR=${call#*:}
    every=${table[$FAULT_CALL]:-0}
    if [[ ${EGRESSD_FAULTS:-} == all ]]; then every=1; fi
    ((every > 0)) || continue
    FAULT_AT=1
    # What the dynamic loader asks for before the agent's first instruction is not the agent's.
    if [[ $phase != reload && $FAULT_CALL == mmap ]]; then
      FAULT_AT=$(strace -e trace=mmap "$EGRESSD" --version 2>&1 | grep -c '^mmap')
    fi
    for (( ; ; FAULT_AT += every)); do
      "fault_$phase"
      injected || break
      faults=$((faults + 1))
      seen[$phase $FAULT_CALL]=$((${seen[$phase $FAULT_CALL]:-0} + 1))
    done
  done
}

start_egressd "$POLICY"
programs=$(attached)
check "$programs programs" test "$programs" -gt 5
stop_egressd KILL
(($#)) || set -- first adopt reload
for phase in "$@"; do
  faults=0 survived=0 gone=0 wrong=0 knocker=""
  detach
  if [[ $phase != first ]]; then
    start_egressd "$POLICY"
    # Somebody knocks all the time.
    EGRESSD_CLIENT_PACE_MS=5 spawn in_client "$DNS_CLIENT" forbidden 0 10000000 "n%d.other.test" \
      $NEVER >"$SANDBOX_DIR/knocks" 2>&1
    knocker=$REPLY
    [[ $phase == reload ]] || stop_egressd KILL
  fi
  sweep
  check "$phase: $faults calls failed; the agent went on after $survived and ended after $gone" \
    test "$faults" -gt 0 -a "$wrong" -eq 0
  if [[ -n $knocker ]]; then
    kill -TERM "$knocker"
    wait "$knocker" || true
    read -r _ names _ _ _ refused _ failed < <(tail -n 1 "$SANDBOX_DIR/knocks")
    check "$phase: $refused of $((2 * names)) knocks meanwhile were refused, $failed not" \
      test "$names" -gt 10 -a "$refused" -eq $((2 * names)) -a "$failed" -eq 0
  fi
  if [[ -n $SANDBOX_AGENT ]]; then stop_egressd KILL; fi
done
for call in "${!seen[@]}"; do printf '%s: %s\n' "$call" "${seen[$call]}"; done | sort
finish
