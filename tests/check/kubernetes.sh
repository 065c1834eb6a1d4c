#!/usr/bin/env bash
# The chart and the manifests made from it: no drift, no field Kubernetes does not have, no value
# that is taken without being understood. $1 = build directory, $2 = egressctl.
set -euo pipefail
source tests/check/tracked.sh
need go
[[ -d /usr/share/gocode/src/github.com/Masterminds/sprig ]] || {
  echo 'SKIPPED: golang-github-masterminds-sprig-dev is not installed'
  exit 77
}
python3 -c 'import jsonschema, yaml' 2>/dev/null || {
  echo 'SKIPPED: python3-jsonschema or python3-yaml is not installed'
  exit 77
}
export GOCACHE=$1/go-cache
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
deploy/kubernetes/generate.sh "$work"
for file in egressd.yaml detach.yaml; do
  diff -u "deploy/kubernetes/$file" "$work/$file" || {
    echo "deploy/kubernetes/$file is not what the chart gives: run deploy/kubernetes/generate.sh"
    exit 1
  }
done
test -z "$(gofmt -l deploy/kubernetes)"
python3 tests/check/kubernetes.py "$2"
