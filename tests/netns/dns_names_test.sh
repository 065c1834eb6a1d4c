#!/usr/bin/env bash
# Names the policy never spells out: what a wildcard covers is learned from the DNS answer and works
# at once; what it does not cover is not even asked.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

DNS_ARGS=("--cname=alias.wild.test,edge.cdn.test" "--cname=edge.cdn.test,host.provider.test")
sandbox_up
in_server ip route add local 10.9.0.0/24 dev lo
listen tcp 22 443
dns_set one.wild.test 203.0.113.1
dns_set two.wild.test 203.0.113.2 2001:db8:a::2
dns_set a.b.wild.test 203.0.113.4
dns_set host.provider.test 203.0.113.3
dns_set wild.test 198.51.100.1
dns_set evilwild.test 198.51.100.2
dns_set one.wild.test.evil.test 198.51.100.3
dns_set other.test 198.51.100.4
dns_set secret.wild.test 203.0.113.66
dns_set host.cluster.test 198.51.100.5
dns_set inside.wild.test 10.9.0.1
dns_set inside.private.test 10.9.0.2
policy() {
  write_policy <<END
version: 1
mode: enforce
dns:
  servers: [$DNS4]
  searchDomains: [cluster.test]
  filter: $1
collections:
  - name: closed
    priority: 100
    action: deny
    rules:
      - {name: secret, fqdns: [secret.wild.test], ports: ["*"]}
  - name: open
    priority: 200
    action: allow
    rules:
      - {name: wild, fqdns: ["*.wild.test"], ports: [443], protocols: [tcp]}
      - {name: private, fqdns: ["*.private.test"], ports: [443], protocols: [tcp], allowPrivate: true}
END
}
policy allowlist
start_egressd "$POLICY"
# With nftables the agent is asked, answers REFUSED, and sees no process.
through_agent=false source=kernel
[[ $EGRESSD_BACKEND != nft ]] || through_agent=true source=proxy
check "nothing is known beforehand" test -z "$(ctl list --json)"

expect_errno EPERM default_deny "an address nobody asked for" tcp 203.0.113.1 443
expect_ok "name under the wildcard" resolve one.wild.test 443
expect_ok "another, IPv4" resolve two.wild.test 443 -4
expect_ok "another, IPv6" resolve two.wild.test 443 -6
expect_ok "two labels below it" resolve a.b.wild.test 443
expect_ok "CNAMEs that lead out of the pattern" resolve alias.wild.test 443 -4
expect_errno EPERM port_not_allowed "port without a rule" tcp 203.0.113.1 22
expect_errno EPERM port_not_allowed "port without a rule, IPv6" tcp 2001:db8:a::2 22
expect_errno EPERM port_not_allowed "protocol without a rule" udp 203.0.113.1 443

# listed NEEDLE…: one entry of `egressctl list` holds them all.
listed() {
  local lines needle
  lines=$(ctl list --json)
  for needle in "$@"; do
    lines=$(grep -F -- "$needle" <<<"$lines") || return 1
  done
}
check "list: name, pattern, rule, source" wait_until 2 listed '"address":"203.0.113.1"' \
  '"fqdn":"one.wild.test"' '"pattern":"*.wild.test"' '"rule":"wild"' "\"source\":\"$source\""
check "list: IPv6" wait_until 2 listed '"address":"2001:db8:a::2"' '"fqdn":"two.wild.test"'
check "list: CNAME chain" wait_until 2 listed '"address":"203.0.113.3"' '"fqdn":"alias.wild.test"' \
  '"cname_chain":["edge.cdn.test","host.provider.test"]'

expect_unasked wild.test "the wildcard's apex"
expect_unasked evilwild.test "a look-alike"
expect_unasked one.wild.test.evil.test "the pattern inside a longer name"
expect_unasked other.test "a name without a rule"
expect_unasked edge.cdn.test "a CNAME on the way, asked by itself"
expect_unasked secret.wild.test "a deny rule below the wildcard"
expect_ok "its sibling" resolve one.wild.test 443
expect_errno EPERM default_deny "the denied name's address" tcp 203.0.113.66 443

lines=$(audit_lines)
spawn in_client "$EGRESSD_PROBE" ask "$DNS4" 53 --name other.test --linger 500 >"$SANDBOX_DIR/ask"
pid=$REPLY
wait "$pid" || true
said='^errno=EPERM in send' who=("\"pid\":$pid" '"comm":"egressd_probe"')
if $through_agent; then said='^ok' who=("\"cgroup\":\"/${SANDBOX_CGROUP##*/}\""); fi
check "the question itself: $(<"$SANDBOX_DIR/ask")" grep -q "$said" "$SANDBOX_DIR/ask"
recorded() { audit_records "$@" >/dev/null; }
check "its record names who asked and the name" wait_until 2 recorded "$lines" \
  '"other.test"' '"reason":"dns_name_not_allowed"' '"verdict":"denied"' "${who[@]}" "\"destination\":\"$DNS4\"" '"port":53' '"protocol":"udp"'
expect_ok "the same question for an allowed name" ask "$DNS4" 53 --name one.wild.test
if $through_agent; then
  before=$(status_number dns_name_not_allowed)
  probe ask "$DNS4" 53 --name one.wild.test --type 16 >/dev/null
  check "a TXT record of an allowed name" test "$(status_number dns_name_not_allowed)" -gt "$before"
else
  expect_errno EPERM dns_name_not_allowed "a TXT record of an allowed name" \
    ask "$DNS4" 53 --name one.wild.test --type 16
fi
check "… is not asked for" test "$(grep -c 'query\[TXT\]' "$SANDBOX_DIR/dns.log")" -eq 0

expect_ok "a search domain may be asked" ask "$DNS4" 53 --name host.cluster.test
check "… and is" was_asked A host.cluster.test
expect_errno EPERM default_deny "… and grants nothing" resolve host.cluster.test 443 -4

guarded=$(status_number address_guarded)
expect_errno EPERM default_deny "private address, without allowPrivate" resolve inside.wild.test 443 -4
$through_agent || check "counted as guarded" test "$(status_number address_guarded)" -gt "$guarded"
expect_ok "private address, with allowPrivate" resolve inside.private.test 443 -4

expect_errno EPERM dns_server_not_allowed "another DNS server, UDP" \
  ask 203.0.113.53 53 --name one.wild.test
expect_errno EPERM dns_server_not_allowed "another DNS server, TCP" tcp 203.0.113.53 53
expect_errno EPERM dns_server_not_allowed "the resolver's other address" ask "$DNS6" 53 --name one.wild.test
expect_errno EPERM dns_server_not_allowed "DNS over TLS to a learned address" tcp 203.0.113.1 853
# In memory the sender can still write to, what is judged need not be what leaves.
cat >"$SANDBOX_DIR/borrow.py" <<'END'
import errno, socket, sys
question = b"\x12\x34\1\0\0\1\0\0\0\0\0\0\3one\4wild\4test\0\0\1\0\1"
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.setsockopt(socket.SOL_SOCKET, 60, 1)  # SO_ZEROCOPY
for flags in (0, 0x4000000):  # MSG_ZEROCOPY
    try:
        udp.sendto(question, flags, (sys.argv[1], 53))
        print("sent")
    except OSError as e:
        print(errno.errorcode[e.errno])
END
# The agent judges what it has read, and asks in its own words.
before=$(status_number dns_malformed)
line=$(in_client /usr/bin/python3 "$SANDBOX_DIR/borrow.py" "$DNS4" | tr '\n' ' ')
if $through_agent; then
  check "a question copied, and one lent to the kernel: $line" test "$line" = "sent sent "
else
  check "a question copied, and one lent to the kernel: $line" test "$line" = "sent EPERM "
  check "… counted" test "$(status_number dns_malformed)" -gt "$before"
fi
line=$(RES_OPTIONS=use-vc probe resolve one.wild.test 443 2>&1) || true
check "an allowed name over TCP: $line" test "${line%% *}" = ok
# Without an agent to answer nothing tells the client that its question was dropped: the connection times out.
line=$(RES_OPTIONS=use-vc probe resolve other.test 443 2>&1) || true
spent=${line##* after }
check "a forbidden one: $line" test "${line%% *}" = unresolved -a "${spent%%.*}" -le 15000
# Without forking, dnsmasq still waits for the rest of it.
dns_stop
dns_start
expect_errno EPERM dns_server_not_allowed "port 53 of a learned address" ask 203.0.113.1 53 --name one.wild.test
expect_ok "the trusted one, TCP" tcp "$DNS4" 53

policy audit
reload_egressd
lines=$(audit_lines)
before=$(status_number would_deny)
expect_errno EPERM default_deny "filter: audit grants nothing" resolve other.test 443 -4
check "the question left" was_asked A other.test
check "it is recorded" wait_until 2 recorded "$lines" '"verdict":"would_deny"' '"other.test"' \
  '"reason":"dns_name_not_allowed"' "${who[1]:-}"
check "and counted" test "$(status_number would_deny)" -gt "$before"
expect_ok "names under the wildcard" resolve one.wild.test 443
policy allowlist
reload_egressd
expect_unasked wild.test "the filter again"
finish
