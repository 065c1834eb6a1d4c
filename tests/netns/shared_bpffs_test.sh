#!/usr/bin/env bash
# The directory given with --bpffs may hold what others pinned, up to the mount point itself: only
# egressd's own goes, that of other versions too.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh

sandbox_up
listen tcp 22
write_policy <<END
version: 1
mode: enforce
dns:
  servers: [$DNS4]
collections:
  - name: elsewhere
    priority: 200
    action: allow
    rules:
      - {name: one host, addresses: [203.0.113.250], ports: [22], protocols: [tcp]}
END
attached() { on_client bpftool cgroup show "$SANDBOX_CGROUP" | grep -E '^[0-9]' | sort; }
pins() { on_client find "$SANDBOX_BPFFS" -mindepth 1 ! -path "$SANDBOX_BPFFS/v[1-9]*" | sort; }
own() { on_client find "$SANDBOX_BPFFS" -path '*/v[0-9]*/egressd_*'; }
old=$SANDBOX_BPFFS/v0

# Someone else's pinned link: of our own socket option program, with all else of it gone.
start_egressd "$POLICY"
link=$(own | grep links/egressd_sockops)
on_client mkdir -p "$SANDBOX_BPFFS/other/links" "$SANDBOX_BPFFS/other/maps" "$old/maps" \
  "$SANDBOX_BPFFS/vendor/maps" "$SANDBOX_BPFFS/v/maps"
on_client bpftool link pin id "$(on_client bpftool link show pinned "$link" | sed -n '1s/:.*//p')" \
  "$SANDBOX_BPFFS/other/links/egressd_like"
stop_egressd KILL
on_client find "${link%/links/*}" -delete
alone=$(attached)
check "one program of others is attached" test "$(wc -l <<<"$alone")" -eq 1

map() { on_client bpftool map create "$SANDBOX_BPFFS/$1" type hash key 4 value 4 entries 8 name theirs; }
map other/maps/precious
map vendor/maps/egressd_like
map v/maps/egressd_like
map v0/maps/precious
before=$(pins)
map v0/maps/egressd_old
same() { check "what others pinned is there: $1" test "$(pins)" = "$before"; }

start_egressd "$POLICY"
expect_errno EPERM default_deny "enforced" tcp 198.51.100.9 22
same "attach"
check "and attached" grep -qF "$alone" <<<"$(attached)"
ctl detach --bpffs "$SANDBOX_BPFFS"
sandbox_reap "$SANDBOX_AGENT" TERM
SANDBOX_AGENT=""
same "detach by the daemon"
check "and attached" test "$(attached)" = "$alone"

start_egressd "$POLICY"
stop_egressd KILL
on_client bpftool map create "$old/maps/egressd_old" type hash key 4 value 4 entries 8 name theirs
check "detach without a daemon" ctl detach --bpffs "$SANDBOX_BPFFS"
same "detach without a daemon"
check "and attached" test "$(attached)" = "$alone"
check "nothing of ours is pinned" test -z "$(own)"
expect_ok "nothing is enforced" tcp 198.51.100.9 22
finish
