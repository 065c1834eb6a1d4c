#!/usr/bin/bash
# Process 1 of the guest that scripts/kernel-matrix.sh boots: mounts what a machine has, runs the
# checks named on the kernel's command line behind `--`, says what came of each and ends.
#   @ kernel RELEASE VERSION             first line
#   @ check NAME pass|fail|missing SECONDS WHY
#   @ program NAME WHAT                  of load_report
#   @ end SECONDS_SINCE_BOOT             last line
export PATH=/usr/sbin:/usr/bin HOME=/ LC_ALL=C
export EGRESSD=/egressd/egressd EGRESSCTL=/egressd/egressctl EGRESSD_PROBE=/egressd/egressd_probe
# 400 and 800 ms for a refusal: still less than the second that a lost packet costs.
export SANDBOX_SLOW=8

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
ln -s /proc/self/fd /dev/fd
# In the order of their dependencies; those a kernel does not have as modules are built in.
for module in veth libcrc32c nfnetlink nf_tables nft_objref nft_counter; do
  if [[ -e /modules/$module.ko ]]; then busybox insmod "/modules/$module.ko"; fi
done
ip link set lo up

# The words behind the figure: why a check failed or could not run.
reason() {
  local status=$1 line
  case $status in
    77) line=$(sed -n 's/^SKIPPED: //p' /run/output | head -n 1) ;;
    124 | 137) line="no end in time" ;;
    *) line=$(grep -E '^FAIL|^\[  FAILED|refused|^sandbox:' /run/output | head -n 1) ;;
  esac
  printf '%s' "${line:-exit status $status}"
}

# check NAME SECONDS CMD…
check() {
  local name=$1 limit=$2 begun=${EPOCHREALTIME/./} status=0 word spent
  shift 2
  printf -- '--- %s\n' "$name"
  timeout -k 5 "$limit" "$@" </dev/null >/run/output 2>&1 || status=$?
  cat /run/output
  spent=$(((${EPOCHREALTIME/./} - begun + 50000) / 100000))
  case $status in
    0) word=pass ;;
    77) word=missing ;;
    *) word=fail ;;
  esac
  printf '@ check %s %s %d.%d %s\n' "$name" "$word" $((spent / 10)) $((spent % 10)) \
    "$([[ $word == pass ]] || reason "$status")"
}

cd /tests/netns || exit
printf '@ kernel %s %s\n' "$(uname -r)" "$(uname -v)"
for name in "$@"; do
  case $name in
    programs)
      check programs 120 /egressd/load_report
      sed -n -E 's/^(egressd_[a-z0-9_]+) +/@ program \1 /p' /run/output
      ;;
    verdicts) check "$name" 600 /egressd/verdict_test --gtest_brief=1 ;;
    answers) check "$name" 600 /egressd/dns_kernel_test --gtest_brief=1 ;;
    # Where time is short. Each test of verdicts loads and attaches anew: these stand for all.
    verdicts-core)
      check "$name" 60 /egressd/verdict_test --gtest_brief=1 \
        --gtest_filter='*NetworkRulesOpen*:*LearnedAddressesFollow*:*WhatCannotBeParsed*'
      ;;
    answers-core)
      check "$name" 60 env EGRESSD_DNS_FUZZ_COUNT=5000 /egressd/dns_kernel_test --gtest_brief=1
      ;;
    log)
      # What the kernel itself complained of meanwhile.
      check "$name" 20 bash -c '! dmesg | grep -E "WARNING:|BUG:|Oops|Call Trace"'
      ;;
    netns.*) check "$name" 600 bash "/tests/netns/${name#netns.}_test.sh" ;;
  esac
done
read -r uptime _ </proc/uptime
printf '@ end %s\n' "$uptime"
busybox poweroff -f
