#!/usr/bin/env bash
# The commands README.md shows under Operation, run as they stand there.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

sandbox_up
listen tcp 443
dns_set pypi.org 203.0.113.10
dns_set telemetry.example.com 203.0.113.20
# The workload of the example: one host it needs, and one that nobody has thought of.
mkdir "$SANDBOX_DIR/bin" "$SANDBOX_DIR/here"
cat >"$SANDBOX_DIR/bin/pip" <<END
#!/bin/sh
[ "\$1 \$2" = "download numpy" ] || exit 9
"$EGRESSD_PROBE" resolve pypi.org 443 && "$EGRESSD_PROBE" resolve telemetry.example.com 443
END
chmod +x "$SANDBOX_DIR/bin/pip"
commands=$(awk '/^## Operation/ { on = 1 } /^## Status/ { on = 0 }
  on && /^```sh$/ { code = 1; next } /^```$/ { code = 0 } on && code' ../../README.md)
check "there are commands" test "$(wc -l <<<"$commands")" -ge 8
path=$SANDBOX_DIR/bin:${EGRESSCTL%/*}:${EGRESSD%/*}:$PATH
# shellcheck disable=SC2016 # expanded by the inner shell
all() {
  in_client env PATH="$path" bash -c 'cd "$1" && set -euxo pipefail && eval "$2"' _ \
    "$SANDBOX_DIR/here" "$commands" >"$SANDBOX_DIR/out" 2>&1
}
check "all of them work" all
cat "$SANDBOX_DIR/out"
cd "$SANDBOX_DIR/here"
check "the command's own output" test "$(grep -c '^ok' "$SANDBOX_DIR/out")" -eq 2
check "what had no rule is listed" grep -q 'telemetry.example.com' "$SANDBOX_DIR/out"
check "the new policy has it" grep -q telemetry.example.com more.yaml
check "… and not what had one" test "$(grep -c pypi.org more.yaml)" -eq 0
check "… and is valid" "$EGRESSCTL" check more.yaml
check "the report has it" grep -q telemetry.example.com seen.html
finish
