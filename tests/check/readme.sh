#!/usr/bin/env bash
# What README.md names is there: the scripts and files, the programs' commands and options.
set -euo pipefail
source tests/check/tracked.sh
bad=0
# Without the blocks that show what a program printed: fences with no language.
text=$(awk '/^```/ { fence = fence ? "" : ($0 == "```" ? "output" : "code"); next }
  fence != "output"' README.md)
while read -r path; do
  [[ -e $path ]] || { printf 'README.md: %s does not exist\n' "$path"; bad=1; }
done < <(grep -oE '\b(scripts|agent|bpf|tests|deploy|nft)/[A-Za-z0-9_./-]*[A-Za-z0-9_]' <<<"$text" | sort -u)
while read -r script; do
  [[ -x $script ]] || { printf 'README.md: %s cannot be run\n' "$script"; bad=1; }
done < <(grep -oE '\bscripts/[a-z_]+\.sh' <<<"$text" | sort -u)
while read -r command; do
  grep -rqF "\"$command\"" agent/cli agent/main.cpp ||
    { printf 'README.md: there is no egressctl %s\n' "$command"; bad=1; }
done < <(grep -oE 'egressctl [a-z]+' <<<"$text" | cut -d' ' -f2 | sort -u)
while read -r option; do
  grep -rqF -- "$option" agent/cli agent/main.cpp ||
    { printf 'README.md: no program has %s\n' "$option"; bad=1; }
done < <(grep -oE '(^|[ `])--[a-z][a-z-]+' <<<"$text" | grep -oE -- '--[a-z-]+' | sort -u)
((!bad))
