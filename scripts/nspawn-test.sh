#!/usr/bin/env bash
# Debian's package as a machine has it: installed, enforcing, upgraded, killed, rebooted and removed
# in a minimal Debian 12 under systemd-nspawn. The commands of deploy/vm.md are run as they stand
# there. Names, DNS and servers are those of the tests' sandbox: no packet leaves it.
#   scripts/nspawn-test.sh CACHE_DIR    as root; CACHE_DIR keeps the root file system for the next run
#   EGRESSD_BUILD=DIR                   a built release with tests; default: built in build/release
# Needs `scripts/deps.sh build sandbox nspawn`, about a minute, and 500 MB below CACHE_DIR.
# A line PASS or FAIL per step, the count last.
set -euo pipefail
cd "$(dirname "$0")/.."
here=$PWD

if [[ $# -ne 1 || ! -d $1 ]]; then
  printf 'usage: %s CACHE_DIR (an existing directory)\n' "$0" >&2
  exit 2
fi
cache=$(cd "$1" && pwd)
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
for tool in mmdebstrap systemd-nspawn dpkg-deb lintian; do
  command -v "$tool" >/dev/null || {
    printf '%s is missing: run scripts/deps.sh build sandbox nspawn\n' "$tool" >&2
    exit 2
  }
done

build=${EGRESSD_BUILD:-$here/build/release}
if [[ -z ${EGRESSD_BUILD:-} ]]; then
  log=$(cmake --preset release -DEGRESSD_TESTS=ON 2>&1 &&
    cmake --build "$build" --target deb egressd_probe 2>&1) || {
    printf '%s\n' "$log" >&2
    exit 1
  }
fi
export EGRESSD=$build/agent/egressd EGRESSCTL=$build/agent/cli/egressctl
export EGRESSD_PROBE=$build/tests/support/egressd_probe
# shellcheck source-path=SCRIPTDIR/..
source tests/netns/sandbox.sh
pass() {
  SANDBOX_CHECKS=$((SANDBOX_CHECKS + 1))
  printf 'PASS  %s\n' "$*"
}

readonly allowed=203.0.113.7 denied=198.51.100.9
sandbox_up
dns_set data.contoso.com "$allowed"
dns_set files.pythonhosted.org 203.0.113.8
dns_set pastebin.example.net "$denied"
web_up

# --- two packages of the same code, and a machine

package() { (cd "$build" && cpack -G DEB -B "$SANDBOX_DIR/$1" -D "CPACK_PACKAGE_VERSION=$1") >"$SANDBOX_DIR/cpack.log" 2>&1 ||
  die "cpack: $(<"$SANDBOX_DIR/cpack.log")"; }
version=$(sed -n 's/^CMAKE_PROJECT_VERSION:.*=//p' "$build/CMakeCache.txt")
next=$version+next
package "$version"
# Its policy is another: an upgrade must not put it in place of the machine's.
sed 's/^# Policy of egressd.*/# Of the next version./' deploy/deb/policy.yaml >"$SANDBOX_DIR/policy.yaml.next"
package "$next"
dpkg-deb -R "$SANDBOX_DIR/$next"/*.deb "$SANDBOX_DIR/next"
cp "$SANDBOX_DIR/policy.yaml.next" "$SANDBOX_DIR/next/usr/share/egressd/policy.yaml"
dpkg-deb --root-owner-group -b "$SANDBOX_DIR/next" "$SANDBOX_DIR/$next"/*.deb >/dev/null
deb=("$SANDBOX_DIR/$version"/*.deb)
packages=systemd-sysv,dbus,curl,iproute2,procps,$(dpkg-deb -f "${deb[0]}" Depends |
  sed 's/ ([^)]*)//g; s/, /,/g')
base=$cache/bookworm-$(sha256sum <<<"$packages" | cut -c 1-16)
if [[ ! -d $base ]]; then
  printf 'Debian 12 with %s\n' "$packages"
  rm -rf "$base.new"
  mmdebstrap --quiet --variant=apt --include="$packages" bookworm "$base.new" >&2
  mv "$base.new" "$base"
fi
box=$SANDBOX_DIR/box
cp -a "$base" "$box"
mkdir "$box/root/next"
cp "${deb[0]}" "$box/root"
cp "$SANDBOX_DIR/$next"/*.deb "$box/root/next"
install -m 755 "$EGRESSD_PROBE" "$box/usr/local/bin/egressd_probe"
printf 'nameserver %s\n' "$DNS4" >"$box/etc/resolv.conf"
printf 'insecure\n' >"$box/root/.curlrc" # the sandbox's web server signs for itself
# The first that network-pre.target lets go on finds out whether something forbidden gets out.
cat >"$box/etc/systemd/system/early.service" <<UNIT
[Unit]
DefaultDependencies=no
After=network-pre.target
Before=sysinit.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c '/usr/local/bin/egressd_probe tcp $denied 443 >/run/early 2>&1; true'
[Install]
WantedBy=sysinit.target
UNIT
# Another one, between the table of egressd-boot.service and the agent: DNS answers, nothing else does.
cat >"$box/etc/systemd/system/earlier.service" <<UNIT
[Unit]
DefaultDependencies=no
After=egressd-boot.service
Before=egressd.service sysinit.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c '/usr/local/bin/egressd_probe tcp $denied 443 >/run/earlier 2>&1; \\
  /usr/local/bin/egressd_probe resolve data.contoso.com 443 -4 >>/run/earlier 2>&1; systemctl is-active egressd >>/run/earlier; true'
[Install]
WantedBy=sysinit.target
UNIT
mkdir -p "$box/etc/systemd/system/sysinit.target.wants"
for unit in early earlier; do
  ln -s "../$unit.service" "$box/etc/systemd/system/sysinit.target.wants/$unit.service"
done

# boot: the machine, in the sandbox's cgroup and in the client's network namespace. Of the host's
# cgroups it sees its own alone; nspawn itself wants a hierarchy without version 1 beside it.
boot() {
  # The network namespace outlives the machine, and tables with it: a kernel would forget them.
  local table
  for table in egressd egressd_boot; do on_client nft delete table inet "$table" 2>/dev/null || true; done
  # Or what the boot before has closed would count as closed by this one.
  [[ $(on_client nft list tables) != *egressd* ]] || die "a table of the boot before is left"
  # shellcheck disable=SC2016 # expanded by the inner shell
  (
    echo "$BASHPID" >"$SANDBOX_CGROUP/cgroup.procs"
    exec setpriv --pdeathsig KILL unshare --mount --propagation private bash -c '
      umount -R -l /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup
      SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 exec systemd-nspawn --quiet --boot --directory="$1" \
        --register=no --keep-unit --network-namespace-path="/proc/$2/ns/net" --resolv-conf=off \
        --timezone=off --link-journal=no --capability=all \
        --system-call-filter="bpf perf_event_open" --console=pipe' bash "$box" "$SANDBOX_CLIENT"
  ) </dev/null >"$SANDBOX_DIR/console.log" 2>&1 &
  NSPAWN=$!
  wait_until 60 booted || die "the machine does not boot: $(tail -n 20 "$SANDBOX_DIR/console.log")"
}

# The process that is number 1 in there, and the cgroup of the machine.
find_init() {
  local pid
  while read -r pid; do
    if grep -qE '^NSpid:.*[[:space:]]1$' "/proc/$pid/status" 2>/dev/null; then
      INIT=$pid
      return 0
    fi
  done < <(find "$SANDBOX_CGROUP" -name cgroup.procs -exec cat {} + 2>/dev/null)
  return 1
}
booted() {
  find_init && [[ $(inside systemctl is-system-running 2>/dev/null) =~ ^(running|degraded)$ ]]
}

# inside CMD…: as root of the machine, but judged by nobody; judged CMD…: as one of its processes.
inside() {
  nsenter --target "$INIT" --mount --pid --net --ipc --uts --cgroup -- \
    env --chdir=/root -i HOME=/root PATH="$PATH:/usr/local/bin" DEBIAN_FRONTEND=noninteractive "$@"
}
judged() {
  local leaf
  leaf=$(printf '%s\n' "$SANDBOX_CGROUP"/payload)/probes
  mkdir -p "$leaf"
  (
    echo "$BASHPID" >"$leaf/cgroup.procs"
    inside "$@"
  )
}

# guide HEADING [N]: the commands of the Nth block of shell commands under it, as one of the
# machine's processes. What they say is kept for a failure.
guide() {
  local commands status=0
  commands=$(awk -v heading="$1" -v wanted="${2:-1}" '
    /^#/ && !inside { here = ($0 ~ "^#+ ([0-9]+[.] )?" heading "$") }
    here && /^```sh$/ { inside = 1; ++block; next }
    /^```/ { inside = 0 }
    here && inside && block == wanted' deploy/vm.md)
  [[ -n $commands ]] || die "deploy/vm.md has no block ${2:-1} under '$1'"
  judged bash -euo pipefail -c "$commands" >"$SANDBOX_DIR/guide.log" 2>&1 || status=$?
  check "guide, $1${2:+ ($2)}: status $status" test "$status" -eq 0
  ((status == 0)) || sed 's/^/      /' "$SANDBOX_DIR/guide.log"
}
said() { grep -qF -- "$1" "$SANDBOX_DIR/guide.log"; }

box_probe() { judged egressd_probe "$@" 2>&1 || true; }
expect_box() {
  local what=$1 wanted=$2 line
  shift 2
  line=$(box_probe "$@")
  check "$what: $line" test "${line%% *}" = "$wanted"
}
open_to() { expect_box "$1: forbidden address passes" ok tcp "$denied" 443; }
closed() {
  expect_box "$1: forbidden address refused" errno=EPERM tcp "$denied" 443
  expect_box "$1: allowed name" ok resolve data.contoso.com 443 -4
}
main_pid() { inside systemctl show --property MainPID --value egressd; }
is_active() { inside systemctl --quiet is-active egressd; }
another_agent() { is_active && [[ $(main_pid) != "$1" ]]; }
field() { inside egressctl status --json | grep -o "\"$1\":[^,}]*" | head -n 1; }
recorded() { grep -F "\"$denied\"" "$box/var/log/egressd/denials.jsonl" | grep -qF "\"$1\""; }
pins() { inside find /sys/fs/bpf -name 'egressd*'; }
apt() {
  inside apt-get -y -q "$@" >"$SANDBOX_DIR/apt.log" 2>&1 || {
    fail "apt-get $*: $(<"$SANDBOX_DIR/apt.log")"
    return 0
  }
}
# What the package could have left: all but what dpkg, systemd and the guide itself write.
files() {
  (cd "$box" && find . -xdev \( -path ./var/lib/dpkg -o -path ./var/log/apt -o -path ./var/log/dpkg.log -o -path ./var/log/journal \
    -o -path ./var/cache -o -path ./run -o -path ./tmp -o -path ./var/tmp -o -path ./root \
    -o -path ./var/lib/apt -o -path ./var/lib/systemd -o -path ./proc -o -path ./sys -o -path ./dev \) \
    -prune -o -print | sort)
}

# --- the guide: from nothing to enforcing, over a reboot

lint=$(lintian --allow-root "${deb[0]}" 2>&1 && echo clean) || true
check "lintian has nothing to say: $lint" test "$lint" = clean
boot
files >"$SANDBOX_DIR/before"
open_to "before"
guide "Install"
check "it says that it is in audit mode" grep -qE '^mode +audit' "$SANDBOX_DIR/guide.log"
check "started by Type=notify, $(inside systemctl show -p StatusText --value egressd)" \
  test "$(inside systemctl show -p Type -p ActiveState --value egressd | paste -sd' ')" = "notify active"
guide "Name your workspace"
check "the reload is in force" grep -q westeurope <<<"$(inside egressctl status --json)"
guide "Run the job"
guide "Learn"
check "learned what the job needed" said 'fqdns: ["data.contoso.com"]'
# As the guide says: what is allowed from here on is so by its name.
sed -i '/- name: "addresses tcp 443"/,$d' "$box/root/learned.yaml"
check "no rule for addresses is left" test -z "$(grep "$allowed" "$box/root/learned.yaml")"
open_to "audit"
check "and is recorded as would_deny" wait_until 3 recorded would_deny
guide "Try"
guide "Try" 2
closed "on trial"
guide "Enforce"
check "the policy file is the one tried" grep -qx 'mode: enforce' "$box/etc/egressd/policy.yaml"
check "recorded as denied" wait_until 3 recorded denied

cp "$box/etc/egressd/policy.yaml" "$SANDBOX_DIR/good.yaml"
generation=$(field generation)
sed -i 's/^mode: enforce/mode: on/' "$box/etc/egressd/policy.yaml"
if inside systemctl reload egressd 2>"$SANDBOX_DIR/out"; then fail "a bad policy reloads"; else pass "systemctl reload fails with a bad policy"; fi
check "the old one stays in force" test "$(field generation)" = "$generation"
check "systemctl status says so: $(inside systemctl show -p StatusText --value egressd)" \
  grep -q 'went wrong' <<<"$(inside systemctl show -p StatusText --value egressd)"
closed "after a bad reload"
cat "$SANDBOX_DIR/good.yaml" >"$box/etc/egressd/policy.yaml"
check "and reloads when it is good again" inside systemctl reload egressd

# nspawn ends at a reboot of what is in it, and takes the programs along: a kernel would too.
guide "Reboot"
wait "$NSPAWN" || true
boot
check "rebooted: the first that could, when the network was to come up: $(inside cat /run/early)" \
  grep -q '^errno=EPERM' <<<"$(inside cat /run/early)"
check "still earlier, while the agent is $(inside tail -n 1 /run/earlier): $(inside head -n 1 /run/earlier)" \
  test "$(inside sed 's/ after.*//; s/ in .*//' /run/earlier | paste -sd' ')" = "errno=ECONNREFUSED errno=ECONNREFUSED $allowed inactive"
said_at_boot() { inside journalctl --boot --unit egressd-boot --output cat --quiet; }
check "egressd-boot.service says what it did" grep -q 'closed until the agent is in force, as the last good policy' <<<"$(said_at_boot)"
no_table() { ! on_client nft list table inet egressd_boot >/dev/null 2>&1; }
check "its table is gone: the agent took over" no_table
guide "Reboot" 2
closed "rebooted"

# --- the sandbox of the unit: all the agent does, it can

check "the agent gave up its rights" \
  test -z "$(inside journalctl --boot --unit egressd --grep 'more rights than it needs' --quiet)"
log=$(inside journalctl --boot --unit egressd --quiet --output cat)
check "no error in its log" test -z "$(grep -E ' (error|critical) ' <<<"$log")"
check "cgroup paths are found" grep -q '"cgroup":"/probes"' "$box/var/log/egressd/denials.jsonl"
# Process numbers in records are the host's here, so that another in the same sandbox looks.
# looks_at_programs [DIRECTIVE]: whether it sees the program of another user's process.
looks_at_programs() {
  inside sh -c 'sed -e "/^Exec/d; /^    /d; /^Restart/d; /^WatchdogSec/d; s/^Type=.*/Type=oneshot/; /Directory/d" \
    /lib/systemd/system/egressd.service >/run/systemd/system/look.service'
  # shellcheck disable=SC2016 # expanded by the inner shell
  inside sh -c 'setpriv --reuid 65534 --regid 65534 --clear-groups sleep 60 & echo $! >/run/other
    printf "[Service]\n%s\nExecStart=/bin/readlink /proc/%s/exe\n" "$1" "$(cat /run/other)" >>/run/systemd/system/look.service
    systemctl daemon-reload; systemctl start look.service' _ "${1:-}" 2>/dev/null || true
  # shellcheck disable=SC2016
  inside sh -c 'kill "$(cat /run/other)"; rm /run/systemd/system/look.service; journalctl --sync'
  grep -qx '/usr/bin/sleep' <<<"$(inside journalctl --boot --unit look --output cat --since "@$since")"
}
since=$(date +%s)
check "exe of another user's process is readable in it" looks_at_programs
sleep 1 # the journal is asked by the second

# --- each of the unit's capabilities is needed: what the agent does not do without it

drop_in=/run/systemd/system/egressd.service.d
said_since() { inside journalctl --boot --unit egressd --quiet --output cat --since "@$1"; }
refused_now() {
  recorded_before=$(wc -l <"$box/var/log/egressd/denials.jsonl")
  box_probe tcp "$denied" 443 --linger 300 >/dev/null
}
recorded_now() { tail -n "+$((recorded_before + 1))" "$box/var/log/egressd/denials.jsonl" | grep -qE "$1"; }
# without CAP|none: prints what is missing, if anything.
without() {
  local since directive=
  inside systemctl stop egressd
  inside egressctl detach >/dev/null 2>&1
  sleep 1
  since=$(date +%s)
  inside mkdir -p "$drop_in"
  [[ $1 == none ]] || directive=CapabilityBoundingSet=~$1
  printf '[Service]\n%s\n' "$directive" | inside sh -c "cat >$drop_in/rights.conf"
  inside systemctl daemon-reload
  if ! inside timeout 15 systemctl start egressd 2>/dev/null; then
    printf 'does not start: %s' "$(said_since "$since" | grep -vE ' (info|warning) |egressd[.]service' | head -n 1)"
  else
    refused_now
    if ! wait_until 3 recorded_now '"cgroup":"/probes"'; then
      printf 'records without the cgroup'
    elif ! looks_at_programs "$directive"; then
      printf 'records do not name the program'
    else
      # Another user's file, readable by nobody else; then half written for two seconds.
      # shellcheck disable=SC2016 # expanded by the inner shell
      inside sh -c 'cd /etc/egressd && chown nobody policy.yaml && chmod 600 policy.yaml'
      if ! inside egressctl reload >/dev/null 2>&1; then
        printf 'does not read a policy of another user'
      else
        # shellcheck disable=SC2016
        inside sh -c 'cd /etc/egressd && size=$(stat -c %s policy.yaml) && exec 3>>policy.yaml && echo "half: [" >&3
          sleep 2; truncate -s "$size" policy.yaml; exec 3>&-; sleep 1; journalctl --sync'
        if said_since "$since" | grep -q 'policy.yaml:.*error'; then printf 'reads a policy that is being written'; fi
      fi
      inside sh -c 'cd /etc/egressd && chown root policy.yaml && chmod 644 policy.yaml'
    fi
  fi
  inside systemctl stop egressd
  inside rm "$drop_in/rights.conf"
}
readonly no_start='does not start: load the kernel programs: (Operation not permitted|Permission denied)'
declare -A without=([CAP_BPF]=$no_start [CAP_PERFMON]=$no_start [CAP_NET_ADMIN]=$no_start
  [CAP_SYS_PTRACE]='records do not name the program'
  [CAP_DAC_READ_SEARCH]='does not read a policy of another user'
  [CAP_LEASE]='reads a policy that is being written')
lost=$(without none)
check "with all of them nothing is missing: ${lost:-nothing}" test -z "$lost"
while read -r capability; do
  lost=$(without "$capability")
  check "without $capability: $lost" grep -qE "^${without[$capability]}" <<<"$lost"
done < <(sed -n 's/^CapabilityBoundingSet=//p' deploy/systemd/egressd.service | tr ' ' '\n')
inside systemctl daemon-reload
inside systemctl start egressd
closed "with its rights again"

# --- a boot on which the agent cannot start

# Nor is the policy of use. An operator comes in and mends the one: the agent starts with the last
# good policy.
sed -i 's/^mode: enforce/mode: on/' "$box/etc/egressd/policy.yaml"
mkdir "$box/etc/systemd/system/egressd.service.d"
printf '[Service]\nExecStart=\nExecStart=/bin/false\n' >"$box/etc/systemd/system/egressd.service.d/broken.conf"
inside systemctl reboot
wait "$NSPAWN" || true
boot
expect_box "no agent: forbidden address refused" errno=ECONNREFUSED tcp "$denied" 443
serve_in_box() { judged egressd_probe listen tcp 2222 >/dev/null & }
serve_in_box
answered() { [[ $(in_server "$EGRESSD_PROBE" tcp "$CLIENT4" 2222 2>&1) == ok* ]]; }
check "no agent: the machine answers who comes in" wait_until 5 answered
# The machine stops all of its processes when it is powered off: nsenter would stop with this one.
inside pkill -x egressd_probe
check "no agent: egressctl open" inside egressctl open --for 10m --reason "no agent"
open_to "no agent, opened"
check "no agent: egressctl close" inside egressctl close
expect_box "no agent, closed again" errno=ECONNREFUSED tcp "$denied" 443
rm -r "$box/etc/systemd/system/egressd.service.d"
inside systemctl daemon-reload
inside systemctl restart egressd
closed "mended, with a broken policy file"
check "egressctl status says that it is the last good policy" grep -q 'last good policy.*policy.yaml:' <<<"$(inside egressctl status)"
check "the table is gone" no_table
cat "$SANDBOX_DIR/good.yaml" >"$box/etc/egressd/policy.yaml"
good_again() { ! inside egressctl status | grep -q 'last good'; }
check "mended, it is in force" wait_until 5 good_again

# --- upgrade, under a running loop of probes

# probes FILE ARGS…: one after the other, a line each, until FILE.stop is there.
probes() {
  # shellcheck disable=SC2016 # expanded by the inner shell
  judged bash -c 'until [[ -e $0.stop ]]; do egressd_probe "$@" 2>&1 || true; done >"$0"' "$@" &
}
probes /run/forbidden tcp "$denied" 443
forbidden=$!
probes /run/allowed resolve data.contoso.com 443 -4
permitted=$!
count() { inside sh -c "cat '$1' 2>/dev/null | wc -l"; }
more_than() { (($(count "$1") > $2)); }
wait_until 10 more_than /run/forbidden 50
before=$(main_pid)
policy_before=$(<"$box/etc/egressd/policy.yaml")
apt install -o Dpkg::Options::=--force-confnew "./next/$(basename "$SANDBOX_DIR/$next"/*.deb)"
check "the policy is as it was" test "$(<"$box/etc/egressd/policy.yaml")" = "$policy_before"
wait_until 20 another_agent "$before" || true
now=$(count /run/forbidden)
wait_until 10 more_than /run/forbidden $((now + 50))
inside touch /run/forbidden.stop /run/allowed.stop
wait "$forbidden" "$permitted" || true
check "upgraded: $(inside dpkg-query -W egressd), the agent is another" another_agent "$before"
check "it took over: $(field adopted)" test "$(field adopted)" = '"adopted":true'
got_out=$(inside grep -vc '^errno=EPERM' /run/forbidden || true)
not_served=$(inside grep -vc '^ok' /run/allowed || true)
check "meanwhile $(count /run/forbidden) forbidden probes, $got_out got out" test "$got_out" -eq 0
check "meanwhile $(count /run/allowed) allowed probes, $not_served failed" test "$not_served" -eq 0

# --- what may happen to the agent

before=$(main_pid)
inside systemctl kill --signal=KILL --kill-whom=main egressd
expect_box "killed: refused at once" errno=EPERM tcp "$denied" 443
check "killed: systemd starts it anew" wait_until 10 another_agent "$before"
closed "killed and started anew"

inside systemctl stop egressd
closed "stopped"
inside systemctl start egressd
check "started: it took over" test "$(field adopted)" = '"adopted":true'

# Half a minute in the unit, here two seconds.
inside mkdir -p /run/systemd/system/egressd.service.d
inside sh -c 'printf "[Service]\nWatchdogSec=2\n" >/run/systemd/system/egressd.service.d/fast.conf
  systemctl daemon-reload; systemctl restart egressd'
before=$(main_pid)
sleep 5
check "the watchdog is fed: the agent is the same after 2.5 of its times" test "$(main_pid)" = "$before"
inside kill -STOP "$before"
expect_box "hanging: refused" errno=EPERM tcp "$denied" 443
check "hanging: systemd starts it anew" wait_until 20 another_agent "$before"
check "for the watchdog" grep -qi watchdog <<<"$(inside journalctl --boot --unit egressd --output cat)"
closed "started anew by the watchdog"
inside rm -r /run/systemd/system/egressd.service.d
inside systemctl daemon-reload

inside egressctl detach >/dev/null
ended() { [[ $(inside systemctl show -p ActiveState --value egressd) == inactive ]]; }
check "detached: the service ends, and stays ended" wait_until 5 ended
open_to "detached"
apt install --reinstall "./next/$(basename "$SANDBOX_DIR/$next"/*.deb)"
open_to "detached, and upgraded"
inside systemctl start egressd
closed "started again"

# --- remove, purge

# An agent of other pins, as an administrator may have told it in a drop-in.
inside mkdir -p "$drop_in"
printf '[Service]\nExecStart=\nExecStart=/usr/sbin/egressd run --policy /etc/egressd/policy.yaml --bpffs %s --audit-log %s\n' \
  /sys/fs/bpf/elsewhere /var/log/egressd/denials.jsonl | inside sh -c "cat >$drop_in/elsewhere.conf"
inside systemctl stop egressd
inside egressctl detach >/dev/null 2>&1
inside systemctl daemon-reload
inside systemctl start egressd
check "pinned elsewhere" grep -q elsewhere <<<"$(pins)"
closed "pinned elsewhere"
apt remove egressd
check "remove says it: $(grep egressd: "$SANDBOX_DIR/apt.log")" \
  grep -q 'nothing on this machine is filtered' "$SANDBOX_DIR/apt.log"
open_to "removed"
check "nothing is left in the kernel" test -z "$(pins)" -a -z "$(on_client nft list tables | grep egressd)"
check "policy, records and state stay" \
  test -s "$box/etc/egressd/policy.yaml" -a -s "$box/var/log/egressd/denials.jsonl" -a -d "$box/var/lib/egressd"
apt purge egressd
left() { files | comm -13 "$SANDBOX_DIR/before" -; }
check "purged: no file is left: $(left)" test -z "$(left)"
there=$(inside find /run/egressd 2>/dev/null) || true
check "purged: nothing in /run: $there" test -z "$there"

# --- the guide: a week of audit

guide "Install"
check "again in audit mode" grep -qE '^mode +audit' "$SANDBOX_DIR/guide.log"
open_to "a week"
expect_box "a week: a name without a rule" ok resolve data.contoso.com 443 -4
wait_until 3 recorded would_deny || true
guide "Audit denied egress for a week without enforcing"
check "the report is a page" grep -qi '<html' "$box/root/egress.html"
guide "Audit denied egress for a week without enforcing" 2
check "it lists what would change" said data.contoso.com
guide "Stop, upgrade, remove"
open_to "purged"
check "purged: no file is left: $(left)" test -z "$(left)"
inside systemctl poweroff || true
wait "$NSPAWN" || true
finish
