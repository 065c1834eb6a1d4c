#!/usr/bin/env bash
# Every alert of deploy/prometheus fires when it should, and only then: alerts_test.yaml.
set -euo pipefail
source tests/check/tracked.sh
need promtool
promtool check rules deploy/prometheus/alerts.yaml
promtool test rules tests/check/alerts_test.yaml
# Each one has a case.
count=0
while read -r alert; do
  count=$((count + 1))
  grep -qE "alertname: $alert\$" tests/check/alerts_test.yaml ||
    { printf '%s: without a test\n' "$alert"; exit 1; }
done < <(sed -n 's/^ *- alert: //p' deploy/prometheus/alerts.yaml)
printf '%d alerts\n' "$count"
((count))
