#!/usr/bin/env bash
# Beside others that have rules on the same host: what they have stays as it is, byte by byte, and what
# they do to theirs opens nothing. Rules are written by iptables-nft, nft and ufw themselves.
#
# firewalld is not run: it needs D-Bus, polkit and NetworkManager's library. Its table is written here
# as it writes it, with its priorities; it removes that table alone when it reloads.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

sandbox_up
pod_up
for tool in nft iptables-nft-restore ip6tables-nft-restore /lib/ufw/ufw-init; do
  command -v "$tool" >/dev/null || skip "needs $tool: scripts/deps.sh test"
done
in_server ip route add local 168.63.129.16 dev lo
listen tcp 22 23 80
serve in_pod "$EGRESSD_PROBE" listen tcp 9000
# Where another program translates addresses (a Service, a published port), nftables judges after that:
# what is behind it has to be allowed, the Service's address has not. BPF judges connect(), by the
# address that was asked for, and then what leaves: on the host both have to be allowed; of a pod, whose
# packets are translated later, the Service's address alone.
services=''
if [[ $EGRESSD_BACKEND == bpf ]]; then
  services=', 10.96.0.10, 10.96.0.66'
fi
policy_with() {
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
      - {name: ssh, addresses: [203.0.113.0/24, "2001:db8:a::/48"], ports: [22$1], protocols: [tcp]}
      - {name: services, addresses: [168.63.129.16$services], ports: [80], protocols: [tcp]}
  - name: names
    priority: 300
    action: allow
    rules:
      - {name: named, fqdns: [named.example], ports: [22], protocols: [tcp]}
END
}
dns_set named.example 198.51.100.77
policy_with ''

# --- the neighbours: NAME_load and NAME_reload, which makes its rules anew as it does itself

# $1 = iptables-nft-restore | ip6tables-nft-restore, with options
restore_rules() { on_client "$@"; }

docker_load() {
  restore_rules iptables-nft-restore <<END
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o pod0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o pod0 -j DOCKER
-A FORWARD -i pod0 ! -o pod0 -j ACCEPT
-A FORWARD -i pod0 -o pod0 -j ACCEPT
-A DOCKER -d $POD4/32 ! -i pod0 -o pod0 -p tcp -m tcp --dport 9000 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i pod0 ! -o pod0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o pod0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 192.0.2.128/25 ! -o pod0 -j MASQUERADE
-A DOCKER -i pod0 -j RETURN
-A DOCKER ! -i pod0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination $POD4:9000
COMMIT
END
  restore_rules ip6tables-nft-restore <<END
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -o pod0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -i pod0 ! -o pod0 -j ACCEPT
-A DOCKER-USER -j RETURN
COMMIT
END
}
docker_reload() {
  # shellcheck disable=SC2016 # expanded by the inner shell
  on_client bash -c 'for t in iptables-nft ip6tables-nft; do $t -F; $t -X; done
    iptables-nft -t nat -F; iptables-nft -t nat -X'
  docker_load
}
docker_probes() {
  local line
  line=$(in_server "$EGRESSD_PROBE" tcp "$CLIENT4" 8080) || true
  check "docker: a published port: $line" test "${line%% *}" = ok
}

kube_iptables_load() {
  restore_rules iptables-nft-restore --noflush <<END
*filter
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-FIREWALL - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-SERVICES - [0:0]
-A INPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES
-A INPUT -j KUBE-FIREWALL
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -j KUBE-FIREWALL
-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A KUBE-SERVICES -d 10.96.0.99/32 -p tcp -m comment --comment "default/empty has no endpoints" -m tcp --dport 80 -j REJECT --reject-with icmp-port-unreachable
COMMIT
*nat
:KUBE-MARK-MASQ - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SEP-GOOD - [0:0]
:KUBE-SEP-BAD - [0:0]
:KUBE-SVC-GOOD - [0:0]
:KUBE-SVC-BAD - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully
-A KUBE-SERVICES -d 10.96.0.10/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-GOOD
-A KUBE-SERVICES -d 10.96.0.66/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-BAD
-A KUBE-SVC-GOOD ! -s 192.0.2.128/25 -j KUBE-MARK-MASQ
-A KUBE-SVC-GOOD -m statistic --mode random --probability 0.5 -j KUBE-SEP-GOOD
-A KUBE-SVC-GOOD -j KUBE-SEP-GOOD
-A KUBE-SVC-BAD -j KUBE-SEP-BAD
-A KUBE-SEP-GOOD -p tcp -m tcp -j DNAT --to-destination 203.0.113.10:22
-A KUBE-SEP-BAD -p tcp -m tcp -j DNAT --to-destination 198.51.100.66:22
COMMIT
END
}
# A resync replaces what is in its own chains; here all of it, after `iptables -F`.
kube_iptables_reload() {
  on_client bash -c 'iptables-nft -F; iptables-nft -t nat -F'
  kube_iptables_load
}
kube_iptables_probes() { service_probes; }

kube_nft_load() {
  on_client nft -f - <<END
table ip kube-proxy {
  comment "rules for kube-proxy"
  set cluster-ips { type ipv4_addr; elements = { 10.96.0.10, 10.96.0.66, 10.96.0.99 }; }
  map no-endpoint-services { type ipv4_addr . inet_proto . inet_service : verdict
    elements = { 10.96.0.99 . tcp . 80 : goto reject-chain }; }
  map service-ips { type ipv4_addr . inet_proto . inet_service : verdict
    elements = { 10.96.0.10 . tcp . 80 : goto service-good, 10.96.0.66 . tcp . 80 : goto service-bad }; }
  chain reject-chain { reject; }
  chain mark-for-masquerade { meta mark set meta mark or 0x4000; }
  chain endpoint-good { meta l4proto tcp dnat to 203.0.113.10:22; }
  chain endpoint-bad { meta l4proto tcp dnat to 198.51.100.66:22; }
  chain service-good { ip saddr != 192.0.2.128/25 jump mark-for-masquerade
    numgen random mod 2 vmap { 0 : goto endpoint-good, 1 : goto endpoint-good }; }
  chain service-bad { goto endpoint-bad; }
  chain services { ip daddr . meta l4proto . th dport vmap @service-ips; }
  chain nat-prerouting { type nat hook prerouting priority -100; jump services; }
  chain nat-output { type nat hook output priority -100; jump services; }
  chain nat-postrouting { type nat hook postrouting priority 100
    meta mark & 0x4000 != 0 meta mark set meta mark ^ 0x4000 masquerade fully-random; }
  chain service-endpoints-check { ip daddr . meta l4proto . th dport vmap @no-endpoint-services; }
  chain cluster-ips-check { ip daddr @cluster-ips reject; }
  chain filter-prerouting-pre-dnat { type filter hook prerouting priority -110; }
  chain filter-output-pre-dnat { type filter hook output priority -110; }
  chain filter-input { type filter hook input priority -110; ct state new jump service-endpoints-check; }
  chain filter-forward { type filter hook forward priority -110
    ct state new jump service-endpoints-check
    ct state new jump cluster-ips-check; }
  chain filter-output { type filter hook output priority -90
    ct state new jump service-endpoints-check
    ct state new jump cluster-ips-check; }
}
END
}
kube_nft_reload() {
  on_client nft delete table ip kube-proxy
  kube_nft_load
}
kube_nft_probes() { service_probes; }

firewalld_load() {
  on_client nft -f - <<'END'
table inet firewalld {
  chain mangle_PREROUTING { type filter hook prerouting priority -140; policy accept; }
  chain nat_PREROUTING { type nat hook prerouting priority -90; policy accept; }
  chain nat_POSTROUTING { type nat hook postrouting priority 110; policy accept; oifname "up0" iifname "pod0" masquerade; }
  chain nat_OUTPUT { type nat hook output priority -90; policy accept; }
  chain filter_PREROUTING { type filter hook prerouting priority 10; policy accept
    icmpv6 type { nd-router-advert, nd-neighbor-solicit } accept
    meta nfproto ipv6 fib saddr . mark . iif oif missing drop; }
  chain filter_INPUT { type filter hook input priority 10; policy accept
    ct state { established, related } accept
    ct status dnat accept
    iifname "lo" accept
    ct state invalid drop
    icmp type echo-request accept
    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
    reject with icmpx admin-prohibited; }
  chain filter_FORWARD { type filter hook forward priority 10; policy accept
    ct state { established, related } accept
    ct status dnat accept
    iifname "lo" accept
    ct state invalid drop
    ip6 daddr { ::/96, ::ffff:0.0.0.0/96, 2002::/24 } reject with icmpv6 addr-unreachable
    iifname "pod0" accept
    reject with icmpx admin-prohibited; }
  chain filter_OUTPUT { type filter hook output priority 10; policy accept
    ct state { established, related } accept
    oifname "lo" accept
    ip6 daddr { ::/96, ::ffff:0.0.0.0/96, 2002::/24 } reject with icmpv6 addr-unreachable; }
}
END
}
firewalld_reload() {
  on_client nft -f - <<<'delete table inet firewalld'
  firewalld_load
}

# The real one, as its service runs it, with a configuration of the client's own. `ufw` itself does the
# same, and writes the rules, but takes seconds.
ufw_load() {
  local v
  if [[ ! -d $SANDBOX_DIR/ufw ]]; then
    cp -a /etc/ufw "$SANDBOX_DIR/ufw"
    echo ENABLED=yes >>"$SANDBOX_DIR/ufw/ufw.conf"
    for v in '' 6; do
      sed "/^### RULES ###/a -A ufw$v-user-output -p tcp --dport 22 -j ACCEPT\n-A ufw$v-user-output -p udp --dport 53 -j ACCEPT\n-A ufw$v-user-forward -i pod0 -j ACCEPT" \
        "/usr/share/ufw/iptables/user$v.rules" >"$SANDBOX_DIR/ufw/user$v.rules"
    done
    sed 's/^IPT_SYSCTL=.*/IPT_SYSCTL=/; s/^DEFAULT_OUTPUT_POLICY=.*/DEFAULT_OUTPUT_POLICY="DROP"/' \
      /etc/default/ufw >"$SANDBOX_DIR/ufw.default"
    on_client mount --bind "$SANDBOX_DIR/ufw" /etc/ufw
    on_client mount --bind "$SANDBOX_DIR/ufw.default" /etc/default/ufw
  fi
  on_client /lib/ufw/ufw-init start >/dev/null
}
ufw_reload() { on_client /lib/ufw/ufw-init force-reload >/dev/null; }
ufw_probes() {
  local line
  line=$(probe tcp 168.63.129.16 80 --timeout 150 2>&1) || true
  check "ufw: what egressd allows and ufw does not: $line" test "${line%% *}" != ok
}

azure_load() {
  restore_rules iptables-nft-restore <<'END'
*security
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A OUTPUT -d 168.63.129.16/32 -p tcp -m tcp --dport 53 -j ACCEPT
-A OUTPUT -d 168.63.129.16/32 -p tcp -m owner --uid-owner 0 -j ACCEPT
-A OUTPUT -d 168.63.129.16/32 -p tcp -m conntrack --ctstate INVALID,NEW -j DROP
COMMIT
END
  on_client nft -f - <<'END'
table ip6 azureSLBProbe {
  chain prerouting { type filter hook prerouting priority -300; policy accept
    ip6 saddr fe80::1234:5678:9abc ip6 saddr set 2603:1062:0:1:fe80:1234:5678:9abc; }
  chain postrouting { type filter hook postrouting priority -300; policy accept
    ip6 daddr 2603:1062:0:1:fe80:1234:5678:9abc ip6 daddr set fe80::1234:5678:9abc; }
}
END
}
azure_reload() {
  on_client iptables-nft -t security -F
  on_client nft delete table ip6 azureSLBProbe
  azure_load
}
azure_probes() {
  local line
  expect_ok "azure: the platform, by root" tcp 168.63.129.16 80
  line=$(in_client setpriv --reuid 65534 --clear-groups "$EGRESSD_PROBE" tcp 168.63.129.16 80 --timeout 150 2>&1) || true
  check "azure: the platform, by others, is refused by Azure's rule: $line" test "${line%% *}" != ok
}

# --- what has to hold beside each

# Everything in nftables but our own table, and iptables' own view.
others() {
  # shellcheck disable=SC2016 # expanded by the inner shell
  on_client bash -c 'nft -s list ruleset 2>/dev/null | sed "/^table inet egressd[-a-z0-9_]* {/,/^}/d"
    for t in ip ip6; do "${t}tables-nft-save"; done 2>/dev/null | sed "/^#/d; s/\[[0-9:]*\]//"'
}
untouched() { check "$1: its rules are as they were $2" diff <(printf '%s\n' "$3") <(others); }

pod_gets() {
  local expected=$1 what=$2 line
  shift 2
  line=$(in_pod "$EGRESSD_PROBE" "$@" 2>&1) || true
  check "$what, from a pod: $line" test "${line%% *}" = "$expected"
}

probes() {
  local tcp_refused
  tcp_refused=errno=$(errno_of EPERM tcp)
  expect_ok "$1: allowed" tcp 203.0.113.5 22
  expect_ok "$1: allowed, IPv6" tcp 2001:db8:a::5 22
  expect_ok "$1: a name" tcp 198.51.100.77 22
  expect_errno EPERM default_deny "$1: refused" tcp 198.51.100.9 22
  expect_errno EPERM default_deny "$1: refused, IPv6" tcp 2001:db8:b::9 22
  pod_gets ok "$1: allowed" tcp 203.0.113.5 22
  pod_gets "$tcp_refused" "$1: refused" tcp 198.51.100.9 22
}

service_probes() {
  expect_ok "a service with something allowed behind it" tcp 10.96.0.10 80
  pod_gets ok "a service with something allowed behind it" tcp 10.96.0.10 80
  if [[ $EGRESSD_BACKEND == nft ]]; then
    expect_errno EPERM default_deny "a service with something else behind it" tcp 10.96.0.66 80
    pod_gets errno=ECONNREFUSED "a service with something else behind it" tcp 10.96.0.66 80
  else
    # Its connect() was allowed: what is refused then is its SYN.
    local before line
    before=$(status_number default_deny)
    line=$(probe tcp 10.96.0.66 80 --timeout 100 2>&1) || true
    check "a service with something else behind it: $line" test "${line%% *}" = errno=ETIMEDOUT
    check "… counted" test "$(status_number default_deny)" -gt "$before"
    pod_gets ok "a service with something else behind it" tcp 10.96.0.66 80
  fi
}

# nftables judges the whole namespace, with what is forwarded. BPF would judge the whole machine.
start_beside() {
  local EGRESSD_CGROUP=''
  if [[ $EGRESSD_BACKEND == nft ]]; then EGRESSD_CGROUP=$(cgroup2_mount); fi
  start_egressd "$POLICY"
}

ended() { ! kill -0 "$SANDBOX_AGENT" 2>/dev/null; }

beside() {
  local who=$1 before
  "${who}_load"
  before=$(others)
  start_beside
  untouched "$who" "after the start" "$before"
  probes "$who"
  if declare -F "${who}_probes" >/dev/null; then "${who}_probes"; fi
  reload_egressd
  untouched "$who" "after a reload" "$before"
  "${who}_reload"
  untouched "$who" "after its own reload" "$before"
  expect_errno EPERM default_deny "$who has reloaded: refused" tcp 198.51.100.9 22
  expect_ok "$who has reloaded: allowed" tcp 203.0.113.5 22
  if declare -F "${who}_probes" >/dev/null; then "${who}_probes"; fi
  check "$who: detach" ctl detach --bpffs "$SANDBOX_BPFFS" >/dev/null
  wait_until 5 ended || die "the agent does not end"
  SANDBOX_AGENT=""
  untouched "$who" "after detach" "$before"
  # None of ours is left to be there for the next.
  on_client nft flush ruleset
}

neighbours=(docker kube_iptables kube_nft)
# BPF has nothing in common with them but addresses that are translated.
if [[ $EGRESSD_BACKEND == nft ]]; then neighbours+=(firewalld azure ufw); fi
for who in "${neighbours[@]}"; do
  beside "$who"
done

# Whoever begins with `flush ruleset` takes our table along: it comes back by itself, with what was
# learned. Nothing else can keep it: with the flag `owner` it would go with the agent.
if [[ $EGRESSD_BACKEND == nft ]]; then
  start_beside
  expect_errno EPERM default_deny "before the flush" tcp 198.51.100.9 22
  # Time, open connections and the order of chains apart.
  table() {
    on_client nft -s list table inet egressd |
      sed 's/ timeout [0-9].*//; s/ expires [0-9].*//; /tcp \. [0-9]\{5\}/d' | sort
  }
  before=$(table)
  check "what was learned is in it" test "$(grep -c 'elements = .*198.51.100.77' <<<"$before")" -ge 3
  hold_open 203.0.113.5 22
  refused() { [[ $(probe tcp 198.51.100.9 22 2>&1) == errno=ECONNREFUSED* ]]; }
  for round in 1 2; do
    since=${EPOCHREALTIME/./}
    on_client nft flush ruleset
    if ! wait_until 3 refused; then
      fail "flush $round: what is forbidden stays open"
      continue
    fi
    took=$(((${EPOCHREALTIME/./} - since) / 1000))
    check "flush $round: refused again after $took ms" test "$took" -lt "$((1500 * SANDBOX_SLOW))"
    check "flush $round: the table is what it was" diff <(printf '%s\n' "$before") <(table)
    probes "flush $round"
    expect_hold_ok "flush $round: a connection from before"
    told() { grep -q 'another program removed the table of nftables' "$SANDBOX_DIR/egressd.log"; }
    check "flush $round: logged" wait_until 2 told
    said() { ctl status --json | grep -q "another program removed it $round time(s)"; }
    check "flush $round: in the status" said
  done
  # A policy that is read before that is noticed comes into force.
  policy_with ', 23'
  on_client nft flush ruleset
  reload_egressd
  expect_ok "a reload after a flush: the new policy" tcp 203.0.113.5 23
  expect_errno EPERM default_deny "… refuses" tcp 198.51.100.9 22
  check "detach" ctl detach --bpffs "$SANDBOX_BPFFS" >/dev/null
  wait_until 5 ended || die "the agent does not end"
  SANDBOX_AGENT=""
  check "what was detached stays away" test -z "$(on_client nft list tables)"
fi
finish
