#!/usr/bin/env bash
# Answers that are not the resolver's teach nothing, though address, port, id and question are right:
# a resolver of one's own in `unshare -Urn`, answers forged over loopback by root, frames of a pod.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

sandbox_up
as_nobody=(setpriv --reuid 65534 --regid 65534 --clear-groups)
in_client "${as_nobody[@]}" unshare -Urn true 2>/dev/null ||
  skip "unprivileged users may not make namespaces here"
pod_up
listen tcp 443
dns_set a.wild.test 203.0.113.1
dns_set b.wild.test 203.0.113.2
write_policy <<END
version: 1
mode: enforce
dns:
  servers: [$DNS4]
collections:
  - name: names
    priority: 200
    action: allow
    rules:
      - {name: wild, fqdns: ["*.wild.test"], ports: [443], protocols: [tcp]}
END
expect_ok "without egressd, the address to come" tcp 198.51.100.66 443
start_egressd "$POLICY"

# The same device name, index, addresses and resolv.conf, and a server that says what we like.
fake=$(
  cat <<'END'
set -eu
unshare -n sleep 20 &
far=$!
until [ "$(readlink /proc/$far/ns/net)" != "$(readlink /proc/$$/ns/net)" ]; do sleep 0.02; done
ip link add up0 index "$1" type veth peer index 77 name far0
ip link set far0 netns "$far"
ip addr add 192.0.2.2/24 dev up0
ip link set up0 up
nsenter -t "$far" -n ip addr add 192.0.2.1/24 dev far0
nsenter -t "$far" -n ip link set far0 up
nsenter -t "$far" -n dnsmasq --keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts \
  --no-daemon --user=root --pid-file= --local-ttl=600 --address=/wild.test/198.51.100.66 2>/dev/null &
dns=$!
line=
for _ in $(seq 50); do
  line=$("$2" resolve a.wild.test 443 -4) || true
  case $line in *198.51.100.66*) break ;; esac
  sleep 0.05
done
echo "$line"
kill "$dns" "$far"
END
)
index=$(on_client ip -o link show up0)
index=${index%%:*}
before=$(status_number not_trusted_link)
learned=$(status_number address_new)
line=$(in_client "${as_nobody[@]}" unshare -Urn \
  bash -c "$fake" fake "$index" "$EGRESSD_PROBE" 2>&1) || true
check "the fake resolver is believed by its own client: $line" grep -q '198.51.100.66' <<<"$line"
check "its address stays refused there" grep -q '^errno=EPERM' <<<"$line"
check "not_trusted_link is counted" test "$(status_number not_trusted_link)" -gt "$before"
check "nothing was learned" test "$(status_number address_new)" -eq "$learned"
expect_errno EPERM default_deny "its address" tcp 198.51.100.66 443
line=$(in_client "${as_nobody[@]}" "$EGRESSD_PROBE" resolve a.wild.test 443 -4) || true
check "the same user, the real resolver: $line" test "${line%% *}" = ok
check "learned" test "$(status_number address_new)" -gt "$learned"
line=$(in_pod "$EGRESSD_PROBE" resolve b.wild.test 443 -4) || true
check "a pod, the real resolver: $line" test "${line%% *}" = ok

# Asks the resolver, then puts the answer on loopback itself: right addresses, ports, id, question.
# The real server is gone, so that nobody answers first. ask | forge, joined by a port and a file.
dns_stop
cat >"$SANDBOX_DIR/ask.py" <<'END'
import socket, sys
name = b"\1f\4wild\4test\0\0\1\0\1"
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 40053))
s.settimeout(5)
s.sendto(b"\x77\x77\1\0\0\1\0\0\0\0\0\0" + name, ("192.0.2.1", 53))
print("asked", flush=True)
try:
    print("got", socket.inet_ntoa(s.recv(512)[-4:]), flush=True)
except OSError as e:
    print("got nothing:", e, flush=True)
END
cat >"$SANDBOX_DIR/forge.py" <<'END'
import socket, struct, sys
to = socket.inet_aton(sys.argv[1])
name = b"\1f\4wild\4test\0\0\1\0\1"
answer = (b"\x77\x77\x81\x80\0\1\0\1\0\0\0\0" + name +
          b"\xc0\x0c\0\1\0\1\0\0\2\x58\0\4" + socket.inet_aton("198.51.100.66"))
udp = struct.pack("!HHHH", 53, 40053, 8 + len(answer), 0) + answer
ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0,
                 socket.inet_aton("192.0.2.1"), to)
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
try:
    raw.sendto(ip + udp, (sys.argv[1], 0))
    print("sent")
except OSError as e:
    print(e.strerror)
END
asked() { grep -q asked "$SANDBOX_DIR/ask.out"; }
# forged PLACE-OF-THE-SOCKET ADDRESS PLACE-OF-THE-FORGER…
forged() {
  local place=$1 address=$2
  shift 2
  spawn "$place" /usr/bin/python3 "$SANDBOX_DIR/ask.py" "$address" >"$SANDBOX_DIR/ask.out" 2>&1
  local asker=$REPLY
  wait_until 5 asked || die "$(<"$SANDBOX_DIR/ask.out")"
  FORGED=$("$@" /usr/bin/python3 "$SANDBOX_DIR/forge.py" "$address")
  if [[ $FORGED != sent ]]; then kill "$asker"; fi
  wait "$asker" 2>/dev/null || true
}
for place in in_client in_pod; do
  address=$CLIENT4
  if [[ $place == in_pod ]]; then address=$POD4; fi
  learned=$(status_number address_new)
  before=$(status_number default_deny)
  forged "$place" "$address" "$place"
  check "$place: root's forged packet is refused: $FORGED" \
    test "$FORGED" = "Operation not permitted"
  check "$place: counted" test "$(status_number default_deny)" -gt "$before"
  # Somebody who is not judged, in the same namespace: the packet gets there, and is not believed.
  outside=(nsenter --target "$SANDBOX_CLIENT" --net)
  if [[ $place == in_pod ]]; then outside=(nsenter --target "$SANDBOX_POD" --net); fi
  before=$(status_number not_trusted_link)
  forged "$place" "$address" "${outside[@]}"
  check "$place: forged from outside the cgroup: $(tail -n 1 "$SANDBOX_DIR/ask.out")" \
    grep -q 'got 198.51.100.66' "$SANDBOX_DIR/ask.out"
  check "$place: not_trusted_link is counted" test "$(status_number not_trusted_link)" -gt "$before"
  check "$place: nothing was learned" test "$(status_number address_new)" -eq "$learned"
done

# A pod's root with CAP_NET_RAW writes frames: to the host's socket they come in by the pod's device,
# not by the one the question left by.
cat >"$SANDBOX_DIR/frame.py" <<'END'
import socket, struct, sys
to, mac, dev = sys.argv[1:4]
name = b"\1f\4wild\4test\0\0\1\0\1"
answer = (b"\x77\x77\x81\x80\0\1\0\1\0\0\0\0" + name +
          b"\xc0\x0c\0\1\0\1\0\0\2\x58\0\4" + socket.inet_aton("198.51.100.66"))
udp = struct.pack("!HHHH", 53, 40053, 8 + len(answer), 0) + answer
def checksum(b):
    n = sum(struct.unpack("!%dH" % (len(b) // 2), b))
    n = (n >> 16) + (n & 0xffff)
    return ~(n + (n >> 16)) & 0xffff
ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0,
                 socket.inet_aton("192.0.2.1"), socket.inet_aton(to))
ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind((dev, 0))
s.send(bytes.fromhex(mac.replace(":", "")) + b"\2\0\0\0\0\x99\x08\0" + ip + udp)
END
mac=$(on_client ip -o link show pod0 | sed 's/.*ether \([^ ]*\).*/\1/')
learned=$(status_number address_new)
before=$(status_number not_trusted_link)
spawn in_client /usr/bin/python3 "$SANDBOX_DIR/ask.py" "$CLIENT4" >"$SANDBOX_DIR/ask.out" 2>&1
asker=$REPLY
wait_until 5 asked || die "$(<"$SANDBOX_DIR/ask.out")"
in_pod /usr/bin/python3 "$SANDBOX_DIR/frame.py" "$CLIENT4" "$mac" eth0
wait "$asker" || true
check "a frame from a pod reaches the host's socket: $(tail -n 1 "$SANDBOX_DIR/ask.out")" \
  grep -q 'got 198.51.100.66' "$SANDBOX_DIR/ask.out"
check "not_trusted_link is counted" test "$(status_number not_trusted_link)" -gt "$before"
check "nothing was learned" test "$(status_number address_new)" -eq "$learned"

expect_errno EPERM default_deny "the forged address" tcp 198.51.100.66 443
probe() { in_pod "$EGRESSD_PROBE" "$@"; }
expect_errno EPERM default_deny "the forged address, from the pod" tcp 198.51.100.66 443
finish
