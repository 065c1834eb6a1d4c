#!/usr/bin/env bash
# An allowed name that resolves to an address behind the guard (metadata, private, loopback) opens
# nothing. A rule can say that private ones are meant, never that the others are.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

sandbox_up
on_client ip -batch - <<END
route add 169.254.169.254 via $DNS4
END
in_server ip -batch - <<END
route add local 169.254.169.254 dev lo
route add local 10.9.0.0/24 dev lo
END
listen tcp 80
dns_set rebind.example.com 169.254.169.254
dns_set private.example.com 10.9.0.1
dns_set endpoint.example.com 10.9.0.2
dns_set bent.example.com 169.254.169.254 10.9.0.3
dns_set late.wild.example.com 169.254.169.254
expect_ok "without egressd" resolve rebind.example.com 80
expect_ok "without egressd" resolve private.example.com 80
write_policy <<END
version: 1
mode: enforce
dns:
  servers: [$DNS4]
collections:
  - name: names
    priority: 200
    action: allow
    rules:
      - {name: guarded, fqdns: [rebind.example.com, private.example.com], ports: [80]}
      - {name: endpoint, fqdns: [endpoint.example.com], ports: [80], allowPrivate: true}
      - {name: bent, fqdns: [bent.example.com, "*.wild.example.com"], ports: [80], allowPrivate: true}
END
start_egressd "$POLICY"
expect_errno EPERM default_deny "metadata address behind an allowed name" tcp 169.254.169.254 80
expect_errno EPERM default_deny "private address behind an allowed name" tcp 10.9.0.1 80
expect_ok "private address with allowPrivate" tcp 10.9.0.2 80
expect_ok "… of a name that has the metadata address as well" tcp 10.9.0.3 80
expect_errno EPERM default_deny "metadata address with allowPrivate, heard by the agent" \
  tcp 169.254.169.254 80
expect_errno EPERM default_deny "… and by the kernel" resolve late.wild.example.com 80 -4
sed -i 's/allowPrivate: true/allowPrivate: false/' "$POLICY"
reload_egressd
expect_errno EPERM "$(reason_gone)" "private address, allowPrivate taken back" tcp 10.9.0.2 80
finish
