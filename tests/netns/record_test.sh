#!/usr/bin/env bash
# A refused connection is recorded with who did it, from where and to where.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

sandbox_up
listen tcp 22
write_policy <<END
version: 1
mode: enforce
dns:
  servers: [$DNS4]
collections:
  - name: elsewhere
    priority: 200
    action: allow
    rules:
      - {name: one host, addresses: [203.0.113.250], ports: [22], protocols: [tcp]}
END
start_egressd "$POLICY"
lines=$(audit_lines)
# It lingers: /proc/PID/exe can be read only while the process is there.
spawn in_client "$EGRESSD_PROBE" tcp 198.51.100.9 22 --linger 1000 >"$SANDBOX_DIR/line"
pid=$REPLY
wait "$pid" || true
check "refused" grep -q '^errno=EPERM' "$SANDBOX_DIR/line"
recorded() { audit_records "$lines" '"198.51.100.9"' >/dev/null; }
check "recorded" wait_until 2 recorded
record=$(audit_records "$lines" '"198.51.100.9"' | head -n 1)
printf '%s\n' "$record"
field() {
  local got
  got=$(audit_field "$1" <<<"$record")
  if [[ $got == "$2" ]]; then pass "$1 is $2"; else fail "$1 is '$got', not '$2'"; fi
}
field schema 1
field verdict denied
field reason default_deny
field hook connect
field destination 198.51.100.9
field port 22
field protocol tcp
field pid "$pid"
field tid "$pid"
field uid 0
field comm egressd_probe
field exe "$EGRESSD_PROBE"
field cgroup "/${SANDBOX_CGROUP##*/}"
field cgroup_id "$(stat -c %i "$SANDBOX_CGROUP")"
field generation "$(status_number generation)"
check "it is one line of JSON" python3 -c 'import json, sys; json.loads(sys.argv[1])' "$record"

lines=$(audit_lines)
setpriv=$(command -v setpriv)
in_client "$setpriv" --reuid 65534 --regid 65534 --clear-groups \
  "$EGRESSD_PROBE" tcp 198.51.100.9 22 >/dev/null || true
check "recorded again" wait_until 2 recorded
record=$(audit_records "$lines" '"198.51.100.9"' | head -n 1)
field uid 65534

lines=$(audit_lines)
probe raw-tcp 198.51.100.9 443 >/dev/null || true
check "a packet is recorded" wait_until 2 recorded
record=$(audit_records "$lines" '"198.51.100.9"' | head -n 1)
field hook packet
field source "$CLIENT4"
field port 443
field cgroup "/${SANDBOX_CGROUP##*/}"
finish
