#!/usr/bin/env bash
# Whoever can give a packet any source can play both sides of a conversation: first a packet in the
# name of an accomplice to where a rule leads, then what looks like the answer to it. No answer of
# that kind leaves, from the host or from a pod. What others really asked is answered.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

sandbox_up
pod_up
readonly ACCOMPLICE=2001:db8:b::66 ALLOWED=2001:db8:a::5
listen udp 5353
# The host's and the pods' own networks are allowed, as the networks of a cluster are.
write_policy <<END
version: 1
mode: enforce
dns:
  servers: [$DNS4]
collections:
  - name: net
    priority: 200
    action: allow
    rules:
      - {name: allowed, addresses: ["$ALLOWED"], ports: [5353], protocols: [udp]}
      - {name: own, addresses: ["fd65:6772::/64", "fd65:6774::/64"], ports: ["*"], protocols: [udp]}
END
# nftables judges a pod where the host forwards it.
if [[ $EGRESSD_BACKEND == nft ]]; then EGRESSD_CGROUP=$(cgroup2_mount); fi
start_egressd "$POLICY"

received() { in_server cat /proc/net/snmp6 | awk '/^Udp6(InDatagrams|NoPorts)/ { sum += $2 } END { print sum }'; }
forge() {
  local where=$1
  shift
  "$where" python3 "$PWD/forged_source.py" "$@"
}
# arrives WHAT: the forged answer has to fail, whether the sender is told or not.
stays() {
  local what=$1 before line
  shift
  before=$(received)
  line=$(forge "$@")
  sleep 0.2
  check "$what: $line" test "$(received)" -eq "$before"
}
# The probe itself: the same datagram arrives where a rule leads.
before=$(received)
check "allowed" test "$(forge in_client "$CLIENT6" 4000 "$ALLOWED" 5353)" = sent
arrived() { (($(received) > before)); }
check "… and arrives" wait_until 2 arrived
stays "forbidden" in_client "$CLIENT6" 4000 $ACCOMPLICE 6000

for where in in_client in_pod; do
  own=$CLIENT6
  [[ $where == in_pod ]] && own=$POD6
  # In the accomplice's name to oneself, then back.
  forge "$where" $ACCOMPLICE 6000 "$own" 4001 >/dev/null
  stays "$where: the answer to a question from oneself" "$where" "$own" 4001 $ACCOMPLICE 6000
  # In the accomplice's name to an allowed host, then in that host's name to the accomplice.
  forge "$where" $ACCOMPLICE 6001 $ALLOWED 5353 >/dev/null
  stays "$where: the answer in the name of an allowed host" "$where" $ALLOWED 5353 $ACCOMPLICE 6001
done
# Who really asks from outside is answered: host and pod.
serve in_client "$EGRESSD_PROBE" listen tcp 7100 udp 7101
serve in_pod "$EGRESSD_PROBE" listen tcp 7100 udp 7101
for address in "$CLIENT4" "$CLIENT6" "$POD4" "$POD6"; do
  for kind in "tcp $address 7100" "udp $address 7101"; do
    # shellcheck disable=SC2086 # words
    line=$(in_server "$EGRESSD_PROBE" $kind --timeout 500) || true
    check "asked from outside, $kind: $line" test "${line%% *}" = ok
  done
done
finish
