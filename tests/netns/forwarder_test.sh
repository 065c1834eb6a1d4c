#!/usr/bin/env bash
# dns.mode: proxy. Questions go through the agent, an answer comes when its addresses are reachable,
# and when the agent is killed DNS is learned from in the kernel at once. With nftables, which learn
# from nothing, that is the only mode: without an agent nobody may ask, and what is known stays.
set -euo pipefail
# shellcheck source=tests/netns/sandbox.sh
. "${0%/*}/sandbox.sh"

readonly NAMES=${NAMES:-1000}
ASK=$(realpath "${0%/*}")/dns_ask.py
command -v python3 >/dev/null || skip "python3 is missing: run scripts/deps.sh"

ask() { in_client python3 "$ASK" "$@" 2>&1 || true; }
# expect_answer WHAT PATTERN ARGS…: PATTERN is a glob for the line of dns_ask.py.
expect_answer() {
  local what=$1 pattern=$2 line
  shift 2
  line=$(ask "$@")
  # shellcheck disable=SC2053 # a pattern is meant
  if [[ $line == $pattern ]]; then pass "$what: $line"; else fail "$what: $* gave '$line'"; fi
}
proxy_is() { [[ $(ctl status --json | grep -o '"dns_mode":"[a-z]*"') == "\"dns_mode\":\"$1\"" ]]; }
policy() {
  write_policy <<END
version: 1
mode: enforce
dns: {servers: [$DNS4, "$DNS6"], mode: $1}
collections:
  - name: names
    priority: 100
    action: allow
    rules:
      - {name: fresh, fqdns: ["*.fresh.example"], ports: [443], protocols: [tcp, udp]}
      - {name: one, fqdns: [one.example, late.example, big.example, inside.example], ports: [443]}
END
}

# TEST-NET addresses would not do for so many.
sandbox_up
in_server ip route add local 5.5.0.0/16 dev lo
{
  for ((i = 0; i < NAMES; i++)); do
    printf '5.5.%d.%d n%d.fresh.example\n' $((i / 250)) $((i % 250 + 1)) "$i"
  done
  for ((i = 0; i < 120; i++)); do
    printf '5.5.100.%d big.example\n' $((i + 1))
  done
  printf '10.9.9.9 inside.example\n203.0.113.3 late.example\n'
} >>"$SANDBOX_DIR/hosts"
dns_set one.example 203.0.113.1
listen 443
policy proxy
start_egressd "$POLICY"

proxied() { status_number questions; }
redirection() { on_client nft list tables | grep -c 'egressd-dns-' || true; }
grep -q '"nftables: redirect DNS' <<<"$(ctl status --json)" &&
  skip "this kernel has no nftables redirection with socket cgroupv2 and table owners"
check "DNS is redirected to the agent" proxy_is proxy
check "in a table of its own" test "$(redirection)" = 1

# --- what is allowed
expect_ok "an allowed name" resolve one.example 443
expect_answer "by UDP" 'NOERROR answers=1 tc=0 *' "$DNS4" one.example
expect_answer "over IPv6" 'NOERROR answers=1 tc=0 *' "$DNS6" one.example
expect_answer "by TCP" 'NOERROR answers=1 tc=0 *' "$DNS4" one.example tcp
expect_answer "by TCP over IPv6" 'NOERROR answers=1 tc=0 *' "$DNS6" one.example tcp
expect_answer "a name that does not exist" 'NXDOMAIN *' "$DNS4" nowhere.fresh.example
expect_answer "another usual type" 'NOERROR answers=0 *' "$DNS4" one.example 65
asked=$(proxied)
for mode in tcp4 vc; do
  out=$(in_client "$DNS_CLIENT" $mode 0 "$NAMES" n%d.fresh.example 2>&1) || true
  if [[ $out == *"connections $NAMES refused 0 failed 0"* ]]; then
    pass "$NAMES names, $mode: $out"
  else
    fail "$NAMES names, $mode: $out"
  fi
done
out=$(in_client "$DNS_CLIENT" mixed 0 100 n%d.fresh.example "$DNS4" 2>&1) || true
check "letters in either case: $out" test "${out#*connections}" = " 100 refused 0 failed 0"
check "all of them through the agent" test "$(($(proxied) - asked))" -ge $((2 * NAMES + 100))
expect_answer "a large answer is cut by UDP" 'NOERROR answers=0 tc=1 *' "$DNS4" big.example edns
expect_answer "and whole by TCP" 'NOERROR answers=120 tc=0 *' "$DNS4" big.example tcp
expect_ok "and its addresses are reachable" tcp 5.5.100.77 443
expect_answer "a private address is told" 'NOERROR answers=1 *' "$DNS4" inside.example
expect_errno EPERM default_deny "and not reachable" tcp 10.9.9.9 443

# --- what is not
lines=$(audit_lines)
expect_answer "another name" 'REFUSED answers=0 tc=0 ede=0 *' "$DNS4" secret.evil.example
expect_answer "with the reason" 'REFUSED answers=0 tc=0 ede=18 *' "$DNS4" secret.evil.example edns
expect_answer "by TCP" 'REFUSED * ede=18 *' "$DNS4" secret.evil.example edns tcp
expect_answer "a type with free text" 'REFUSED *' "$DNS4" one.example 16
expect_answer "no question" 'FORMERR *' "$DNS4" one.example broken
check "the server was not asked" bash -c "! grep -q evil.example '$SANDBOX_DIR/dns.log'"
check "it is on record" wait_until 2 audit_records "$lines" '"reason":"dns_name_not_allowed"' \
  '"secret.evil.example"' '"destination":"192.0.2.1"' '"cgroup":"/egressd-sandbox'
check "so is what was malformed" wait_until 2 audit_records "$lines" '"reason":"dns_malformed"'
line=$(probe resolve other.example 443 2>&1) || true
check "libc: $line" test "${line%% *}" = unresolved

# --- the log of all questions
check "by itself the log has refused questions only" \
  bash -c "! grep -q dns_question '$SANDBOX_AUDIT'"
sed -i 's/mode: proxy}/mode: proxy, log: all}/' "$POLICY"
reload_egressd
lines=$(audit_lines)
expect_answer "asked with dns.log: all" 'NOERROR answers=1 *' "$DNS4" one.example
check "it is on record" wait_until 2 audit_records "$lines" '"event":"dns_question"' \
  '"name":"one.example","type":"A","server":"192.0.2.1","protocol":"udp"' \
  '"rcode":"NOERROR","addresses":["203.0.113.1"]' '"cgroup":"/egressd-sandbox'
check "every record is as the schema says" python3 \
  "${0%/*}/../support/check_records.py" "${0%/*}/../../deploy/schema/audit-record-1.json" "$SANDBOX_AUDIT"

# --- metrics
metrics=$(on_client curl -sS --noproxy '*' -m 3 http://127.0.0.1:9477/metrics)
# metric NAME: its value.
metric() { awk -v name="$1" '$1 == name {print $2}' <<<"$metrics"; }
held=$(metric egressd_dns_proxy_held_answers_total)
check "held answers: ${held:-none}" test "${held:-0}" -ge $((2 * NAMES))
check "for some time" awk -v sum="$(metric egressd_dns_proxy_held_seconds_total)" -v n="$held" \
  'BEGIN { printf "%.1f us each\n", sum / n * 1e6; exit !(sum > 0 && sum / n < 0.1) }'
check "refused ones" test "$(metric 'egressd_dns_proxy_questions_total{result="refused"}')" -ge 4
check "nobody waits" test "$(metric egressd_dns_proxy_under_way)" -eq 0

# --- outside of the judged cgroup nothing changes
before=$(proxied)
on_client python3 "$ASK" "$DNS4" secret.evil.example >/dev/null || true
check "who is not judged asks directly" test "$(proxied)" = "$before"

# --- the server fails, and comes back
dns_stop
expect_answer "without a server" 'SERVFAIL answers=0 *' "$DNS4" n1.fresh.example
expect_answer "by TCP" 'SERVFAIL answers=0 *' "$DNS4" n1.fresh.example tcp
dns_start
expect_answer "with it again" 'NOERROR answers=1 *' "$DNS4" n1.fresh.example

# --- reload, there and back
policy inline
reload_egressd
if [[ $EGRESSD_BACKEND == nft ]]; then
  check "mode inline changes nothing" proxy_is proxy
  expect_answer "with answers" 'NOERROR answers=1 *' "$DNS4" one.example
else
  check "mode inline takes the table away" test "$(redirection)" = 0
fi
expect_unasked second.evil.example "names are refused"
policy proxy
reload_egressd
check "and mode proxy brings it back" proxy_is proxy
expect_answer "with answers" 'NOERROR answers=1 *' "$DNS4" one.example

# --- the agent dies
# The port of the agent that was is closed: conntrack still leads there whoever has the source port
# of a question of the last half minute.
readonly shut='errno=@(EPERM|ECONNREFUSED)'
expect_ok "a name under a wildcard" resolve n7.fresh.example 443
before=$(grep -c 'query\[' "$SANDBOX_DIR/dns.log")
began=${EPOCHREALTIME/./}
stop_egressd KILL
line=$(probe resolve late.example 443 2>&1) || true
spent=$(((${EPOCHREALTIME/./} - began) / 1000))
if [[ $EGRESSD_BACKEND == nft ]]; then
  check "killed: nobody may ask, said after $spent ms: $line" test "${line%% *}" = unresolved
  check "at once" test "$spent" -lt $((1000 * SANDBOX_SLOW))
  for server in "$DNS4" "$DNS6"; do
    expect_answer "killed: an allowed name, $server" "$shut" "$server" one.example
    expect_answer "another, $server" "$shut" "$server" secret.evil.example
    expect_answer "by TCP, $server" 'errno=ECONNREFUSED' "$server" secret.evil.example tcp
  done
  check "no question has left" test "$(grep -c 'query\[' "$SANDBOX_DIR/dns.log")" = "$before"
  expect_ok "what an allowed name came to is reachable" tcp 203.0.113.1 443
  expect_ok "so is what a wildcard did" tcp 5.5.0.8 443
elif [[ $line == ok* ]] && ((spent < 1000 * SANDBOX_SLOW)); then
  pass "killed: a fresh name resolves and connects after $spent ms: $line"
else
  fail "killed: after $spent ms: $line"
fi
check "the table is gone" test "$(redirection)" = 0
expect_errno_alone EPERM "what is not allowed still is not" tcp 203.0.113.99 443
expect_answer "names neither" "$shut" "$DNS4" secret.evil.example
start_egressd "$POLICY"
check "the next agent redirects again" proxy_is proxy
expect_answer "with answers" 'NOERROR answers=1 *' "$DNS4" one.example

# --- a kernel that does not redirect
stop_egressd
sed -i 's/mode: proxy}/mode: proxy, log: all}/' "$POLICY"
lines=$(audit_lines)
if [[ $EGRESSD_BACKEND == nft ]]; then
  # The rules of before are in force; an agent that nobody can ask must not look alive.
  EGRESSD_NO_NFT_AFTER=3 LD_PRELOAD=$EGRESSD_NO_NFT_LIBRARY launch_egressd "$POLICY"
  status=0
  wait "$SANDBOX_AGENT" || status=$?
  SANDBOX_AGENT=""
  line=$(tail -n 1 "$SANDBOX_DIR/egressd.log")
  check "the agent ends where DNS cannot be redirected: $line" test "$status" -ne 0
  check "and says why" grep -q 'DNS questions do not reach the agent.*netfilter' "$SANDBOX_DIR/egressd.log"
  expect_answer "nothing is opened" "$shut" "$DNS4" secret.evil.example
else
  LD_PRELOAD=$EGRESSD_NO_NFT_LIBRARY start_egressd "$POLICY"
  check "without nftables DNS is inline" proxy_is inline
  check "and status says why" grep -q 'dns.mode proxy is not in force.*netfilter' <(ctl status --json)
  expect_ok "names resolve" resolve late.example 443
  check "what taught addresses is on record then" wait_until 2 audit_records "$lines" \
    '"event":"dns_question"' '"name":"late.example","type":"A"' '"203.0.113.3"'
  expect_unasked third.evil.example "and others are refused"
  stop_egressd
fi

# --- the agent inside the cgroup it judges does not ask itself
EGRESSD_INSIDE=1 start_egressd "$POLICY"
expect_answer "an agent that is judged itself" "NOERROR answers=1 *" "$DNS4" n2.fresh.example
expect_answer "over IPv6" "NOERROR answers=1 *" "$DNS6" n2.fresh.example
expect_answer "by TCP" "NOERROR answers=1 *" "$DNS4" n2.fresh.example tcp
expect_answer "which refuses" "REFUSED *" "$DNS4" secret.evil.example
finish
