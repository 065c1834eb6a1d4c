#!/usr/bin/env bash
# The manifests of deploy/kubernetes against a real API server. Debian packages none: it is built from
# Debian's source of kubernetes 1.20 (34 MB, about 20 minutes on two cores, once), and runs with etcd
# in a network namespace of its own for some seconds. It is old; that it takes the manifests says that
# their fields are right and that nothing needs a newer one.
#   KUBE_BUILD=DIR    where it is built and kept (build/kubernetes)
# Packages: scripts/deps.sh test sandbox kubernetes
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=/usr/sbin:/usr/bin:/sbin:/bin

die() {
  printf 'kubernetes-test: %s\n' "$*" >&2
  exit 1
}

KUBE_BUILD=$(realpath -m "${KUBE_BUILD:-build/kubernetes}")
readonly REFLECT=github.com/modern-go/reflect2

# Its lists of source packages are kept apart: the machine's sources stay as they are.
fetch() {
  local sources=$KUBE_BUILD/sources file
  mkdir -p "$sources"/{parts,lists/partial}
  for file in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
    [[ -s $file ]] || continue
    case $file in
      *.sources) sed 's/^Types:.*/Types: deb-src/' "$file" >"$sources/parts/debian.sources" ;;
      *) sed -n 's/^deb /deb-src /p' "$file" >"$sources/parts/debian.list" ;;
    esac
    break
  done
  local apt=(apt-get -q -o "Dir::Etc::SourceList=/nonexistent" -o "Dir::Etc::SourceParts=$sources/parts"
    -o "Dir::State::lists=$sources/lists" -o APT::Sandbox::User=root)
  "${apt[@]}" update
  (cd "$sources" && "${apt[@]}" source --download-only kubernetes)
  # Unpacked, not installed: the machine may have another kubectl.
  (cd "$sources" && apt-get -q -o APT::Sandbox::User=root download kubernetes-client &&
    dpkg-deb -x kubernetes-client_*.deb client && cp client/usr/bin/kubectl "$KUBE_BUILD/")
  mkdir -p "$1"
  tar -xzf "$sources"/kubernetes_*.orig.tar.gz -C "$1" --strip-components=1
}

build() {
  local tree=$KUBE_BUILD/go/src/k8s.io/kubernetes packages
  GOROOT=$(go env GOROOT)
  export GOROOT GO111MODULE=off GOPATH=$KUBE_BUILD/go GOCACHE=$KUBE_BUILD/cache CGO_ENABLED=0
  [[ -d $tree/cmd ]] || fetch "$tree"
  cd "$tree"
  # The one in the tree dies with Debian's Go.
  find "vendor/$REFLECT" -name '*.[gs]*' -type f -delete
  cp "/usr/share/gocode/src/$REFLECT"/*.{go,s} "vendor/$REFLECT/"
  # What is generated and not in the tree: the API server's description of all its types.
  go build -o "$KUBE_BUILD/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
  packages=$(grep -rl --include='*.go' '+k8s:openapi-gen=' staging/src/k8s.io pkg cmd |
    grep -vE '_test.go$|/testdata/|code-generator/|sample-' | xargs -n 1 dirname | sort -u |
    sed 's|^staging/src/|vendor/|; s|^|k8s.io/kubernetes/|' | paste -sd,)
  "$KUBE_BUILD/openapi-gen" -i "$packages" -O zz_generated.openapi \
    -p k8s.io/kubernetes/pkg/generated/openapi -o "$GOPATH/src" \
    -h hack/boilerplate/boilerplate.generatego.txt -r "$KUBE_BUILD/report" 2>"$KUBE_BUILD/openapi.log" ||
    die "openapi-gen: $(tail -n 3 "$KUBE_BUILD/openapi.log")"
  nice -n 19 go build -ldflags '-s -w' -o "$KUBE_BUILD/kube-apiserver" ./cmd/kube-apiserver
}

if [[ ! -x $KUBE_BUILD/kube-apiserver ]]; then (build); fi
repository=$PWD
for tool in etcd curl openssl python3 unshare go; do
  command -v "$tool" >/dev/null || die "$tool is missing"
done
# Its own network, and processes that end with this one.
if [[ ${1:-} != inside ]]; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  printf '%s\n' 'image: {pullSecrets: [{name: pull}]}' 'metrics: {onNodeAddress: true}' \
    'seLinuxOptions: {type: spc_t}' 'affinity: {nodeAffinity: {}}' 'maxUnavailable: 10%' \
    'seccompProfile: {type: Localhost, localhostProfile: egressd.json}' >"$work/values.yaml"
  cp deploy/kubernetes/egressd.yaml "$work/"
  sed s/NODE/aks-1/ deploy/kubernetes/detach.yaml >"$work/detach.yaml"
  deploy/kubernetes/generate.sh --with "$work/values.yaml" >"$work/values-applied.yaml"
  GO111MODULE=off GOPATH=/usr/share/gocode GOCACHE=$work/cache go build -o "$work/render" deploy/kubernetes/render.go
  sed 's/readinessProbe:/readinesProbe:/' deploy/kubernetes/egressd.yaml >"$work/bad-field.yaml"
  sed 's/hostNetwork: true/hostNetwork: "yes"/' deploy/kubernetes/egressd.yaml >"$work/bad-type.yaml"
  sed 's/drop: \[ALL\]/drop: ALL/' deploy/kubernetes/egressd.yaml >"$work/bad-list.yaml"
  sed 's/type: Directory$/type: Folder/' deploy/kubernetes/egressd.yaml >"$work/bad-value.yaml"
  KUBE_BUILD=$KUBE_BUILD WORK=$work unshare --net --pid --fork --kill-child "$PWD/scripts/kubernetes-test.sh" inside
  exit
fi

ip link set lo up
cd "${WORK:?}"
openssl genrsa -out key.pem 2048 2>/dev/null
printf 'token,admin,1,system:masters\n' >tokens
etcd --data-dir etcd >etcd.log 2>&1 &
"$KUBE_BUILD/kube-apiserver" --etcd-servers http://127.0.0.1:2379 --advertise-address 127.0.0.1 \
  --bind-address 127.0.0.1 --secure-port 6443 --cert-dir certs --token-auth-file tokens \
  --service-account-key-file key.pem --service-account-signing-key-file key.pem \
  --service-account-issuer kubernetes --disable-admission-plugins ServiceAccount >apiserver.log 2>&1 &

api() { curl --silent --insecure --header 'Authorization: Bearer token' "$@"; }
for ((i = 0; i < 600; i++)); do
  [[ $(api https://127.0.0.1:6443/readyz) != ok ]] || break
  sleep 0.1
done
((i < 600)) || die "the API server is not ready: $(tail -n 3 apiserver.log)"

failed=0
check() {
  local what=$1
  shift
  if "$@" >out 2>&1; then
    printf 'ok    %s\n' "$what"
  else
    printf 'FAIL  %s: %s\n' "$what" "$(tail -n 2 out)"
    failed=1
  fi
}
kubectl() {
  "$KUBE_BUILD/kubectl" --kubeconfig /dev/null --server https://127.0.0.1:6443 \
    --insecure-skip-tls-verify --token token "$@"
}
refused() { ! kubectl apply -f "$1" && grep -qE "$2" out; }
unchanged() { kubectl apply -f egressd.yaml && ! grep -vq unchanged out; }

check "egressd.yaml" kubectl apply -f egressd.yaml
check "… again: unchanged" unchanged
check "detach.yaml" kubectl apply -f detach.yaml
check "with other values" kubectl apply -f values-applied.yaml
check "a field there is none: refused" refused bad-field.yaml 'unknown field "readinesProbe"'
check "a text for a boolean: refused" refused bad-type.yaml hostNetwork
check "a text for a list: refused" refused bad-list.yaml 'drop'
check "a kind of path there is none: refused" refused bad-value.yaml 'hostPath.type'
kubectl -n egressd get daemonset/egressd -o json >stored.json
# What the server does not know it drops without a word.
stored() {
  python3 - <<'END'
import json
import yaml


def missing(sent, stored, at=""):
    if isinstance(sent, dict):
        return [m for k, v in sent.items() for m in
                (missing(v, stored[k], f"{at}.{k}") if k in stored else [f"{at}.{k}"])]
    if isinstance(sent, list):
        return [m for a, b in zip(sent, stored) for m in missing(a, b, at + "[]")]
    return []


with open("stored.json", encoding="utf-8") as file:
    found = json.load(file)
with open("values-applied.yaml", encoding="utf-8") as file:
    sent = [d for d in yaml.safe_load_all(file) if d["kind"] == "DaemonSet"]
lost = missing(sent[0], found)
assert not lost, lost
END
}
check "the server keeps every field" stored

# --- the commands of deploy/aks.md as they stand there, but for those that ask a pod or build the image

mkdir bin cluster
ln -s "$repository/deploy" cluster/deploy
cp "$repository/deploy/helm/egressd/values.yaml" cluster/
{
  printf '#!/bin/bash\nKUBE_BUILD=%q\n' "$KUBE_BUILD"
  declare -f kubectl
  printf 'kubectl "$@"\n'
} >bin/kubectl
# Helm is not in Debian: what it does with the chart, by the renderer that makes the manifests.
cat >bin/helm <<'END'
#!/usr/bin/python3
import argparse
import os
import subprocess
import sys

import yaml

parser = argparse.ArgumentParser()
parser.add_argument("verb", choices=["install", "template", "uninstall"])
parser.add_argument("release")
parser.add_argument("chart", nargs="?", default="deploy/helm/egressd")
parser.add_argument("-n", dest="namespace")
parser.add_argument("-f", dest="files", action="append", default=[])
parser.add_argument("--set", dest="values", action="append", default=[])
parser.add_argument("--wait", action="store_true")
arguments = parser.parse_args()
for number, text in enumerate(arguments.values):
    path, _, value = text.partition("=")
    value = value.strip("{}").split(",") if value.startswith("{") else value
    for key in reversed(path.split(".")):
        value = {key: value}
    arguments.files.append(f"set.{number}.yaml")
    with open(arguments.files[-1], "w", encoding="utf-8") as file:
        yaml.safe_dump(value, file)
manifests = subprocess.run(
    [os.environ["WORK"] + "/render", "-name", arguments.release, "-namespace", arguments.namespace,
     arguments.chart, *arguments.files], check=True, capture_output=True).stdout
if arguments.verb == "template":
    sys.stdout.buffer.write(manifests)
else:
    verb = {"install": "create", "uninstall": "delete"}[arguments.verb]
    subprocess.run(["kubectl", verb, "-f", "-"], input=manifests, check=True)
END
chmod +x bin/*
# guide HEADING: the first block of commands under it.
guide() {
  local commands
  commands=$(awk -v heading="## $1" '
    /^## / && !inside { here = $0 == heading }
    here && /^```sh$/ { inside = 1; next }
    inside && /^```$/ { exit }
    inside' "$repository/deploy/aks.md" | grep -vE '^deploy/image/build.sh | exec ds/egressd |^egressctl |^  grep ')
  [[ -n $commands ]] || return 1
  (cd cluster && PATH=$WORK/bin:$PATH timeout 120 bash -euxo pipefail -c "${commands%|}")
}
# What controllers would do without nodes that run anything: a DaemonSet is rolled out, a Job's pod has
# ended, a namespace that is deleted gets empty and goes.
controllers() {
  local name merge=(--request PATCH --header 'Content-Type: application/merge-patch+json')
  local server=https://127.0.0.1:6443
  while sleep 0.5; do
    api "${merge[@]}" "$server/apis/apps/v1/namespaces/egressd/daemonsets/egressd/status" --data '{"status": {
      "observedGeneration": 1, "currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0,
      "numberReady": 0}}'
    for name in $(kubectl -n egressd get jobs -o 'jsonpath={.items[*].metadata.name}'); do
      kubectl -n egressd get "job/$name" -o yaml >"job.$name"
      api "${merge[@]}" "$server/apis/batch/v1/namespaces/egressd/jobs/$name/status" \
        --data '{"status": {"conditions": [{"type": "Complete", "status": "True"}]}}'
    done
    if [[ $(kubectl get namespace egressd -o 'jsonpath={.status.phase}') == Terminating ]]; then
      kubectl -n egressd delete --all daemonset,job,configmap,serviceaccount
      kubectl get namespace egressd -o json | sed '/^ *"kubernetes"$/d' |
        api --request PUT --header 'Content-Type: application/json' --data-binary @- \
          "$server/api/v1/namespaces/egressd/finalize"
    fi
  done
}
for node in aks-1 aks-2; do
  printf -- '---\napiVersion: v1\nkind: Node\nmetadata: {name: %s, labels: {kubernetes.io/os: linux}}\n' "$node"
done | kubectl apply -f - >/dev/null
controllers >controllers.log 2>&1 &
kubectl delete namespace egressd >/dev/null
rm -f job.*
check "aks.md, Install" guide Install
check "… the image is the one named" grep -q REGISTRY/egressd \
  <<<"$(kubectl -n egressd get daemonset/egressd -o 'jsonpath={.spec.template.spec.containers[0].image}')"
check "… the namespace takes privileged pods" grep -q 'enforce":"privileged"' \
  <<<"$(kubectl get namespace egressd -o 'jsonpath={.metadata.labels}')"
check "aks.md, Audit first" guide "Audit first"
# A pod that takes its time.
kubectl -n egressd apply -f - >/dev/null <<'END'
apiVersion: v1
kind: Pod
metadata: {name: egressd-last, labels: {app.kubernetes.io/name: egressd}}
spec: {containers: [{name: egressd, image: egressd}]}
END
(
  sleep 5
  ls job.* >too-early 2>/dev/null || true
  kubectl -n egressd delete pod egressd-last
) >/dev/null 2>&1 &
check "aks.md, Uninstall" guide Uninstall
check "… no Job came before the last pod was gone" test -e too-early -a ! -s too-early
check "… each node had its Job" test "$(cat job.* | grep -oE 'aks-[12]$' | sort -u | paste -sd' ')" = "aks-1 aks-2"
check "… the namespace is gone" test -z "$(kubectl get namespace egressd --ignore-not-found)"
exit "$failed"
