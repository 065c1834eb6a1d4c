#!/usr/bin/env bash
# egressctl doctor: all is well beside a running daemon, and each fault is found, named and explained.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

CLANG=${EGRESSD_BPF_CLANG:-clang-19}
for tool in "$CLANG" bpftool; do
  command -v "$tool" >/dev/null || skip "$tool is not installed"
done
sandbox_up
OUT=$SANDBOX_DIR/out
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
END

# examine [OPTION…]: status and $OUT.
examine() {
  status=0
  ctl doctor --bpffs "$SANDBOX_BPFFS" --state-dir "$SANDBOX_DIR/state" "$@" >"$OUT" 2>&1 || status=$?
}
# finds STATE TEXT…: one line has that state and all the texts.
finds() {
  local state=$1 lines text
  shift
  lines=$(grep "^$state " "$OUT") || return 1
  for text in "$@"; do
    lines=$(grep -F -- "$text" <<<"$lines") || return 1
  done
}
# Whether this machine's clock is kept by NTP is not for the test to say.
faults() { grep -v -e '^ok ' -e '^degraded  clock:' "$OUT"; }

examine --policy "$POLICY"
check "no daemon: $(grep daemon: "$OUT")" finds degraded "daemon: no daemon answers on $SANDBOX_SOCKET" "no policy is enforced → start egressd"
check "… status 1: $status" test "$status" -eq 1

start_egressd "$POLICY"
asked() { grep -cF 'query[A] allowed.example from' "$SANDBOX_DIR/dns.log"; }
before=$(asked)
examine
check "all is well beside a daemon: $(faults)" test -z "$(faults)"
check "… status: $status" test "$status" -le 1
check "the daemon's policy is looked at" finds ok "policy: $POLICY is valid, mode enforce"
check "the server was asked for the policy's name" finds ok "DNS server $DNS4 answers (allowed.example: NOERROR)"
check "… really" test "$(asked)" -gt "$before"
check "the cgroup is the daemon's" finds ok "cgroup: $SANDBOX_CGROUP: nobody else has programs there"
check "the kernel is looked at" finds ok "kernel: Linux $(uname -r) has all of"
check "as JSON" grep -qE '^\{"state":"(ok|degraded)","checks":\[.*\{"check":"jit","state":"ok","what":' \
  <(ctl doctor --json --bpffs "$SANDBOX_BPFFS" --state-dir "$SANDBOX_DIR/state")

status=0
ctl doctor --bpffs "$SANDBOX_DIR/none" >"$OUT" || status=$?
check "another directory for pins: $(faults)" finds broken "pins: a daemon answers, but nothing is pinned in $SANDBOX_DIR/none" "--bpffs"
check "… no BPF file system there" finds degraded "bpffs: no BPF file system is mounted at $SANDBOX_DIR/none" "mount -t bpf bpf"
check "… status 4: $status" test "$status" -eq 4

sed -i "s/servers: .*/servers: [$DNS4, 198.51.100.53, 192.0.2.77]/" "$POLICY"
examine
check "one of three servers refuses: $(faults)" finds degraded "resolver: DNS server 198.51.100.53 asked for allowed.example: " "dns.servers of the policy"
check "… one is silent" finds degraded "DNS server 192.0.2.77 asked for allowed.example: no answer in time"
check "… one answers" finds ok "DNS server $DNS4 answers"
dns_stop
examine
check "all are dead: $(faults)" finds broken "resolver: DNS server $DNS4 asked for" "reachable on port 53?"
check "… status 4: $status" test "$status" -eq 4
dns_start
sed -i "s/servers: .*/servers: [$DNS4]/" "$POLICY"

cat >"$SANDBOX_DIR/foreign.c" <<'END'
__attribute__((section("cgroup/connect4"), used)) int foreign_conn4(void *ctx) { return 1; }
__attribute__((section("cgroup_skb/egress"), used)) int foreign_egress(void *ctx) { return 1; }
END
"$CLANG" -O2 -target bpf -c "$SANDBOX_DIR/foreign.c" -o "$SANDBOX_DIR/foreign.o"
on_client bpftool prog loadall "$SANDBOX_DIR/foreign.o" "$SANDBOX_BPFFS/foreign"
foreign() { on_client bpftool cgroup "$1" "$SANDBOX_CGROUP" "$2" pinned "$SANDBOX_BPFFS/foreign/$3" "${@:4}"; }
foreign attach cgroup_inet_egress foreign_egress multi 2>/dev/null ||
  foreign attach egress foreign_egress multi
examine
check "who can only refuse more is named: $(faults)" finds ok "cgroup: $SANDBOX_CGROUP: beside egressd foreign_egress on egress"
foreign attach connect4 foreign_conn4 multi 2>/dev/null ||
  foreign attach cgroup_inet4_connect foreign_conn4 multi
examine
check "who may rewrite is a doubt: $(faults)" finds degraded "cgroup: foreign_conn4 (id " "on hook connect4 of $SANDBOX_CGROUP" "bpftool cgroup tree"

# As somebody who may nothing.
chmod 711 "$SANDBOX_DIR"
install -m 755 "$EGRESSCTL" "$SANDBOX_DIR/egressctl"
status=0
on_client setpriv --reuid 65534 --regid 65534 --clear-groups "$SANDBOX_DIR/egressctl" doctor \
  --socket "$SANDBOX_SOCKET" --bpffs "$SANDBOX_BPFFS" --state-dir "$SANDBOX_DIR/state" \
  --policy /dev/null >"$OUT" 2>&1 || status=$?
check "unprivileged: $(faults)" finds degraded "capabilities: the caller lacks CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF" "run egressctl doctor as root"
check "… may not ask the daemon" finds degraded "daemon: the daemon may not be asked" "as root"
check "… a policy that is none" finds broken "policy: /dev/null" "egressctl check"
check "… status 4: $status" test "$status" -eq 4

stop_egressd KILL
examine --policy "$POLICY"
check "pins without a daemon: $(grep daemon: "$OUT")" finds degraded "daemon: no daemon answers on $SANDBOX_SOCKET, but " "enforce the last policy" "egressctl detach --socket $SANDBOX_SOCKET --bpffs $SANDBOX_BPFFS"

# Attached the old way, alone on its hook: ours could not be put beside it.
check "detach" ctl detach --bpffs "$SANDBOX_BPFFS"
foreign detach connect4 foreign_conn4 2>/dev/null || foreign detach cgroup_inet4_connect foreign_conn4
foreign attach connect4 foreign_conn4 2>/dev/null || foreign attach cgroup_inet4_connect foreign_conn4
examine --policy "$POLICY" --cgroup "$SANDBOX_CGROUP"
check "who lets nobody else in: $(faults)" finds broken "cgroup: foreign_conn4" "no other may be there" "flag multi"
finish
