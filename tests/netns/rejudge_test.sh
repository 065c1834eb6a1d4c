#!/usr/bin/env bash
# A deny rule below a wildcard ends what its name was granted before, whoever heard the answer: this
# agent, one before it, none, or one that waited for the answer during the reload. What the policy
# leaves as it was goes on, its open connections too.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

sandbox_up
listen tcp 443
for ((i = 1; i <= 40; i++)); do
  printf '203.0.113.%d n%d.wild.test\n' "$i" "$i"
done >>"$SANDBOX_DIR/hosts"
kill -HUP "$SANDBOX_DNS"
# policy MORE DENIED…: *.wild.test, and MORE, without DENIED.
policy() {
  local more=$1
  shift
  {
    printf 'version: 1\nmode: enforce\ndns: {servers: [%s]}\ncollections:\n' "$DNS4"
    if (($# > 0)); then
      printf '  - name: refused\n    priority: 100\n    action: deny\n    rules:\n'
      printf '      - {name: bad, fqdns: [%s], ports: ["*"], protocols: [any]}\n' \
        "$(tr ' ' ',' <<<"$*")"
    fi
    printf '  - name: names\n    priority: 200\n    action: allow\n    rules:\n'
    printf '      - {name: wild, fqdns: ["*.wild.test"%s], ports: [443]}\n' "${more:+, $more}"
  } >"$POLICY"
}
# Kills the agent; then names are asked. With nftables nobody would answer: they are asked before.
heard_alone() {
  local name
  [[ $EGRESSD_BACKEND == nft ]] || stop_egressd KILL
  for name in "$@"; do
    expect_ok "heard by no agent" resolve "$name.wild.test" 443 -4
  done
  [[ -z $SANDBOX_AGENT ]] || stop_egressd KILL
}
numbers() { grep -v '^next' "$SANDBOX_DIR/state/names"; }

policy ""
start_egressd "$POLICY"
expect_ok "heard by the first agent" resolve n1.wild.test 443 -4
expect_ok "…" resolve n2.wild.test 443 -4
HOLD_TIMEOUT=500 hold_open 203.0.113.1 443
good_out=$HOLD_OUT good_in=$HOLD_IN
HOLD_TIMEOUT=500 hold_open 203.0.113.2 443
bad_out=$HOLD_OUT bad_in=$HOLD_IN
before=$(numbers)
reload_egressd
heard_alone n3 n4
start_egressd "$POLICY"
check "reload and restart, same policy: same numbers" test "$(numbers)" = "$before"
expect_ok "…: heard by the first agent" tcp 203.0.113.2 443
expect_ok "…: heard by no agent" tcp 203.0.113.3 443
HOLD_OUT=$bad_out HOLD_IN=$bad_in
expect_hold_ok "…: an open connection"
policy "n2.wild.test"
reload_egressd
stop_egressd KILL
start_egressd "$POLICY"
expect_ok "a narrower pattern that refuses nothing: heard by the first agent" tcp 203.0.113.2 443
expect_hold_ok "…: an open connection"

policy ""
reload_egressd
heard_alone n5 n6
policy "" n2.wild.test n4.wild.test n6.wild.test n7.wild.test
start_egressd "$POLICY"
expect_errno EPERM deny_rule "refused since the restart, heard by the first agent" \
  tcp 203.0.113.2 443
line=$(hold_echo)
check "its open connection is cut: $line" grep -q "^errno=" <<<"$line"
expect_errno EPERM "$(reason_gone)" "…, heard by the second" tcp 203.0.113.4 443
expect_errno EPERM "$(reason_gone)" "…, heard by no agent" tcp 203.0.113.6 443
if [[ $EGRESSD_BACKEND == nft ]]; then
  # Nothing in the kernel tells the next agent which name it was.
  expect_ok "a sibling of an earlier agent, asked again" resolve n5.wild.test 443 -4
else
  expect_ok "a sibling, heard by no agent" tcp 203.0.113.5 443
fi
expect_unasked n7.wild.test "refused"
expect_ok "a sibling of earlier agents, asked again" resolve n3.wild.test 443 -4

# While the policy does not change, nothing of it is taken back.
HOLD_TIMEOUT=500 hold_open 203.0.113.3 443
before=$(numbers)
stop_egressd KILL
start_egressd "$POLICY"
reload_egressd
check "restart and reload under it: same numbers" test "$(numbers)" = "$before"
expect_hold_ok "an open connection goes on"

# Learned in the last milliseconds before the reload: the agent has not heard of it yet.
for i in 11 12 13 14 15; do
  policy ""
  reload_egressd
  expect_ok "at first" resolve "n$i.wild.test" 443 -4
  policy "" "n$i.wild.test"
  in_client "$EGRESSD_PROBE" ask "$DNS4" 53 --name "n$i.wild.test" >/dev/null
  reload_egressd
  expect_errno EPERM "$(reason_gone)" "learned just before the reload" tcp "203.0.113.$i" 443
done

# Asked before the reload, answered after it.
dns_stop
cat >"$SANDBOX_DIR/slow.py" <<'END'
# Says 203.0.113.N of nN.wild.test, half a second late.
import socket, threading, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("192.0.2.1", 53))
print("ready", flush=True)
def answer(question, peer):
    end = question.index(b"\0", 12)
    number = int(question[14:13 + question[12]])
    qtype = question[end + 2]
    time.sleep(0.5)
    message = question[:2] + b"\x81\x80\0\1" + (b"\0\1" if qtype == 1 else b"\0\0") + b"\0\0\0\0"
    message += question[12:end + 5]
    if qtype == 1:
        message += b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + bytes([203, 0, 113, number])
    s.sendto(message, peer)
while True:
    threading.Thread(target=answer, args=s.recvfrom(4096), daemon=True).start()
END
serve in_server /usr/bin/python3 "$SANDBOX_DIR/slow.py"
policy ""
reload_egressd
spawn in_client "$EGRESSD_PROBE" ask "$DNS4" 53 --name n20.wild.test
asked=$REPLY
spawn in_client "$EGRESSD_PROBE" ask "$DNS4" 53 --name n21.wild.test
sleep 0.2
policy "" n20.wild.test
reload_egressd
wait "$asked" || true
expect_errno EPERM default_deny "asked before the reload, answered after it" tcp 203.0.113.20 443
expect_ok "its sibling" tcp 203.0.113.21 443
: "$good_out" "$good_in"
finish
