#!/usr/bin/env python3
"""The JSON Schema of audit records has the keys that the README's table explains, and no others."""

import json
import re
import sys

SCHEMA = "deploy/schema/audit-record-1.json"
README = "agent/audit/README.md"

with open(SCHEMA, encoding="utf-8") as file:
    schema = json.load(file)
with open(README, encoding="utf-8") as file:
    table = file.read().split("| key | meaning |", 1)[1].split("\n\n", 1)[0]

explained = [key for row in table.splitlines()[2:] for key in re.findall(r"`(\w+)`", row.split("|")[1])]
listed = list(schema["$defs"]["record"]["properties"])
twice = {key for key in explained if explained.count(key) > 1}
wrong = [
    *(f"{README} does not explain {key}, which {SCHEMA} lists" for key in listed if key not in explained),
    *(f"{SCHEMA} does not list {key}, which {README} explains" for key in explained if key not in listed),
    *(f"{README} explains {key} twice" for key in twice),
]
print("\n".join(wrong) if wrong else f"{len(listed)} keys")
sys.exit(1 if wrong else 0)
