#!/usr/bin/env bash
# A resolver on loopback in the judged cgroup, and a resolv.conf that names nothing else, as Ubuntu
# has it: the servers it asks are found in systemd-resolved's own file. Changes of either are
# followed without a reload.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

sandbox_up
listen tcp 443
for ((i = 1; i <= 20; i++)); do
  printf '203.0.113.%d n%d.wild.test\n' "$i" "$i"
done >>"$SANDBOX_DIR/hosts"
dns_set other.test 198.51.100.3
# A /run of the sandbox's own: the machine's may have the directory or not.
on_client mount -t tmpfs tmpfs /run
on_client mkdir -p /run/systemd/resolve
# shellcheck disable=SC2059 # the format is the caller's
upstream() { printf "$@" | on_client tee /run/systemd/resolve/resolv.conf >/dev/null; }
# In place: the file is mounted over the machine's.
# shellcheck disable=SC2059
conf() { printf "$@" >"$SANDBOX_DIR/resolv.conf"; }
spawn in_client dnsmasq --keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts \
  --cache-size=0 --server="$DNS4" --listen-address=127.0.0.53 --bind-interfaces --user=root \
  --pid-file= --no-daemon >"$SANDBOX_DIR/stub.log" 2>&1
conf 'nameserver 127.0.0.53\noptions timeout:1 attempts:1\n'
upstream 'nameserver %s\n' "$DNS4"
write_policy <<END
version: 1
mode: enforce
collections:
  - name: names
    priority: 200
    action: allow
    rules:
      - {name: wild, fqdns: ["*.wild.test"], ports: [443]}
END
stub_up() { [[ $(probe resolve n1.wild.test 443 -4) == ok* ]]; }
wait_until 5 stub_up || die "the stub does not answer: $(<"$SANDBOX_DIR/stub.log")"

start_egressd "$POLICY"
expect_ok "by way of the stub, at once" resolve n2.wild.test 443 -4
expect_ok "… and another" resolve n3.wild.test 443 -4
expect_unasked other.test "a name without a rule"
expect_errno EPERM default_deny "its address" tcp 198.51.100.3 443
warned() { ctl status --json | grep -qF 'dns.servers'; }
check "status has nothing to say" eval '! warned'

# Restarted over and over, what the stub answers is always learned.
for i in 4 5 6; do
  stop_egressd KILL
  start_egressd "$POLICY"
  expect_ok "after restart" resolve "n$i.wild.test" 443 -4
done

# The stub gets another server.
upstream 'nameserver %s\n' "$DNS6"
refused() { [[ $(probe ask "$DNS4" 53 --name n7.wild.test) == 'errno=EPERM '* ]]; }
check "another server in its place: followed" wait_until 5 refused
expect_ok "the new one may be asked" ask "$DNS6" 53 --name n7.wild.test
expect_ok "and teaches" tcp 203.0.113.7 443
upstream ''
check "whom the stub asks is not known: status says what to write" wait_until 5 warned
check "the log too" grep -q 'warning.*dns.servers' "$SANDBOX_DIR/egressd.log"
line=$(probe resolve n8.wild.test 443 -4 2>&1) || true
check "the stub's questions are refused: $line" test "${line%% *}" = unresolved
on_client rm -r /run/systemd
on_client mkdir -p /run/systemd/resolve
upstream 'nameserver %s\n' "$DNS4"
by_stub() { [[ $(probe resolve n9.wild.test 443 -4 2>&1) == ok* ]]; }
check "the file comes back: followed" wait_until 5 by_stub
check "status has nothing to say" eval '! warned'

# resolv.conf itself.
generation=$(status_number generation)
conf 'nameserver %s\nsearch cluster.test\n' "$DNS6"
check "resolv.conf changes: followed" wait_until 5 generation_above "$generation"
expect_ok "its server" resolve n10.wild.test 443 -4
expect_errno EPERM dns_server_not_allowed "the stub's server, no longer trusted" \
  ask "$DNS4" 53 --name n11.wild.test
expect_ok "its search list" ask "$DNS6" 53 --name host.cluster.test
conf '\n'
told() { ctl status --json | grep -qF 'trusted so far stay trusted'; }
check "no server in it: status says so" wait_until 5 told
expect_ok "the servers so far stay trusted" ask "$DNS6" 53 --name n12.wild.test
conf 'nameserver %s\n' "$DNS4"
asked() { [[ $(probe resolve n13.wild.test 443 -4 2>&1) == ok* ]]; }
check "resolv.conf is whole again: followed" wait_until 5 asked
check "status has nothing to say" eval '! told'
generation=$(status_number generation)
touch "$SANDBOX_DIR/resolv.conf"
conf 'nameserver %s\n' "$DNS4"
sleep 0.6
check "written, and the same: nothing happens" test "$(status_number generation)" -eq "$generation"
finish
