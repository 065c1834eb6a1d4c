#!/usr/bin/env bash
# --audit-journal: a real journald, private to the sandbox, has each refusal as an entry with fields;
# while it stands still or is gone, the agent goes on, and the gap is an entry later.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

sandbox_up
journald_up
write_policy <<END
version: 1
mode: enforce
dns:
  servers: [$DNS4]
collections:
  - name: never
    priority: 100
    action: deny
    rules:
      - {name: not there, addresses: [198.51.100.66], ports: [22], protocols: [tcp]}
END
start_egressd "$POLICY" --audit-journal --audit-log "$SANDBOX_DIR/also.jsonl"

entries() { on_client journalctl --directory /run/log/journal -q -o "${FORMAT:-json}" "$@"; }
has() { entries "$@" 2>/dev/null | grep -q .; }
record_id=$(sed -n 's/.*kRecordId = "\(.*\)";/\1/p' ../../agent/audit/journal_sink.h)
gap_id=$(sed -n 's/.*kGapId = "\(.*\)";/\1/p' ../../agent/audit/journal_sink.h)

probe tcp 198.51.100.66 22 >/dev/null || true
check "refused, in the journal" wait_until 5 has "MESSAGE_ID=$record_id" EGRESSD_DESTINATION=198.51.100.66
entry=$(entries EGRESSD_DESTINATION=198.51.100.66 | head -n 1)
for pair in EGRESSD_RULE="not there" EGRESSD_PORT=22 EGRESSD_COMM=egressd_probe PRIORITY=4 \
  SYSLOG_IDENTIFIER=egressd EGRESSD_REASON=deny_rule _PID="$SANDBOX_AGENT"; do
  check "$pair" grep -qF "\"${pair%%=*}\":\"${pair#*=}\"" <<<"$entry"
done
check "readable without fields" grep -q 'DENIED.*198.51.100.66:22' \
  <<<"$(FORMAT="cat" entries EGRESSD_DESTINATION=198.51.100.66)"
check "and in the file, too" grep -q '"198.51.100.66"' "$SANDBOX_DIR/also.jsonl"

# journald stands still: its queue fills up, and nobody waits.
kill -STOP "$JOURNALD"
# shellcheck disable=SC2016 # expanded by the inner shell
in_client bash -c 'for ((port = 1; port <= 700; port++)); do : 2>/dev/null >"/dev/tcp/198.51.100.9/$port"; done' \
  2>/dev/null || true
lost() { (($(status_number records_lost) >= 1)); }
check "what the queue does not take is lost and counted" wait_until 5 lost
all() { (($(grep -c '"198.51.100.9"' "$SANDBOX_DIR/also.jsonl") == 700)); }
check "the file has all" wait_until 5 all
count=$(status_number records_lost)
kill -CONT "$JOURNALD"
drained() { (($(entries EGRESSD_DESTINATION=198.51.100.9 | wc -l) == 700 - count)); }
check "the rest is there" wait_until 5 drained
probe tcp 198.51.100.10 22 >/dev/null || true
check "then the gap" wait_until 5 has "MESSAGE_ID=$gap_id" EGRESSD_COUNT="$count" EGRESSD_CAUSE=audit_log
check "and the next record" wait_until 5 has EGRESSD_DESTINATION=198.51.100.10

sandbox_reap "$JOURNALD"
probe tcp 198.51.100.11 22 >/dev/null || true
more() { (($(status_number records_lost) == count + 1)); }
check "without journald a record is lost" wait_until 5 more
journald_up
probe tcp 198.51.100.12 22 >/dev/null || true
check "after its restart the next one is there" wait_until 5 has EGRESSD_DESTINATION=198.51.100.12
check "behind the gap" has "MESSAGE_ID=$gap_id" EGRESSD_COUNT=1
status=$(ctl status)
check "status names the file" grep -qE 'also.jsonl +0 lost' <<<"$status"
check "and the journal" grep -qE "journal /run/systemd/journal/socket +$((count + 1)) lost" <<<"$status"
finish
