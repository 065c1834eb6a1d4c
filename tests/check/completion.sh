#!/usr/bin/env bash
# The completion scripts egressctl makes complete, in the real shells. $1: egressctl.
set -euo pipefail
source tests/check/tracked.sh
need python3
python3 tests/check/completion.py "$1"
# What it says is sourced by whoever asks for it.
"$1" completion bash | shellcheck -s bash -
