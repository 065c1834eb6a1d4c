#!/usr/bin/env bash
# From what audit mode records to a policy that lets exactly that through.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

sandbox_up
listen tcp 22 443 8443 udp 5353
dns_set api.example.com 203.0.113.10
dns_set db.example.net 203.0.113.20
dns_set other.example.org 203.0.113.30
# One name has a rule for another port already: its address is known, and recorded with the name.
write_policy <<END
version: 1
mode: audit
dns:
  servers: [$DNS4]
collections:
  - name: known
    priority: 200
    action: allow
    rules:
      - {name: db, fqdns: [db.example.net], ports: [443]}
END
cp "$POLICY" "$SANDBOX_DIR/old.yaml"
start_egressd "$POLICY"
expect_ok "a name without a rule" resolve api.example.com 443
expect_ok "a known name at another port" resolve db.example.net 8443
expect_ok "an address" tcp 198.51.100.9 22
expect_ok "an address over IPv6" udp 2001:db8:b::9 5353
all_recorded() {
  local place
  for place in '"api.example.com"' '"203.0.113.20","port":8443' '"198.51.100.9"' '"2001:db8:b::9"'; do
    audit_records 0 "$place" >/dev/null || return 1
  done
}
check "all of it is recorded" wait_until 5 all_recorded
old=$SANDBOX_DIR/records.jsonl
cp "$SANDBOX_AUDIT" "$old"

learned=$SANDBOX_DIR/learned.yaml
egressctl() { on_client "$EGRESSCTL" "$@"; }
egressctl learn --from "$old" >"$learned"
cat "$learned"
check "the same from standard input" cmp "$learned" <(egressctl learn <"$old")
check "check accepts it" egressctl check "$learned"
check "the name asked has a rule" grep -qF 'fqdns: ["api.example.com"]' "$learned"
check "its address has none" test "$(grep -c '203.0.113.10' "$learned")" -eq 0
check "nothing of it is a wildcard" test "$(grep -c '\*' "$learned")" -eq 0

code_of() {
  local code=0
  "$@" >"$SANDBOX_DIR/out" || code=$?
  printf '%s\n' "$code"
}
check "replay: the old policy changes nothing" \
  test "$(code_of egressctl replay --policy "$SANDBOX_DIR/old.yaml" "$old")" -eq 0
check "replay: the learned one changes something" \
  test "$(code_of egressctl replay --policy "$learned" --json "$old")" -eq 1
cat "$SANDBOX_DIR/out"
all_allowed() {
  python3 - "$1" <<'END'
import json, sys
said = json.load(open(sys.argv[1]))
assert said["changed"] == said["verdicts"] > 0 and not said["uncertain"], said
assert all(c["after"] == "allowed" and c["after_rule"].startswith("learned/") for c in said["changes"]), said
END
}
check "… every verdict, to allowed by a learned rule" all_allowed "$SANDBOX_DIR/out"
check "what the learned policy allows is not learned again" \
  grep -q 'nothing to make a rule of' <(egressctl learn --policy "$learned" --from "$old" 2>&1)

# Without the old rules: what was learned stands by itself.
sed 's/^mode: audit/mode: enforce/' "$learned" >"$POLICY"
check "in enforce mode" grep -qx 'mode: enforce' "$POLICY"
reload_egressd
expect_ok "the name" resolve api.example.com 443
expect_ok "the known name" resolve db.example.net 8443
expect_ok "the address" tcp 198.51.100.9 22
expect_ok "the address over IPv6" udp 2001:db8:b::9 5353
expect_unasked other.example.org "another name"
expect_errno EPERM port_not_allowed "another port of the address" tcp 198.51.100.9 443
expect_errno EPERM port_not_allowed "the port of the old rule" tcp 203.0.113.20 443
expect_errno EPERM default_deny "another address" tcp 198.51.100.10 22
finish
