#!/usr/bin/env bash
# What the agent tells systemd (sd_notify(3)), after it gave up its rights: ready when the policy is
# in force, reloads and what came of them, alive while its loop turns, stopping. And: begun at boot
# before resolv.conf is there, it is ready, refuses, and follows the file when it comes.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

sandbox_up
listen tcp 22 443
dns_set api.example.com 203.0.113.7
policy() {
  cat <<POLICY
version: 1
mode: enforce
collections:
  - name: all
    priority: 200
    action: allow
    rules:
      - {name: host, addresses: [203.0.113.65], ports: [22], protocols: [tcp]}
      - {name: names, fqdns: [$1], ports: [443]}
POLICY
}
policy "'*.example.com'" | write_policy

# A line per datagram; its own line ends become blanks. Line by line on disk.
TOLD=$SANDBOX_DIR/told
spawn on_client python3 -u -c '
import socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind("\0egressd-notify")
print("listens")
while True:
    print(s.recv(4096).decode().replace("\n", " "))' >"$TOLD"
wait_until 5 grep -q listens "$TOLD" || die "no listener: $(<"$TOLD")"
lines() { wc -l <"$TOLD"; }
# told FROM_LINE REGEX…: after that line these came, in this order.
told() {
  local all regex=""
  all=$(tail -n "+$(($1 + 1))" "$TOLD" | grep -v '^WATCHDOG=1$' | tr '\n' '|') || true
  shift
  for part in "$@"; do regex+="$part\\|.*"; done
  [[ $all =~ $regex ]]
}
expect_told() {
  local what=$1
  shift
  check "$what" wait_until 5 told "$@"
}
alive() { tail -n "+$(($1 + 1))" "$TOLD" | grep -qx WATCHDOG=1; }

export NOTIFY_SOCKET=@egressd-notify WATCHDOG_USEC=400000

# Nobody may be asked, as at boot.
cp "$SANDBOX_DIR/resolv.conf" "$SANDBOX_DIR/resolv.conf.good"
: >"$SANDBOX_DIR/resolv.conf"
from=$(lines)
start_egressd "$POLICY" --await-resolv-conf
expect_told "without a DNS server: ready" "$from" \
  'READY=1 STATUS=enforce, generation 1: 2 rules, 1 name patterns'
expect_ok "an allowed address" tcp 203.0.113.65 22
expect_errno EPERM default_deny "refused" tcp 198.51.100.9 22
expect_errno EPERM dns_server_not_allowed "no server may be asked" \
  ask "$DNS4" 53 --name api.example.com
warned() { ctl status --json | grep -q 'no DNS server may be asked yet'; }
check "the status says so" warned
kill -HUP "$SANDBOX_AGENT"
expect_told "a reload without one" "$from" 'READY=1[^|]*' 'RELOADING=1 MONOTONIC_USEC=[0-9]+' \
  'READY=1 STATUS=enforce, generation 2[^|]*'
cat "$SANDBOX_DIR/resolv.conf.good" >"$SANDBOX_DIR/resolv.conf"
resolves() { [[ $(probe resolve api.example.com 443 -4) == ok* ]]; }
check "the server that comes is trusted" wait_until 5 resolves
check "no warning is left" test -z "$(ctl status --json | grep 'may be asked yet')"

# Alive while the loop turns, and only then.
from=$(lines)
check "alive" wait_until 5 alive "$from"
kill -STOP "$SANDBOX_AGENT"
stopped() { grep -q '^State:[[:space:]]*T' "/proc/$SANDBOX_AGENT/status"; }
wait_until 5 stopped
from=$(lines)
sleep 0.6
check "not while it is stopped" test "$(lines)" -eq "$from"
kill -CONT "$SANDBOX_AGENT"
check "alive again" wait_until 5 alive "$from"

from=$(lines)
policy api.example.com | write_policy
expect_told "a changed policy is a reload" "$from" 'RELOADING=1[^|]*' \
  'READY=1 STATUS=enforce, generation [0-9]+: 2 rules, 1 name patterns'
from=$(lines)
echo 'mode: nonsense' | write_policy
expect_told "a refused one ends, and is told" "$from" 'RELOADING=1[^|]*' \
  'READY=1 STATUS=enforce, generation [0-9]+: 2 rules, 1 name patterns; the last reload went wrong, see egressctl status'
# A trial and its ends.
policy api.example.com | write_policy
policy api.example.com >"$SANDBOX_DIR/next.yaml"
wait_until 5 told "$from" 'READY=1 STATUS=enforce, generation [0-9]+: 2 rules, 1 name patterns'
from=$(lines)
ctl try "$SANDBOX_DIR/next.yaml" --for 60s >/dev/null
expect_told "on trial" "$from" 'READY=1 STATUS=enforce, generation [0-9]+: 2 rules, 1 name patterns; on trial'
from=$(lines)
ctl rollback >/dev/null
expect_told "rolled back" "$from" 'READY=1 STATUS=enforce, generation [0-9]+: 2 rules, 1 name patterns'
ctl try "$SANDBOX_DIR/next.yaml" --for 60s >/dev/null
from=$(lines)
ctl confirm >/dev/null
expect_told "confirmed" "$from" 'READY=1 STATUS=enforce, generation [0-9]+: 2 rules, 1 name patterns'

from=$(lines)
kill -TERM "$SANDBOX_AGENT"
expect_told "stopping" "$from" 'STOPPING=1'
wait "$SANDBOX_AGENT"
check "what is told last is that" test "$(tail -n 1 "$TOLD")" = STOPPING=1

# What an agent left in force knows whom to ask: the next does not take it over with nobody.
: >"$SANDBOX_DIR/resolv.conf"
out=$(on_client "$EGRESSD" run --policy "$POLICY" --bpffs "$SANDBOX_BPFFS" --state-dir "$SANDBOX_DIR/state" \
  --socket "$SANDBOX_SOCKET" --cgroup "$SANDBOX_CGROUP" --await-resolv-conf 2>&1) && out=started
check "no DNS server, after another agent: ${out##*$'\n'}" grep -q resolv.conf <<<"${out##*$'\n'}"
expect_ok "the server may still be asked" ask "$DNS4" 53 --name api.example.com
cat "$SANDBOX_DIR/resolv.conf.good" >"$SANDBOX_DIR/resolv.conf"

# exec's agent is not the service that exec runs in.
policy api.example.com | write_policy
from=$(lines)
# shellcheck disable=SC2016 # expanded by the inner shell
out=$(in_client env TMPDIR="$SANDBOX_DIR" "$EGRESSCTL" exec --egressd "$EGRESSD" --policy "$POLICY" -- \
  sh -c 'echo "ran with $NOTIFY_SOCKET"' 2>&1) || true
check "exec: $out" test "$out" = "ran with $NOTIFY_SOCKET"
check "it told nothing" test "$(lines)" -eq "$from"

SANDBOX_AGENT=""
for where in "vsock:2:1" "relative"; do
  out=$(NOTIFY_SOCKET=$where on_client "$EGRESSD" run --policy "$POLICY" --bpffs "$SANDBOX_BPFFS/other" \
    --state-dir "$SANDBOX_DIR/other" --socket "$SANDBOX_DIR/other.sock" --cgroup "$SANDBOX_CGROUP" 2>&1) && out=started
  check "NOTIFY_SOCKET=$where: ${out##*$'\n'}" grep -q NOTIFY_SOCKET <<<"$out"
done
finish
