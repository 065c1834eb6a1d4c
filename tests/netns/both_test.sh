#!/usr/bin/env bash
# nftables behind eBPF: what only it can see is stopped and recorded, what eBPF has allowed is never
# refused, both ask the same maps, and eBPF goes on alone where nftables cannot be had. FRESH=100000
# asks for that many fresh names.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

readonly FRESH=${FRESH:-1000}
# One pattern holds so many addresses at most (RuleSet::Dns::name_quota).
readonly DOMAINS=$((FRESH / 10000 + 1))
readonly EACH=$((FRESH / DOMAINS))
args=(--max-learned $((FRESH > 10000 ? FRESH * 2 : 131072)))
sandbox_up
pod_up
command -v nft >/dev/null || skip "needs nft"
EGRESSD_BACKEND=both
listen tcp 22 23 443
# Each name has an address of its own.
in_server ip route add local 20.0.0.0/8 dev lo
serve in_server /usr/bin/python3 -uc '
import socket
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.bind(("::", 5353))
print("ready")
while True:
    print(s.recv(99).decode())
'
arrived() { grep -qx "$1" "$SANDBOX_DIR"/serve.*; }
awk -v domains=$DOMAINS -v n=$((EACH + 200)) 'BEGIN {
  for (d = 0; d < domains; ++d) for (i = 0; i < n; ++i)
    printf "20.%d.%d.%d n%d.fresh%d.example\n", d, i / 256, i % 256, i, d
}' >>"$SANDBOX_DIR/hosts"
dns_set plain.example 203.0.113.9
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
      - {name: datagrams, addresses: [203.0.113.0/24, "2001:db8:a::/48"], ports: [5353, 5354], protocols: [udp]}
      - {name: service, addresses: [198.51.100.50], ports: [80], protocols: [tcp]}
      - name: fresh
        ports: [443]
        protocols: [tcp]
        fqdns: [$(seq -s , -f '"*.fresh%g.example"' 0 $((DOMAINS - 1)))]
END

host() { on_client "$EGRESSD_PROBE" "$@"; }
pod() { in_pod "$EGRESSD_PROBE" "$@"; }
# The pod's namespace, but not the judged cgroup: as a virtual machine is.
machine() { nsenter --target "$SANDBOX_POD" --net --mount -- "$EGRESSD_PROBE" "$@"; }
router=$(on_client ip -br link show dev pod0 | awk '{print $3}')
# inject DESTINATION TEXT [reset PORT]: by AF_PACKET, from the pod
inject() {
  local source=$POD4
  [[ $1 == *:* ]] && source=$POD6
  in_pod /usr/bin/python3 "$PWD/inject.py" eth0 "$router" "$source" "$1" "${4:-5353}" "$2" ${3:+"$3"} >/dev/null
}
passes() {
  local line
  line=$("$@" --timeout 1000 2>&1) || true
  check "$*: $line" test "${line%% *}" = ok
}
# records_of DESTINATION PORT: how many there are behind $lines
records_of() { tail -n "+$((lines + 1))" "$SANDBOX_AUDIT" | grep -cF "\"destination\":\"$1\",\"port\":$2" || true; }
recorded() { (($(records_of "$1" "$2") > 0)); }
# fails WHERE ERRNO REASON KIND ADDRESS PORT: at once, counted and recorded once
fails() {
  local where=$1 errno=$2 reason=$3 line before
  shift 3
  before=$(status_number "$reason")
  lines=$(audit_lines)
  line=$("$where" "$@" --timeout 500 2>&1) || true
  check "$where $*: $line" test "${line%% *}" = "errno=$errno"
  check "… $reason counted once" test "$(status_number "$reason")" = $((before + 1))
  check "… and recorded" wait_until 2 recorded "$2" "$3"
  check "… once" test "$(records_of "$2" "$3")" = 1
}
metric() { on_client curl -sf http://127.0.0.1:9477/metrics | sed -n "s/^$1 //p"; }
layer() { ctl status | grep "nft $1"; }

inject 198.51.100.9 before
check "the injected packet arrives where nothing is enforced" wait_until 5 arrived before

start_egressd "$POLICY" "${args[@]}"
check "status has both layers: $(layer forward)" \
  grep -q " attached.*generation $(status_number generation), " <<<"$(layer forward)"
check "… the metrics too" test "$(metric 'egressd_backstop_attached{program="nft forward"}')" = 1

for address in 203.0.113.5 2001:db8:a::5; do
  passes pod tcp "$address" 22
  passes machine tcp "$address" 22
  passes host tcp "$address" 22
  fails pod EPERM port_not_allowed tcp "$address" 23
  fails machine ECONNREFUSED port_not_allowed tcp "$address" 23
  fails host ECONNREFUSED port_not_allowed tcp "$address" 23
  inject "$address" "good-$address"
  check "an injected packet the policy allows arrives" wait_until 5 arrived "good-$address"
done
for address in 198.51.100.9 2001:db8:b::9; do
  lines=$(audit_lines)
  before=$(status_number default_deny)
  inject "$address" "bad-$address"
  check "one it does not is recorded" wait_until 2 recorded "$address" 5353
  check "… once" test "$(records_of "$address" 5353)" = 1
  check "… and counted once" test "$(status_number default_deny)" = $((before + 1))
  check "… with where it came from" \
    grep -q '"source":"\(192.0.2.130\|fd65:6774::2\)"' <<<"$(tail -n "+$((lines + 1))" "$SANDBOX_AUDIT")"
  missing() { ! arrived "bad-$address"; }
  check "… and has not arrived" missing
  fails host ECONNREFUSED default_deny tcp "$address" 22
done

# A reset of nothing carries data as well as any packet.
in_server nft 'add table inet count
  add counter inet count resets
  add chain inet count seen { type filter hook prerouting priority -300; }
  add rule inet count seen ip daddr { 198.51.100.9, 203.0.113.5 } tcp dport 4242 tcp flags & rst == rst counter name resets'
resets() { in_server nft list counter inet count resets | sed -n 's/.*packets \([0-9]*\).*/\1/p'; }
lines=$(audit_lines)
inject 198.51.100.9 secret reset 4242
check "an injected reset is recorded" wait_until 2 recorded 198.51.100.9 4242
check "… and has not arrived" test "$(resets)" = 0

# What a pod's kernel says of an answer nobody waits for any more.
serve in_server /usr/bin/python3 -uc '
import socket
import time
d = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
d.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR
d.bind(("203.0.113.5", 5354))
print("ready")
_, peer = d.recvfrom(99)
d.settimeout(2)
time.sleep(0.3)
d.sendto(b"late", peer)
try:
    d.recv(99)
except OSError as e:
    print("late-" + str(e.errno))
'
lines=$(audit_lines)
in_pod /usr/bin/python3 -c '
import socket
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("203.0.113.5", 5354))'
check "port unreachable leaves the pod" wait_until 3 arrived late-111
check "… and is not recorded" test "$(records_of 203.0.113.5 0)" = 0

# As kube-proxy does: eBPF judges the address of the service, at forward there is another.
on_client nft 'add table ip services
  add chain ip services prerouting { type nat hook prerouting priority dstnat; }
  add rule ip services prerouting ip daddr 198.51.100.50 tcp dport 80 dnat to 198.51.100.60:23'
passes pod tcp 198.51.100.50 80
fails pod EPERM default_deny tcp 198.51.100.60 23

# Injected, it is judged for that address as well; eBPF refuses none of these.
on_client nft 'add rule ip services prerouting ip daddr { 198.51.100.51, 203.0.113.51 } udp dport 5353 dnat to 198.51.100.60:5353'
lines=$(audit_lines)
inject 203.0.113.51 service-good
check "injected to a service the policy allows" wait_until 5 arrived service-good
inject 198.51.100.51 service-bad
check "injected to one it does not is recorded" wait_until 2 recorded 198.51.100.51 5353
no_service() { ! arrived service-bad; }
check "… and has not arrived" no_service

on_client nft flush ruleset
refused_again() { [[ $(machine tcp 203.0.113.5 23 --timeout 200 2>&1) == errno=ECONNREFUSED* ]]; }
check "flushed by another program, the table comes back" wait_until 3 refused_again

# The other side begins.
serve in_pod "$EGRESSD_PROBE" listen tcp 9000 udp 9001
serve on_client "$EGRESSD_PROBE" listen tcp 9000 udp 9001
for probe in "tcp $POD4 9000" "udp $POD4 9001" "tcp $POD6 9000" "tcp $CLIENT4 9000" "udp $CLIENT4 9001"; do
  # shellcheck disable=SC2086 # words
  line=$(in_server "$EGRESSD_PROBE" $probe) || true
  check "the other side began, $probe: $line" test "${line%% *}" = ok
done

# What conntrack was told not to see is an answer for eBPF alone, which knows the socket.
on_client nft 'add table ip untracked
  add chain ip untracked prerouting { type filter hook prerouting priority raw; }
  add chain ip untracked output { type filter hook output priority raw; }
  add rule ip untracked prerouting tcp dport 9100 notrack
  add rule ip untracked output tcp sport 9100 notrack'
serve in_client "$EGRESSD_PROBE" listen tcp 9100
hold_open "$CLIENT4" 9100 in_server
expect_hold_ok "answers that are not tracked, from the judged cgroup"

# fresh DOMAIN FIRST COUNT: each name's address is used the moment its answer is there.
fresh() {
  local line
  line=$(in_pod "$DNS_CLIENT" tcp4 "$2" "$3" "n%d.fresh$1.example" 2>&1) || true
  check "$line" grep -q "connections $3 refused 0 failed 0" <<<"$line"
}
for ((domain = 0; domain < DOMAINS; ++domain)); do
  fresh "$domain" 0 "$EACH"
done
compared() { [[ $(layer output) =~ ([0-9]+)\ learned\ addresses\ compared ]] && ((BASH_REMATCH[1] > 100)); }
check "the layers agree on what was learned: $(layer output)" compared

# What a name had until now may carry on where its rules allow, and opens nothing else. The end of
# the first grant is at byte 32 of struct egressd_learned.
learned=$(on_client find "$SANDBOX_BPFFS" -name egressd_learned)
key=(0 0 0 0 0 0 0 0 0 0 0xff 0xff 20 0 0 1)
mapfile -t value < <(on_client bpftool -j map lookup pinned "$learned" key "${key[@]}" |
  grep -o '"value":\[[^]]*' | head -1 | grep -o '0x..')
check "a learned address, as it is stored" test ${#value[@]} = 160
on_client bpftool map update pinned "$learned" key "${key[@]}" \
  value "${value[@]:0:32}" 1 0 0 0 0 0 0 0 "${value[@]:40}" exist
lines=$(audit_lines)
inject 20.0.0.1 expired
check "another port of an expired name is recorded" wait_until 2 recorded 20.0.0.1 5353
nothing_expired() { ! arrived expired; }
check "… and has not arrived" nothing_expired
passes machine tcp 20.0.0.1 443
fails pod EPERM expired tcp 20.0.0.1 443

glass() { on_client "$EGRESSCTL" "$@" --bpffs "$SANDBOX_BPFFS"; }
stop_egressd KILL
fresh 0 "$EACH" 200
line=$(host tcp 198.51.100.9 22 2>&1) || true
check "enforced without an agent: $line" test "${line%% *}" = errno=ECONNREFUSED
check "break-glass opens both layers without an agent" glass open --for 10m --reason "both"
passes host tcp 198.51.100.9 22
passes machine tcp 198.51.100.9 22
passes pod tcp 198.51.100.9 22
inject 198.51.100.9 open
check "an injected packet as well" wait_until 5 arrived open
check "closes" glass close
line=$(machine tcp 198.51.100.9 22 2>&1) || true
check "closed: $line" test "${line%% *}" = errno=ECONNREFUSED

# Somebody empties our chains: said, not hidden, and no reason to be not ready.
start_egressd "$POLICY" "${args[@]}"
passes pod tcp 203.0.113.5 22
# Each of these may be put back before we look, so it is taken again.
emptied_is_said() { on_client nft flush table inet egressd && layer forward | grep -q "NOT ATTACHED.*empty"; }
check "emptied chains are noticed" wait_until 5 emptied_is_said
measured() {
  on_client nft flush table inet egressd
  [[ $(metric 'egressd_backstop_attached{program="nft forward"}') == 0 ]]
}
check "… by the metrics" wait_until 5 measured
on_client nft flush table inet egressd
check "… and the agent is ready" on_client curl -sf -o /dev/null http://127.0.0.1:9477/readyz
refused_forward() { [[ $(machine tcp 198.51.100.9 22 --timeout 200 2>&1) == errno=ECONNREFUSED* ]]; }
check "… and the rules come back" wait_until 3 refused_forward
take_one() {
  local handle
  handle=$(on_client nft -a list chain inet egressd forward | sed -n 's/.*xt match.*# handle //p')
  [[ -z $handle ]] || on_client nft delete rule inet egressd forward handle "$handle"
}
one_is_said() { take_one && layer forward | grep -q "NOT ATTACHED.*forward.* rules, not the"; }
check "one rule taken out is noticed" wait_until 5 one_is_said
check "… and comes back" wait_until 3 refused_forward
judge_is_said() { on_client nft flush chain inet egressd judge && layer output | grep -q "NOT ATTACHED.*judge"; }
check "so is a chain behind those of the hooks" wait_until 5 judge_is_said
refused_host() { [[ $(host tcp 198.51.100.9 22 --timeout 200 2>&1) == errno=ECONNREFUSED* ]]; }
check "… and comes back" wait_until 3 refused_host

# An interface that becomes one to the outside while we run.
on_client ip link add late0 type veth peer name late1
on_client ip link set late0 up
on_client ip route add default dev late0 metric 900
followed() { on_client nft list set inet egressd uplinks | grep -q late0; }
check "a new default route is followed at once" wait_until 4 followed
on_client ip link del late0
stop_egressd
start_egressd "$POLICY" "${args[@]}"
fails machine ECONNREFUSED default_deny tcp 198.51.100.9 22

stop_egressd KILL
check "the way out, without an agent" ctl detach --bpffs "$SANDBOX_BPFFS"
taken() { on_client nft list tables | grep -q egressd; }
gone() { ! taken; }
check "… leaves no table" gone
passes machine tcp 198.51.100.9 22
passes pod tcp 198.51.100.9 22

# The kernel refuses our rules with EPERM: the table is another's.
mkfifo "$SANDBOX_DIR/owner"
exec {owner}<>"$SANDBOX_DIR/owner"
become on_client nft -i <"$SANDBOX_DIR/owner" >/dev/null 2>&1 &
owner_pid=$!
echo 'add table inet egressd { flags owner; }' >&"$owner"
wait_until 5 taken || die "nft did not make the table"
launch_egressd "$POLICY"
enforced() { ctl status 2>/dev/null | grep -q 'egressd_egress  *attached'; }
check "refused rules stop nothing" wait_until 15 enforced
check "… but are said: $(layer forward)" \
  grep -q "NOT ATTACHED.*another program owns.*eBPF goes on alone" <<<"$(layer forward)"
check "… in the log" grep -q "nft forward: .*eBPF goes on alone" "$SANDBOX_DIR/egressd.log"
check "… and by doctor" grep -q "does not stand behind eBPF" \
  <<<"$(on_client "$EGRESSCTL" doctor --socket "$SANDBOX_SOCKET" --bpffs "$SANDBOX_BPFFS" 2>&1 || true)"
fails pod EPERM default_deny tcp 198.51.100.9 22
stop_egressd
sandbox_reap "$owner_pid"
wait_until 5 gone || die "the table of another is still there"
check "detached" ctl detach --bpffs "$SANDBOX_BPFFS"

# For a cgroup alone there is nothing that eBPF does not see.
NFT_SCOPE=cgroup start_egressd "$POLICY" "${args[@]}"
fails pod EPERM default_deny tcp 198.51.100.9 22
passes machine tcp 198.51.100.9 22
passes host tcp 198.51.100.9 22
check "no table then" gone
finish
