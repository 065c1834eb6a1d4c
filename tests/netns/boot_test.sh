#!/usr/bin/env bash
# A machine is closed before its network comes up: by the last good policy as `egressd boot` makes it
# of nftables, until an agent is in force. GOLDEN=write writes the listing it is compared with.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

sandbox_up
command -v nft >/dev/null || skip "needs nft"
readonly STATE=$SANDBOX_DIR/state LAST=$SANDBOX_DIR/state/last-good
listen tcp 22 23 80 32526 udp 53 67 5353 5354
in_server ip -batch - <<END
route add local 168.63.129.16/32 dev lo
route add local 169.254.169.254/32 dev lo
END
dns_set allowed.example 198.51.100.7

# policy [MODE]
policy() {
  write_policy <<END
version: 1
mode: ${1:-enforce}
dns:
  servers: [$DNS4]
collections:
  - name: never
    priority: 100
    action: deny
    rules:
      - {name: one host, addresses: [203.0.113.66], ports: [22], protocols: [tcp]}
  - name: net
    priority: 200
    action: allow
    rules:
      - {name: ssh, addresses: [203.0.113.0/24, "2001:db8:a::/48"], ports: [22], protocols: [tcp]}
      - {name: datagrams, addresses: [203.0.113.0/24], ports: [5353], protocols: [udp]}
      - {name: names, fqdns: [allowed.example], ports: [22], protocols: [tcp]}
END
}
# An agent of the whole machine, which is this network namespace for nftables.
machine_agent() {
  local judged=$SANDBOX_CGROUP
  SANDBOX_CGROUP=$(cgroup2_mount)
  EGRESSD_BACKEND=nft launch_egressd "$POLICY"
  SANDBOX_CGROUP=$judged
}
start_machine_agent() {
  machine_agent
  wait_until 15 egressd_in_force || die "egressd does not enforce: $(ctl status)"
}
boot() {
  on_client "$EGRESSD" boot --state-dir "$STATE" --policy "$POLICY" --bpffs "$SANDBOX_BPFFS" "$@" \
    >"$SANDBOX_DIR/boot.log" 2>&1
}
# What the end of a machine does to its kernel.
reboot_kernel() { on_client nft flush ruleset; }
boot_said() { grep -qF -- "$1" "$SANDBOX_DIR/boot.log"; }
there() { on_client nft list table inet egressd_boot >/dev/null 2>&1; }
gone() { ! there; }
counted() { on_client nft list counter inet egressd_boot "$1" | sed -n 's/.*packets \([0-9]*\).*/\1/p'; }
host() { on_client "$EGRESSD_PROBE" "$@" --timeout 500; }
nobody() { on_client setpriv --reuid 65534 --regid 65534 --clear-groups "$EGRESSD_PROBE" "$@" --timeout 500; }
passes() {
  local what=$1 line
  shift
  line=$("$@" 2>&1) || true
  check "$what: $*: $line" test "${line%% *}" = ok
}
# refused WHAT COUNTER ERRNO WHERE PROBE…
refused() {
  local what=$1 counter=$2 errno=$3 line before
  shift 3
  before=$(counted "$counter")
  line=$("$@" 2>&1) || true
  check "$what: $*: $line" test "${line%% *}" = "errno=$errno"
  check "… $counter counted" test "$(counted "$counter")" -gt "$before"
}

# --- an agent that was in force leaves what a boot needs

policy
passes "before" host tcp 198.51.100.9 22
start_machine_agent
check "the last good policy is kept" grep -qx 'mode enforce' "$LAST"
check "… for root alone" test "$(stat -c %a "$LAST")" = 600
check "boot changes nothing while an agent's policy is in force" boot
check "… and says so" boot_said "nothing to do"
check "… with no table" gone
stop_egressd KILL
check "nor when the agent is dead, as its policy is not" boot
check "… with no table" gone
reboot_kernel
passes "a boot without egressd boot" host tcp 198.51.100.9 22

# --- closed by its rules

# Somebody is connected while the table comes, as by SSH, and neither side has spoken yet.
serve on_client "$EGRESSD_PROBE" listen tcp 9000 udp 9001
HOLD_TIMEOUT=1000 hold_open "$CLIENT4" 9000 in_server
check "egressd boot" boot
check "… says what it did" boot_said "closed until the agent is in force, as the last good policy"
readonly golden=../../nft/egressd_boot.nft
listing() { on_client nft -s list table inet egressd_boot | sed "s#$STATE#STATE#; /$DNS4 . tcp . 9000/d"; }
if [[ ${GOLDEN:-} == write ]]; then listing >"$golden"; fi
check "the table is $golden" diff "$golden" <(listing)
check "nft reads it" on_client nft -c -f - <"$golden"
expect_hold_ok "a connection from before, which the other side began"
for address in 203.0.113.5 2001:db8:a::5; do
  passes "a rule of the policy" host tcp "$address" 22
  refused "another port" port_not_allowed ECONNREFUSED host tcp "$address" 23
  refused "by UDP" port_not_allowed EPERM host udp "$address" 5354
done
refused "a deny rule" deny_rule ECONNREFUSED host tcp 203.0.113.66 22
for address in 198.51.100.9 2001:db8:b::9; do
  refused "no rule" default_deny ECONNREFUSED host tcp "$address" 22
  refused "no rule" default_deny EPERM host udp "$address" 5354
  refused "no rule" default_deny EPERM host icmp "$address" 0
done
refused "a name has no address yet" default_deny ECONNREFUSED host tcp 198.51.100.7 22
refused "DNS of the servers trusted last is answered" default_deny ECONNREFUSED host resolve allowed.example 22 -4
before=$(counted resolver)
host udp "$DNS4" 53 >/dev/null 2>&1 || true
check "… and asked by root" test "$(counted resolver)" -gt "$before"
refused "… not by others, as nobody reads what they ask" dns_server_not_allowed EPERM nobody udp "$DNS4" 53
refused "any other DNS" dns_server_not_allowed EPERM host udp 198.51.100.9 53
for probe in "tcp $CLIENT4 9000" "udp $CLIENT4 9001" "tcp $CLIENT6 9000"; do
  # shellcheck disable=SC2086 # words
  passes "the other side began" in_server "$EGRESSD_PROBE" $probe
done
passes "the machine with itself" host tcp 127.0.0.1 9000
passes "… by its own address" host tcp "$CLIENT6" 9000

# --- an agent takes over: nothing forbidden gets out, nothing allowed is lost

# The other side counts what comes, in its kernel.
in_server nft -f - <<END
table inet count {
  counter forbidden {}
  counter allowed {}
  chain in {
    type filter hook prerouting priority -300
    udp dport 5354 counter name forbidden
    udp dport 5353 counter name allowed
  }
}
END
came() { in_server nft list counter inet count "$1" | sed -n 's/.*packets \([0-9]*\).*/\1/p'; }
flood_begin() {
  rm -f "$SANDBOX_DIR/stop"
  spawn in_client /usr/bin/python3 -c '
import errno, os, socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sent = {5353: 0, 5354: 0}
failed = {5353: 0, 5354: 0}
while not os.path.exists(sys.argv[1]):
    for _ in range(20):
        for address, port in (("203.0.113.5", 5353), ("198.51.100.9", 5354)):
            try:
                s.sendto(b"x", (address, port))
                sent[port] += 1
            except PermissionError:
                failed[port] += 1
print(sent[5353], failed[5353], sent[5354], failed[5354])
' "$SANDBOX_DIR/stop" >"$SANDBOX_DIR/flood"
  FLOOD=$REPLY
  local before
  before=$(came allowed)
  more_came() { (($(came allowed) > before + 1000)); }
  wait_until 5 more_came || die "no flood"
}
# flood_end WHAT ALLOWED FORBIDDEN: what had come before it.
flood_end() {
  local sent lost out refused
  : >"$SANDBOX_DIR/stop"
  wait "$FLOOD"
  read -r sent lost out refused <"$SANDBOX_DIR/flood"
  check "$1: of $refused forbidden datagrams none got out" test "$out" -eq 0 -a "$refused" -gt 1000
  check "… nor came to the other side" test "$(came forbidden)" -eq "$3"
  check "$1: of $sent allowed datagrams none was refused" test "$lost" -eq 0
  check "… and all have come: $(came allowed) - $2" test "$(($(came allowed) - $2))" -eq "$sent"
}
cp "$LAST" "$SANDBOX_DIR/good"
for backend in nft bpf; do
  there || boot
  allowed=$(came allowed) forbidden=$(came forbidden)
  flood_begin
  if [[ $backend == nft ]]; then start_machine_agent; else EGRESSD_BACKEND=bpf start_egressd "$POLICY"; fi
  check "$backend: the boot table is gone once the agent is in force" wait_until 5 gone
  now=$(came allowed)
  more() { (($(came allowed) > now + 1000)); }
  wait_until 5 more || die "the flood has ended"
  flood_end "$backend" "$allowed" "$forbidden"
  line=$(in_client "$EGRESSD_PROBE" resolve allowed.example 22 -4 2>&1) || true
  check "$backend: names are known again: $line" test "${line%% *}" = ok
  stop_egressd
  ctl detach --bpffs "$SANDBOX_BPFFS" >/dev/null 2>&1
  cp "$SANDBOX_DIR/good" "$LAST"
done
passes "detached" host tcp 198.51.100.9 22

# A part that cannot be removed does not keep the others in force.
boot
unprivileged() { on_client setpriv --bounding-set -net_admin --inh-caps -net_admin "$@"; }
line=$(unprivileged "$EGRESSCTL" detach --bpffs "$SANDBOX_BPFFS" 2>&1) && line="ended with 0: $line"
check "detach that may not remove the table says so: $line" grep -q "^egressctl: not everything could be removed" <<<"$line"
line=$(unprivileged "$EGRESSCTL" close --bpffs "$SANDBOX_BPFFS" 2>&1) && line="ended with 0: $line"
check "so does close: $line" grep -q "^egressctl: table inet egressd_boot, if it is there" <<<"$line"
check "… the table is as it was" there

# An agent for one command has a state directory of its own.
boot
check "egressctl exec" on_client "$EGRESSCTL" exec --egressd "$EGRESSD" --policy "$POLICY" -- true
check "… leaves the machine's table" there
ctl detach --bpffs "$SANDBOX_BPFFS" >/dev/null 2>&1
check "detach, without a daemon, removes it as well" gone
boot

# --- a policy file that is broken at boot

sed -i 's/^mode: enforce/mode: on/' "$POLICY"
start_machine_agent
check "the last good policy is in force" wait_until 5 gone
refused_by() { [[ $(host "$@" 2>&1) == errno=ECONNREFUSED* ]]; }
check "… by its agent" refused_by tcp 198.51.100.9 22
passes "… and what it allows passes" host tcp 203.0.113.5 22
check "status says where the file is wrong" grep -q "last good policy.*policy.yaml:2:7" <<<"$(ctl status)"
check "… the log too" grep -q "error.*last good policy.*policy.yaml:2:7" "$SANDBOX_DIR/egressd.log"
check "… and the metrics" grep -qx 'egressd_last_reload_successful 0' \
  <<<"$(on_client curl -sf http://127.0.0.1:9477/metrics)"
doctor() { ctl doctor --bpffs "$SANDBOX_BPFFS" --state-dir "$STATE" --policy "$POLICY" --json 2>/dev/null || true; }
check "… and the doctor" grep -q "last good policy, as kept in" <<<"$(doctor)"
policy
mended() { ! ctl status | grep -q "last good"; }
check "mended, it is read at once" wait_until 5 mended
stop_egressd
reboot_kernel

# Without a last good policy there is nothing to start with: the machine stays as the table has it.
boot
sed -i 's/^mode: enforce/mode: on/' "$POLICY"
rm "$LAST"
machine_agent
wait "$SANDBOX_AGENT" && status=0 || status=$?
SANDBOX_AGENT=""
check "no good policy: the agent does not start (status $status)" test "$status" -eq 2
refused "… and the machine stays closed" default_deny ECONNREFUSED host tcp 198.51.100.9 22
passes "… but for what the table has" host tcp 203.0.113.5 22
says_closed() { [[ $(ctl status 2>&1 || true) == *"egressd_boot closes this machine"* ]]; }
check "egressctl status says so" says_closed
check "the doctor says so" grep -q "egressd_boot closes this machine" <<<"$(doctor)"

# --- break-glass, with no agent at all

glass() { on_client "$EGRESSCTL" "$@" --bpffs "$SANDBOX_BPFFS"; }
check "egressctl open" glass open --for 10m --reason "nobody is there"
passes "open" host tcp 198.51.100.9 22
passes "open, by UDP" host udp 198.51.100.9 5354
check "… and counted" test "$(counted audit)" -ge 2
check "egressctl close says who it was" grep -q 'uid 0 (nobody is there)' <<<"$(glass close)"
refused "closed again" default_deny ECONNREFUSED host tcp 198.51.100.9 22
check "opens for a second" glass open --for 1s --reason "a short look"
passes "open" host tcp 198.51.100.9 22
check "ends by itself" wait_until 5 refused_by tcp 198.51.100.9 22
cp "$SANDBOX_DIR/good" "$LAST"
check "opens" glass open --for 10m --reason "goes on"
policy
EGRESSD_BACKEND=bpf start_egressd "$POLICY"
check "an agent that takes over" wait_until 5 gone
expect_ok "… stays open" tcp 198.51.100.9 22
check "… and has it on record" wait_until 5 grep -q '"event":"break_glass_opened".*"comment":"goes on"' "$SANDBOX_AUDIT"
stop_egressd
ctl detach --bpffs "$SANDBOX_BPFFS" >/dev/null 2>&1
cp "$SANDBOX_DIR/good" "$LAST"
boot
check "egressd boot --off" boot --off
check "… says so" boot_said "is removed"
passes "… opens" host tcp 198.51.100.9 22

# --- no file to close it by

for damage in cut flipped other directory; do
  case $damage in
    cut) head -c 300 "$SANDBOX_DIR/good" >"$LAST" ;;
    flipped) sed 's/203.0.113.0/203.0.112.0/' "$SANDBOX_DIR/good" >"$LAST" ;;
    other) sed '1s/1$/2/' "$SANDBOX_DIR/good" >"$LAST" ;;
    directory) rm "$LAST" && mkdir "$LAST" ;;
  esac
  check "a file that is $damage" boot
  check "… is none" boot_said "closed until the agent is in force, but for loopback"
  refused "… and nothing of it is in force" default_deny ECONNREFUSED host tcp 203.0.113.5 22
done
for port in 80 32526; do
  passes "the platform, for root" host tcp 168.63.129.16 "$port"
  refused "… not for others" default_deny ECONNREFUSED nobody tcp 168.63.129.16 "$port"
done
refused "… nor other ports" default_deny ECONNREFUSED host tcp 168.63.129.16 22
passes "instance metadata, for root" host tcp 169.254.169.254 80
refused "… not for others" default_deny ECONNREFUSED nobody tcp 169.254.169.254 80
passes "the platform's resolver, for root" host udp 168.63.129.16 53
refused "… not for others" dns_server_not_allowed EPERM nobody udp 168.63.129.16 53
passes "a lease is renewed" nobody udp 168.63.129.16 67
refused "no other resolver" dns_server_not_allowed EPERM host udp "$DNS4" 53
# A datagram to everyone is answered by nobody: it counts that it leaves.
send() {
  on_client /usr/bin/python3 -c '
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
s = socket.socket(family, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
s.bind(("", int(sys.argv[2]) - 1 if family == socket.AF_INET else 546))
to = (sys.argv[1], int(sys.argv[2])) + ((0, socket.if_nametoindex("up0")) if family == socket.AF_INET6 else ())
s.sendto(b"x", to)' "$1" "$2"
}
on_client ip route add 255.255.255.255/32 dev up0
for to in "255.255.255.255 67" "ff02::1:2 547"; do
  before=$(counted kernel)
  # shellcheck disable=SC2086 # words
  check "DHCP: $to" send $to
  check "… counted" test "$(counted kernel)" -gt "$before"
done
on_client ip -6 neigh del "$DNS6" dev up0
passes "neighbours are asked, and the other side may begin" in_server "$EGRESSD_PROBE" tcp "$CLIENT6" 9000 --timeout 5000
passes "… also by IPv4" in_server "$EGRESSD_PROBE" tcp "$CLIENT4" 9000
boot --off

# --- machines that are not to be closed

rm -rf "$LAST" "$STATE"/names "$STATE"/rules
check "never enforced" boot
check "… stays open" boot_said "no agent has enforced a policy"
check "… with no table" gone
policy audit
start_machine_agent
check "an audit policy is kept as one" grep -qx 'mode audit' "$LAST"
stop_egressd
reboot_kernel
check "audit" boot
check "… stays open, and says so" boot_said "was in audit mode: the machine stays open"
check "… with no table" gone
policy
EGRESSD_BACKEND=bpf start_egressd "$POLICY"
stop_egressd
ctl detach --bpffs "$SANDBOX_BPFFS" >/dev/null 2>&1
check "enforced on a cgroup only" boot
check "… stays open, and says so" boot_said "on a cgroup of the machine only"
check "… with no table" gone
# A policy on trial is no good one: what was before is.
start_machine_agent
cp "$POLICY" "$SANDBOX_DIR/tried.yaml"
sed -i 's/203.0.113.0/198.51.100.0/' "$SANDBOX_DIR/tried.yaml"
check "a policy on trial" ctl try "$SANDBOX_DIR/tried.yaml" --for 10m
kept() { grep -q 198.51.100.0 "$LAST"; }
not_kept() { ! kept; }
check "… is not kept" not_kept
check "… until it is confirmed" ctl confirm
check "… then it is" wait_until 2 kept
# What cannot be written is said, until it is.
rm "$LAST" && mkdir "$LAST"
policy
check "a policy that is in force" ctl reload
unkept() { [[ $(ctl status) == *"not kept for the next boot"* ]]; }
check "… but cannot be kept" wait_until 5 unkept
rmdir "$LAST"
check "… is, once it can be" ctl reload
check "… it is there" wait_until 2 test -f "$LAST"
check "… and no warning is left" bash -c '! grep -q "not kept"' <<<"$(ctl status)"
sed 's/203.0.113.0/198.51.100.0/' "$POLICY" >"$SANDBOX_DIR/again.yaml"
mv "$SANDBOX_DIR/again.yaml" "$POLICY"
check "… as is the next" wait_until 5 kept
# The file is lost, but an agent has been here.
stop_egressd
reboot_kernel
rm "$LAST"
check "the file is lost" boot
check "… then the policy file counts" boot_said "last-good is missing"
refused "… and closes" default_deny ECONNREFUSED host tcp 203.0.113.5 22
passes "… by its rules" host tcp 198.51.100.9 22
sed -i 's/^mode: enforce/mode: on/' "$POLICY"
cp "$POLICY" "$SANDBOX_DIR/broken.yaml"
check "both are of no use" boot
check "… then next to nothing is left" boot_said "but for loopback"
boot --off
# Its disk has not come.
mv "$STATE" "$STATE.away"
check "no state directory, a policy that is not in force" boot
check "… stays open" boot_said "no agent has enforced a policy"
sed 's/^mode: on/mode: enforce/' "$SANDBOX_DIR/broken.yaml" >"$POLICY"
check "no state directory, but a policy to enforce" boot
check "… which says why" boot_said "/state is missing"
passes "… closes by its rules" host tcp 198.51.100.9 22
refused "… and no more" default_deny ECONNREFUSED host tcp 203.0.113.5 22
echo 'mistake: true' >>"$POLICY"
check "… one with errors" boot
check "… leaves next to nothing" boot_said "but for loopback"
refused "… of its rules" default_deny ECONNREFUSED host tcp 198.51.100.9 22
mv "$STATE.away" "$STATE"
finish
