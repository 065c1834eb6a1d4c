#!/usr/bin/env bash
# An allowed name that resolves to an address behind the guard (metadata, private, loopback) opens
# nothing, unless its rule says so.
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
END
start_egressd "$POLICY"
expect_errno EPERM default_deny "metadata address behind an allowed name" tcp 169.254.169.254 80
expect_errno EPERM default_deny "private address behind an allowed name" tcp 10.9.0.1 80
expect_ok "private address with allowPrivate" tcp 10.9.0.2 80
finish
