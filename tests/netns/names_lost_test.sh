#!/usr/bin/env bash
# Without its file of pattern numbers (lost, or from a copy) an agent forgets what was learned, and
# gives no pattern a number that a live connection may still rest on.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

sandbox_up
listen tcp 443
dns_set a.one.test 203.0.113.1
dns_set a.two.test 203.0.113.2
dns_set a.three.test 203.0.113.3
policy() {
  write_policy <<END
version: 1
mode: enforce
dns: {servers: [$DNS4]}
collections:
  - name: names
    priority: 200
    action: allow
    rules:
      - {name: open, fqdns: [$1], ports: [443]}
END
}
# lose WHAT PREPARATION…: the agent is gone, the file is not what it was, and another pattern is
# allowed now.
lose() {
  local what=$1 line
  shift
  policy '"*.one.test"'
  start_egressd "$POLICY"
  expect_ok "$what: a name" resolve a.one.test 443 -4
  HOLD_TIMEOUT=500 hold_open 203.0.113.1 443
  expect_hold_ok "$what: a connection to it"
  stop_egressd KILL
  "$@"
  policy '"*.two.test"'
  start_egressd "$POLICY"
  line=$(hold_echo)
  check "$what: no rule for it, it is cut: $line" grep -q "^errno=" <<<"$line"
  expect_errno EPERM default_deny "$what: its address" tcp 203.0.113.1 443
  expect_ok "$what: the pattern allowed now" resolve a.two.test 443 -4
  check "$what: said so" grep -q 'does not belong to the maps' "$SANDBOX_DIR/egressd.log"
  stop_egressd
  check "$what: detach" ctl detach --bpffs "$SANDBOX_BPFFS" >/dev/null
  : >"$SANDBOX_DIR/egressd.log"
}
names=$SANDBOX_DIR/state/names
lose "lost" rm "$names"

policy '"*.three.test"'
start_egressd "$POLICY"
expect_ok "an older state" resolve a.three.test 443 -4
cp "$names" "$names.copy"
stop_egressd
# The same maps: what the copy does not know came later.
older() { cp "$names.copy" "$names"; }
lose "put back from a copy" older
finish
