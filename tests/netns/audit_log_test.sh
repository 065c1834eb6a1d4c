#!/usr/bin/env bash
# --audit-log FILE: rotation (mv, then SIGHUP) while something is refused all the time loses no
# record and writes none twice.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

sandbox_up
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
readonly rotations=5 enough=30 first=1000
mkdir "$SANDBOX_DIR/log"
SANDBOX_AUDIT=$SANDBOX_DIR/log/denials.jsonl
start_egressd "$POLICY" --audit-log "$SANDBOX_AUDIT"
expect_errno EPERM default_deny "refused, recorded in the file" tcp 198.51.100.9 22

# The knocking ends when all rotations are done, however fast or slow the machine is.
# shellcheck disable=SC2016 # expanded by the inner shell
spawn in_client bash -c 'for ((port = $2; port < 65536; port++)); do
  [[ ! -e $3 ]] || break
  "$1" tcp 198.51.100.9 "$port"
done' _ "$EGRESSD_PROBE" "$first" "$SANDBOX_DIR/enough" >"$SANDBOX_DIR/knocks" 2>&1
knocker=$REPLY
for ((i = 1; i <= rotations; i++)); do
  wait_until 20 lines_above "$enough" "$SANDBOX_AUDIT" || die "no records before rotation $i"
  mv "$SANDBOX_AUDIT" "$SANDBOX_AUDIT.$i"
  kill -HUP "$SANDBOX_AGENT"
  wait_until 5 test -e "$SANDBOX_AUDIT" || die "no new file after rotation $i"
done
wait_until 20 lines_above 0 "$SANDBOX_AUDIT" || die "no records after the last rotation"
: >"$SANDBOX_DIR/enough"
wait "$knocker"
knocks=$(wc -l <"$SANDBOX_DIR/knocks")
check "knocked through $rotations rotations: $knocks times" test "$knocks" -gt $((rotations * enough))
check "all knocks were refused" test "$(grep -c "^errno=$(errno_of EPERM tcp)" "$SANDBOX_DIR/knocks")" -eq "$knocks"
ports() { cat "$SANDBOX_DIR"/log/* | audit_field port | grep -vx 22 | sort -n; }
complete() { diff <(seq "$first" $((first + knocks - 1))) <(ports) >"$SANDBOX_DIR/diff"; }
check "each has one record" wait_until 5 complete
head -n 20 "$SANDBOX_DIR/diff"
check "every line is JSON" python3 -c '
import json, sys
for name in sys.argv[1:]:
    for line in open(name):
        json.loads(line)' "$SANDBOX_DIR"/log/*
check "none is counted as lost" test "$(($(status_number events_lost) + $(status_number records_lost)))" -eq 0
finish
