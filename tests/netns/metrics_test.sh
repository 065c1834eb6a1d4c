#!/usr/bin/env bash
# Metrics and health as a real Prometheus sees them: numbers exact, names as promtool wants them,
# every query of the dashboard answered, and /readyz the kernel's word rather than a memory.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh
DEPLOY=$(cd ../../deploy && pwd)
for tool in prometheus promtool python3 curl; do
  command -v "$tool" >/dev/null || skip "$tool is missing: run scripts/deps.sh"
done

# Debian's, in the agent's network namespace, as it would run beside it.
prometheus_up() {
  local dir=$SANDBOX_DIR/prometheus
  mkdir "$dir"
  cat >"$dir/config.yaml" <<END
global: {scrape_interval: 1s, scrape_timeout: 1s}
scrape_configs:
  - job_name: egressd
    static_configs: [{targets: ['127.0.0.1:9477']}]
END
  spawn on_client prometheus --config.file="$dir/config.yaml" --storage.tsdb.path="$dir/data" \
    --web.listen-address=127.0.0.1:9090 --log.level=warn >"$dir/log" 2>&1
}
get() { on_client curl -sS --noproxy '*' -m 3 "$@"; }
agent() { get "http://127.0.0.1:9477$1" "${@:2}"; }
code() { agent "$1" -o /dev/null -w '%{http_code}' "${@:2}" 2>/dev/null || true; }
# The value of the only series of a query; nothing if there is none, or are several.
ask() {
  get -G http://127.0.0.1:9090/api/v1/query --data-urlencode "query=$1" 2>/dev/null |
    sed -n 's/.*"result":\[{"metric":{[^}]*},"value":\[[0-9.]*,"\([^"]*\)"\]}\].*/\1/p' || true
}
says() { [[ $(ask "$1") == "$2" ]]; }
is() { [[ $(code "$1") == "$2" ]]; }

sandbox_up
prometheus_up
listen tcp 22
dns_set web.example 203.0.113.7 203.0.113.8
policy() {
  cat <<END
version: 1
mode: enforce
dns:
  servers: [$DNS4]
  filter: allowlist
collections:
  - name: blocked
    priority: 100
    action: deny
    rules:
      - {name: one "host", addresses: [198.51.100.66], ports: [22], protocols: [tcp]}
  - name: names
    priority: 200
    action: allow
    rules:
      - {name: web, fqdns: [web.example, missing.example], ports: [22], protocols: [tcp]}
END
}

# Somebody else has the port: no reason not to enforce, and no reason to give up.
spawn on_client "$EGRESSD_PROBE" listen tcp 9477 >/dev/null
taker=$REPLY
wait_until 5 on_client bash -c ': >/dev/tcp/127.0.0.1/9477' 2>/dev/null || die "9477 is not taken"
policy | write_policy
start_egressd "$POLICY"
no_metrics() { ctl status --json | grep -q '"no metrics: listen on 127.0.0.1:9477: Address already in use"'; }
check "a port in use is told, and enforced all the same" no_metrics
sandbox_reap "$taker"
check "… and taken as soon as it is free" wait_until 5 is /healthz 200
check "… and no longer complained of" bash -c '! grep -q "no metrics"' <<<"$(ctl status --json)"

check "ready" is /readyz 200
check "HEAD" is /metrics 200 -I
check "nothing else is there" is / 404
check "nothing else can be done" test "$(code /metrics -d x)" = 405
agent /metrics >"$SANDBOX_DIR/metrics.txt"
promtool check metrics <"$SANDBOX_DIR/metrics.txt" >"$SANDBOX_DIR/lint" 2>&1 || true
check "promtool has nothing to say of $(grep -c '^# TYPE' "$SANDBOX_DIR/metrics.txt") metrics: $(<"$SANDBOX_DIR/lint")" \
  test ! -s "$SANDBOX_DIR/lint"
# What the alerts say is tested in tests/check; whether there are such metrics, here.
unknown() {
  grep -oE 'egressd_[a-z_]+' "$DEPLOY/prometheus/alerts.yaml" | sort -u | grep -v '^egressd_learned$' |
    while read -r name; do grep -q "^${name}[{ ]" "$SANDBOX_DIR/metrics.txt" || printf '%s ' "$name"; done
}
check "metrics of the alerts that do not exist: $(unknown)" test -z "$(unknown)"
undocumented() {
  sed -n 's/^# TYPE \([^ ]*\) .*/\1/p' "$SANDBOX_DIR/metrics.txt" |
    while read -r name; do grep -qF "\`$name\`" "$DEPLOY/metrics.md" || printf '%s ' "$name"; done
}
check "metrics without a word in metrics.md: $(undocumented)" test -z "$(undocumented)"

readonly DENIALS='egressd_verdicts_total{reason="default_deny",verdict="denied"}'
readonly RULE='egressd_rule_denials_total{collection="blocked",rule="one \"host\"",verdict="denied"}'
check "scraped" wait_until 10 says "$DENIALS" "$(status_number default_deny)"
before=$(ask "$DENIALS")
check "a rule is there before it has refused anything" says "$RULE" 0
for _ in 1 2 3 4 5 6 7; do
  probe tcp 203.0.113.99 22 >/dev/null || true
done
for _ in 1 2 3; do
  probe tcp 198.51.100.66 22 >/dev/null || true
done
expect_ok "learned in the kernel" resolve web.example 22
expect_unasked other.example "refused"
check "seven denials are seven" wait_until 5 says "$DENIALS" $((before + 7))
check "three of a rule are three" wait_until 5 says "$RULE" 3
check "two learned addresses are two" \
  wait_until 5 says 'egressd_map_entries{map="egressd_learned"}' 2
check "a name that does not resolve is told" \
  wait_until 5 says 'egressd_resolver_consecutive_failures{name="missing.example"} > bool 0' 1
check "mode" says 'egressd_mode{mode="enforce"}' 1

generation=$(status_number generation)
{ policy; echo "# changed"; } | write_policy
check "a reload is one generation" \
  wait_until 5 says egressd_policy_generation $((generation + 1))
hash=$(ctl status --json | grep -o '"policy_hash": *"[^"]*' | grep -o '[^"]*$')
check "its hash is $hash" says "egressd_policy_info{hash=\"$hash\"}" 1
check "counts go on after it" says "$RULE" 3
check "every query of the dashboard has an answer" \
  on_client python3 "$PWD/dashboard_queries.py" http://127.0.0.1:9090 "$DEPLOY/grafana/egressd.json"

echo 'version: 7' | write_policy
check "a refused reload is told" wait_until 5 says egressd_last_reload_successful 0
check "… and changes nothing: ready" is /readyz 200
on_client bpftool link detach pinned "$(on_client find "$SANDBOX_BPFFS" -name egressd_conn4)"
check "not ready once a program is gone" wait_until 5 is /readyz 503
reason=$(agent /readyz)
check "… and why: $reason" test "${reason#egressd_conn4: not attached to "$SANDBOX_CGROUP"}" != "$reason"
check "… for Prometheus too" wait_until 5 says 'min(egressd_program_attached)' 0
check "… but alive" is /healthz 200
check "seven denials are still seven" says "$DENIALS" $((before + 7))
finish
