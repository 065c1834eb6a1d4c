#!/usr/bin/env bash
# Real clients, real DNS servers, kernel programs, and no agent: each name is asked once and its
# address used at once. Passes if not one first packet is refused, and if answers that must not
# teach do not, while the same bytes from where they should come do.
#
#   client namespace 192.0.2.2, fd65:6772::2 -- veth -- server namespace 192.0.2.1, fd65:6772::1
#                                 knot on 192.0.2.1, unbound before it on .7, our own on .5
#
# The server namespace answers on every address of 20.0.0.0/8 and 2a20::/16: each name has its own,
# so nothing is known beforehand. Everything is made here and removed here.
#
# DNS_LOADER and DNS_CLIENT are the programs of tests/bpf; NAMES how many names per kind: 10000 make
# more than 150,000 connections.
set -euo pipefail

LOADER=${DNS_LOADER:?}
CLIENT=${DNS_CLIENT:?}
NAMES=${NAMES:-2000}
ADDRESSES=30

skip() { echo "SKIPPED: $*"; exit 77; }
[ "$(id -u)" = 0 ] || skip "needs root"
for tool in knotd unbound nft; do
  command -v "$tool" >/dev/null || skip "needs $tool"
done

# The namespaces' devices and mounts live in a process of our own; see the end of the file.
DIR=$(mktemp -d /tmp/egressd-dns-XXXXXX)
PIDS=()
CGROUP=""
cleanup() {
  for pid in "${PIDS[@]}"; do kill -9 "$pid" 2>/dev/null || true; done
  if [ -n "$CGROUP" ] && [ -d "$CGROUP" ]; then
    for _ in 1 2 3 4 5 6 7 8 9 10; do rmdir "$CGROUP" 2>/dev/null && break; sleep 0.1; done
  fi
  if mountpoint -q "$DIR/bpf"; then umount "$DIR/bpf"; fi
  rm -rf "$DIR"
}
trap cleanup EXIT

FAILURES=0
ok() { printf 'ok      %s\n' "$*"; }
bad() { printf 'FAILED  %s\n' "$*"; FAILURES=$((FAILURES + 1)); }

# A namespace held by a process that dies with us. Sets REPLY to its pid.
hold() {
  unshare -n -m --propagation private sleep infinity &
  disown
  REPLY=$!
  PIDS+=("$REPLY")
  for _ in $(seq 100); do
    [ "$(readlink /proc/$REPLY/ns/net)" != "$(readlink /proc/$$/ns/net)" ] && break
    sleep 0.02
  done
  nsenter -t "$REPLY" -n ip link set lo up
}
# In the background, until the end. Not through into(): the pid must be that of the command.
daemon() {
  nsenter -t "$1" -n -m "${@:2}" &
  disown
  PIDS+=("$!")
}
into() { local pid=$1; shift; nsenter -t "$pid" -n -m "$@"; }
# As the workload: in the cgroup, in the client's namespace.
workload() { sh -c 'echo $$ > "$0/cgroup.procs" && exec "$@"' "$CGROUP" nsenter -t "$WHERE" -n -m "$@"; }

hold; C=$REPLY
hold; S=$REPLY
ip link add eg0 netns "$C" type veth peer name eg1 netns "$S"
into "$C" ip addr add 192.0.2.2/24 dev eg0
into "$C" ip addr add fd65:6772::2/64 dev eg0 nodad
into "$C" ip link set eg0 up
for address in 192.0.2.1 192.0.2.5 192.0.2.7; do
  into "$S" ip addr add "$address/24" dev eg1
done
into "$S" ip addr add fd65:6772::1/64 dev eg1 nodad
into "$S" ip link set eg1 up
into "$C" ip route add default via 192.0.2.1
into "$C" ip -6 route add default via fd65:6772::1
# Neighbour discovery loses its first packet while the link comes up, and asks again after a second.
for gateway in 192.0.2.1 fd65:6772::1; do
  for _ in $(seq 20); do
    into "$C" ping -q -c 1 -W 1 "$gateway" >/dev/null && break
  done
done
into "$S" ip route add local 20.0.0.0/8 dev lo
into "$S" ip -6 route add local 2a20::/16 dev lo
WHERE=$C
printf 'nameserver 192.0.2.1\noptions timeout:2 attempts:2\n' > "$DIR/resolv.conf"
into "$C" mount --bind "$DIR/resolv.conf" /etc/resolv.conf

# 20.a.b.c for number 65536 a + 256 b + c; one zone, so that the server sends whole CNAME chains.
python3 - "$NAMES" "$ADDRESSES" > "$DIR/zone" <<'PY'
import sys
names, many = int(sys.argv[1]), int(sys.argv[2])
print("$ORIGIN zone.test.\n$TTL 60\n@ SOA ns hostmaster 1 60 60 60 60\n@ NS ns\nns A 192.0.2.1")
next_address = [1]
def address():
    n = next_address[0]
    next_address[0] += 1
    return n
def v4(n): return f"20.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}"
def v6(n): return f"2a20::{n >> 16:x}:{n & 65535:x}"
for i in range(names):
    print(f"a{i}.one A {v4(address())}")
    print(f"r{i}.one A {v4(address())}")
    print(f"v{i}.one A {v4(address())}")
    print(f"f{i}.one A {v4(address())}")
    print(f"u{i}.one A {v4(address())}")
    print(f"e{i}.one A {v4(address())}")
    print(f"w{i}.one A {v4(address())}")
    for k in range(3):
        print(f"u{i}.l{k}.chain CNAME u{i}.l{k + 1}.chain")
    print(f"u{i}.l3.chain AAAA {v6(address())}")
    print(f"x{i}.six AAAA {v6(address())}")
    for k in range(3):
        print(f"c{i}.l{k}.chain CNAME c{i}.l{k + 1}.chain")
    print(f"c{i}.l3.chain A {v4(address())}")
for i in range(names // 25):
    for _ in range(many):
        print(f"m{i}.many A {v4(address())}")
    for _ in range(3 * many):
        print(f"t{i}.trunc A {v4(address())}")
for i in range(40):
    print(f"l{i}.one A {v4(address())}")
    for _ in range(200):
        print(f"b{i}.big A {v4(address())}")
for i in range(8):
    for _ in range(3 * many):
        print(f"l{i}.trunc A {v4(address())}")
for i in range(20):
    print(f"denied{i} A 20.255.0.{i + 1}")
PY
cat > "$DIR/knot.conf" <<CONF
server:
    rundir: $DIR
    listen: [ 192.0.2.1@53, fd65:6772::1@53 ]
    udp-max-payload: 4096
    tcp-reuseport: off
database:
    storage: $DIR
log:
  - target: stderr
    any: error
zone:
  - domain: zone.test
    file: $DIR/zone
CONF
daemon "$S" knotd -c "$DIR/knot.conf" 2>"$DIR/knot.log"
cat > "$DIR/unbound.conf" <<CONF
server:
    interface: 192.0.2.7
    access-control: 0.0.0.0/0 allow
    username: ""
    chroot: ""
    pidfile: ""
    directory: "$DIR"
    module-config: "iterator"
    local-zone: "test." nodefault
    do-daemonize: no
    num-threads: 1
    minimal-responses: yes
    msg-cache-size: 64m
    rrset-cache-size: 128m
stub-zone:
    name: zone.test
    stub-addr: 192.0.2.1
remote-control:
    control-enable: no
CONF
daemon "$S" unbound -d -c "$DIR/unbound.conf" 2>"$DIR/unbound.log"
# Our own server on .5: says 20.254.0.1 to everything, with the TTL a name starting with "ttl" wants;
# of names that start with "forged" it says nothing.
cat > "$DIR/fake.py" <<'PY'
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 53))
ttls = {b"ttlzero": b"\0\0\0\0", b"ttlmany": b"\xff\xff\xff\xff"}
while True:
    q, peer = s.recvfrom(512)
    if q[13:19] == b"forged":
        continue
    last = 2 if q[13:20] in ttls else 1
    a = (q[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + q[12:] + b"\xc0\x0c\0\1\0\1" +
         ttls.get(q[13:20], b"\0\0\0\x3c") + b"\0\4" + bytes([20, 254, q[20] if last == 2 else 0, last]))
    s.sendto(a, peer)
PY
daemon "$S" python3 "$DIR/fake.py" 192.0.2.5
# One listener for every address, v4 and v6; it only has to complete handshakes.
cat > "$DIR/listen.py" <<'PY'
import socket
s = socket.socket(socket.AF_INET6)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("::", 443))
s.listen(4096)
while True:
    c, _ = s.accept()
    c.close()
PY
daemon "$S" python3 "$DIR/listen.py"
for server in 192.0.2.1 192.0.2.5 192.0.2.7; do
  for _ in $(seq 200); do
    into "$S" python3 -c 'import socket, sys
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.settimeout(0.3)
s.sendto(bytes.fromhex("000101000001000000000000")+b"\x04zone\x04test\x00\x00\x06\x00\x01",(sys.argv[1],53)); s.recv(512)' $server 2>/dev/null && break
    sleep 0.1
  done
done

line=$(grep -m1 ' - cgroup2 ' /proc/self/mountinfo)
read -r _ _ _ _ cgroup_mount _ <<<"$line"
CGROUP=$cgroup_mount/egressd-dns-$$
mkdir "$CGROUP"
mkdir "$DIR/bpf"
mount -t bpf bpf "$DIR/bpf"
INODE=$(stat -L -c %i "/proc/$C/ns/net")
IFINDEX=$(into "$C" ip -o link show eg0 | cut -d: -f1)
cat > "$DIR/policy" <<POLICY
pattern *.one.zone.test 1
pattern *.six.zone.test 2
pattern *.chain.zone.test 3
pattern *.many.zone.test 4
pattern *.trunc.zone.test 5
pattern *.big.zone.test 6
pattern forged.zone.test 7
server 192.0.2.1 1
server 192.0.2.5 1
server 192.0.2.7 1
local 192.0.2.2
link $INODE $IFINDEX 1
POLICY
"$LOADER" attach "$CGROUP" "$DIR/bpf" "$DIR/policy" >/dev/null # and is gone: no agent from here on

# count dstats N
count() { "$LOADER" counts "$DIR/bpf" | awk -v m="$1" -v k="$2" '$1 == m && $2 == k { print $3; f = 1 } END { if (!f) print 0 }'; }

CONNECTIONS=0
# tally OUTPUT…: adds up what clients say.
tally() {
  local n
  while read -r _ n; do
    CONNECTIONS=$((CONNECTIONS + n))
  done < <(grep -ho 'connections [0-9]*' "$@")
}
expect_all() {
  local what=$1 started=${EPOCHREALTIME/./}
  shift
  if workload "$CLIENT" "$@" > "$DIR/out" 2>&1; then
    ok "$what: $(<"$DIR/out"), $(((${EPOCHREALTIME/./} - started) / 1000)) ms"
  else bad "$what: $(<"$DIR/out")"; fi
  tally "$DIR/out"
}
# four WHAT MODE COUNT FORMAT…: four clients at once, a quarter of the names each.
four() {
  local what=$1 mode=$2 each=$(($3 / 4)) format=$4 i failed=0 pids=() started=${EPOCHREALTIME/./}
  shift 4
  for i in 0 1 2 3; do
    workload "$CLIENT" "$mode" $((i * each)) $each "$format" "$@" > "$DIR/four$i" 2>&1 &
    pids+=("$!")
  done
  for i in 0 1 2 3; do wait "${pids[i]}" || failed=1; done
  if [ $failed = 0 ]; then ok "$what, four clients at once: $(sort "$DIR"/four[0-3] | uniq -c | tr -s ' \n' ' '), $(((${EPOCHREALTIME/./} - started) / 1000)) ms"
  else bad "$what, four clients at once: $(cat "$DIR"/four[0-3])"; fi
  tally "$DIR"/four[0-3]
}
# use ADDRESS…: resolv.conf of the workload.
use() { printf 'nameserver %s\noptions %s\n' "$1" "${2:-timeout:2 attempts:2}" > "$DIR/resolv.conf"; }
# reaches ADDRESS: may the workload send there?
reaches() {
  workload python3 -c 'import socket, sys
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.sendto(b"x",(sys.argv[1],443))' "$1" 2>/dev/null
}

expect_all "A, connect at once" tcp4 0 "$NAMES" a%d.one.zone.test
expect_all "A, datagram straight after the answer" raw 0 "$NAMES" r%d.one.zone.test 192.0.2.1
expect_all "names in mixed case" mixed 0 "$NAMES" w%d.one.zone.test 192.0.2.1
expect_all "AAAA" tcp6 0 "$NAMES" x%d.six.zone.test
expect_all "A behind three CNAMEs" tcp4 0 "$NAMES" c%d.l0.chain.zone.test
expect_all "thirty addresses, each used" tcp4 0 $((NAMES / 25)) m%d.many.zone.test
expect_all "ninety addresses: truncated, then over TCP" tcp4 0 $((NAMES / 25)) t%d.trunc.zone.test
expect_all "every query over TCP" vc 0 "$NAMES" v%d.one.zone.test
# Datagrams of the client's namespace put together from fragments.
# shellcheck disable=SC2016 # expanded by awk
reassembled() { into "$C" awk '$1 == "Ip:" && $2 ~ /[0-9]/ { print $16 }' /proc/self/net/snmp; }
before=$(reassembled)
expect_all "EDNS 4096, two hundred addresses in fragments" edns 0 40 b%d.big.zone.test 192.0.2.1
after=$(reassembled)
if [ $((after - before)) -ge 40 ]; then ok "$((after - before)) answers came in fragments"
else bad "only $((after - before)) answers came in fragments"; fi
four "A" tcp4 "$NAMES" f%d.one.zone.test
use 192.0.2.7
four "A, unbound" tcp4 "$NAMES" u%d.one.zone.test
four "AAAA behind three CNAMEs, unbound" tcp6 "$NAMES" u%d.l0.chain.zone.test
four "raw, unbound" raw "$NAMES" e%d.one.zone.test 192.0.2.7
use 192.0.2.1
held=$(count dstats 32)

expect_all "TTL 0" raw 1 1 ttlzero%d.one.zone.test 192.0.2.5
expect_all "TTL 4294967295" raw 2 1 ttlmany%d.one.zone.test 192.0.2.5
sleep 1.1
# The address ends in the digit behind the name.
if reaches 20.254.49.2 && reaches 20.254.50.2; then ok "both addresses are still there after a second"
else bad "addresses with TTL 0 or 4294967295 ended within a second"; fi

before=$(count dstats 4)
if workload "$CLIENT" raw 0 20 denied%d.zone.test 192.0.2.1 > "$DIR/denied" 2>&1; then bad "names without a rule left"
elif grep -q 'refused 20 failed 0' "$DIR/denied" && [ "$(count dstats 4)" = $((before + 20)) ]; then
  ok "names without a rule: EPERM at once, 20 of 20, counted"
else bad "names without a rule: $(cat "$DIR/denied")"; fi
# Waits out its timeouts, beside what follows.
before_tcp=$(count dstats 4)
RES_OPTIONS="timeout:1 attempts:1" workload "$CLIENT" vc 0 1 denied%d.zone.test > "$DIR/denied_tcp" 2>&1 &
over_tcp=$!

# Segments of 100 bytes or less: the answer over TCP comes in dozens of them.
into "$C" ip route change default via 192.0.2.1 advmss 100 2>/dev/null || true
into "$C" ip route replace 192.0.2.1/32 dev eg0 advmss 100
few=$((NAMES / 25 > 20 ? 20 : NAMES / 25))
# Or the kernel would cut them behind the server, and put them together before the client.
into "$S" ip link set eg1 gso_max_segs 1
into "$C" nft 'table inet seen { chain in { type filter hook prerouting priority -200; tcp sport 53 counter; }; }'
expect_all "over TCP in segments of 100 bytes" tcp4 0 $few t%d.trunc.zone.test
segments=$(into "$C" nft list table inet seen | sed -n 's/.*packets \([0-9]*\).*/\1/p')
if [ "$segments" -ge $((few * 15)) ]; then ok "$segments segments"
else bad "only $segments segments"; fi

# One in twenty lost, each way, of questions, answers and segments alike. Not netem, which few
# kernels have: dropped where the receiver's stack has not seen it yet.
for place in "$C:sport" "$S:dport"; do
  into "${place%:*}" nft "table inet loss { chain in { type filter hook prerouting priority -100;
    meta l4proto { tcp, udp } th ${place#*:} 53 numgen inc mod 20 0 counter drop; }; }"
done
use 192.0.2.1 "timeout:1 attempts:5"
four "with loss" tcp4 40 l%d.one.zone.test
four "with loss, over TCP in small segments" tcp4 8 l%d.trunc.zone.test
lost=0
for place in "$C" "$S"; do
  lost=$((lost + $(into "$place" nft list table inet loss | sed -n 's/.*packets \([0-9]*\).*/\1/p')))
  into "$place" nft delete table inet loss
done
if [ $lost -gt 10 ]; then ok "$lost packets lost, $(($(count dstats 32) - held)) segments held for order"
else bad "only $lost packets lost"; fi
into "$C" ip route del 192.0.2.1/32
into "$S" ip link set eg1 gso_max_segs 65535
use 192.0.2.1

if wait $over_tcp; then bad "a name without a rule left over TCP"
elif grep -q 'connections 0 ' "$DIR/denied_tcp" && [ "$(count dstats 4)" -gt "$before_tcp" ]; then
  ok "a name without a rule, over TCP: $(tail -n 1 "$DIR/denied_tcp")"
else bad "a name without a rule, over TCP: $(cat "$DIR/denied_tcp")"; fi
expect_all "allowed names after it" vc 0 20 a%d.one.zone.test

# A resolver of one's own: the trusted one's address, the same ifindex, in a namespace of one's own.
hold; F=$REPLY
into "$F" ip link add eg0 index "$IFINDEX" type veth peer index 77 name eg9
into "$F" ip addr add 192.0.2.2/24 dev eg0
hold; G=$REPLY
into "$F" ip link set eg9 netns "$G"
into "$F" ip link set eg0 up
into "$G" ip addr add 192.0.2.5/24 dev eg9
into "$G" ip link set eg9 up
daemon "$G" python3 "$DIR/fake.py" 192.0.2.5
for _ in $(seq 100); do
  into "$G" ss -lunH | grep -q ':53 ' && break
  sleep 0.1
done
before=$(count dstats 18)
WHERE=$F
workload "$CLIENT" raw 0 1 a%d.one.zone.test 192.0.2.5 > "$DIR/fake" 2>&1 || true
WHERE=$C
# Its client believes it, and tries; nothing was learned for anybody.
if grep -q 'connections 1 refused 1 failed 0' "$DIR/fake" && [ "$(count dstats 18)" -gt "$before" ] &&
   ! reaches 20.254.0.1; then
  ok "a fake resolver in another namespace, same address and ifindex, teaches nothing: $(<"$DIR/fake")"
else bad "fake resolver: $(cat "$DIR/fake"), untrusted link $(count dstats 18)"; fi
expect_all "the same bytes from the trusted one" raw 0 1 a%d.one.zone.test 192.0.2.5
if reaches 20.254.0.1; then ok "… do teach"; else bad "the same bytes from the trusted one did not teach"; fi

# An answer forged over loopback by somebody with CAP_NET_RAW whom nobody judges: right addresses,
# ports, socket, id and question. The resolver itself keeps silent about this name.
cat > "$DIR/ask.py" <<'PY'
import socket
q = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
q.bind(("0.0.0.0", 40000))
q.settimeout(20)
q.sendto(b"\x77\x77\1\0\0\1\0\0\0\0\0\0\x06forged\x04zone\x04test\0\0\1\0\1", ("192.0.2.5", 53))
print("asked", flush=True)
print("got", socket.inet_ntoa(q.recv(512)[-4:]), flush=True)
PY
cat > "$DIR/forge.py" <<'PY'
import socket, struct
answer = (b"\x77\x77\x81\x80\0\1\0\1\0\0\0\0\x06forged\x04zone\x04test\0\0\1\0\1" +
          b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + bytes([20, 253, 0, 1]))
udp = struct.pack("!HHHH", 53, 40000, 8 + len(answer), 0) + answer
ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0,
                 socket.inet_aton("192.0.2.5"), socket.inet_aton("192.0.2.2"))
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
raw.sendto(ip + udp, ("192.0.2.2", 0))
PY
# forged NAMESPACE: what the asker got.
forged() {
  : > "$DIR/asker" # or the last one's word is taken for this one's
  workload python3 "$DIR/ask.py" > "$DIR/asker" 2>&1 &
  local asker=$!
  for _ in $(seq 400); do
    grep -q asked "$DIR/asker" && break
    sleep 0.05
  done
  into "$1" python3 "$DIR/forge.py"
  wait $asker || true
  FORGED=$(tail -n 1 "$DIR/asker")
}
before=$(count dstats 18)
forged "$C"
if [ "$FORGED" = "got 20.253.0.1" ] && [ "$(count dstats 18)" -gt "$before" ] && ! reaches 20.253.0.1; then
  ok "an answer forged over loopback is delivered and teaches nothing"
else bad "forged over loopback: $FORGED, untrusted link +$(($(count dstats 18) - before))"; fi
forged "$S"
if [ "$FORGED" = "got 20.253.0.1" ] && reaches 20.253.0.1; then ok "the same bytes over the resolver's link do teach"
else bad "the same bytes over the resolver's link: $FORGED"; fi

echo "learned $(count dstats 16) answers, $(count dstats 40) addresses; TCP segments held for order: $(count dstats 32); events lost $(count dstats 56)"
[ "$(count dstats 19)" = 0 ] || echo "answers nobody asked for: $(count dstats 19)"
echo "$CONNECTIONS connections, $SECONDS s"
if [ $FAILURES != 0 ]; then
  echo "$FAILURES failed"
  exit 1
fi
echo PASSED
