#!/usr/bin/env bash
# --audit-syslog: a real rsyslogd gets each refusal in RFC 5424, over UDP and on a local socket. Where
# the agent's own datagrams are refused it goes on, and does not chase itself.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

command -v rsyslogd >/dev/null || skip "no rsyslogd"
sandbox_up
cat >"$SANDBOX_DIR/rsyslog.conf" <<END
module(load="imudp")
module(load="imuxsock" SysSock.Use="off")
template(name="seen" type="list") {
  property(name="syslogfacility-text") constant(value=" ") property(name="syslogseverity-text")
  constant(value=" ") property(name="protocol-version") constant(value=" ")
  property(name="hostname") constant(value=" ") property(name="app-name") constant(value=" ")
  property(name="procid") constant(value=" ") property(name="msgid") constant(value=" ")
  property(name="msg") constant(value="\n")
}
ruleset(name="keep") { action(type="omfile" file="$SANDBOX_DIR/seen" template="seen") }
input(type="imudp" address="$CLIENT4" port="5140" ruleset="keep")
input(type="imudp" address="$DNS4" port="5140" ruleset="keep")
input(type="imuxsock" socket="$SANDBOX_DIR/log.sock" useSpecialParser="off" ruleset="keep")
END
# One that hears both, the local socket and what crosses the wire: an address of each side.
rsyslog_up() {
  sed "/address=\"$2\"/d; $3" "$SANDBOX_DIR/rsyslog.conf" >"$SANDBOX_DIR/rsyslog.$1.conf"
  spawn "$1" rsyslogd -n -i NONE -f "$SANDBOX_DIR/rsyslog.$1.conf" >"$SANDBOX_DIR/rsyslog.$1.log" 2>&1
}
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
: >"$SANDBOX_DIR/seen"
rsyslog_up in_server "$CLIENT4" /imuxsock/d
is_up() { in_server grep -q ':1414 ' /proc/net/udp; }
wait_until 5 is_up || die "rsyslogd does not start: $(cat "$SANDBOX_DIR"/rsyslog.*.log)"
rsyslog_up on_client "$DNS4" ""
wait_until 5 test -S "$SANDBOX_DIR/log.sock" ||
  die "rsyslogd does not start: $(cat "$SANDBOX_DIR"/rsyslog.*.log)"

seen() { grep -q -- "$1" "$SANDBOX_DIR/seen"; }
header="daemon warning 1 $(uname -n) egressd"
start_egressd "$POLICY" --audit-syslog "$DNS4:5140"
probe tcp 198.51.100.9 22 >/dev/null || true
check "over UDP" wait_until 5 seen "^$header $SANDBOX_AGENT denied {.*\"198.51.100.9\""
check "nothing on standard output" test "$(audit_lines)" -eq 0
stop_egressd TERM
start_egressd "$POLICY" --audit-format azfw --audit-log - --audit-syslog "unix:$SANDBOX_DIR/log.sock"
probe tcp 198.51.100.10 22 >/dev/null || true
check "on a local socket" wait_until 5 seen "^$header $SANDBOX_AGENT denied {.*\"DestinationIp\":\"198.51.100.10\""
check "and on standard output, with Azure's columns" wait_until 5 audit_records 0 \
  '"Type":"AZFWNetworkRule"' "\"Computer\":\"$(uname -n)\"" '"DestinationIp":"198.51.100.10"'
stop_egressd TERM

# Inside the judged cgroup the agent may not send to a server that no rule has.
EGRESSD_INSIDE=1 start_egressd "$POLICY" --audit-log - --audit-syslog "$DNS4:5140"
lines=$(audit_lines)
probe tcp 198.51.100.11 22 >/dev/null || true
own() { audit_records "$lines" "\"pid\":$SANDBOX_AGENT,"; }
check "its own datagram is refused and recorded" wait_until 5 own
lost() { (($(status_number records_lost) >= 1)); }
check "and lost" wait_until 5 lost
check "the agent says so" grep -q 'write to syslog.*Operation not permitted' "$SANDBOX_DIR/egressd.log"
# A second later one more try may follow, not a flood.
sleep 1.2
check "it does not chase itself" test "$(own | wc -l)" -le 3
finish
