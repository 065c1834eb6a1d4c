#!/usr/bin/env bash
# What an agent stands on gives way: no bpffs, a state directory that cannot be written or is full,
# the judged cgroup removed, a resolver that is dead when the policy changes. It says so, goes on with
# what is in force, and never opens.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

readonly ONE=203.0.113.5 TWO=198.51.100.9
policy() {
  cat <<POLICY
version: 1
mode: enforce
dns:
  servers: [$DNS4]
collections:
  - name: net
    priority: 200
    action: allow
    rules:
      - {name: net, addresses: [$1], ports: [22], protocols: [tcp]}
      - {name: names, fqdns: [$2], ports: [443]}
POLICY
}
only() {
  expect_ok "$3: allowed" tcp "$1" 22
  expect_errno EPERM default_deny "$3: refused" tcp "$2" 22
}
reload_fails() {
  local said
  if said=$(ctl reload 2>&1); then fail "$1: reload succeeded"; fi
  if grep -q "$2" <<<"$said"; then pass "$1: $said"; else fail "$1: '$said' does not say $2"; fi
  check "$1: status says so" grep -q "last reload refused.*$2" <<<"$(ctl status --json)"
}

sandbox_up
readonly state=$SANDBOX_DIR/state
listen tcp 22 443
dns_set a.example.com 203.0.113.7
policy $ONE a.example.com | write_policy

# A state directory that can never be written: a message and no enforcement, rather than one that
# could not be taken over.
on_client mount -t tmpfs -o ro tmpfs "$state"
launch_egressd "$POLICY"
status=0
wait "$SANDBOX_AGENT" || status=$?
SANDBOX_AGENT=""
check "read-only state: exit status 1, not $status" test "$status" -eq 1
check "read-only state: told where" grep -q "$state/.*Read-only file system" "$SANDBOX_DIR/egressd.log"
check "read-only state: nothing pinned" test -z "$(on_client find "$SANDBOX_BPFFS" -name 'egressd_*')"
on_client umount "$state"

# No bpffs: the agent mounts one.
on_client umount "$SANDBOX_BPFFS"
on_client mount -t tmpfs -o size=64k tmpfs "$state"
start_egressd "$POLICY"
check "bpffs is mounted" test "$(on_client stat -f -c %T "$SANDBOX_BPFFS")" = bpf_fs
only $ONE $TWO "bpffs was missing"

# Later read-only, then full. An unknown name has to be kept there.
on_client mount -o remount,ro "$state"
policy $TWO b.example.com | write_policy
reload_fails "read-only" "Read-only file system"
only $ONE $TWO "read-only"
on_client mount -o remount,rw "$state"
on_client dd if=/dev/zero of="$state/filler" bs=4k status=none 2>/dev/null || true
reload_fails "full" "No space left on device"
only $ONE $TWO "full"
on_client rm "$state/filler"
check "room again: reload" ctl reload
only $TWO $ONE "room again"

# The resolver is dead: what needs none of it changes all the same.
dns_stop
policy $ONE c.example.com | write_policy
check "dead resolver: reload" timeout 3 "$EGRESSCTL" reload --socket "$SANDBOX_SOCKET"
only $ONE $TWO "dead resolver"
dns_start
dns_set c.example.com 203.0.113.9
resolved() { grep -q 203.0.113.9 <<<"$(ctl list)"; }
check "the resolver is back: resolved" wait_until 20 resolved

# The judged cgroup is removed.
stop_egressd TERM
ctl detach --bpffs "$SANDBOX_BPFFS" >/dev/null
outer=$SANDBOX_CGROUP
SANDBOX_CGROUP=$outer/judged
mkdir "$SANDBOX_CGROUP"
start_egressd "$POLICY"
only $ONE $TWO "a cgroup below"
rmdir "$SANDBOX_CGROUP"
cpu() { awk '{print $14 + $15}' "/proc/$SANDBOX_AGENT/stat"; }
warned() { grep -q "$SANDBOX_CGROUP was removed: nothing is judged" <<<"$(ctl status --json)"; }
check "status says that the cgroup is gone" wait_until 2 warned
before=$(cpu)
sleep 1
check "the agent is not busy: $(($(cpu) - before)) ticks in a second" test $(($(cpu) - before)) -lt 20
check "reload still works" ctl reload
mkdir "$SANDBOX_CGROUP"
check "another of the same name is not the judged one" warned
stop_egressd TERM
start_egressd "$POLICY"
only $ONE $TWO "after a restart"
unwarned() { ! grep -q 'was removed' <<<"$(ctl status --json)"; }
check "no warning any more" unwarned
stop_egressd TERM
rmdir "$SANDBOX_CGROUP"
SANDBOX_CGROUP=$outer
finish
