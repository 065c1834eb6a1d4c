#!/usr/bin/env bash
# clang-format has nothing to change; bpf/ is formatted by its own .clang-format.
set -euo pipefail
source tests/check/tracked.sh
need clang-format-19
tracked '*.c' '*.h' '*.cpp' '*.hpp' | xargs -0 clang-format-19 --dry-run --Werror
