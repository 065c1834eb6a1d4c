#!/usr/bin/env bash
# Refused packets from every core, to more destinations than the kernel can count apart and faster
# than the agent can read: every one is on record, in a count or in a gap, and the agent stays small.
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
  - name: net
    priority: 200
    action: allow
    rules:
      - {name: one host, addresses: [203.0.113.5], ports: [22], protocols: [tcp]}
END
start_egressd "$POLICY"

rss() { awk '/^VmRSS:/ {print $2}' "/proc/$SANDBOX_AGENT/status"; }
cpu() { awk '{print ($14 + $15) * 10}' "/proc/$SANDBOX_AGENT/stat"; }  # ms, at USER_HZ 100
# What is on record: in records, of them the lines, and in gaps.
on_record() {
  python3 - "$SANDBOX_AUDIT" <<'END'
import json
import sys

records = lines = gaps = 0
for line in open(sys.argv[1], encoding="ascii"):
    entry = json.loads(line)
    if entry.get("event") == "gap":
        gaps += entry["count"]
    elif "event" not in entry:
        records += entry.get("count", 1)
        lines += 1
print(records, lines, gaps)
END
}
all_on_record() {
  read -r records lines gaps < <(on_record)
  ((records + gaps == refused))
}

refused=0
round() {
  local line before after
  before=$(cpu)
  line=$(in_client "$EGRESSD_FLOOD" 2)
  after=$(cpu)
  check "nothing got out: $line" test "${line#*sent=}" = "0 failed=0"
  line=${line#refused=}
  refused=$((refused + ${line%% *}))
  check "records and gaps are what was refused" wait_until 20 all_on_record
  counted=$(($(status_number default_deny) + 0))
  check "… and what the kernel counted" test "$counted" -eq "$refused"
  printf 'refused %d = on record %d (%d lines) + gaps %d; agent: %d ms CPU in 2 s, %d KiB\n' \
    "$refused" "$records" "$lines" "$gaps" $((after - before)) "$(rss)"
}
round
check "however fast, no more than so many lines: $lines" test "$lines" -lt 130000
first=$(rss)
check "it was too much to record each one" test "$gaps" -gt 0
check "… and the gaps say why" grep -q '"event":"gap".*"cause":"kernel","reason":"default_deny"' "$SANDBOX_AUDIT"
round
check "the agent does not grow: $first, $(rss) KiB" test $(($(rss) - first)) -lt 4096

# The same question over and over, and then ever other ones: the kernel reports each.
cat >"$SANDBOX_DIR/ask.py" <<'END'
import errno
import socket
import struct
import sys

server, different, times = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
asked = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
refused = 0
for i in range(times):
    name = f"n{i % different}"
    query = struct.pack("!HHHHHH", i & 0xFFFF, 0x100, 1, 0, 0, 0) + bytes([len(name)]) + \
        name.encode() + b"\7invalid\0" + struct.pack("!HH", 1, 1)
    try:
        asked.sendto(query, (server, 53))
    except OSError as error:
        refused += error.errno == errno.EPERM
print(refused)
END
questions() {
  python3 - "$SANDBOX_AUDIT" <<'END'
import json
import sys

records = lines = gaps = 0
for line in open(sys.argv[1], encoding="ascii"):
    entry = json.loads(line)
    if entry.get("reason") != "dns_name_not_allowed":
        continue
    if entry.get("event") == "gap":
        gaps += entry["count"]
    else:
        records += entry.get("count", 1)
        lines += 1
print(records, lines, gaps)
END
}
every_question() {
  read -r records lines gaps < <(questions)
  ((records + gaps == $1))
}
asked=$(in_client python3 "$SANDBOX_DIR/ask.py" "$DNS4" 1 20000)
check "the same question, $asked times refused" test "$asked" -eq 20000
check "all are on record" wait_until 5 every_question 20000
check "… in a few lines: $lines" test "$lines" -lt 50
asked=$(in_client python3 "$SANDBOX_DIR/ask.py" "$DNS4" 20000 20000)
check "other questions, $asked times refused" test "$asked" -eq 20000
check "all are on record or in gaps" wait_until 5 every_question 40000
check "… in no more lines than are written: $lines, $gaps in gaps" test "$lines" -lt 20000

check "valid by the schema" python3 ../support/check_records.py ../../deploy/schema/audit-record-1.json \
  <(grep '"event"\|"count"' "$SANDBOX_AUDIT" | tail -n 2000) count cause
finish
