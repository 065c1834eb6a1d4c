#!/usr/bin/env bash
# Builds egressd and shows it enforcing Microsoft's allowlist for an Azure Machine Learning
# workspace on real sockets. Everything happens in a sandbox of its own: network namespaces with a
# DNS server and a web server, and a cgroup. Nothing outside is judged, and all is removed at the
# end. Exits 0 only if each row came out as it must.
#   EGRESSD_BUILD=DIR  show what is built there (by a preset with tests); install and build nothing
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\033[1m==>\033[0m %s\n' "$*"; }
if [[ ! -t 1 ]]; then step() { printf '==> %s\n' "$*"; }; fi

if [[ $EUID -ne 0 ]]; then
  printf 'The quick start makes namespaces and loads BPF programs: run it as root.\n' >&2
  exit 1
fi

if [[ -n ${EGRESSD_BUILD:-} ]]; then
  build=$EGRESSD_BUILD
else
  step "Debian packages"
  scripts/deps.sh build sandbox
  build=$PWD/build/release
fi
export PATH=/usr/sbin:/usr/bin:/sbin:/bin

if [[ -z ${EGRESSD_BUILD:-} ]]; then
  step "Build (build/release)"
  log=$(mktemp)
  trap 'rm -f "$log"' EXIT
  # The probe is one of the tests' tools; only it is built of them.
  if ! cmake --preset release -DEGRESSD_TESTS=ON >"$log" 2>&1; then
    cat "$log" >&2
    exit 1
  fi
  # ninja prints one line per step: on a terminal they overwrite each other, else only the end
  # counts.
  if [[ -t 1 ]]; then
    cmake --build "$build" --target egressd egressctl egressd_probe
  else
    cmake --build "$build" --target egressd egressctl egressd_probe >"$log" 2>&1 || {
      cat "$log" >&2
      exit 1
    }
    tail -n 1 "$log"
  fi
  rm -f "$log"
fi

export EGRESSD=$build/agent/egressd EGRESSCTL=$build/agent/cli/egressctl
export EGRESSD_PROBE=$build/tests/support/egressd_probe
# shellcheck source-path=SCRIPTDIR/..
source tests/netns/sandbox.sh

# Every name has an address of its own: what is refused is refused for its name.
hosts=() allowed=() refused=()
while read -r host good bad; do
  hosts+=("$host") allowed+=("$good") refused+=("$bad")
done < <(grep -v '^#' tests/netns/azure_ml_2020.txt)

step "Sandbox: two network namespaces, a cgroup, a DNS server, a web server"
sandbox_up
for i in "${!hosts[@]}"; do
  printf '203.0.113.%d %s\n2001:db8:a::%x %s\n' $((i + 10)) "${allowed[i]}" $((i + 16)) "${allowed[i]}"
  printf '198.51.100.%d %s\n2001:db8:b::%x %s\n' $((i + 10)) "${refused[i]}" $((i + 16)) "${refused[i]}"
done >"$SANDBOX_DIR/hosts"
dns_set bare.example.com 198.51.100.200
web_up

step "Without egressd all $((2 * ${#hosts[@]})) names of the table below can be reached"
for name in "${allowed[@]}" "${refused[@]}"; do
  line=$(probe resolve "$name" 443) || die "$name: $line"
done

policy=$SANDBOX_DIR/policy.yaml
cat >"$policy" <<END
version: 1
mode: enforce
tags: [AzureMachineLearning-2020]
dns:
  servers: [$DNS4]
END
step "egressd run --policy: mode: enforce, tags: [AzureMachineLearning-2020]"
start_egressd "$policy"

row() { printf '%-29s %-31s %-10s %b  %-24s %-10s %-12s %s\n' "$@"; }
tick=ok cross=WRONG
if [[ -t 1 ]]; then tick='\033[32mok\033[0m' cross='\033[31mWRONG\033[0m'; fi
printf '\n'
row 'TAG ENTRY' 'ALLOWED' 'HTTPS' '  ' 'REFUSED' 'QUESTION' 'connect()' 'RECORD'
wrong=0
for i in "${!hosts[@]}"; do
  mark=$tick
  line=$(probe resolve "${allowed[i]}" 443) || true
  code=$(in_client curl -sk --max-time 3 -o /dev/null -w '%{http_code}' "https://${allowed[i]}/") || true
  good="$code ${line##* }"
  [[ $line == ok* && $code == 200 ]] || mark=$cross

  # The question for the other name must not leave.
  seen=$(audit_lines)
  line=$(probe resolve "${refused[i]}" 443) || true
  wait_until 2 audit_records "$seen" dns_name_not_allowed "\"${refused[i]}\"" >/dev/null || true
  question=answered asked=
  if [[ $line == unresolved* ]]; then
    question=refused
    asked=$(audit_records "$seen" dns_name_not_allowed "\"${refused[i]}\"" | tail -n 1) || true
  fi
  [[ $question == refused && -n $asked ]] || mark=$cross

  # Who knows the address without asking gets no further. The probe lingers, since only of a living
  # process the record can name the program.
  seen=$(audit_lines)
  line=$(probe tcp "198.51.100.$((i + 10))" 443 --linger 150) || true
  errno=${line%% *}
  bad="${errno#errno=} ${line##* }"
  address="\"198.51.100.$((i + 10))\""
  wait_until 2 audit_records "$seen" "$address" >/dev/null || true
  record=$(audit_records "$seen" "$address" | tail -n 1) || true
  reason=$(audit_field reason <<<"$record")
  [[ $errno == errno=EPERM && $reason == default_deny ]] || mark=$cross
  [[ $mark == "$tick" ]] || wrong=$((wrong + 1))
  row "${hosts[i]}" "${allowed[i]}" "$good" "$mark" "${refused[i]}" "$question" "$bad" "$reason"
done

printf '\nThe last two records (one line of JSON each):\n%s\n%s\n\n' "$asked" "$record"
if ((wrong)); then
  printf '%d of %d rows are not as they must be\n' "$wrong" "${#hosts[@]}"
  exit 1
fi
printf 'All %d allowed names answered. Of the %d others no question left, and each address was refused\n' \
  "${#allowed[@]}" "${#refused[@]}"
printf 'inside connect(); both are on record.\n'
