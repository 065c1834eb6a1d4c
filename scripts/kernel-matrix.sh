#!/usr/bin/env bash
# Boots Debian's kernels in QEMU and lets the built egressd prove itself on each: its programs load
# and attach, give the right verdicts, learn from DNS answers. Needs no privilege and no KVM.
# Kernels come from Debian's security archive, wherever the machine's apt finds that, into
# build/kernels; nothing is installed.
#   scripts/kernel-matrix.sh [--core] [--read] [--write] [--build DIR] [KERNEL…] [CHECK…]
#     KERNEL       5.10, 6.1, 6.12; default: all
#     CHECK        programs, verdicts, answers, log, netns.NAME; default: all
#     --core       only what tells whether a kernel is fit at all
#     --read       boots nothing, tells again what the last runs of each kernel said
#     --write      puts the tables into bpf/kernels.md, too
#     --build DIR  where egressd and its tests were built (build/dev)
#   EGRESSD_VM_ACCEL=tcg|kvm   default tcg: slow, and there on any machine
# What each guest said stays in build/kernels/KERNEL/log. Exits 77 if there is nothing to run it
# with.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  sed -n '/^#   scripts/,/^#   EGRESSD/s/^# *//p' "$0" >&2
  exit 2
}

skip() {
  printf 'SKIPPED: %s\n' "$*"
  exit 77
}

die() {
  printf 'kernel-matrix: %s\n' "$*" >&2
  exit 1
}

build=build/dev
depth=full
read=no
write=no
kernels=()
named=()
while (($#)); do
  case $1 in
    --core) depth=core ;;
    --read) read=yes ;;
    --write) write=yes ;;
    --build)
      build=${2:?}
      shift
      ;;
    5.10 | 6.1 | 6.12) kernels+=("$1") ;;
    programs | verdicts | answers | log | netns.*) named+=("$1") ;;
    *) usage ;;
  esac
  shift
done
((${#kernels[@]})) || kernels=(5.10 6.1 6.12)

# What the guest runs, see tests/vm/init.sh: of tests/netns those whose outcome a kernel can change.
if [[ $depth == core ]]; then
  checks=(programs verdicts-core answers-core netns.dns_names log)
  limit=600
else
  checks=(programs verdicts answers netns.tcp_udp netns.dns_names netns.dns_spoof
    netns.dns_survival netns.crash netns.detach netns.escape netns.icmp_raw netns.inbound
    netns.inside netns.local netns.rebinding netns.reload log)
  limit=3600
fi
if ((${#named[@]})); then checks=("${named[@]}"); fi

# Debian's suite for each kernel. It never had 5.15, 6.6 and 6.8: what 5.10 and 6.1 both take, these
# should take.
declare -A suite=([5.10]=bullseye-security [6.1]=bookworm-security [6.12]=bookworm-security)

programs=(agent/egressd agent/cli/egressctl tests/support/egressd_probe tests/bpf/load_report
  tests/bpf/verdict_test tests/bpf/dns_kernel_test)
tools=(bash sh busybox ip dnsmasq unshare nsenter setpriv mount umount mountpoint dmesg ss nft
  bpftool grep sed awk find timeout python3 env dirname basename kill tail head wc readlink id touch stat tr
  cut comm sort seq cat cp mv ln ls rm mkdir rmdir mkfifo mktemp sleep test true false date uname
  chmod chown)
modules=(veth libcrc32c nfnetlink nf_tables nft_objref nft_counter)

[[ $(dpkg --print-architecture 2>/dev/null) == amd64 ]] || skip "only for Debian's amd64 kernels"
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
for tool in qemu-system-x86_64 busybox apt-get dpkg-deb xz; do
  command -v "$tool" >/dev/null || skip "$tool is missing: run scripts/deps.sh vm"
done
for program in "${programs[@]}"; do
  [[ -x $build/$program ]] || die "$build/$program is not built"
done

cache=$PWD/build/kernels
mkdir -p "$cache"
work=$(mktemp -d)
root=$work/root
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# fetch KERNEL: image and modules into $cache/KERNEL; says why not. With apt lists of our own: the
# machine's may be of another Debian, and stay as they are.
fetch() (
  kernel=$1 dir=$cache/$1 apt=$work/apt-$1
  [[ ! -s $dir/vmlinuz ]] || exit 0
  # shellcheck disable=SC2016 # apt expands these
  site=$(apt-get indextargets --format '$(SITE) $(RELEASE)' 'Created-By: Packages' |
    sed -n 's/ [a-z]*-security$//p' | head -n 1)
  [[ -n $site ]] || { printf 'apt knows no security archive of Debian\n' && exit 1; }
  mkdir -p "$apt/lists/partial" "$apt/archives/partial" "$dir"
  cd "$apt"
  printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' \
    "$site" "${suite[$kernel]}" >sources
  options=(-qq -o "Dir::Etc::sourcelist=$apt/sources" -o Dir::Etc::sourceparts=/dev/null
    -o "Dir::State::lists=$apt/lists" -o "Dir::Cache=$apt" -o APT::Sandbox::User=root
    -o Acquire::Languages=none -o Debug::NoLocking=true)
  apt-get "${options[@]}" update >&2 ||
    { printf '%s cannot be had\n' "${suite[$kernel]}" && exit 1; }
  package=$(apt-cache "${options[@]}" pkgnames "linux-image-$kernel." |
    grep -E '^linux-image-[0-9.]+[-+][0-9a-z]+-cloud-amd64$' | sort -V | tail -n 1) || true
  [[ -n $package ]] || { printf '%s has no kernel %s\n' "${suite[$kernel]}" "$kernel" && exit 1; }
  apt-get "${options[@]}" download "$package" >&2 ||
    { printf '%s cannot be downloaded\n' "$package" && exit 1; }
  dpkg-deb -x "$package"_*.deb image
  for module in "${modules[@]}"; do
    find image -name "$module.ko*" -exec cp {} "$dir" \;
  done
  find "$dir" -name '*.ko.xz' -exec xz -df {} +
  cp image/boot/vmlinuz-* "$dir/vmlinuz.new"
  mv "$dir/vmlinuz.new" "$dir/vmlinuz"
)

# put FILE [AS]: into the guest's root, with the libraries it links. The root has Debian's links, so
# that /lib and /usr/lib are one place there too.
put() {
  local library
  mkdir -p "$root$(dirname "${2:-$1}")"
  cp -L "$1" "$root${2:-$1}"
  while read -r library; do
    [[ ! -e $root$library ]] || continue
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
  done < <(ldd "$1" 2>/dev/null | grep -oE '/[^ )]+')
}

make_root() {
  local directory tool path
  mkdir -p "$root"/{usr/{bin,sbin,lib,lib64},etc,proc,sys,dev,run,tmp,modules,tests/netns}
  for directory in bin sbin lib lib64; do
    ln -s "usr/$directory" "$root/$directory"
  done
  for tool in "${tools[@]}"; do
    # nft, bpftool and python3 belong to few of the tests, which say so.
    path=$(type -P "$tool") || continue
    put "$path" "/usr/bin/$tool"
  done
  if [[ -x $root/usr/bin/python3 ]]; then
    path=$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
    mkdir -p "$root$path"
    tar -C "$path" -c --exclude=__pycache__ --exclude=./test --exclude=./dist-packages \
      --exclude='./config-*' --exclude=./idlelib --exclude=./tkinter --exclude=./ensurepip . |
      tar -C "$root$path" -x
  fi
  for tool in "${programs[@]}"; do
    put "$build/$tool" "/egressd/${tool##*/}"
    # Their debug information would be most of what the guest has to unpack.
    strip "$root/egressd/${tool##*/}"
  done
  cp tests/netns/*_test.sh tests/netns/sandbox.sh "$root/tests/netns/"
  cp tests/vm/init.sh "$root/init"
  printf 'root:x:0:0:root:/:/usr/bin/bash\n' >"$root/etc/passwd"
  printf 'root:x:0:\n' >"$root/etc/group"
  printf '127.0.0.1 localhost\n::1 localhost\n' >"$root/etc/hosts"
  : >"$root/etc/resolv.conf"
  : >"$root/etc/nsswitch.conf"
}

# boot KERNEL: runs the checks there; its log tells what came of them.
boot() {
  local dir=$cache/$1
  rm -f "$root"/modules/*
  cp "$dir"/*.ko "$root/modules/"
  (cd "$root" && find . | busybox cpio -o -H newc 2>/dev/null) >"$work/initramfs"
  # no_timer_check: an emulated timer can be too late for the kernel's trust.
  # pdeathsig: nor may it outlive us.
  setpriv --pdeathsig TERM timeout --foreground "$limit" qemu-system-x86_64 \
    -accel "${EGRESSD_VM_ACCEL:-tcg}" -cpu max -smp 1 -m 2048 \
    -nodefaults -no-user-config -display none -no-reboot -serial stdio \
    -kernel "$dir/vmlinuz" -initrd "$work/initramfs" \
    -append "console=ttyS0 quiet loglevel=2 panic=-1 mitigations=off no_timer_check -- ${checks[*]}" \
    </dev/null 2>&1 | sed -u 's/\r*$//' >"$dir/log" ||
    printf 'qemu: exit status %s\n' "$?" >>"$dir/log"
  # Beside what is new, what earlier runs said of other checks.
  [[ ! -e $dir/results ]] || grep -vE "^@ check ($(IFS='|' && printf '%s' "${checks[*]}")) " \
    "$dir/results" >"$work/earlier" || true
  { grep '^@ ' "$dir/log" || true; } | cat - "$work/earlier" >"$dir/results"
  : >"$work/earlier"
}
: >"$work/earlier"

# --- results; keys are "KERNEL CHECK"

declare -A status took release
passed=0 failed=0 missing=0
problems=()

# record KERNEL CHECK STATUS SECONDS WHY
record() {
  local result=$3
  # The core needs nothing that a guest could lack.
  [[ $result != missing || $depth != core || -z ${release[$1]:-} ]] || result=fail
  status[$1 $2]=$result took[$1 $2]=$4
  case $result in
    pass) passed=$((passed + 1)) ;;
    fail)
      failed=$((failed + 1))
      problems+=("FAILED   $1 $2: $5")
      ;;
    missing)
      missing=$((missing + 1))
      problems+=("missing  $1 $2: $5")
      ;;
  esac
}

read_log() {
  local kernel=$1 kind name word seconds rest check
  while read -r _ kind name word seconds rest; do
    case $kind in
      kernel) release[$kernel]=${name%-cloud-amd64} ;;
      check)
        if [[ " ${checks[*]} " == *" $name "* ]]; then
          record "$kernel" "$name" "$word" "$seconds" "$rest"
        fi
        ;;
      program)
        printf '%s %s %s\n' "$kernel" "$name" "$word $seconds $rest" >>"$work/instructions"
        ;;
      end) took[$kernel end]=$name ;;
    esac
  done < <(awk '!seen[$2 == "kernel" || $2 == "end" ? $2 : $2 " " $3]++' "$cache/$kernel/results")
  for check in "${checks[@]}"; do
    [[ -n ${status[$kernel $check]:-} ]] ||
      record "$kernel" "$check" fail 0 "the guest ended before: $(tail -n 1 "$cache/$kernel/log")"
  done
}

make_root
: >"$work/instructions"
ran=()
for kernel in "${kernels[@]}"; do
  if [[ $read == yes ]]; then
    [[ -s $cache/$kernel/results ]] || die "$kernel has not been run"
  elif ! reason=$(fetch "$kernel"); then
    for check in "${checks[@]}"; do
      record "$kernel" "$check" missing 0 "$reason"
    done
    continue
  fi
  [[ $read == yes ]] || boot "$kernel"
  read_log "$kernel"
  ran+=("$kernel")
  printf '%s: %s s\n' "${release[$kernel]:-$kernel}" "${took[$kernel end]:-?}"
done
((${#ran[@]})) || skip "$reason"

# table CELL_FUNCTION ROW…: Markdown, one column per kernel that ran.
table() {
  local cell=$1 row kernel
  shift
  printf '| |'
  for kernel in "${ran[@]}"; do printf ' %s |' "${release[$kernel]:-$kernel}"; done
  printf '\n| --- |'
  for kernel in "${ran[@]}"; do printf ' --- |'; done
  printf '\n'
  for row in "$@"; do
    printf '| %s |' "$row"
    for kernel in "${ran[@]}"; do printf ' %s |' "$("$cell" "$kernel" "$row")"; done
    printf '\n'
  done
}
cell_check() { printf '%s' "${status[$1 $2]}"; }
cell_program() { sed -n "s/^$1 $2 \\(.*\\)/\\1/p" "$work/instructions" | sed 's/ instructions *$//'; }
mapfile -t names < <(cut -d' ' -f2 "$work/instructions" | sort -u)

report() {
  table cell_check "${checks[@]}"
  printf '\n'
  ((${#names[@]} == 0)) || table cell_program "${names[@]}"
  printf '\n'
}

if [[ $write == yes ]]; then
  {
    cat <<MARKDOWN
# Kernels

Written by \`scripts/kernel-matrix.sh --write\`: Debian's cloud kernels for amd64 in QEMU, one emulated processor. Debian
never had 5.15, 6.6 and 6.8; what 5.10 and 6.1 both take, these should take.

MARKDOWN
    table cell_check "${checks[@]}"
    cat <<MARKDOWN

\`programs\`: each loads alone. \`verdicts\`, \`answers\`: the tests of \`tests/bpf\`, packets and DNS messages by
BPF_PROG_TEST_RUN. \`netns.…\`: those of \`tests/netns\`, egressd on real sockets, unchanged. \`log\`: the kernel complained of
nothing meanwhile.
MARKDOWN
    if ((missing)); then
      printf '\nMissing:\n\n'
      for problem in "${problems[@]}"; do
        if [[ $problem == missing* ]]; then printf -- '- %s\n' "${problem#missing  }"; fi
      done
    fi
    printf '\n## Instructions the verifier walks\n\nThe limit is 1,000,000; a test fails at 60 %% of it.\n\n'
    table cell_program "${names[@]}"
  } >"$work/kernels.md"
  cp "$work/kernels.md" bpf/kernels.md
fi

printf '\n'
report
if ((${#problems[@]})); then printf '%s\n' "${problems[@]}"; fi
printf '%d passed, %d failed, %d missing\n' "$passed" "$failed" "$missing"
((failed == 0))
