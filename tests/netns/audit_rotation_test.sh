#!/usr/bin/env bash
# --audit-max-size: the agent rotates the log itself, also when SIGHUP comes in between, and no
# record is lost or doubled. On a full disk no line is left half, the agent goes on, and what is
# missing is noted when there is room again.
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
readonly knocks=120 first=1000 max=16384
# A disk of 256 KiB that only this sandbox sees.
mkdir "$SANDBOX_DIR/log"
on_client mount -t tmpfs -o size=256k tmpfs "$SANDBOX_DIR/log"
log=$SANDBOX_DIR/log/denials.jsonl
start_egressd "$POLICY" --audit-log "$log" --audit-max-size 16KB --audit-keep 20

# knock FROM TO: one refused connection a port.
knock() {
  # shellcheck disable=SC2016 # expanded by the inner shell
  in_client bash -c 'for ((port = $2; port <= $3; port++)); do "$1" tcp 198.51.100.9 "$port"; done' \
    _ "$EGRESSD_PROBE" "$1" "$2" | grep -c '^errno=EPERM' || true
}
logged() { on_client find "$SANDBOX_DIR/log" -name '*.jsonl*' -exec cat {} +; }

half=$((first + knocks / 2))
check "refused" test "$(knock $first $((half - 1)))" -eq $((knocks / 2))
kill -HUP "$SANDBOX_AGENT"
check "refused after SIGHUP" test "$(knock $half $((first + knocks - 1)))" -eq $((knocks / 2))
complete() { diff <(seq "$first" $((first + knocks - 1))) <(logged | audit_field port | sort -n) >"$SANDBOX_DIR/diff"; }
check "each has one record" wait_until 5 complete
head -n 20 "$SANDBOX_DIR/diff"
sizes=$(on_client find "$SANDBOX_DIR/log" -type f -printf '%s\n')
check "in several files" test "$(wc -l <<<"$sizes")" -ge 3
check "none above $max bytes" test "$(sort -n <<<"$sizes" | tail -n 1)" -le $max

# Full: a line ends with the page that is there, and that half is taken back.
on_client dd if=/dev/zero of="$SANDBOX_DIR/log/ballast" bs=4096 2>/dev/null || true
lost() { (($(status_number records_lost) >= $1)); }
check "refused on a full disk" test "$(knock 5001 5060)" -eq 60
check "records that found no room are counted" wait_until 5 lost 1
lost=$(status_number records_lost)
is_json() {
  logged | python3 -c '
import json, sys
for line in sys.stdin:
    assert line.endswith("\n"), line
    json.loads(line)'
}
check "every line is whole" is_json
check "said once" test "$(grep -c 'No space left' "$SANDBOX_DIR/egressd.log")" -eq 1
check "status names the sink" grep -qE "denials.jsonl +$lost lost" <<<"$(ctl status)"

on_client rm "$SANDBOX_DIR/log/ballast"
knock 6000 6000 >/dev/null
back() { logged | grep -q '"port":6000,'; }
check "records are written again" wait_until 5 back
gaps() { logged | grep '"event":"gap"'; }
check "the gap is noted once" test "$(gaps | wc -l)" -eq 1
check "with the count of $lost" test "$(gaps | audit_field count)" -eq "$lost"
check "nothing else is missing" \
  test $(($(logged | grep -c '"port":50[0-9][0-9],') + lost)) -eq 60
logged >"$SANDBOX_DIR/all"
check "records and gap are valid by the schema" \
  /usr/bin/python3 ../support/check_records.py ../../deploy/schema/audit-record-1.json "$SANDBOX_DIR/all" cause
finish
