#!/usr/bin/env bash
# A record says who was refused: the process, its user, its unit, container and pod, also of
# processes and cgroups that are gone by the time it is read.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

sandbox_up
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
      - {name: not there, addresses: [198.51.100.66], ports: [22], protocols: [tcp]}
  - name: web
    priority: 200
    action: allow
    rules:
      - {name: hub, fqdns: [www.example.com], protocols: [tcp], ports: [443]}
END
DNS_ARGS=("--cname=www.example.com,edge.example.net")
dns_stop
dns_start
dns_set edge.example.net 203.0.113.7
start_egressd "$POLICY"

records_of() { audit_records "$lines" "\"$1\"" >/dev/null; }
# recorded ADDRESS: RECORD is the record of it after the line noted.
recorded() {
  wait_until 2 records_of "$1" || die "no record of $1"
  RECORD=$(audit_records "$lines" "\"$1\"" | head -n 1)
}
field() {
  local got
  got=$(audit_field "$1" <<<"$RECORD")
  if [[ $got == "$2" ]]; then pass "$1 is $2"; else fail "$1 is '$got', not '$2': $RECORD"; fi
}
# From inside CGROUP of the sandbox's: the shell itself is the process, nothing is left after it.
# shellcheck disable=SC2016 # expanded by the inner shell
refused_in() {
  local cgroup=$SANDBOX_CGROUP$1
  shift
  on_client bash -c 'echo $$ >"$1/cgroup.procs" && shift && exec "$@"' _ "$cgroup" "$@"
}

# The agent stands still while the process connects and ends.
lines=$(audit_lines)
kill -STOP "$SANDBOX_AGENT"
(become in_client setpriv --reuid 65534 --regid 65534 --clear-groups \
  "$EGRESSD_PROBE" tcp 198.51.100.9 22 >"$SANDBOX_DIR/short") &
pid=$!
wait "$pid" || true
kill -CONT "$SANDBOX_AGENT"
check "a process that ends at once is refused" grep -q '^errno=EPERM' "$SANDBOX_DIR/short"
recorded 198.51.100.9
field pid "$pid"
field comm egressd_probe
field uid 65534
field user nobody
field cgroup "/${SANDBOX_CGROUP##*/}"
check "what can no longer be read is absent" test "$(grep -cE '"(exe|cmdline)"' <<<"$RECORD")" -eq 0

lines=$(audit_lines)
spawn in_client "$EGRESSD_PROBE" tcp 198.51.100.10 22 --linger 500 >/dev/null
recorded 198.51.100.10
field exe "$EGRESSD_PROBE"
field cmdline "$EGRESSD_PROBE tcp 198.51.100.10 22 --linger 500"
field user root

id=$(printf '%064d' 0 | tr 0 c)
pod=/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod6ad2ba8f_6b1c_4f0f_9b65_0d1d2c3b4a59.slice
unit=cri-containerd-$id.scope
mkdir -p "$SANDBOX_CGROUP$pod/$unit" "$SANDBOX_CGROUP/system.slice/job.service"
lines=$(audit_lines)
refused_in "$pod/$unit" "$EGRESSD_PROBE" tcp 198.51.100.11 22 >/dev/null || true
recorded 198.51.100.11
field container_id "$id"
field pod_uid 6ad2ba8f-6b1c-4f0f-9b65-0d1d2c3b4a59
field unit "$unit"

# Seen once, a cgroup keeps its name; here it is gone with its process before the record is read.
refused_in /system.slice/job.service "$EGRESSD_PROBE" tcp 198.51.100.12 22 >/dev/null || true
recorded 198.51.100.12
field unit job.service
lines=$(audit_lines)
kill -STOP "$SANDBOX_AGENT"
refused_in /system.slice/job.service "$EGRESSD_PROBE" tcp 198.51.100.13 22 >/dev/null || true
rmdir "$SANDBOX_CGROUP/system.slice/job.service"
kill -CONT "$SANDBOX_AGENT"
recorded 198.51.100.13
field unit job.service
field cgroup "/${SANDBOX_CGROUP##*/}/system.slice/job.service"
rmdir "$SANDBOX_CGROUP/system.slice"
(cd "$SANDBOX_CGROUP" && rmdir -p ".$pod/$unit" 2>/dev/null) || true

# The name of an address on a port no rule has, and the names it went through.
listen tcp 443
expect_ok "by name" resolve www.example.com 443
lines=$(audit_lines)
probe tcp 203.0.113.7 22 >/dev/null || true
recorded 203.0.113.7
check "the name" grep -qF '"fqdns":["www.example.com"]' <<<"$RECORD"
check "the names between" grep -qF '"cname_chain":["edge.example.net"]' <<<"$RECORD"

# With what else a record can have, the log so far is what its schema says.
lines=$(audit_lines)
probe tcp 198.51.100.66 22 >/dev/null || true
recorded 198.51.100.66
field rule "not there"
probe raw-tcp 198.51.100.67 22 >/dev/null || true
recorded 198.51.100.67
field source "$CLIENT4"
expect_unasked other.example.com "a name no rule has"
keys=(collection rule source source_port fqdns cname_chain pid tid uid user comm exe cmdline cgroup_id
  cgroup unit container_id pod_uid length socket_cookie)
check "every record is valid by the schema" /usr/bin/python3 ../support/check_records.py \
  ../../deploy/schema/audit-record-1.json "$SANDBOX_AUDIT" "${keys[@]}"
finish
