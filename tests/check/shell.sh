#!/usr/bin/env bash
# ShellCheck has nothing to say about any script, whatever its name ends in.
set -euo pipefail
source tests/check/tracked.sh
need shellcheck
scripts=()
while IFS= read -r -d '' file; do
  IFS= read -r first <"$file" || true
  if [[ $file == *.sh || $first == '#!'*sh ]]; then scripts+=("$file"); fi
done < <(tracked .)
printf '%d scripts\n' "${#scripts[@]}"
((${#scripts[@]}))
# SC2317: wait_until and check call predicates by name, which it takes for unreachable code.
shellcheck -e SC2317 -x -P SCRIPTDIR -P . "${scripts[@]}"
for script in "${scripts[@]}"; do
  # A shebang promises that it can be run.
  if [[ $(head -c 2 "$script") == '#!' && ! -x $script ]]; then
    printf '%s: has a shebang but is not executable\n' "$script"
    exit 1
  fi
done
