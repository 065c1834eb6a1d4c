#!/usr/bin/env bash
# A changed policy file is in force by itself: written in place, replaced, or swapped as the kubelet
# swaps a ConfigMap. A file that is half written or wrong changes nothing.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

sandbox_up
listen tcp 22
policy() {
  cat <<END
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
END
}
readonly ONE=203.0.113.5 TWO=198.51.100.9
generation() { status_number generation; }
in_force() { [[ $(generation) -eq $1 ]]; }
# now_only ALLOWED REFUSED WHAT: one more generation, and it is this one.
now_only() {
  local next=$((last + 1))
  check "$3: in force by itself" wait_until 5 in_force "$next"
  expect_ok "$3: allowed" tcp "$1" 22
  expect_errno EPERM default_deny "$3: refused" tcp "$2" 22
  last=$(generation)
}

# As the kubelet mounts it: policy.yaml -> ..data/policy.yaml, ..data -> ..first
mount=$SANDBOX_DIR/configmap
mkdir -p "$mount/..first"
policy $ONE >"$mount/..first/policy.yaml"
ln -s ..first "$mount/..data"
ln -s ..data/policy.yaml "$mount/policy.yaml"
start_egressd "$mount/policy.yaml"
last=$(generation)
expect_ok "at first" tcp $ONE 22
HOLD_TIMEOUT=500 hold_open $ONE 22
expect_hold_ok "open connection"

mkdir "$mount/..second"
{ policy $ONE; echo "# a comment"; } >"$mount/..second/policy.yaml"
ln -s ..second "$mount/..data_tmp"
mv -T "$mount/..data_tmp" "$mount/..data"
rm -r "$mount/..first"
now_only $ONE $TWO "a ConfigMap swapped"
expect_hold_ok "the open connection is still allowed, and open"

mkdir "$mount/..third"
policy $TWO >"$mount/..third/policy.yaml"
ln -s ..third "$mount/..data_tmp"
mv -T "$mount/..data_tmp" "$mount/..data"
now_only $TWO $ONE "swapped again"
line=$(hold_echo)
check "the open connection is cut: $line" grep -q "^errno=" <<<"$line"

file=$mount/..third/policy.yaml
policy $ONE >"$file"
now_only $ONE $TWO "written in place"
policy $TWO >"$SANDBOX_DIR/fresh"
mv "$SANDBOX_DIR/fresh" "$file"
now_only $TWO $ONE "replaced"

# The first half would be a policy of its own.
{ policy $ONE; sleep 0.5; printf '      - {name: more, addresses: [%s], ports: [22], protocols: [tcp]}\n' $TWO; } >"$file" &
writer=$!
sleep 0.3
check "half a file is not put in force" in_force "$last"
wait "$writer"
check "the whole is" wait_until 5 in_force $((last + 1))
expect_ok "its first half" tcp $ONE 22
expect_ok "its second half" tcp $TWO 22
last=$(generation)

policy not-an-address >"$file"
refused() { ctl status --json | grep -q 'last reload refused: .*policy.yaml:[0-9]*:[0-9]*: error'; }
check "a wrong file is refused, with the place of the error" wait_until 5 refused
check "… and changes nothing" in_force "$last"
expect_ok "… nothing at all" tcp $TWO 22
rm "$file"
gone() { ctl status --json | grep -q 'last reload refused: .*policy.yaml.*No such file'; }
check "a file that is gone is told" wait_until 5 gone
check "… and changes nothing" in_force "$last"
policy $ONE >"$file"
now_only $ONE $TWO "mended"
check "nothing is left to complain of" bash -c '! grep -q "last reload refused"' <<<"$(ctl status --json)"
finish
