#!/usr/bin/env bash
# The schema of audit records and their description must not drift apart.
set -euo pipefail
exec python3 tests/check/schema.py
