#!/usr/bin/env bash
# Makes the container image of egressd and egressctl from a release build, on Debian 12: the two
# programs and the shared libraries they load, taken from Debian's packages. No shell, no package
# manager. Same build, same packages, same SOURCE_DATE_EPOCH: same layer.
#   deploy/image/build.sh [--build DIR] [--tag NAME] [--output FILE]
#     --build DIR     built tree of preset release (build/release)
#     --tag NAME      name of the image (localhost/egressd:VERSION)
#     --output FILE   also as an OCI archive, for `skopeo copy`, `podman load` or `ctr images import`
# Packages: scripts/deps.sh build image
set -euo pipefail
cd "$(dirname "$0")/../.."
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
umask 022

die() {
  printf 'build.sh: %s\n' "$*" >&2
  exit 1
}

build=build/release tag='' output=''
while (($#)); do
  (($# > 1)) || die "usage: build.sh [--build DIR] [--tag NAME] [--output FILE]"
  case $1 in
    --build) build=$2 ;;
    --tag) tag=$2 ;;
    --output) output=$2 ;;
    *) die "usage: build.sh [--build DIR] [--tag NAME] [--output FILE]" ;;
  esac
  shift 2
done

# shellcheck source=/dev/null
. /usr/lib/os-release
[[ ${ID:-}-${VERSION_ID:-} == debian-12 ]] || die "the image's libraries come from Debian 12: build it there"
for tool in buildah cmake strip dpkg-deb apt-get; do
  command -v "$tool" >/dev/null || die "$tool is missing: run scripts/deps.sh build image"
done
[[ -x $build/agent/egressd && -e $build/agent/cli/completion.bash ]] ||
  die "$build is not built: cmake --preset release && cmake --build --preset release"

version=$("$build/agent/egressd" --version)
revision=$(git -c safe.directory='*' rev-parse HEAD 2>/dev/null || true)
[[ -n ${SOURCE_DATE_EPOCH:-} ]] ||
  SOURCE_DATE_EPOCH=$(git -c safe.directory='*' log -1 --format=%ct 2>/dev/null || echo 0)
export SOURCE_DATE_EPOCH
tag=${tag:-localhost/egressd:$version}

work=$(mktemp -d "${TMPDIR:-/tmp}/egressd-image.XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT
root=$work/rootfs
# As Debian has them since /usr was merged.
mkdir -p "$root"/usr/{bin,sbin,lib,lib64} "$root"/{etc/egressd,proc,run/egressd,sys,tmp} \
  "$root"/var/lib/{egressd,dpkg/status.d} "$root/usr/share/doc"
ln -s usr/bin usr/sbin usr/lib usr/lib64 "$root/"

DESTDIR=$work/install cmake --install "$build" --prefix /usr --strip >"$work/log" 2>&1 || {
  cat "$work/log" >&2
  die "cmake --install failed"
}
cp "$work/install/usr/sbin/egressd" "$root/usr/sbin/"
cp "$work/install/usr/bin/egressctl" "$root/usr/bin/"
install -Dm644 LICENSE "$root/usr/share/doc/egressd/copyright"
install -Dm644 /usr/lib/os-release "$root/usr/lib/os-release"
ln -s ../usr/lib/os-release "$root/etc/os-release"

# Every library they load, from the archive's newest package: not this machine's copies, which may be
# older or anybody's.
mapfile -t libraries < <(ldd "$root/usr/sbin/egressd" "$root/usr/bin/egressctl" |
  sed -n 's/.*=> \(\/[^ ]*\) .*/\1/p; s/^[[:space:]]*\(\/lib[^ ]*\) .*/\1/p' |
  sed 's/^\/usr//' | sort -u)
((${#libraries[@]} > 5)) || die "ldd says nothing of the libraries"
mapfile -t packages < <(for library in "${libraries[@]}"; do
  dpkg -S "$library" 2>/dev/null || dpkg -S "/usr$library"
done | sed 's/: .*//' | sort -u)
# Kept beside the build; another version has another file name.
debs=$build/image-packages
mkdir -p "$debs"
apt-get -q --print-uris download "${packages[@]}" >"$work/uris" 2>"$work/log" || {
  cat "$work/log" >&2
  die "the archive does not have these packages: apt-get update, then again"
}
wanted=() fetch=()
while read -r _ deb _; do
  wanted+=("$deb")
  [[ -e $debs/$deb ]] || fetch+=("${deb%%_*}")
done <"$work/uris"
if ((${#fetch[@]})); then
  # Not as the user _apt, who may not write there.
  (cd "$debs" && apt-get -q -o APT::Sandbox::User=root download "${fetch[@]}" >"$work/log" 2>&1) || {
    cat "$work/log" >&2
    die "packages cannot be had: apt-get update, then again"
  }
fi
for deb in "${wanted[@]}"; do
  mkdir "$work/package"
  dpkg-deb -x "$debs/$deb" "$work/package"
  for library in "${libraries[@]}"; do
    for at in "$library" "/usr$library"; do
      if [[ -e $work/package$at ]]; then
        mkdir -p "$root/usr${library%/*}"
        cp -L "$work/package$at" "$root/usr$library"
      fi
    done
  done
  name=${deb%%_*}
  # Some packages have theirs as a link into another one, which is here as well.
  copyright=$work/package/usr/share/doc/$name/copyright
  [[ -e $copyright ]] || copyright=/usr/share/doc/$name/copyright
  install -Dm644 "$copyright" "$root/usr/share/doc/$name/copyright"
  # Where vulnerability scanners look in images without a package manager.
  dpkg-deb -f "$debs/$deb" Package Version Architecture Source Maintainer Homepage \
    >"$root/var/lib/dpkg/status.d/$name"
  rm -r "$work/package"
done
# What was put together must be enough.
for program in /usr/sbin/egressd /usr/bin/egressctl; do
  chroot "$root" "$program" --help >"$work/log" 2>&1 || {
    cat "$work/log" >&2
    die "$program does not run in the image"
  }
done
find "$root" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +

cp deploy/image/Containerfile "$work/"
labels=(
  "title=egressd" "description=FQDN egress firewall for Linux hosts, enforced by eBPF"
  "version=$version" "licenses=Apache-2.0"
  "created=$(date --utc --date="@$SOURCE_DATE_EPOCH" +%FT%TZ)"
)
[[ -z $revision ]] || labels+=("revision=$revision")
arguments=()
for label in "${labels[@]}"; do
  arguments+=(--label "org.opencontainers.image.$label" --annotation "org.opencontainers.image.$label")
done
buildah bud --quiet --isolation chroot --format oci --timestamp "$SOURCE_DATE_EPOCH" \
  "${arguments[@]}" --tag "$tag" "$work" >"$work/id"
if [[ -n $output ]]; then
  rm -f "$output"
  buildah push --quiet "$tag" "oci-archive:$output:$tag"
fi
printf '%s\n  %s bytes unpacked, %d files, of these egressd %d, egressctl %d\n' "$tag" \
  "$(du -sb --apparent-size "$root" | cut -f1)" "$(find "$root" -type f | wc -l)" \
  "$(stat -c %s "$root/usr/sbin/egressd")" "$(stat -c %s "$root/usr/bin/egressctl")"
printf '  %s\n' "$(sed -n 's/^Package: //p; s/^Version: //p' "$root"/var/lib/dpkg/status.d/* | paste -sd' \n' | paste -sd, | sed 's/,/, /g')"
printf '  image id %s\n' "$(<"$work/id")"
