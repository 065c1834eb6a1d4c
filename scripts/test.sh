#!/usr/bin/env bash
# Everything that must hold before a change goes in: build, all tests (unit tests under
# AddressSanitizer and UndefinedBehaviorSanitizer), the fuzz targets. Last line: the count.
#   CI=true                 a skipped test counts as failed
#   EGRESSD_FUZZ_SECONDS=N  for every fuzz target (60 for policies and tags, 20 for the rest)
set -euo pipefail
cd "$(dirname "$0")/.."

jobs=$(nproc)
passed=0 failed=0 skipped=0
problems=()
started=$SECONDS

step() { printf '\n==> %s   [%d:%02d]\n' "$*" $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60)); }

summary() {
  printf '\n'
  if ((${#problems[@]})); then
    printf '%s\n' "${problems[@]}"
  fi
  printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
}

# A build that fails ends the run: what it would have tested has not been tested.
broken() {
  failed=$((failed + 1))
  problems+=("FAILED   $1")
  summary
  exit 1
}

pass() { passed=$((passed + 1)); }

fail() {
  failed=$((failed + 1))
  problems+=("FAILED   $1")
}

skip() {
  if [[ ${CI:-} == true ]]; then
    failed=$((failed + 1))
    problems+=("FAILED   $1: skipped under CI: $2")
  else
    skipped=$((skipped + 1))
    problems+=("skipped  $1: $2")
  fi
}

# The result of every test of one ctest run, read from its JUnit file.
count_junit() {
  local preset=$1 kind name text
  while IFS=$'\t' read -r kind name text; do
    case $kind in
      passed) pass ;;
      skipped) skip "$preset: $name" "$text" ;;
      *) fail "$preset: $name${text:+: $text}" ;;
    esac
  done < <(python3 - "$2" <<'END'
import sys
import xml.etree.ElementTree as tree

for case in tree.parse(sys.argv[1]).getroot().iter("testcase"):
    kind = {"run": "passed", "disabled": "skipped"}.get(case.get("status"), "failed")
    text = ""
    element = case.find("skipped")
    if case.get("status") == "notrun" and element is not None:
        # Also where the program is missing or a fixture failed, which is no skip.
        text = element.get("message", "")
        kind = "skipped" if text.startswith("SKIP_") else "failed"
    if kind == "skipped":
        # Ours say why on a line of their own, GoogleTest on the line after "Skipped".
        output = (case.findtext("system-out") or "").splitlines()
        reasons = [l.partition("SKIPPED: ")[2] for l in output if l.startswith("SKIPPED: ")]
        reasons += [b for a, b in zip(output, output[1:]) if a.endswith(": Skipped")]
        text = (reasons + [text])[0]
    print(kind, case.get("name"), " ".join(text.split()), sep="\t")
END
  )
}

# build PRESET TARGET [CMAKE_ARGS…]
build() {
  local preset=$1 target=$2
  shift 2
  cmake --preset "$preset" "${launcher[@]}" "$@" >"$log" 2>&1 || {
    cat "$log"
    broken "cmake --preset $preset"
  }
  # On a terminal ninja's lines overwrite each other; elsewhere they count only if it failed.
  local begun=$SECONDS make=(cmake --build --preset "$preset" --target "$target" -j "$jobs")
  if [[ -t 1 ]]; then
    "${make[@]}" || broken "build of preset $preset"
  else
    "${make[@]}" >"$log" 2>&1 || {
      grep -vE '^\[[0-9]+/[0-9]+\]' "$log" | tail -n 60
      broken "build of preset $preset"
    }
  fi
  printf 'built in %d:%02d\n' $(((SECONDS - begun) / 60)) $(((SECONDS - begun) % 60))
}

# run_ctest PRESET CTEST_ARGS…
run_ctest() {
  local preset=$1 junit
  shift
  junit=$(mktemp)
  # One more than there are cores: many tests wait for time to pass.
  ctest --test-dir "build/$preset" -j "$((jobs + 1))" --output-on-failure --no-tests=error \
    --output-junit "$junit" "$@" || true
  if [[ -s $junit ]]; then count_junit "$preset" "$junit"; else fail "ctest of preset $preset"; fi
  rm -f "$junit"
}

log=$(mktemp)
trap 'rm -f "$log"' EXIT

step "Debian packages"
scripts/deps.sh build sandbox test image vm || broken "scripts/deps.sh"
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
launcher=()
if command -v ccache >/dev/null; then
  # A clone elsewhere compiles nothing anew.
  export CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1
  launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache -DCMAKE_C_COMPILER_LAUNCHER=ccache)
fi

step "Build (preset test)"
build test all
step "All tests but unit tests"
run_ctest test -LE '^vm$'

step "Build with AddressSanitizer and UndefinedBehaviorSanitizer (preset sanitize)"
build sanitize sanitized "-DEGRESSD_FUZZ_SECONDS=${EGRESSD_FUZZ_SECONDS:-}"
step "Unit tests, sanitized"
run_ctest sanitize -L '^(unit|dns-server)$'
step "Fuzz"
run_ctest sanitize -L '^fuzz$'

step "Done"
summary
((failed == 0))
