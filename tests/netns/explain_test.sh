#!/usr/bin/env bash
# egressctl explain: the rule, the DNS answer behind it, who asked, and what would allow the rest.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

sandbox_up
listen tcp 22 443
dns_set a.pages.example 203.0.113.7
write_policy <<END
version: 1
mode: enforce
dns:
  servers: [$DNS4]
collections:
  - name: web
    priority: 200
    action: allow
    rules:
      - {name: pages, fqdns: ["*.pages.example"], ports: [443], protocols: [tcp]}
      - {name: one host, addresses: [203.0.113.250], ports: [22], protocols: [tcp]}
  - name: never
    priority: 100
    action: deny
    rules:
      - {name: bad net, addresses: [198.51.100.0/25], ports: "*", protocols: [any]}
END
start_egressd "$POLICY"
# says WHAT STATUS TARGET TEXT…: the exit status, and each text on a line of the answer.
says() {
  local what=$1 status=$2 target=$3 out rc=0 text
  shift 3
  out=$(ctl explain "$target" --bpffs "$SANDBOX_BPFFS" 2>&1) || rc=$?
  check "$what: exit status" test "$rc" -eq "$status"
  for text in "$@"; do
    if grep -qE -- "$text" <<<"$out"; then pass "$what: $text"; else
      fail "$what: no '$text' in"
      printf '%s\n' "$out"
    fi
  done
}
says "a name not asked yet" 0 a.pages.example "a.pages.example:443/tcp \(default port\): ALLOWED" "rule +web/pages"
says "another name" 1 other.example "DENIED" 'fqdns: \["other.example"\], ports: \[443\], protocols: \[tcp\]\}'
says "an address by a network rule" 0 203.0.113.250:22 ALLOWED "rule +web/one host"
says "an address nobody asked for" 1 203.0.113.7 DENIED 'addresses: \["203.0.113.7"\], ports: \[443\]'
says "a deny rule" 1 198.51.100.9 DENIED "rule +never/bad net"
says "no destination" 2 "not a name" "egressctl: "

expect_ok "asked and used" resolve a.pages.example 443
learned() { ctl explain 203.0.113.7 --bpffs "$SANDBOX_BPFFS" | grep -q pages.example; }
check "the answer is known" wait_until 5 learned
says "the address by its name" 0 203.0.113.7 ALLOWED "rule +web/pages" "judged as +a.pages.example" \
  "203.0.113.7 +a.pages.example +\*.pages.example +[0-9]+s ago +$DNS4 +egressd_probe\[[0-9]+\]"
says "the name by its answer" 0 a.pages.example "203.0.113.7 +a.pages.example"
says "another port of it" 1 203.0.113.7:22 DENIED 'fqdns: \["a.pages.example"\], ports: \[22\]'
expect_errno EPERM port_not_allowed "refused" tcp 203.0.113.7 22
refused() { { ctl explain 203.0.113.7:22 --bpffs "$SANDBOX_BPFFS" || true; } | grep -q "latest denials"; }
check "… and told" wait_until 5 refused
says "the refusal" 1 203.0.113.7:22 "port_not_allowed.*203.0.113.7:22 .a.pages.example"

# What it says to paste does what it says.
line=$({ ctl explain 203.0.113.7:22 --bpffs "$SANDBOX_BPFFS" || true; } | sed -n 's/^  \(- {name.*\)/\1/p')
sed -i "/name: pages/a\\      $line" "$POLICY"
allowed() { [[ $(probe tcp 203.0.113.7 22 2>&1) == ok* ]]; }
check "pasted, it is allowed: $line" wait_until 5 allowed

HOLD_TIMEOUT=500 hold_open 203.0.113.7 443
expect_hold_ok "open connection"
says "a process" 0 "$(pgrep -n -f 'egressd_probe hold 203.0.113.7')" "203.0.113.7:443/tcp: ALLOWED" "rule +web/pages"
says "a process without sockets" 0 "$SANDBOX_CLIENT" "has no socket that egressd has judged"
says "no process" 4 2147483646 "egressctl: process 2147483646: No such process"
check "json" python3 -c 'import json, sys; j = json.load(sys.stdin); assert j["allowed"] and j["grants"][0]["server"] == sys.argv[1]' \
  "$DNS4" <<<"$(ctl explain 203.0.113.7 --json)"
stop_egressd KILL
start_egressd "$POLICY"
says "learned by an earlier run" 0 203.0.113.7 ALLOWED "judged as +\*.pages.example" "earlier run"
finish
