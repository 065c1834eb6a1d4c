#!/usr/bin/env bash
# nftables for a whole host: the table is the one in nft/egressd.nft, what is forwarded is judged as
# what is sent from here, and what the kernel itself has to say goes on. GOLDEN=write writes the file.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

sandbox_up
pod_up
command -v nft >/dev/null || skip "needs nft"
EGRESSD_BACKEND=nft
listen tcp 22 23 udp 5353 5354
host_policy() {
  write_policy <<END
version: 1
mode: enforce
dns:
  servers: [$DNS4]
collections:
  - name: net
    priority: 200
    action: allow
    rules:
      - {name: ssh, addresses: [203.0.113.0/24, "2001:db8:a::/48"], ports: [22], protocols: [tcp]}
END
}
host_policy
# A connection from before, to where no rule leads: the other side is the first to speak. Conntrack,
# which begins with our rules, would take it for the one who connected.
serve in_server /usr/bin/python3 -uc '
import os, socket, sys, time
s = socket.create_server(("198.51.100.77", 2222))
print("ready")
c = s.accept()[0]
while not os.path.exists(sys.argv[1]):
    time.sleep(0.02)
c.send(b"first")
time.sleep(100)
' "$SANDBOX_DIR/speak"
spawn on_client /usr/bin/python3 -uc '
import socket
c = socket.create_connection(("198.51.100.77", 2222))
print("connected")
print(c.recv(9))
try:
    c.send(b"answer")
    print(c.recv(9))
except OSError as error:
    print("cut", type(error).__name__)
' >"$SANDBOX_DIR/old"
wait_until 5 grep -q connected "$SANDBOX_DIR/old" || die "no connection before egressd"
EGRESSD_CGROUP=$(cgroup2_mount) start_egressd "$POLICY"

readonly golden=../../nft/egressd.nft
# Without what traffic and time have changed.
listing() {
  on_client nft -s list table inet egressd | sed '/198.51.100.77 . tcp/d'
}
if [[ ${GOLDEN:-} == write ]]; then listing >"$golden"; fi
check "the table is $golden" diff "$golden" <(listing)
check "nft reads it" on_client nft -c -f - <"$golden"

host() { on_client "$EGRESSD_PROBE" "$@"; }
pod() { in_pod "$EGRESSD_PROBE" "$@"; }
# passes WHERE PROBE…, fails WHERE ERRNO REASON PROBE…
passes() {
  local line
  line=$("$@" 2>&1) || true
  check "$*: $line" test "${line%% *}" = ok
}
fails() {
  local where=$1 errno=$2 reason=$3 line before lines
  shift 3
  before=$(status_number "$reason")
  lines=$(audit_lines)
  line=$("$where" "$@" --timeout 500 2>&1) || true
  check "$where $*: $line" test "${line%% *}" = "errno=$errno"
  check "… $reason counted" test "$(status_number "$reason")" -gt "$before"
  recorded() { audit_records "$lines" "\"reason\":\"$reason\"" >/dev/null; }
  check "… and recorded" wait_until 2 recorded
}
for address in 203.0.113.5 2001:db8:a::5; do
  passes host tcp "$address" 22
  passes pod tcp "$address" 22
  fails host ECONNREFUSED port_not_allowed tcp "$address" 23
  fails pod ECONNREFUSED port_not_allowed tcp "$address" 23
  fails host EPERM port_not_allowed udp "$address" 5353
done
for address in 198.51.100.9 2001:db8:b::9; do
  fails host ECONNREFUSED default_deny tcp "$address" 22
  fails pod ECONNREFUSED default_deny tcp "$address" 22
  fails host EPERM default_deny icmp "$address" 0
done
# The ICMP error comes back to the pod at once.
fails pod EACCES default_deny udp-connected 2001:db8:b::9 5354
fails pod EHOSTUNREACH default_deny udp-connected 198.51.100.9 5354

# The kernel's own: neighbours are asked, pings answered, closed ports say so.
# A first question may be lost here, with and without us: it is repeated after a second.
on_client ip -6 neigh del "$DNS6" dev up0
passes host tcp 2001:db8:a::5 22 --timeout 5000
line=$(in_server "$EGRESSD_PROBE" icmp "$CLIENT4" 0) || true
check "a ping is answered: $line" test "${line%% *}" = ok
line=$(in_server "$EGRESSD_PROBE" tcp "$CLIENT4" 4444 --timeout 500) || true
check "a closed port says so: $line" test "${line%% *}" = errno=ECONNREFUSED
serve on_client "$EGRESSD_PROBE" listen tcp 9000 udp 9001
for probe in "tcp $CLIENT4 9000" "udp $CLIENT4 9001" "tcp $CLIENT6 9000"; do
  # shellcheck disable=SC2086 # words
  line=$(in_server "$EGRESSD_PROBE" $probe) || true
  check "the other side began, $probe: $line" test "${line%% *}" = ok
done
passes host tcp "$CLIENT4" 9000

touch "$SANDBOX_DIR/speak"
old_is_cut() { grep -q '^cut ConnectionResetError' "$SANDBOX_DIR/old"; }
check "a connection from before egressd is judged, whoever speaks first" wait_until 5 old_is_cut

# A rule that is gone ends what rested on it with the next packet.
HOLD_TIMEOUT=500 hold_open 203.0.113.5 22 on_client
expect_hold_ok "open connection"
sed -i 's/203.0.113.0/203.0.114.0/' "$POLICY"
reload_egressd
line=$(hold_echo)
check "the open connection is cut: $line" grep -q "^errno=" <<<"$line"

stop_egressd KILL
line=$(host tcp 203.0.113.5 22) || true
check "enforced without an agent: $line" test "${line%% *}" = errno=ECONNREFUSED
passes host tcp 2001:db8:a::5 22
check "the way out" ctl detach --bpffs "$SANDBOX_BPFFS"
passes host tcp 203.0.113.5 22
check "nothing stays" test -z "$(on_client nft list tables)"
finish
