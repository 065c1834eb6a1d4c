#!/usr/bin/env bash
# Real clients, a real DNS server, kernel programs, and no agent: each name is asked once and its
# address used at once. Passes if not one first packet is refused, and if answers that must not
# teach do not.
#
#   client namespace 192.0.2.2, fd65:6772::2 -- veth -- server namespace 192.0.2.1, fd65:6772::1
#
# The server namespace answers on every address of 20.0.0.0/8 and 2a20::/16: each name has its own,
# so nothing is known beforehand. Everything is made here and removed here.
#
# DNS_LOADER and DNS_CLIENT are the programs of tests/bpf; NAMES how many names per kind.
set -euo pipefail

LOADER=${DNS_LOADER:?}
CLIENT=${DNS_CLIENT:?}
NAMES=${NAMES:-2000}
ADDRESSES=30

skip() { echo "SKIPPED: $*"; exit 77; }
[ "$(id -u)" = 0 ] || skip "needs root"
command -v knotd >/dev/null || skip "needs knotd"

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
into "$S" ip addr add 192.0.2.1/24 dev eg1
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
    print(f"x{i}.six AAAA {v6(address())}")
    for k in range(3):
        print(f"c{i}.l{k}.chain CNAME c{i}.l{k + 1}.chain")
    print(f"c{i}.l3.chain A {v4(address())}")
for i in range(names // 25):
    for _ in range(many):
        print(f"m{i}.many A {v4(address())}")
    for _ in range(3 * many):
        print(f"t{i}.trunc A {v4(address())}")
print("forged A 20.254.0.1")
for i in range(20):
    print(f"denied{i} A 20.255.0.{i + 1}")
PY
cat > "$DIR/knot.conf" <<CONF
server:
    rundir: $DIR
    listen: [ 192.0.2.1@53, fd65:6772::1@53 ]
    udp-max-payload: 1232
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
for _ in $(seq 200); do
  into "$S" python3 -c 'import socket
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.settimeout(0.3)
s.sendto(bytes.fromhex("000101000001000000000000")+b"\x04zone\x04test\x00\x00\x06\x00\x01",("192.0.2.1",53)); s.recv(512)' 2>/dev/null && break
  sleep 0.1
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
pattern forged.zone.test 6
server 192.0.2.1 1
local 192.0.2.2
link $INODE $IFINDEX 1
POLICY
"$LOADER" attach "$CGROUP" "$DIR/bpf" "$DIR/policy" >/dev/null # and is gone: no agent from here on

# count dstats N
count() { "$LOADER" counts "$DIR/bpf" | awk -v m="$1" -v k="$2" '$1 == m && $2 == k { print $3; f = 1 } END { if (!f) print 0 }'; }

expect_all() {
  local what=$1; shift
  if out=$(workload "$CLIENT" "$@" 2>&1); then ok "$what: $out"; else bad "$what: $out"; fi
}

expect_all "A, connect at once" tcp4 0 "$NAMES" a%d.one.zone.test
expect_all "A, datagram straight after the answer" raw 0 "$NAMES" r%d.one.zone.test 192.0.2.1
expect_all "AAAA" tcp6 0 "$NAMES" x%d.six.zone.test
expect_all "A behind three CNAMEs" tcp4 0 "$NAMES" c%d.l0.chain.zone.test
expect_all "thirty addresses, each used" tcp4 0 $((NAMES / 25)) m%d.many.zone.test
expect_all "ninety addresses: truncated, then over TCP" tcp4 0 $((NAMES / 25)) t%d.trunc.zone.test
expect_all "every query over TCP" vc 0 "$NAMES" v%d.one.zone.test
HALF=$((NAMES / 2))
workload "$CLIENT" tcp4 0 $HALF f%d.one.zone.test > "$DIR/par1" 2>&1 & p1=$!
workload "$CLIENT" tcp4 $HALF $HALF f%d.one.zone.test > "$DIR/par2" 2>&1 & p2=$!
if wait $p1 && wait $p2; then ok "two clients at once: $(cat "$DIR/par1" "$DIR/par2" | tr '\n' ' ')"
else bad "two clients at once: $(cat "$DIR/par1" "$DIR/par2")"; fi
held=$(count dstats 32)

# Segments of 100 bytes or less: the answer over TCP comes in dozens of them.
into "$C" ip route change default via 192.0.2.1 advmss 100 2>/dev/null || true
into "$C" ip route replace 192.0.2.1/32 dev eg0 advmss 100
expect_all "over TCP in segments of 100 bytes" tcp4 0 $((NAMES / 25 > 20 ? 20 : NAMES / 25)) t%d.trunc.zone.test
into "$C" ip route del 192.0.2.1/32

before=$(count dstats 4)
if workload "$CLIENT" raw 0 20 denied%d.zone.test 192.0.2.1 > "$DIR/denied" 2>&1; then bad "names without a rule left"
elif grep -q 'refused 20 failed 0' "$DIR/denied" && [ "$(count dstats 4)" = $((before + 20)) ]; then
  ok "names without a rule: EPERM at once, 20 of 20, counted"
else bad "names without a rule: $(cat "$DIR/denied")"; fi

# A resolver of one's own: the trusted one's address, the same ifindex, in a namespace of one's own.
hold; F=$REPLY
into "$F" ip link add eg0 index "$IFINDEX" type veth peer index 77 name eg9
into "$F" ip addr add 192.0.2.2/24 dev eg0
hold; G=$REPLY
into "$F" ip link set eg9 netns "$G"
into "$F" ip link set eg0 up
into "$G" ip addr add 192.0.2.1/24 dev eg9
into "$G" ip link set eg9 up
cat > "$DIR/fake.py" <<'PY'
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("192.0.2.1", 53))
while True:
    q, peer = s.recvfrom(512)
    a = q[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + q[12:] + b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + bytes([20, 254, 0, 1])
    s.sendto(a, peer)
PY
daemon "$G" python3 "$DIR/fake.py"
for _ in $(seq 100); do
  into "$G" ss -lunH | grep -q ':53 ' && break
  sleep 0.1
done
before=$(count dstats 18)
WHERE=$F
workload "$CLIENT" raw 0 1 a%d.one.zone.test 192.0.2.1 > "$DIR/fake" 2>&1 || true
WHERE=$C
if [ "$(count dstats 18)" -gt "$before" ] && ! workload "$CLIENT" raw 5 1 forged.zone.test%d 192.0.2.1 >/dev/null 2>&1 &&
   ! workload python3 -c 'import socket
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.sendto(b"x",("20.254.0.1",443))' 2>/dev/null; then
  ok "a fake resolver in another namespace, same address and ifindex, teaches nothing"
else bad "fake resolver: $(cat "$DIR/fake"), untrusted link $(count dstats 18)"; fi

# An answer forged over loopback by somebody with CAP_NET_RAW: right socket, id and question.
before=$(count dstats 18)
workload python3 - > "$DIR/lo" 2>&1 <<'PY' || true
import socket, struct
q = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
q.bind(("0.0.0.0", 40000))
name = b"\x06forged\x04zone\x04test\0"
question = b"\x77\x77\1\0\0\1\0\0\0\0\0\0" + name + b"\0\1\0\1"
# Ask, so that it is outstanding; the server's answer is beaten by ours over lo.
answer = b"\x77\x77\x81\x80\0\1\0\1\0\0\0\0" + name + b"\0\1\0\1" + b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + bytes([20, 253, 0, 1])
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
udp = struct.pack("!HHHH", 53, 40000, 8 + len(answer), 0) + answer
ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0,
                 socket.inet_aton("192.0.2.1"), socket.inet_aton("192.0.2.2"))
q.sendto(question, ("192.0.2.1", 53))
raw.sendto(ip + udp, ("192.0.2.2", 0))
PY
if workload python3 -c 'import socket
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.sendto(b"x",("20.253.0.1",443))' 2>/dev/null; then
  bad "an answer forged over loopback taught an address"
else ok "an answer forged over loopback teaches nothing (untrusted link: +$(($(count dstats 18) - before)))"; fi

echo "learned $(count dstats 16) answers, $(count dstats 40) addresses; TCP segments held for order: $held; events lost $(count dstats 56)"
[ "$(count dstats 19)" = 0 ] || echo "answers nobody asked for: $(count dstats 19)"
if [ $FAILURES != 0 ]; then
  echo "$FAILURES failed"
  exit 1
fi
echo PASSED
