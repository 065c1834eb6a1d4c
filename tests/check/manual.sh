#!/usr/bin/env bash
# The manual pages say what the programs have, no less and no more, and are clean. $1: egressctl,
# $2: egressd.
set -euo pipefail
source tests/check/tracked.sh
for tool in python3 mandoc man; do need "$tool"; done
python3 tests/check/manual.py "$1" "$2"
bad=0
for page in deploy/man/*; do
  mandoc -T lint -W warning "$page" || bad=1
  said=$(LC_ALL=C.UTF-8 man --warnings -E UTF-8 -l -Tutf8 -Z "$page" 2>&1 >/dev/null)
  [[ -z $said ]] || { printf '%s: %s\n' "$page" "$said"; bad=1; }
done
((!bad))
