#!/usr/bin/env bash
# The units of deploy/systemd: systemd has nothing to say about them, and what it calls their
# exposure stays small. Offline; $1: where the build has egressd, $2: where egressctl.
set -euo pipefail
source tests/check/tracked.sh
for tool in systemd-analyze python3; do need "$tool"; done
egressd=$1 egressctl=$2
dir=$(mktemp -d "${TMPDIR:-/tmp}/egressd-units.XXXXXX")
trap 'rm -rf "$dir"' EXIT
units=(deploy/systemd/egressd.service deploy/systemd/egressd-boot.service deploy/systemd/egressd-bpffs.service)
# verify looks for the programs: those of the build stand in for the package's.
for unit in "${units[@]}"; do
  sed -e "s#/usr/sbin/egressd#$egressd#; s#/usr/bin/egressctl#$egressctl#" "$unit" >"$dir/${unit##*/}"
done

bad=0
complain() {
  printf '%s\n' "$*"
  bad=1
}
# verify says what it does not know and ends with 0: any word is one too many.
said=$(systemd-analyze verify --man=no "$dir"/*.service 2>&1) || complain "verify: status $?"
[[ -z $said ]] || complain "$said"

for unit in egressd egressd-boot; do
  exposure=$(systemd-analyze security --offline=true --no-pager --threshold=30 "$dir/$unit.service") ||
    complain "exposure above 3.0: $exposure"
  printf '%s\n' "${exposure##*$'\n'}"
done

python3 tests/check/systemd.py || bad=1

# What the unit and the agent must agree in, or the machine is open at boot.
unit=egressd.service
has() { grep -qxF -- "$1" "deploy/systemd/$unit" || complain "$unit: no line '$1'"; }
has Type=notify
has Restart=on-failure
has StartLimitIntervalSec=0
has DefaultDependencies=no
has 'Before=network-pre.target sysinit.target cloud-init-local.service'
has Also=egressd-boot.service
unit='egressd-boot.service'
has DefaultDependencies=no
has Type=oneshot
has RemainAfterExit=yes
has Restart=on-failure
has StartLimitBurst=5
has 'Before=network-pre.target sysinit.target cloud-init-local.service egressd.service'
has After=local-fs.target
has 'After=nftables.service netfilter-persistent.service ufw.service'
# A disk that does not come must not keep it from closing the machine.
if grep -nE '^(Requires|RequiresMountsFor|Requisite|BindsTo)=' "deploy/systemd/$unit"; then
  complain "$unit: requires something"
fi
has WantedBy=sysinit.target
((!bad))
