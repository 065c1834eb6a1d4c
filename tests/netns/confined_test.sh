#!/usr/bin/env bash
# A running agent has few rights left, and does all its work with them: reload, resolve, records of
# other users' processes, log rotation, an adopting restart, detach.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

[[ -x ${EGRESSD_CONFINED:-} ]] || die "EGRESSD_CONFINED does not name the built egressd_confined"
# Bits of capability.h: DAC_READ_SEARCH 2, NET_ADMIN 12, SYS_PTRACE 19, LEASE 28, BPF 39.
printf -v kept '%016x' $((1 << 2 | 1 << 12 | 1 << 19 | 1 << 28 | 1 << 39))
none=0000000000000000

sandbox_up
listen tcp 22 443
dns_set api.example.com 203.0.113.7
policy() {
  cat <<POLICY
version: 1
mode: enforce
dns:
  servers: [$DNS4]
collections:
  - name: all
    priority: 200
    action: allow
    rules:
      - {name: ssh, addresses: [$1], ports: [22], protocols: [tcp]}
      - {name: names, fqdns: [$2], ports: [443]}
POLICY
}
policy 203.0.113.65 api.example.com | write_policy
mkdir "$SANDBOX_DIR/log"
SANDBOX_AUDIT=$SANDBOX_DIR/log/denials.jsonl

quiet() { ! grep -q "more rights than it needs" "$SANDBOX_DIR/egressd.log"; }
confined() {
  local field value
  for field in "CapInh $none" "CapPrm $kept" "CapEff $kept" "CapBnd $none" "CapAmb $none" \
    "NoNewPrivs 1" "Seccomp $([[ ${EGRESSD_UNFILTERED:-} == 1 ]] && echo 0 || echo 2)"; do
    value=$(sed -n "s/^${field% *}:[[:space:]]*//p" "/proc/$SANDBOX_AGENT/status")
    check "$1: ${field% *} is $value" test "$value" = "${field#* }"
  done
  check "$1: it does not say otherwise" quiet
}

works() {
  local lines
  expect_ok "$1: allowed address" tcp 203.0.113.65 22
  expect_ok "$1: allowed name" resolve api.example.com 443
  expect_errno EPERM default_deny "$1: refused" tcp 198.51.100.9 22
  # Of a process with no rights, and of one with all of them, more than the agent has.
  lines=$(audit_lines)
  in_client setpriv --reuid 65534 --regid 65534 --clear-groups \
    "$EGRESSD_PROBE" tcp 198.51.100.9 23 --linger 700 >"$SANDBOX_DIR/line" 2>&1 || true
  probe tcp 198.51.100.9 24 --linger 700 >"$SANDBOX_DIR/line" 2>&1 || true
  check "$1: exe of another user's process" wait_until 2 audit_records "$lines" '"port":23,' \
    '"uid":65534' "\"exe\":\"$EGRESSD_PROBE\"" "\"cgroup\":\"/${SANDBOX_CGROUP##*/}\""
  check "$1: exe of a privileged process" wait_until 2 audit_records "$lines" '"port":24,' \
    '"uid":0' "\"exe\":\"$EGRESSD_PROBE\""
}

start_egressd "$POLICY" --audit-log "$SANDBOX_AUDIT"
confined "first start"
works "first start"

policy 203.0.113.66 "'*.example.com'" | write_policy
reload_egressd
expect_ok "reloaded: allowed" tcp 203.0.113.66 22
expect_errno EPERM default_deny "reloaded: refused" tcp 203.0.113.65 22
dns_set new.example.com 203.0.113.8
expect_ok "a name learned from its answer" resolve new.example.com 443
# Somebody else's policy file: read again all the same.
policy 203.0.113.65 api.example.com | write_policy
chown 65534 "$POLICY"
chmod 600 "$POLICY"
reload_egressd
expect_ok "another user's policy file" tcp 203.0.113.65 22

mv "$SANDBOX_AUDIT" "$SANDBOX_AUDIT.1"
kill -HUP "$SANDBOX_AGENT"
check "log rotation: a new file" wait_until 5 test -e "$SANDBOX_AUDIT"
expect_errno EPERM default_deny "recorded in it" tcp 198.51.100.9 22

policy 203.0.113.66 api.example.com >"$SANDBOX_DIR/next.yaml"
check "try" ctl try "$SANDBOX_DIR/next.yaml" --for 1h
expect_ok "on trial" tcp 203.0.113.66 22
check "rollback" ctl rollback
chown 0 "$POLICY"
check "try" ctl try "$SANDBOX_DIR/next.yaml" --for 1h
check "confirm" ctl confirm
check "the policy file is written" cmp "$POLICY" "$SANDBOX_DIR/next.yaml"
policy 203.0.113.65 api.example.com | write_policy
check "list" grep -q 203.0.113.7 <<<"$(ctl list)"

stop_egressd KILL
start_egressd "$POLICY" --audit-log "$SANDBOX_AUDIT"
check "adopted" grep -q '"adopted":true' <<<"$(ctl status --json)"
confined "adopting start"
works "adopting start"

# A unit that takes CAP_SETPCAP away: the bounding set stays, all the rest goes.
stop_egressd
printf '#!/bin/sh\nexec setpriv --bounding-set -setpcap %q "$@"\n' "$EGRESSD" >"$SANDBOX_DIR/bounded"
chmod 755 "$SANDBOX_DIR/bounded"
EGRESSD=$SANDBOX_DIR/bounded start_egressd "$POLICY" --audit-log "$SANDBOX_AUDIT"
bound=$(sed -n 's/^CapBnd:[[:space:]]*//p' "/proc/$SANDBOX_AGENT/status")
check "without CAP_SETPCAP: CapBnd is $bound" test "$bound" != "$none"
none_but_bound=$(grep -cE "^Cap(Inh|Amb):[[:space:]]*$none|^Cap(Prm|Eff):[[:space:]]*$kept" \
  "/proc/$SANDBOX_AGENT/status")
check "without CAP_SETPCAP: the other sets are as always" test "$none_but_bound" -eq 4
check "without CAP_SETPCAP: it does not say otherwise" quiet
works "without CAP_SETPCAP"
check "detach" ctl detach
check "nothing is pinned any more" test -z "$(on_client find "$SANDBOX_BPFFS" -name 'egressd_*')"
expect_ok "nothing is enforced any more" tcp 198.51.100.9 22
ended() { ! grep -q '^State:[[:space:]]*[^ZX]' "/proc/$SANDBOX_AGENT/status" 2>/dev/null; }
check "the agent ended by itself" wait_until 5 ended

# What somebody who took the agent over could try. Each is possible without the confinement, or
# fails for another reason.
attempt() { timeout 10 unshare --mount --net "$EGRESSD_CONFINED" "$@"; }
refused() {
  local free now
  free=$(attempt "$1" free 2>&1) || true
  now=$(attempt "$1" 2>&1) || true
  if [[ $now == errno=EPERM && $free != "$now" ]]; then
    pass "$1 is refused: $now, else $free"
  else
    fail "$1: $now, else $free"
  fi
}
check "a map: $(attempt create-map)" test "$(attempt create-map)" = "done"
for what in thread inet6 route-netlink; do
  check "$what" test "$(attempt "$what")" = "done"
done
things=(raw)
[[ ${EGRESSD_UNFILTERED:-} == 1 ]] ||
  things+=(exec fork ptrace namespace mount keyctl module load-program packet vsock audit-netlink)
for what in "${things[@]}"; do
  refused "$what"
done
[[ ${EGRESSD_UNFILTERED:-} == 1 ]] ||
  check "clone3 is not there" test "$(attempt clone3)" = errno=ENOSYS
finish
