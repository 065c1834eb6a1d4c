#!/usr/bin/env bash
# What does not belong into the tree: binaries, generated files, somebody's paths, stray blanks.
set -euo pipefail
source tests/check/tracked.sh
bad=0
complain() {
  printf '%s\n' "$*"
  bad=1
}
count=0
while IFS= read -r -d '' file; do
  count=$((count + 1))
  case $file in
    *vmlinux*.h | *.skel.h | *.o | *.so | *.a | */compile_commands.json | *.orig | *.rej | *~)
      complain "$file: generated or left over" ;;
  esac
  # Inputs of the fuzzers are whatever they are.
  [[ $file != tests/fuzz/corpus/* ]] || continue
  [[ -s $file ]] || { complain "$file: empty"; continue; }
  if ! LC_ALL=C grep -qI '' "$file"; then
    complain "$file: binary"
    continue
  fi
  [[ -z $(tail -c 1 "$file") ]] || complain "$file: does not end in a newline"
  ! grep -nHE '[[:blank:]]+$' "$file" || complain "$file: trailing blanks"
  ! grep -nHE $'\r' "$file" || complain "$file: carriage return"
  # Home directories and work trees of whoever wrote it.
  ! grep -nHE '(^|[^A-Za-z0-9_.])/(home|root|Users|work|workspace|mnt)/[A-Za-z0-9]' "$file" ||
    complain "$file: path of a developer's machine"
  ! grep -nHE '^(<<<<<<<|>>>>>>>) ' "$file" || complain "$file: conflict marker"
done < <(tracked .)
printf '%d files\n' "$count"
((count && !bad))
