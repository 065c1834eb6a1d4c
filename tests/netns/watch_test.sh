#!/usr/bin/env bash
# egressctl watch shows a refusal when it happens, to a person and as JSON, all or what filters let
# through, and ends with the daemon.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

sandbox_up
listen tcp 22
dns_set api.example.com 203.0.113.7
write_policy <<END
version: 1
mode: enforce
dns:
  servers: [$DNS4]
collections:
  - name: never
    priority: 100
    action: deny
    rules:
      - {name: this one, addresses: [203.0.113.128/26], ports: ["*"], protocols: [any]}
  - name: elsewhere
    priority: 200
    action: allow
    rules:
      - {name: one host, addresses: [203.0.113.250], ports: [22], protocols: [tcp]}
      - {name: half, addresses: [198.51.100.128/25], ports: [22], protocols: [tcp]}
      - {name: wild, fqdns: ["*.example.com"], ports: [22]}
END
start_egressd "$POLICY"
watch() {
  spawn on_client "$EGRESSCTL" watch --socket "$SANDBOX_SOCKET" "${@:2}" >"$SANDBOX_DIR/$1" 2>&1
  watcher=$REPLY
  # It says nothing until something happens.
  wait_until 5 knock "$SANDBOX_DIR/$1" || die "watch shows nothing"
}
knock() {
  probe tcp 198.51.100.9 1 >/dev/null || true
  [[ -s $1 ]]
}
shows() { grep -qF -- "$2" "$SANDBOX_DIR/$1"; }

watch text
expect_errno EPERM default_deny "refused" tcp 198.51.100.9 22
check "shown within a second" wait_until 1 shows text ' 198.51.100.9:22 '
line=$(grep -F ' 198.51.100.9:22 ' "$SANDBOX_DIR/text")
check "with reason, protocol and program: $line" grep -qE \
  ' DENIED +default_deny +tcp +198\.51\.100\.9:22 +egressd_probe\[[0-9]+\] uid=0 ' <<<"$line"
expect_ok "allowed" resolve api.example.com 22 -4
expect_errno EPERM default_deny "refused" udp 198.51.100.9 5353
check "the next one too" wait_until 1 shows text ' 198.51.100.9:5353 '
check "but nothing that is allowed" test "$(grep -c 203.0.113.7 "$SANDBOX_DIR/text")" -eq 0
stop_egressd TERM
status=0
wait "$watcher" || status=$?
check "it ends with the daemon, status 3, not $status" test "$status" -eq 3
check "and says so" shows text 'the daemon has gone'

start_egressd "$POLICY"
watch json --json --count 3
expect_errno EPERM default_deny "refused" tcp 198.51.100.9 22
wait_until 2 knock "$SANDBOX_DIR/json" || true
status=0
wait "$watcher" || status=$?
check "--count 3 ends with status 0, not $status" test "$status" -eq 0
check "after three lines" test "$(wc -l <"$SANDBOX_DIR/json")" -eq 3
check "the line is the audit record" grep -qxF -- \
  "$(grep '"port":22,' "$SANDBOX_DIR/json")" "$SANDBOX_AUDIT"
# --- filters
# The shell connects to the addresses it reads: a process of one number.
mkfifo "$SANDBOX_DIR/addresses"
exec {addresses}<>"$SANDBOX_DIR/addresses"
# shellcheck disable=SC2016 # expanded by the inner shell
become in_client bash -c 'while read -r a; do : >"/dev/tcp/$a/7"; done' <"$SANDBOX_DIR/addresses" 2>/dev/null &
shell=$!
pod=/kubepods.slice/kubepods-pod6ad2ba8f_6b1c_4f0f_9b65_0d1d2c3b4a59.slice
mkdir -p "$SANDBOX_CGROUP/job.service" "$SANDBOX_CGROUP$pod"
refused_in() {
  # shellcheck disable=SC2016 # expanded by the inner shell
  on_client bash -c 'echo $$ >"$1/cgroup.procs" && shift && exec "$@"' _ "$SANDBOX_CGROUP$1" \
    "$EGRESSD_PROBE" tcp "$2" 7
}
refused_by_name() {
  dns_set "$1.example.com" "203.0.113.$2"
  probe resolve "$1.example.com" 7 -4
}
mode() {
  grep -q "^mode: $1" "$POLICY" || { sed -i "s/^mode: .*/mode: $1/" "$POLICY" && reload_egressd; }
}
# hit_FILTER N, miss_FILTER N: one refusal that it lets through or not, of an address that ends in N.
hit_port() { probe tcp "198.51.100.$1" 5001; }
miss_port() { probe tcp "198.51.100.$1" 5002; }
hit_destination() { probe tcp "198.51.100.$1" 7; }
miss_destination() { probe tcp "203.0.113.$1" 7; }
hit_reason() { probe tcp "198.51.100.$1" 7; }
miss_reason() { probe tcp "203.0.113.$1" 7; }
hit_rule() { probe tcp "203.0.113.$1" 7; }
miss_rule() { probe tcp "198.51.100.$1" 7; }
hit_fqdn() { refused_by_name "w$1" "$1"; }
miss_fqdn() { refused_by_name "x$1" "$1"; }
hit_pid() { echo "198.51.100.$1" >&"$addresses"; }
miss_pid() { probe tcp "198.51.100.$1" 7; }
hit_comm() { hit_pid "$1"; }
miss_comm() { miss_pid "$1"; }
hit_cgroup() { refused_in /job.service "198.51.100.$1"; }
miss_cgroup() { probe tcp "198.51.100.$1" 7; }
hit_pod() { refused_in "$pod" "198.51.100.$1"; }
miss_pod() { probe tcp "198.51.100.$1" 7; }
hit_two() { probe udp "198.51.100.$1" 5001; }
miss_two() { probe udp "203.0.113.$1" 5001; }
hit_verdict() { mode audit && probe tcp "198.51.100.$1" 7; }
miss_verdict() { mode enforce && probe tcp "198.51.100.$1" 7; }

serial=130
FILTER=""
knock() {
  serial=$((serial + 1))
  "hit_$FILTER" "$serial" >/dev/null || true
  [[ -s $1 ]]
}
# filtered FILTER OPTIONS…: what comes is in the order it happened.
filtered() {
  FILTER=$1
  watch "$@"
  serial=$((serial + 2))
  "miss_$FILTER" $((serial - 1)) >/dev/null || true
  "hit_$FILTER" "$serial" >/dev/null || true
  check "--$FILTER: what matches is shown" wait_until 3 shows "$FILTER" ".$serial"
  check "… the other is recorded" grep -q "\.$((serial - 1))\"" "$SANDBOX_AUDIT"
  check "… but not shown" test "$(grep -c "\.$((serial - 1))[:\"]" "$SANDBOX_DIR/$FILTER")" -eq 0
  sandbox_reap "$watcher"
}
filtered port --port 1 --port 5000-5001
filtered destination --destination 192.0.2.1 --destination 198.51.100.0/24 --json
filtered reason --reason port_not_allowed
filtered rule --rule 'never/this*' --denied
filtered fqdn --fqdn 'W*.example.com'
filtered pid --pid "$shell"
filtered comm --comm 'ba*'
filtered cgroup --cgroup '*/job.service'
filtered pod --pod 6ad2ba8f-6b1c-4f0f-9b65-0d1d2c3b4a59
filtered two --port 5001 --destination 198.51.100.0/24
filtered verdict --would-deny
mode enforce

# --- colour: on a terminal, and where it is not forbidden
FILTER=port
colored() {
  local name=$1 environment=$2
  spawn on_client env "$environment" script -qec \
    "exec '$EGRESSCTL' watch --count 1 --socket '$SANDBOX_SOCKET'" /dev/null >"$SANDBOX_DIR/$name" 2>&1
  watcher=$REPLY
  wait_until 5 knock "$SANDBOX_DIR/$name" || die "watch shows nothing"
  wait "$watcher" || fail "watch on a terminal failed"
}
colored colors TERM=xterm
check "in colour on a terminal" shows colors $' \e[1;31mDENIED\e[0m '
colored plain NO_COLOR=1
check "not with NO_COLOR" test "$(grep -c $'\e' "$SANDBOX_DIR/plain")" -eq 0
finish
