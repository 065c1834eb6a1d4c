#!/usr/bin/env bash
# Makes the manifests beside it from the chart, for clusters without Helm; never edit them.
#   deploy/kubernetes/generate.sh [DIR]                 egressd.yaml and detach.yaml into DIR
#   deploy/kubernetes/generate.sh --with VALUES.yaml…   everything with these values, to standard output
# GOCACHE may name a place for the compiled renderer. Packages: scripts/deps.sh test
set -euo pipefail
here=$(dirname "$(realpath "$0")")
chart=$here/../helm/egressd
work=$(mktemp -d "${TMPDIR:-/tmp}/egressd-manifests.XXXXXX")
trap 'rm -rf "$work"' EXIT
export GO111MODULE=off GOPATH=/usr/share/gocode GOCACHE=${GOCACHE:-$work/cache}
go build -o "$work/render" "$here/render.go"

if [[ ${1:-} == --with ]]; then
  "$work/render" "$chart" "${@:2}"
  exit
fi
to=${1:-$here}
made='# Made by generate.sh from ../helm/egressd: change it there.'
{
  cat <<END
$made
# Put in the name of the image and the policy, then: kubectl apply -f egressd.yaml
---
apiVersion: v1
kind: Namespace
metadata:
  name: egressd
  labels:
    app.kubernetes.io/name: egressd
    # Pods with the network of the node are let in nowhere else.
    pod-security.kubernetes.io/enforce: privileged
END
  "$work/render" "$chart"
} >"$to/egressd.yaml"
printf 'detach: {nodes: [NODE]}\n' >"$work/values.yaml"
{
  printf '%s\n# Ends enforcement on one node, once the DaemonSet and its pods are gone:\n#   sed s/NODE/name-of-the-node/ detach.yaml | kubectl apply -f -\n' "$made"
  "$work/render" "$chart" "$work/values.yaml"
} >"$to/detach.yaml"
