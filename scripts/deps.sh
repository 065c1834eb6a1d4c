#!/usr/bin/env bash
# Installs what building and testing egressd on Debian 12 needs, from Debian's archive only.
#   scripts/deps.sh build|sandbox|test|image|vm|kubernetes|nspawn…    default: the first four
set -euo pipefail

build_packages=(
  build-essential cmake ninja-build pkg-config clang-19 llvm-19 bpftool
  libbpf-dev libelf-dev zlib1g-dev libnftnl-dev libmnl-dev libc-ares-dev libspdlog-dev
  libyaml-dev nlohmann-json3-dev libcli11-dev libidn2-dev libpsl-dev
  libseccomp-dev libcap-ng-dev
  prometheus-cpp-dev libmicrohttpd-dev libgtest-dev libgmock-dev
)
# Real programs on the other side of the sandbox's wire.
sandbox_packages=(
  iproute2 util-linux procps mount dnsmasq-base nginx-light openssl curl ca-certificates
)
test_packages=(
  clang-tidy-19 clang-format-19 libclang-rt-19-dev shellcheck ccache python3 python3-jsonschema git file
  iputils-ping unbound knot nftables iptables ufw systemd rsyslog chromium zsh fish mandoc man-db strace prometheus
  golang-go golang-github-masterminds-sprig-dev golang-gopkg-yaml.v3-dev python3-yaml
  python3-pyte
)
# deploy/image: the container image and its test.
image_packages=(buildah podman runc conmon catatonit binutils python3-yaml)
# What scripts/kernel-matrix.sh boots other kernels with.
vm_packages=(qemu-system-x86 busybox-static xz-utils binutils)
# What scripts/kubernetes-test.sh builds and runs an API server with.
kubernetes_packages=(etcd-server golang-github-modern-go-reflect2-dev dpkg-dev)
# Debian's package in a machine of its own: scripts/nspawn-test.sh.
nspawn_packages=(mmdebstrap systemd-container dpkg-dev lintian)

wanted=()
for group in "${@:-build sandbox test image}"; do
  for word in $group; do
    case $word in
      build) wanted+=("${build_packages[@]}") ;;
      sandbox) wanted+=("${sandbox_packages[@]}") ;;
      test) wanted+=("${test_packages[@]}") ;;
      image) wanted+=("${image_packages[@]}") ;;
      vm) wanted+=("${vm_packages[@]}") ;;
      kubernetes) wanted+=("${kubernetes_packages[@]}") ;;
      nspawn) wanted+=("${nspawn_packages[@]}") ;;
      *)
        printf 'usage: %s [build|sandbox|test|image|vm|kubernetes|nspawn]…\n' "$0" >&2
        exit 2
        ;;
    esac
  done
done

# Debian's own tools first: what a machine has in /usr/local may be anything.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin

missing=()
for package in "${wanted[@]}"; do
  [[ $(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] ||
    missing+=("$package")
done
if ((${#missing[@]} == 0)); then
  printf 'packages: all %d there\n' "${#wanted[@]}"
  exit 0
fi

if [[ $EUID -ne 0 ]]; then
  printf 'missing packages: %s\nrun as root: %s\n' "${missing[*]}" "$0 $*" >&2
  exit 1
fi
printf 'packages: installing %d of %d: %s\n' "${#missing[@]}" "${#wanted[@]}" "${missing[*]}"

# nginx, knot, rsyslog, unbound, prometheus, podman and etcd come with services. The tests start their own in a
# sandbox; the machine's must neither start now nor at the next boot.
policy=/usr/sbin/policy-rc.d
log=$(mktemp)
made_policy=no
cleanup() {
  if [[ $made_policy == yes ]]; then rm -f "$policy"; fi
  rm -f "$log"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
if [[ ! -e $policy ]]; then
  made_policy=yes
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
fi

# On a terminal apt's current line is shown over the last one; what it said comes out if it fails.
apt() {
  if ! DEBIAN_FRONTEND=noninteractive apt-get -y -q -o Dpkg::Use-Pty=0 "$@" 2>&1 | tee "$log" |
    if [[ -t 1 ]]; then progress; else cat >/dev/null; fi; then
    tail -n 30 "$log" >&2
    return 1
  fi
}

progress() {
  local line
  while IFS= read -r line; do
    case $line in
      Get:* | Unpacking* | 'Setting up'*) printf '\r\033[K  %.100s' "$line" ;;
    esac
  done
  printf '\r\033[K'
}

# Lists may be stale or one source unreachable: whether it matters, the install says.
apt update || printf 'packages: apt-get update failed, trying with the lists there are\n' >&2
apt install --no-install-recommends "${missing[@]}"

if [[ -d /run/systemd/system ]]; then
  for service in nginx knot rsyslog unbound prometheus podman etcd; do
    for package in "${missing[@]}"; do
      if [[ $package == "$service" || $package == "$service-light" || $package == "$service-server" ]]; then
        systemctl --quiet disable "$service.service"
        [[ $service != podman ]] || systemctl --quiet disable podman{.socket,-restart.service,-auto-update.{service,timer}}
        printf 'packages: %s is installed but not enabled as a service\n' "$service"
      fi
    done
  done
fi
printf 'packages: done\n'
