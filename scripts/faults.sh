#!/usr/bin/env bash
# Every system call of the agent that can matter fails once, each in its turn: at the first start, at
# an adopting one and during a reload (tests/netns/faults_test.sh, of which CTest runs a sample).
# As root, about half an hour.
#   scripts/faults.sh [PHASE…]    first | adopt | reload; default: all
#   EGRESSD_FAULTS_CALLS="bpf:EPERM openat:EIO"   other calls or errors than those of the test
# Fuller output: build/faults.log.
set -euo pipefail
cd "$(dirname "$0")/.."
[[ $EUID -eq 0 ]] || {
  echo "needs root: BPF programs, namespaces, cgroups" >&2
  exit 1
}
mkdir -p build
if ! { cmake --preset dev &&
  cmake --build --preset dev --target egressd egressctl egressd_probe dns_client; } >build/faults.log 2>&1; then
  tail -n 40 build/faults.log
  exit 1
fi
export EGRESSD=$PWD/build/dev/agent/egressd EGRESSCTL=$PWD/build/dev/agent/cli/egressctl
export EGRESSD_PROBE=$PWD/build/dev/tests/support/egressd_probe
export DNS_CLIENT=$PWD/build/dev/tests/bpf/dns_client
export EGRESSD_FAULTS=all
tests/netns/faults_test.sh "$@" 2>&1 | tee build/faults.log
