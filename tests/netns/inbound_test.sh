#!/usr/bin/env bash
# Connections the other side opens are answered whatever the policy allows going out: a server, one
# that closes its listener, UDP, and a connection that was there before egressd.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

sandbox_up
listen tcp 7000 udp 7001
serve in_client "$EGRESSD_PROBE" listen tcp 9000 udp 9001
hold_open "$CLIENT4" 9000 in_server
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
expect_errno EPERM default_deny "the server's host cannot connect out" tcp 203.0.113.77 7000
expect_hold_ok "a connection accepted before egressd goes on"

# from_outside WHAT PROBE…: as seen from an address that no rule knows.
from_outside() {
  local what=$1 line
  shift
  line=$(in_server "$EGRESSD_PROBE" "$@") || true
  if [[ $line == ok* ]]; then pass "$what: $line"; else fail "$what: $line"; fi
}
from_outside "TCP server" tcp "$CLIENT4" 9000 --bind 203.0.113.77
from_outside "TCP server, IPv6" tcp "$CLIENT6" 9000
from_outside "UDP server" udp "$CLIENT4" 9001 --bind 203.0.113.77 --send 3
from_outside "ping" icmp "$CLIENT4" 0
line=$(echo | in_server "$EGRESSD_PROBE" hold "$CLIENT4" 9000 --bind 203.0.113.77 | tail -n 1)
check "TCP server echoes: $line" test "${line%% *}" = ok

serve in_client "$EGRESSD_PROBE" accept-once 9002
line=$(printf '\n\n' | in_server "$EGRESSD_PROBE" hold "$CLIENT4" 9002 --bind 203.0.113.77 | tail -n 1)
check "server that closed its listener echoes: $line" test "${line%% *}" = ok

# The answer to a peer is no way out to anybody else.
expect_errno EPERM default_deny "UDP from the server's port to a stranger" \
  udp 203.0.113.78 7001 --bind-port 9003
expect_errno EPERM default_deny "TCP to the peer" tcp 203.0.113.77 7000
finish
