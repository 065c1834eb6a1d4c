#!/usr/bin/env bash
# The long forms of the tests that look for what is rare: hours, for a machine of one's own, as root.
#   scripts/soak.sh [STEP…]      mutations | names | kills | reloads | fuzz; default: all, in this order
# How much, with the default in brackets:
#   EGRESSD_SOAK_MUTATIONS       answers, and a quarter as many questions, shown to the kernel and
#                                the reference, with TCP streams beside (10000000)
#   EGRESSD_SOAK_NAMES           fresh names asked and used at once, in rounds of 100000 (1000000)
#   EGRESSD_SOAK_KILLS           kill -9 of the agent under clients that never pause (1000)
#   EGRESSD_SOAK_RELOADS         reloads in a row; nothing may grow and nothing open (10000)
#   EGRESSD_SOAK_MINUTES         per fuzz target (30)
# Each starts from another seed than the last time. Whole outputs: build/soak/.
set -euo pipefail
cd "$(dirname "$0")/.."

mutations=${EGRESSD_SOAK_MUTATIONS:-10000000}
names=${EGRESSD_SOAK_NAMES:-1000000}
kills=${EGRESSD_SOAK_KILLS:-1000}
reloads=${EGRESSD_SOAK_RELOADS:-10000}
minutes=${EGRESSD_SOAK_MINUTES:-30}
started=$SECONDS
failed=()
out=build/soak

(($#)) || set -- mutations names kills reloads fuzz
for step in "$@"; do
  case $step in
    mutations | names | kills | reloads | fuzz) ;;
    *)
      sed -n '2,/^set/p' "$0" | grep '^#' | cut -c3- >&2
      exit 2
      ;;
  esac
done
[[ $EUID -eq 0 ]] || {
  echo "needs root: BPF programs, namespaces, cgroups" >&2
  exit 1
}

say() { printf '[%d:%02d:%02d] %s\n' $(((SECONDS - started) / 3600)) $(((SECONDS - started) / 60 % 60)) $(((SECONDS - started) % 60)) "$*"; }

# attempt NAME FILTER CMD…: its lines that match FILTER as they come, all of them in a file.
attempt() {
  local name=$1 filter=$2 status=0
  shift 2
  "$@" 2>&1 | tee "$out/$name.log" | stdbuf -oL grep --line-buffered -E "$filter" || true
  status=${PIPESTATUS[0]}
  if ((status != 0)); then
    say "FAILED: $name (status $status), see $out/$name.log"
    failed+=("$name")
    return 1
  fi
}

build() {
  local preset=$1
  shift
  say "build $*"
  if ! { cmake --preset "$preset" &&
    cmake --build --preset "$preset" -j "$(nproc)" --target "$@"; } >"$out/build.log" 2>&1; then
    tail -n 40 "$out/build.log"
    exit 1
  fi
}

mutations() {
  local left=$mutations round=0 part
  build dev dns_mutation_test dns_stream_test
  while ((left > 0)); do
    part=$((left < 1000000 ? left : 1000000))
    left=$((left - part))
    round=$((round + 1))
    export EGRESSD_DNS_FUZZ_COUNT=$part
    attempt "mutations$round" '^seed|differences|Failure|differ' build/dev/tests/bpf/dns_mutation_test || return 0
    # A thousandth as many streams, of several messages and dozens of segments each.
    attempt "streams$round" 'streams|Failure' build/dev/tests/bpf/dns_stream_test || return 0
    rm -f "$out/mutations$round.log" "$out/streams$round.log"
    say "$((mutations - left)) of $mutations"
  done
}

names() {
  local done=0 round=0
  build dev dns_loader dns_client
  export DNS_LOADER=$PWD/build/dev/tests/bpf/dns_loader DNS_CLIENT=$PWD/build/dev/tests/bpf/dns_client
  while ((done < names)); do
    round=$((round + 1))
    NAMES=10000 attempt "names$round" '^FAILED|connections,|SKIPPED' tests/netns/dns_learning.sh || return 0
    rm -f "$out/names$round.log"
    done=$((done + 100000))
    say "$done of $names"
  done
}

# For the steps that run a test of tests/netns.
build_for_netns() {
  build dev egressd egressctl egressd_probe dns_client
  export DNS_CLIENT=$PWD/build/dev/tests/bpf/dns_client
  export EGRESSD=$PWD/build/dev/agent/egressd EGRESSCTL=$PWD/build/dev/agent/cli/egressctl
  export EGRESSD_PROBE=$PWD/build/dev/tests/support/egressd_probe
}

kills() {
  build_for_netns
  EGRESSD_KILLS=$kills attempt kills . tests/netns/dns_kills_test.sh || true
}

reloads() {
  build_for_netns
  EGRESSD_RELOADS=$reloads attempt reloads . tests/netns/reloads_test.sh || true
}

fuzz() {
  build fuzz fuzz_targets
  local target name found
  for target in build/fuzz/tests/fuzz/*_fuzz; do
    name=$(basename "$target" _fuzz)
    found=build/fuzz/tests/fuzz/found/$name
    mkdir -p "$found"
    local arguments=(-max_total_time=$((minutes * 60)) -timeout=10 -rss_limit_mb=2048
      -error_exitcode=1 -print_final_stats=1 "-artifact_prefix=$out/$name-")
    if [[ -e tests/fuzz/$name.dict ]]; then arguments+=("-dict=tests/fuzz/$name.dict"); fi
    say "fuzz $name, $minutes minutes"
    attempt "fuzz-$name" 'pulse|executed_units|ERROR|differ' \
      "$target" "${arguments[@]}" "$found" "tests/fuzz/corpus/$name" || true
  done
}

mkdir -p "$out"
for step in "$@"; do
  say "==> $step"
  "$step"
done
if ((${#failed[@]})); then
  say "failed: ${failed[*]}"
  exit 1
fi
say "all of it passed"
