#!/usr/bin/env bash
# The real allowlist of an Azure Machine Learning workspace: each of the tag's 14 hosts opens what it
# says, and none of the names that look like it.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

sandbox_up
web_up
allowed=() refused=()
while read -r _ good bad; do
  allowed+=("$good") refused+=("$bad")
done < <(grep -v '^#' azure_ml_2020.txt)
check "14 hosts" test "${#allowed[@]}" -eq 14
for i in "${!allowed[@]}"; do
  printf '203.0.113.%d %s\n2001:db8:a::%x %s\n' $((i + 10)) "${allowed[i]}" $((i + 16)) "${allowed[i]}"
  printf '198.51.100.%d %s\n2001:db8:b::%x %s\n' $((i + 10)) "${refused[i]}" $((i + 16)) "${refused[i]}"
done >"$SANDBOX_DIR/hosts"
dns_set unused.example.com 198.51.100.200
for name in "${allowed[@]}" "${refused[@]}"; do
  expect_ok "without egressd, $name" resolve "$name" 443
done
write_policy <<END
version: 1
mode: enforce
tags: [AzureMachineLearning-2020]
dns:
  servers: [$DNS4]
  resolve:
$(printf '    - %s\n' "${allowed[@]}")
END
start_egressd "$POLICY"
for i in "${!allowed[@]}"; do
  name=${allowed[i]}
  expect_ok "$name" resolve "$name" 443 -4
  expect_ok "$name, IPv6" resolve "$name" 443 -6
  expect_ok "$name, any port" resolve "$name" 80 -4
  check "$name answers over TLS" test "$(in_client curl -sk "https://$name/")" = "$name"
  name=${refused[i]}
  expect_errno EPERM default_deny "$name" tcp "198.51.100.$((i + 10))" 443
  expect_errno EPERM default_deny "$name, IPv6" tcp "2001:db8:b::$(printf %x $((i + 16)))" 443
done
finish
