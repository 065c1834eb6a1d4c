#!/usr/bin/env bash
# An answer too long for the kernel to learn from (over 8 KB, so it comes by TCP) is looked up by the
# agent: the connection works at the first retry at the latest, and the agent, which is itself in the
# judged cgroup and hears the same answer, does not ask on and on.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

sandbox_up
listen tcp 443
for ((i = 1; i <= 700; i++)); do
  printf '2001:db8:a::%x big.wild.test\n2001:db8:b::%x exact.test\n' "$i" "$i"
done >>"$SANDBOX_DIR/hosts"
dns_set small.wild.test 203.0.113.7
write_policy <<END
version: 1
mode: enforce
dns: {servers: [$DNS4]}
collections:
  - name: names
    priority: 200
    action: allow
    rules:
      - {name: wild, fqdns: ["*.wild.test", exact.test], ports: [443], protocols: [tcp]}
END
asked() { grep -c "query\[AAAA\] $1 from" "$SANDBOX_DIR/dns.log" || true; }
EGRESSD_INSIDE=1 start_egressd "$POLICY"
expect_ok "a name with one address" resolve small.wild.test 443 -4

line=$(probe resolve big.wild.test 443 -6 2>&1) || true
echo "first try: $line"
granted() { (($(ctl list --json | grep -c '"2001:db8:a:') == 700)); }
check "all 700 addresses are known" wait_until 5 granted
# With every address to choose from, none is refused.
expect_ok "the first retry" resolve big.wild.test 443 -6
expect_errno EPERM port_not_allowed "another port of it" tcp 2001:db8:a::1 22
expect_ok "an exact name with as many" resolve exact.test 443 -6
# With nftables it learns nothing at all, and the agent has seen the answer before the client.
[[ $EGRESSD_BACKEND == nft ]] || check "the kernel learned none of it" test "$(status_number too_large)" -gt 0
sleep 2
# A look-up of the agent's asks over UDP (truncated) and TCP; so does getaddrinfo(), and again for
# each size of buffer it tries, 12 times in all.
check "questions for the wildcard's name: $(asked big.wild.test)" \
  test "$(asked big.wild.test)" -le $((2 * 12 + 4))
check "questions for the exact name: $(asked exact.test)" test "$(asked exact.test)" -le $((12 + 4))
before=$(asked big.wild.test)
sleep 3
check "and none after that" test "$(asked big.wild.test)" -eq "$before"
expect_ok "asked again later" resolve big.wild.test 443 -6
sleep 1
check "which costs few more: $(asked big.wild.test)" \
  test "$(asked big.wild.test)" -le $((before + 12 + 2))
finish
