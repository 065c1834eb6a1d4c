#!/usr/bin/env bash
# clang-tidy over every .cpp that is shipped. tidy.sh BUILD_DIRECTORY
# EGRESSD_TIDY=all: the tests' and benchmarks' as well, twice as many and heavier by GoogleTest's headers.
# A file whose preprocessed text, flags and rules are as at its last clean run is not run again.
set -euo pipefail
source tests/check/tracked.sh
need clang-tidy-19
need python3
build=$1
database=$build/compile_commands.json
[[ -s $database ]] || {
  printf 'SKIPPED: %s is missing\n' "$database"
  exit 77
}
sources=('agent/*.cpp' 'nft/*.cpp')
[[ ${EGRESSD_TIDY:-} != all ]] || sources+=('tests/*.cpp')
mapfile -t files < <(python3 - "$database" <(tracked "${sources[@]}") <<'END'
import json, os, sys
ours = set(os.path.abspath(p) for p in open(sys.argv[2], "rb").read().decode().split("\0") if p)
seen = sorted({os.path.normpath(os.path.join(e["directory"], e["file"])) for e in json.load(open(sys.argv[1]))})
print(*[os.path.relpath(p) for p in seen if p in ours], sep="\n")
END
)
printf '%d files\n' "${#files[@]}"
((${#files[@]}))

clean=$build/tidy-clean
mkdir -p "$clean"
tidy_one() {
  local build=$1 clean=$2 file=$3 stamp output
  # The build's flags are g++'s. Clang's own: it warns of what libstdc++ 12 does in stable_sort,
  # and of designated initialisers that leave fields zero, which is what they are for.
  local arguments=(
    --extra-arg=-Wno-unknown-warning-option
    --extra-arg=-Wno-deprecated-declarations
    --extra-arg=-Wno-missing-designated-field-initializers
    --extra-arg=-Wno-missing-field-initializers
  )
  stamp=$clean/$(python3 - "$build/compile_commands.json" "$file" <<'END'
import hashlib, json, os, shlex, subprocess, sys
path = os.path.abspath(sys.argv[2])
for entry in json.load(open(sys.argv[1])):
    if os.path.normpath(os.path.join(entry["directory"], entry["file"])) == path:
        words = shlex.split(entry["command"])
        if os.path.basename(words[0]) == "ccache":
            words = words[1:]
        words = words[: words.index("-o")] + ["-E", path]
        text = subprocess.run(words, cwd=entry["directory"], check=True, capture_output=True).stdout
        rules = open(".clang-tidy", "rb").read()
        # NOLINT comments are not in the preprocessed text.
        print(hashlib.sha256(text + open(path, "rb").read() + rules + repr(words).encode()).hexdigest())
        break
END
  )
  [[ ! -e $stamp ]] || return 0
  if output=$(clang-tidy-19 -p "$build" --quiet "${arguments[@]}" "$file" 2>&1); then
    : >"$stamp"
  else
    grep -vE '^[0-9]+ warnings (generated|treated)|^Suppressed|^Use -header' <<<"$output"
    return 1
  fi
}
export -f tidy_one
printf '%s\0' "${files[@]}" | xargs -0 -P "$(nproc)" -I{} bash -c 'tidy_one "$@"' _ "$build" "$clean" {}
