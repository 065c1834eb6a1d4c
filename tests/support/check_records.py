#!/usr/bin/env python3
"""Holds a log against the schema: check_records.py SCHEMA LOG [KEY…]

Every line must be valid, and every KEY must be in at least one of them."""

import json
import sys

import jsonschema


def main() -> int:
    schema_path, log_path, *keys = sys.argv[1:]
    with open(schema_path, encoding="utf-8") as file:
        schema = json.load(file)
    jsonschema.Draft202012Validator.check_schema(schema)
    # "oneOf" alone would only say that neither fits.
    parts = {
        name: jsonschema.Draft202012Validator(
            {"$ref": f"#/$defs/{name}", "$defs": schema["$defs"]}
        )
        for name in ("record", "gap", "notice")
    }
    whole = jsonschema.Draft202012Validator(schema)
    seen: set[str] = set()
    bad = lines = 0
    with open(log_path, encoding="ascii") as log:
        for lines, line in enumerate(log, 1):
            entry = json.loads(line)
            seen |= set(entry)
            event = entry.get("event")
            part = parts["record" if not event else "gap" if event == "gap" else "notice"]
            errors = [error.message for error in part.iter_errors(entry)]
            if errors or not whole.is_valid(entry):
                bad += 1
                print(f"{log_path}:{lines}: {'; '.join(errors)}: {line.strip()}")
    missing = sorted(set(keys) - seen)
    if missing:
        print(f"no line has: {', '.join(missing)}")
    print(f"{lines} lines, {bad} not valid, keys: {' '.join(sorted(seen))}")
    return 1 if bad or missing or not lines else 0


sys.exit(main())
