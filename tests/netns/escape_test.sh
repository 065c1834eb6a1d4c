#!/usr/bin/env bash
# Ways out that do not look like one: a foreign source, so that the local stack answers a stranger;
# loopback by way of the uplink; an IPv4 address in an IPv6 header. What leaves is counted on the
# other side of the wire. Each got through before egressd started.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

sandbox_up
command -v nft >/dev/null || skip "needs nft"
readonly STRANGER4=198.51.100.66 STRANGER6=2001:db8:b::66
# Before IPv6 looks at the packet: it throws ::1 from a wire away unseen.
in_server nft -f - <<END || skip "no nftables in this kernel"
table netdev wire {
  counter stranger { }
  counter loopback { }
  counter mapped { }
  chain in {
    type filter hook ingress device up0 priority 0; policy accept;
    ip daddr $STRANGER4 counter name stranger
    ip6 daddr $STRANGER6 counter name stranger
    ip daddr 127.0.0.0/8 counter name loopback
    ip6 daddr ::1 counter name loopback
    ip6 daddr ::ffff:0:0/96 counter name mapped
  }
}
END
# left COUNTER: packets of that kind that came over the wire so far.
left() {
  local words
  words=$(in_server nft list counter netdev wire "$1")
  words=${words##*packets }
  printf '%s\n' "${words%% *}"
}
left_above() { (($(left "$1") > $2)); }

listen tcp 443 udp 5353
serve in_client "$EGRESSD_PROBE" listen tcp 7000 udp 7001
victim=$REPLY
dns_set dual.wild.test 203.0.113.1 2001:db8:a::1
write_policy <<END
version: 1
mode: enforce
dns:
  servers: [$DNS4]
collections:
  - name: all
    priority: 200
    action: allow
    rules:
      - {name: wild, fqdns: ["*.wild.test"], ports: [443], protocols: [tcp]}
      - {name: net, addresses: [203.0.113.0/24, "2001:db8:a::/48"], ports: [5353], protocols: [udp]}
END
# The attacker has no privilege, but where raw sockets are the point.
nobody() {
  in_client setpriv --reuid 65534 --regid 65534 --clear-groups "$EGRESSD_PROBE" "$@"
}
probe() { nobody "$@"; }
root() { in_client "$EGRESSD_PROBE" "$@"; }
recorded() { audit_records "$@" >/dev/null; }

# COUNTER PROBE… of each attack. They differ in who answers: nobody's port (ICMP error), a UDP
# server, a TCP server (SYN-ACK).
attacks=(
  "stranger nobody udp $CLIENT6 9 --freebind --bind $STRANGER6 --bind-port 5001"
  "stranger nobody udp $CLIENT6 7001 --freebind --bind $STRANGER6 --bind-port 5002"
  "stranger nobody tcp $CLIENT6 7000 --freebind --bind $STRANGER6 --bind-port 5003"
  "stranger nobody tcp ::1 7000 --freebind --bind $STRANGER6 --bind-port 5004"
  "stranger root forged $CLIENT4 9 --bind $STRANGER4 --bind-port 5005"
  "stranger root forged $CLIENT4 7001 --bind $STRANGER4 --bind-port 5006"
  "loopback nobody udp 127.0.0.1 7001 --device up0"
  "loopback nobody tcp 127.0.0.1 7000 --device up0"
  "mapped root forged 2001:db8:a::5 5353 --bind $CLIENT6 --bind-port 5007 --header-to ::ffff:203.0.113.5"
)
for attack in "${attacks[@]}"; do
  read -ra words <<<"$attack"
  before=$(left "${words[0]}")
  "${words[@]:1}" --timeout 200 >/dev/null || true
  check "without egressd it leaves: ${words[*]:1}" wait_until 2 left_above "${words[0]}" "$before"
done

# A new server: the old one would go on repeating its SYN-ACKs to the stranger.
sandbox_reap "$victim"
serve in_client "$EGRESSD_PROBE" listen tcp 7000 udp 7001

start_egressd "$POLICY"
strangers=$(left stranger)
loopbacks=$(left loopback)
mapped=$(left mapped)
for attack in "${attacks[@]}"; do
  read -ra words <<<"$attack"
  reason=default_deny
  if [[ ${words[0]} == mapped ]]; then reason=malformed; fi
  before=$(status_number "$reason")
  lines=$(audit_lines)
  line=$("${words[@]:1}" --timeout 200) || true
  # TCP's own packets are dropped one by one; the sender of a datagram is told.
  want=EPERM
  if [[ ${words[2]} == tcp ]]; then want=ETIMEDOUT; fi
  # nftables say so to whoever has an address of this host.
  if [[ $EGRESSD_BACKEND == nft && ${words[0]} == loopback && ${words[2]} == tcp ]]; then
    want=ECONNREFUSED
  fi
  check "refused: ${words[*]:1}: $line" grep -q "^errno=$want " <<<"$line"
  check "… and counted" test "$(status_number "$reason")" -gt "$before"
  check "… and recorded" wait_until 2 recorded "$lines" "\"reason\":\"$reason\"" '"hook":"packet"'
done
sleep 0.2
check "nothing left for a stranger" test "$(left stranger)" -eq "$strangers"
check "nothing left for loopback" test "$(left loopback)" -eq "$loopbacks"
check "nothing left for a mapped address" test "$(left mapped)" -eq "$mapped"

expect_ok "own source to an own UDP server" udp "$CLIENT6" 7001 --bind "$CLIENT6"
expect_ok "own source to an own TCP server" tcp "$CLIENT6" 7000 --bind "$CLIENT6"
expect_ok "own source to ::1" tcp ::1 7000 --bind ::1
expect_ok "loopback without a device" tcp 127.0.0.1 7000
expect_ok "loopback on its own device" udp 127.0.0.1 7001 --device lo
line=$(nobody udp "$CLIENT6" 9 --bind "$CLIENT6") || true
check "own closed port: $line" grep -q '^errno=ECONNREFUSED\|^errno=ETIMEDOUT' <<<"$line"
line=$(root forged "$CLIENT4" 7001 --bind "$CLIENT4" --bind-port 5008) || true
check "raw socket with its own source: $line" test "${line%% *}" = ok
line=$(root forged 2001:db8:a::5 5353 --bind "$CLIENT6" --bind-port 5009) || true
check "the same header, with the IPv6 address: $line" test "${line%% *}" = ok

# connect() on a datagram socket sends nothing and is nobody's business.
lines=$(audit_lines)
spawn in_client "$EGRESSD_PROBE" udp-connected "$STRANGER4" 5353 --linger 500 >"$SANDBOX_DIR/line"
pid=$REPLY
wait "$pid" || true
check "UDP: connect() works, send() is refused: $(<"$SANDBOX_DIR/line")" \
  grep -q '^errno=EPERM in send' "$SANDBOX_DIR/line"
who=("\"pid\":$pid" '"comm":"egressd_probe"' "\"exe\":\"$EGRESSD_PROBE\"")
if [[ $EGRESSD_BACKEND == nft ]]; then who=(); fi
check "the record names the process, where it is known" wait_until 2 recorded "$lines" \
  "\"$STRANGER4\"" "${who[@]}"
expect_ok "the same to an allowed address" udp-connected 203.0.113.5 5353

# getaddrinfo() connects a datagram socket to every address it found, to see which to put first.
lines=$(audit_lines)
denied="$(status_number default_deny) $(status_number port_not_allowed)"
expect_ok "a name with IPv4 and IPv6" resolve dual.wild.test 443
sleep 1.2 # what was refused before may still come on record, as a count
recorded_anyway=$(audit_records "$lines" dual.wild.test || true)
check "leaves no record: $recorded_anyway" test -z "$recorded_anyway"
check "and no refusal" \
  test "$(status_number default_deny) $(status_number port_not_allowed)" = "$denied"
finish
