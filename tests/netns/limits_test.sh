#!/usr/bin/env bash
# The ways around that README.md admits, so that it stays honest in both directions: packets that
# no socket of the judged cgroup sends as IP. When one of these fails because it was closed, take
# it out of the README and turn it into a refusal.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

command -v python3 >/dev/null || skip "python3 is not installed"
sandbox_up
listen udp 5353
write_policy <<END
version: 1
mode: enforce
dns:
  servers: [$DNS4]
collections:
  - name: elsewhere
    priority: 200
    action: allow
    rules:
      - {name: one host, addresses: [203.0.113.250], ports: [22], protocols: [tcp]}
END
start_egressd "$POLICY"

# Packets of the other side's listener to this address prove that one got through.
received() { in_server cat /proc/net/snmp | sed -n 's/^Udp: \([0-9]*\) .*/\1/p'; }
cat >"$SANDBOX_DIR/send.py" <<'END'
import fcntl, os, socket, struct, sys

def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF

def datagram(source, destination):
    udp = struct.pack("!HHHH", 4000, 5353, 8 + 8, 0) + b"egressd\n"
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0,
                       socket.inet_aton(source), socket.inet_aton(destination))
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + udp

way, source, destination = sys.argv[1:]
packet = datagram(source, destination)
if way == "raw":
    s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    s.sendto(packet, (destination, 0))
elif way == "packet":
    s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM)
    s.sendto(packet, ("up0", 0x0800, 0, 0, bytes.fromhex("020000000001")))
else:
    tun = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH22x", b"tun9", 0x1001))
    os.system("ip addr add 10.77.0.1/24 dev tun9 && ip link set tun9 up && "
              "echo 1 >/proc/sys/net/ipv4/ip_forward")
    os.write(tun, packet)
END
not() { ! "$@"; }
# sends WAY SOURCE: how many datagrams the other side received because of it.
sends() {
  local before line
  before=$(received)
  line=$(in_client python3 "$SANDBOX_DIR/send.py" "$1" "$2" 198.51.100.9 2>&1) || true
  arrived() { (($(received) > before)); }
  wait_until 1 arrived || true
  printf '%d %s\n' $(($(received) - before)) "$(tail -n 1 <<<"$line")"
}

expect_errno EPERM default_deny "a plain socket" udp 198.51.100.9 5353
line=$(sends raw "$CLIENT4")
check "a raw IP socket with its own header: $line" grep -q '^0 .*Operation not permitted' <<<"$line"
line=$(sends packet "$CLIENT4")
check "AF_PACKET (CAP_NET_RAW) gets around: $line" test "${line%% *}" -eq 1
if [[ -e /dev/net/tun ]]; then
  line=$(sends tun 10.77.0.2)
  check "a TUN device and forwarding (CAP_NET_ADMIN) get around: $line" test "${line%% *}" -eq 1
fi

# Two that are judged and work together: where a rule lets a pod speak UDP to the host (or to a pod), it
# can do so in the name of a stranger, over IPv6 without a privilege. The other answers the stranger.
pod_up
cat >>"$POLICY" <<END
      - {name: own network, addresses: ["fd65:6772::/64"], ports: [4002], protocols: [udp]}
END
reload_egressd
received6() { in_server cat /proc/net/snmp6 | awk '/^Udp6(InDatagrams|NoPorts)/ { sum += $2 } END { print sum }'; }
# answered: whether the answer of the host's socket reached the stranger.
answered() {
  local before=$1
  spawn in_client python3 -u "$PWD/forged_source.py" "$CLIENT6" 4002 answer >"$SANDBOX_DIR/answer"
  wait_until 5 grep -q ready "$SANDBOX_DIR/answer" || die "nobody to answer"
  in_pod python3 "$PWD/forged_source.py" 2001:db8:b::66 6002 "$CLIENT6" 4002 >/dev/null
  arrived6() { (($(received6) > before)); }
  wait_until 1 arrived6
}
check "a stranger's name and an accomplice to answer (IPv6) get around" answered "$(received6)"
on_client nft -f - <<END || skip "no nftables in this kernel"
table ip6 rpfilter {
  chain prerouting {
    type filter hook prerouting priority raw;
    fib saddr . iif oif missing drop
  }
}
END
check "… not past a filter of sources" not answered "$(received6)"
finish
