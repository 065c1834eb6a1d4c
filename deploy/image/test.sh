#!/usr/bin/env bash
# The image as the DaemonSet's pod runs it, judged by what a container beside it can reach. Needs
# root, podman and runc; deploy/image/build.sh's packages and build. Two network namespaces and
# cgroups of its own, nothing of the machine is touched (tests/netns/sandbox.sh).
#   EGRESSD_BUILD=DIR      built tree of preset release (build/release)
#   EGRESSD_PROBE=FILE     built egressd_probe (build/dev/tests/support/egressd_probe)
set -euo pipefail
cd "$(dirname "$0")/../.."
EGRESSD_BUILD=$(realpath "${EGRESSD_BUILD:-build/release}")
EGRESSD_PROBE=$(realpath "${EGRESSD_PROBE:-build/dev/tests/support/egressd_probe}")
source tests/netns/sandbox.sh

for tool in podman runc buildah python3; do
  command -v "$tool" >/dev/null || skip "$tool is missing: scripts/deps.sh image"
done
sandbox_up
pod_up
web_up
readonly IMAGE=localhost/egressd:test TREE=egressd-image.$$ METRICS=127.0.0.1:9477
readonly PODS=$SANDBOX_CGROUP
mount=$(cgroup2_mount)

# podman with a storage of its own. The ulimits and cgroup settings are what a root without
# CAP_SYS_RESOURCE, and a machine with both versions of cgroups, need.
podman_up() {
  mkdir "$SANDBOX_DIR/c"
  cat >"$SANDBOX_DIR/c/storage.conf" <<END
[storage]
driver = "vfs"
graphroot = "$SANDBOX_DIR/c/root"
runroot = "$SANDBOX_DIR/c/run"
END
  cat >"$SANDBOX_DIR/c/containers.conf" <<END
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]
pids_limit = 0
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
tmp_dir = "$SANDBOX_DIR/c/tmp"
END
  export CONTAINERS_STORAGE_CONF=$SANDBOX_DIR/c/storage.conf CONTAINERS_CONF=$SANDBOX_DIR/c/containers.conf
}

image_down() {
  local status=$? dir name
  set +e
  for name in agent detach sibling; do
    on_client podman rm --force --time 0 "$name" >/dev/null 2>&1 || true
  done
  (exit "$status")
  sandbox_down
  status=$?
  # The directories that runc makes below --cgroup-parent in each hierarchy.
  for dir in "$mount/$TREE" /sys/fs/cgroup/*/"$TREE" /sys/fs/cgroup/*/"${PODS##*/}"; do
    # podman's own clean-up may still be in it.
    [[ ! -d $dir ]] || wait_until 5 find "$dir" -depth -type d -delete 2>/dev/null
  done
  exit "$status"
}

# --- the agent, as the DaemonSet has it

# What the kubelet does with a ConfigMap: a directory per version, and a link swapped over.
write_policy_volume() {
  local volume=$SANDBOX_DIR/policy version=..$RANDOM$RANDOM old
  mkdir -p "$volume/$version"
  cat >"$volume/$version/policy.yaml"
  old=$(readlink "$volume/..data" || true)
  ln -s "$version" "$volume/..data_tmp"
  mv -T "$volume/..data_tmp" "$volume/..data"
  [[ -e $volume/policy.yaml ]] || ln -s ..data/policy.yaml "$volume/policy.yaml"
  [[ -z $old ]] || rm -r "${volume:?}/$old"
}

pod_arguments() {
  python3 deploy/image/pod_arguments.py "deploy/kubernetes/$1" "$2" \
    "/sys/fs/bpf=$SANDBOX_BPFFS" "/sys/fs/cgroup=$mount" "/run/egressd=$SANDBOX_DIR/run" \
    "/var/lib/egressd=$SANDBOX_DIR/state" "egressd-policy=$SANDBOX_DIR/policy"
}

# pod_run MANIFEST KIND [PODMAN_ARGS…] [-- COMMAND_ARGS…]: the pod of the manifest, with our profile
# of system calls; WITHOUT=CAP leaves that capability out.
pod_run() {
  local line into=podman
  local podman=(podman run --cgroup-parent "/$TREE" --security-opt "seccomp=$PWD/deploy/image/seccomp.json")
  local command=() arguments=()
  mapfile -t arguments < <(pod_arguments "$1" "$2")
  shift 2
  while (($#)) && [[ $1 != -- ]]; do
    podman+=("$1")
    shift
  done
  for line in "${arguments[@]}"; do
    case $into:$line in
      *:--security-opt=seccomp=* | podman:--cap-add="${WITHOUT:-}") ;;
      podman:IMAGE) into='command' ;;
      podman:*) podman+=("$line") ;;
      command:*) command+=("$line") ;;
    esac
  done
  on_client "${podman[@]}" "$IMAGE" "${command[@]}" "${@:2}"
}

# Without waiting for it.
agent_run() {
  SANDBOX_AUDIT=$(mktemp "$SANDBOX_DIR/agent.XXXXXX")
  pod_run egressd.yaml DaemonSet --detach --name agent --log-driver k8s-file \
    --log-opt "path=$SANDBOX_AUDIT" -- --cgroup "/sys/fs/cgroup/${PODS##*/}" >/dev/null
}

agent_ctl() { on_client podman exec agent egressctl "$@"; }
ctl() { agent_ctl "$@"; }
agent_logs() { cut -d' ' -f4- "$SANDBOX_AUDIT"; }
agent_pid() { on_client podman inspect --format '{{.State.Pid}}' agent; }
http() { on_client curl --silent --max-time 2 --output /dev/null --write-out '%{http_code}' "http://$METRICS$1" || true; }
is_ready() { [[ $(http /readyz) == 200 ]]; }
agent_start() {
  agent_run
  wait_until 15 is_ready || die "the agent is not ready: $(agent_logs)"
}

# --- the sibling: another container, in the pod's network, in the judged cgroup

sibling_start() {
  local place=on_client
  # Where both versions of cgroups are, runc knows version 1 only: it stays where it was started.
  [[ $mount == /sys/fs/cgroup ]] || place=in_client
  "$place" podman run --detach --name sibling --network "ns:/proc/$SANDBOX_POD/ns/net" \
    --cgroup-parent "/${PODS##*/}" --volume "$EGRESSD_PROBE:/probe:ro" \
    --volume "$SANDBOX_DIR/resolv.conf:/etc/resolv.conf:ro" --entrypoint /probe \
    "$IMAGE" listen tcp 9 >/dev/null
}
probe() { on_client podman exec sibling /probe "$@"; }

trap image_down EXIT
podman_up
export TMPDIR=$SANDBOX_DIR
deploy/image/build.sh --build "$EGRESSD_BUILD" --tag "$IMAGE" >"$SANDBOX_DIR/build.log"
sed -n 1,2p "$SANDBOX_DIR/build.log"
mkdir -p "$SANDBOX_DIR"/{run,policy}

policy() {
  cat <<END
version: 1
mode: enforce
dns: {servers: [$DNS4]}
collections:
  - name: test
    priority: 200
    action: allow
    rules:
      - {name: wild, fqdns: ["*.wild.test"], ports: [80]}
      - {name: address, addresses: [203.0.113.100], ports: [80], protocols: [tcp]}
      - {name: changing, addresses: [$1], ports: [80], protocols: [tcp]}
END
}
policy 203.0.113.103 | write_policy_volume
for ((i = 1; i <= 200; i++)); do
  printf '198.51.100.%d n%d.wild.test\n' "$i" "$i"
done >>"$SANDBOX_DIR/hosts"
dns_set other.test 203.0.113.200

sibling_start
expect_ok "no agent: the sibling reaches everything" tcp 203.0.113.101 80
agent_start
pid=$(agent_pid)
field() { sed -n "s/^$1:[[:space:]]*//p" "/proc/$pid/status"; }
# BPF 39, SYS_PTRACE 19, NET_ADMIN 12; PERFMON was for the start.
check "of the capabilities it keeps three" test "$(field CapEff)" = "$(printf '%016x' $((1 << 39 | 1 << 19 | 1 << 12)))"
check "no_new_privs, filtered system calls" test "$(field NoNewPrivs) $(field Seccomp)" = "1 2"
check "its root is read-only" grep -qE ' / / ro,|/ ro[ ,]' "/proc/$pid/mountinfo"
check "it does not complain" test -z "$(agent_logs | grep -E ' (warning|error) ' || true)"
check "/healthz" test "$(http /healthz)" = 200
check "/readyz" test "$(http /readyz)" = 200

expect_ok "an allowed address" tcp 203.0.113.100 80
expect_errno EPERM default_deny "another" tcp 203.0.113.101 80
expect_ok "a name learned in the sibling" resolve n1.wild.test 80
expect_ok "one that is asked once" resolve n3.wild.test 80
expect_unasked other.test "a name without a rule"
# Long enough to be read of in /proc.
expect_errno EPERM default_deny "a third" tcp 203.0.113.101 81 --linger 300
recorded() { audit_records 0 '"port":81,' "$@" >/dev/null; }
check "the record names the program" recorded '"exe":"/probe"'
check "… and its cgroup" recorded "\"cgroup\":\"/${PODS##*/}"

# Connections all the time, in the sibling's network and cgroup, to the end.
# shellcheck disable=SC2016 # expanded by the inner shell
spawn in_pod bash -c 'until [[ -e $1/stop ]]; do
    echo "allow $("$2" tcp 203.0.113.100 80)"
    echo "name $("$2" resolve n1.wild.test 80)"
    echo "refuse $("$2" tcp 203.0.113.101 80)"
  done' _ "$SANDBOX_DIR" "$EGRESSD_PROBE" >"$SANDBOX_DIR/knocks" 2>&1
knocker=$REPLY
wait_until 5 lines_above 30 "$SANDBOX_DIR/knocks" || die "no knocks"

generation=$(status_number generation)
denied=$(status_number default_deny)
on_client podman rm --force --time 0 agent >/dev/null
check "the agent's container is gone" test "$(http /healthz)" = 000
expect_errno_alone EPERM "no agent: refused" tcp 203.0.113.101 80
expect_ok "no agent: an allowed address" tcp 203.0.113.100 80
expect_ok "no agent: a name asked for the first time" resolve n2.wild.test 80
check "no agent: a name without a rule" test "$(probe resolve other.test 80 2>&1 | cut -d' ' -f1)" = unresolved

agent_start
status=$(ctl status --json)
check "the next agent adopts" grep -q '"adopted":true' <<<"$status"
check "its generation goes on" test "$(status_number generation)" -gt "$generation"
check "refusals without an agent were counted" test "$(status_number default_deny)" -gt "$denied"
list=$(ctl list --json)
check "what was learned before is listed" grep -qF '"198.51.100.3"' <<<"$list"
check "what was learned without an agent too" grep -qF '"198.51.100.2"' <<<"$list"
expect_ok "and reached without another question" tcp 198.51.100.3 80
expect_ok "… both" tcp 198.51.100.2 80

pid=$(agent_pid)
expect_errno EPERM default_deny "an address of the next policy" tcp 203.0.113.102 80
policy 203.0.113.102 | write_policy_volume
moved() { [[ $(probe tcp 203.0.113.102 80) == ok* ]]; }
check "the ConfigMap's volume changes: in force" wait_until 5 moved
expect_errno EPERM default_deny "what it no longer allows" tcp 203.0.113.103 80
check "by the same process" test "$(agent_pid)" = "$pid"
generation=$(status_number generation)
printf 'mode: bogus\n' | write_policy_volume
metric() { on_client curl --silent --max-time 2 "http://$METRICS/metrics" | sed -n "s/^$1 //p"; }
complains() { [[ $(metric egressd_last_reload_successful) == 0 ]]; }
check "a policy with errors is told of" wait_until 5 complains
check "and changes nothing" test "$(status_number generation)" = "$generation"
policy 203.0.113.103 | write_policy_volume
check "a good one again" wait_until 5 generation_above "$generation"

touch "$SANDBOX_DIR/stop"
wait "$knocker" || true
knocks=$(wc -l <"$SANDBOX_DIR/knocks")
check "$knocks connections through all of it" test "$knocks" -gt 100
gaps=$(grep -vE '^(allow|name) ok |^refuse errno=EPERM ' "$SANDBOX_DIR/knocks" | head -n 3 || true)
check "each judged as it should be: ${gaps:-no gap}" test -z "$gaps"

# The Job of an uninstallation.
on_client podman rm --force --time 0 agent >/dev/null
expect_errno_alone EPERM "uninstalled: still refused" tcp 203.0.113.101 80
detach() { pod_run detach.yaml Job --rm --name detach >"$SANDBOX_DIR/detach.log" 2>&1; }
check "the Job to detach" detach
expect_ok "detached: everything is reachable" tcp 203.0.113.101 80
check "detached: nothing is pinned" test -z "$(on_client find "$SANDBOX_BPFFS" -name 'egressd_*')"

# Each of its capabilities is needed: what the agent does not do without it.
ready_or_ended() { is_ready || [[ $(on_client podman inspect --format '{{.State.Running}}' agent) == false ]]; }
without() {
  local generation
  WITHOUT=$1 agent_run
  wait_until 15 ready_or_ended || true
  if ! is_ready; then
    printf 'does not start: %s' "$(agent_logs | sed -n '/ info /!{p;q}')"
  else
    probe tcp 203.0.113.101 81 --linger 300 >/dev/null 2>&1 || true
    if ! wait_until 2 recorded "\"cgroup\":\"/${PODS##*/}"; then
      printf 'records without the cgroup'
    elif ! recorded '"exe":"/probe"'; then
      printf 'records do not name the program'
    else
      generation=$(status_number generation)
      policy 203.0.113.103 | sed 's/wild/tame/' | write_policy_volume
      if ! wait_until 3 generation_above "$generation"; then
        printf 'no reload: %s' "$(agent_logs | tail -n 1)"
      fi
      policy 203.0.113.103 | write_policy_volume
    fi
  fi
  on_client podman rm --force --time 0 agent >/dev/null
  detach
}
check "with all of them nothing is missing" test -z "$(without none)"
mapfile -t capabilities < <(pod_arguments egressd.yaml DaemonSet | sed -n 's/^--cap-add=//p')
for capability in "${capabilities[@]}"; do
  lost=$(without "$capability")
  check "without $capability: $lost" test -n "$lost"
done
finish
