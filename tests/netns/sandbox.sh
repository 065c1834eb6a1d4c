# shellcheck shell=bash
# A private little internet for one test: sourced, never run.
#
#   client namespace  192.0.2.2, fd65:6772::2       the workload; egressd runs here too
#        | veth
#   server namespace  192.0.2.1, fd65:6772::1       DNS (dnsmasq), echo listeners, nginx; it also
#                                                   answers for every address of 203.0.113.0/24,
#                                                   198.51.100.0/24 and 2001:db8::/32
#
# Both namespaces are held by a process that dies with the script, so that even kill -9 leaves
# nothing behind but an empty cgroup and a directory. bpffs and resolv.conf are mounted in the
# client's mount namespace: nothing of the machine is touched, and sandboxes run side by side.
#
#   sandbox_up                    make it; removed again at exit
#   in_client CMD…                run CMD as the workload: client namespace, judged cgroup
#   on_client CMD…                client namespace, but outside the cgroup
#   in_server CMD…                the other side
#   pod_up                        a third namespace, routed by the client's, as a container runtime
#                                 makes it: 192.0.2.130, fd65:6774::2
#   in_pod CMD…                   run CMD there, in the judged cgroup
#   spawn PLACE CMD…              one of these in the background; REPLY is the pid of CMD
#   listen [tcp|udp|raw:N] PORT…  echo listeners on the other side
#   web_up                        nginx on the other side: 80, 443 (TLS, self-signed)
#   dns_set NAME ADDRESS…         what the DNS server says of a name from now on
#   start_egressd POLICY [ARGS…]  enforce POLICY on the cgroup, wait until it is in force
#   launch_egressd POLICY [ARGS…] the same without waiting
#   write_policy                  standard input becomes $POLICY
#   ctl CMD…                      egressctl against that daemon
#   journald_up                   a journald of the client's own
#   hold_open ADDRESS PORT        the workload keeps a connection; `hold_echo` sends through it
#   expect_ok WHAT PROBE…         the probe must get through
#   expect_errno ERRNO REASON WHAT PROBE…
#                                 it must fail at once, be counted and be recorded
#   expect_unasked NAME WHAT      a question for NAME must not leave: at once, counted, recorded
#   finish                        exit status of the test
#
# Set from outside (CTest does): EGRESSD, EGRESSCTL, EGRESSD_PROBE. SANDBOX_SLOW=N stretches all limits
# of time by N, for emulated machines. EGRESSD_BACKEND=nft has nftables enforce: a TCP connection that
# is refused fails with ECONNREFUSED then, where a test says EPERM. EGRESSD_BACKEND=both puts nftables
# behind eBPF, for the whole of the client's namespace (NFT_SCOPE=cgroup: for no more than the cgroup).

SANDBOX_DIR=""
SANDBOX_CGROUP=""
SANDBOX_CLIENT=""
SANDBOX_SERVER=""
SANDBOX_POD=""
SANDBOX_DNS=""
SANDBOX_AGENT=""
SANDBOX_FAILURES=0
SANDBOX_CHECKS=0
SANDBOX_SLOW=${SANDBOX_SLOW:-1}
EGRESSD_BACKEND=${EGRESSD_BACKEND:-bpf}

readonly DNS4=192.0.2.1 DNS6=fd65:6772::1
readonly CLIENT4=192.0.2.2 CLIENT6=fd65:6772::2
readonly POD4=192.0.2.130 POD6=fd65:6774::2

die() {
  printf 'sandbox: %s\n' "$*" >&2
  exit 1
}

# Exit status 77 is CTest's SKIP_RETURN_CODE.
skip() {
  printf 'SKIPPED: %s\n' "$*"
  exit 77
}

# Where the cgroup2 hierarchy is mounted: /sys/fs/cgroup, or …/unified beside version 1.
cgroup2_mount() {
  local line
  while read -r line; do
    if [[ ${line#* - } == cgroup2\ * ]]; then
      read -r _ _ _ _ line _ <<<"$line"
      printf '%s\n' "$line"
      return 0
    fi
  done </proc/self/mountinfo
  return 1
}

# wait_until SECONDS CMD…: polls 50 times a second.
wait_until() {
  local deadline=$((${EPOCHREALTIME/./} + $1 * SANDBOX_SLOW * 1000000))
  shift
  until "$@"; do
    ((${EPOCHREALTIME/./} < deadline)) || return 1
    sleep 0.02
  done
}

# A process with its own network and mount namespace, ending with this script.
# $1 = name; $2 = script run inside before it counts as ready. Sets REPLY to its pid.
sandbox_hold() {
  # shellcheck disable=SC2016 # expanded by the inner shell
  unshare --net --mount --propagation private setpriv --pdeathsig KILL \
    bash -euc "$2"'; : >"$SANDBOX_DIR/$1.ready"; exec sleep infinity' bash "$1" \
    </dev/null >"$SANDBOX_DIR/$1.log" 2>&1 &
  REPLY=$!
  wait_until 5 test -e "$SANDBOX_DIR/$1.ready" ||
    die "the $1 namespace did not come up: $(<"$SANDBOX_DIR/$1.log")"
}

sandbox_up() {
  [[ $EUID -eq 0 ]] || die "needs root (namespaces, cgroups, BPF)"
  local tool mount
  for tool in unshare nsenter setpriv ip dnsmasq; do
    command -v "$tool" >/dev/null || die "$tool is missing: run scripts/deps.sh"
  done
  [[ -x ${EGRESSD_PROBE:-} ]] || die "EGRESSD_PROBE does not name the built egressd_probe"
  mount=$(cgroup2_mount) || die "no cgroup2 hierarchy is mounted"

  # Before anything exists: from here every way out goes through sandbox_down.
  trap sandbox_down EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  SANDBOX_DIR=$(mktemp -d "${TMPDIR:-/tmp}/egressd-sandbox.XXXXXX")
  export SANDBOX_DIR
  SANDBOX_CGROUP=$mount/egressd-sandbox.$$
  mkdir "$SANDBOX_CGROUP" || die "cannot make a cgroup under $mount"
  SANDBOX_BPFFS=$SANDBOX_DIR/bpf
  SANDBOX_SOCKET=$SANDBOX_DIR/control.sock
  SANDBOX_AUDIT=$SANDBOX_DIR/audit.jsonl
  POLICY=$SANDBOX_DIR/policy.yaml
  mkdir "$SANDBOX_BPFFS" "$SANDBOX_DIR/state"
  : >"$SANDBOX_AUDIT"
  printf 'nameserver %s\noptions timeout:1 attempts:2\n' "$DNS4" >"$SANDBOX_DIR/resolv.conf"
  # Without this a host's nss-resolve would ask the machine's resolver behind our back.
  printf 'hosts: files dns\n' >"$SANDBOX_DIR/nsswitch.conf"

  local no_dad='ip link set lo up
    echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad
    echo 0 >/proc/sys/net/ipv6/conf/default/dad_transmits'
  sandbox_hold server "$no_dad"
  SANDBOX_SERVER=$REPLY
  # shellcheck disable=SC2016 # expanded by the inner shell
  sandbox_hold client "$no_dad"'
    mount -t bpf bpf "$SANDBOX_DIR/bpf"
    [[ -e /etc/resolv.conf ]] && mount --bind "$SANDBOX_DIR/resolv.conf" /etc/resolv.conf
    [[ -e /etc/nsswitch.conf ]] && mount --bind "$SANDBOX_DIR/nsswitch.conf" /etc/nsswitch.conf
    if [[ -d /run/nscd ]]; then mount -t tmpfs tmpfs /run/nscd; fi'
  SANDBOX_CLIENT=$REPLY

  on_client ip -batch - <<END
link add up0 address 02:00:00:00:00:02 type veth peer name up0 netns $SANDBOX_SERVER address 02:00:00:00:00:01
addr add $CLIENT4/24 dev up0
addr add $CLIENT6/64 dev up0 nodad
link set up0 up
neigh add $DNS6 lladdr 02:00:00:00:00:01 dev up0 nud reachable
END
  in_server ip -batch - <<END
addr add $DNS4/24 dev up0
addr add $DNS6/64 dev up0 nodad
link set up0 up
neigh add $CLIENT6 lladdr 02:00:00:00:00:02 dev up0 nud reachable
route add local 203.0.113.0/24 dev lo
route add local 198.51.100.0/24 dev lo
route add local 2001:db8::/32 dev lo
END
  on_client ip -batch - <<END
route add default via $DNS4
route add default via $DNS6
END
  # Neighbour discovery loses its first packet while the link comes up, and asks again after a
  # second: hence the neigh entries above, which age like any other.
  wait_until 5 on_client "$EGRESSD_PROBE" icmp "$DNS4" 0 --timeout 100 >/dev/null ||
    die "the namespaces cannot reach each other over IPv4"
  wait_until 5 on_client "$EGRESSD_PROBE" icmp "$DNS6" 0 --timeout 100 >/dev/null ||
    die "the namespaces cannot reach each other over IPv6"
  : >"$SANDBOX_DIR/hosts"
  dns_start
}

pod_up() {
  # shellcheck disable=SC2016 # expanded by the inner shell
  sandbox_hold pod 'ip link set lo up
    echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad
    [[ -e /etc/resolv.conf ]] && mount --bind "$SANDBOX_DIR/resolv.conf" /etc/resolv.conf
    [[ -e /etc/nsswitch.conf ]] && mount --bind "$SANDBOX_DIR/nsswitch.conf" /etc/nsswitch.conf
    if [[ -d /run/nscd ]]; then mount -t tmpfs tmpfs /run/nscd; fi'
  SANDBOX_POD=$REPLY
  on_client ip -batch - <<END
link add pod0 type veth peer name eth0 netns $SANDBOX_POD
addr add 192.0.2.129/25 dev pod0
addr add fd65:6774::1/64 dev pod0 nodad
link set pod0 up
END
  nsenter --target "$SANDBOX_POD" --net ip -batch - <<END
addr add $POD4/25 dev eth0
addr add $POD6/64 dev eth0 nodad
link set eth0 up
route add default via 192.0.2.129
route add default via fd65:6774::1
END
  in_server ip -batch - <<END
route add 192.0.2.128/25 via $CLIENT4
route add fd65:6774::/64 via $CLIENT6
END
  # The /proc of the whole machine shows the namespace of whoever reads it.
  on_client bash -c 'echo 1 >/proc/sys/net/ipv4/ip_forward
    echo 1 >/proc/sys/net/ipv6/conf/all/forwarding'
  wait_until 5 nsenter --target "$SANDBOX_POD" --net \
    "$EGRESSD_PROBE" icmp "$DNS6" 0 --timeout 200 >/dev/null || die "the pod reaches nobody"
}

# Kills one process of ours and waits until it is gone.
sandbox_reap() {
  [[ -n $1 ]] || return 0
  kill -"${2:-KILL}" "$1" 2>/dev/null || true
  wait "$1" 2>/dev/null || true
}

sandbox_down() {
  local status=$? pid
  set +e
  trap - EXIT
  trap '' INT TERM
  [[ -n $SANDBOX_DIR ]] || return "$status"
  # On failure show what the daemon said: on another machine there is nothing else to look at.
  if ((status != 0 && status != 77 && status < 128)) && [[ -s $SANDBOX_DIR/egressd.log ]]; then
    printf -- '--- last lines of the daemon\n' >&2
    tail -n 25 "$SANDBOX_DIR/egressd.log" >&2
  fi
  sandbox_reap "$SANDBOX_AGENT"
  for pid in $(jobs -p); do
    sandbox_reap "$pid"
  done
  # Everything below it is killed: nothing but what sandbox_up made, whatever a test did to the variable.
  if [[ $SANDBOX_CGROUP/ == */egressd-sandbox.$$/* && -d $SANDBOX_CGROUP ]]; then
    while read -r pid; do
      kill -KILL "$pid" 2>/dev/null
    done < <(find "$SANDBOX_CGROUP" -name cgroup.procs -exec cat {} +)
    # With the cgroups a test has made below it.
    wait_until 5 find "$SANDBOX_CGROUP" -depth -type d -delete 2>/dev/null ||
      printf 'sandbox: %s could not be removed\n' "$SANDBOX_CGROUP" >&2
  fi
  rm -rf --one-file-system "$SANDBOX_DIR"
  SANDBOX_DIR=""
  return "$status"
}

# Becomes CMD at the place named first. For subshells.
become() {
  local target=$SANDBOX_CLIENT
  case $1 in
    in_server) target=$SANDBOX_SERVER ;;
    # Moves itself first: every process of CMD is born inside the cgroup.
    in_client) echo "$BASHPID" >"$SANDBOX_CGROUP/cgroup.procs" || exit 125 ;;
    in_pod)
      target=$SANDBOX_POD
      echo "$BASHPID" >"$SANDBOX_CGROUP/cgroup.procs" || exit 125
      ;;
    on_client) ;;
    *) die "no such place: $1" ;;
  esac
  shift
  exec setpriv --pdeathsig KILL nsenter --target "$target" --net --mount -- "$@"
}

in_server() { (become in_server "$@"); }
on_client() { (become on_client "$@"); }
in_client() { (become in_client "$@"); }
in_pod() { (become in_pod "$@"); }

# spawn PLACE CMD…: in the background, REPLY is CMD's own pid.
spawn() {
  become "$@" </dev/null &
  REPLY=$!
}

# DNS_ARGS: further dnsmasq options, such as --address=/example.com/203.0.113.1 for a whole domain.
dns_start() {
  spawn in_server dnsmasq --keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts --no-poll \
    --addn-hosts="$SANDBOX_DIR/hosts" --local-ttl="${DNS_TTL:-30}" --local=/#/ --no-daemon \
    --listen-address="$DNS4,$DNS6" --bind-interfaces --user=root --pid-file= --log-queries \
    "${DNS_ARGS[@]}" >"$SANDBOX_DIR/dns.log" 2>&1
  SANDBOX_DNS=$REPLY
  wait_until 5 dns_is_up || die "dnsmasq did not start: $(<"$SANDBOX_DIR/dns.log")"
}
DNS_ARGS=()

dns_is_up() { grep -q 'read .*/hosts' "$SANDBOX_DIR/dns.log"; }

dns_stop() {
  sandbox_reap "$SANDBOX_DNS"
  SANDBOX_DNS=""
}

# Takes effect with the next question.
dns_set() {
  local name=$1 address loads
  shift
  sed -i "/[[:space:]]${name//./\\.}\$/d" "$SANDBOX_DIR/hosts"
  for address in "$@"; do
    printf '%s %s\n' "$address" "$name" >>"$SANDBOX_DIR/hosts"
  done
  [[ -n $SANDBOX_DNS ]] || return 0
  loads=$(grep -c 'read .*/hosts' "$SANDBOX_DIR/dns.log")
  kill -HUP "$SANDBOX_DNS"
  wait_until 5 dns_reloaded "$loads" || die "dnsmasq did not reload"
}

dns_reloaded() { (($(grep -c 'read .*/hosts' "$SANDBOX_DIR/dns.log") > $1)); }

# Starts a command in the background and waits for its "ready". $1 = in_server | in_client | …
serve() {
  local log
  log=$(mktemp "$SANDBOX_DIR/serve.XXXXXX")
  spawn "$@" >"$log" 2>&1
  wait_until 5 grep -qx ready "$log" || die "$* did not start: $(<"$log")"
}

listen() { serve in_server "$EGRESSD_PROBE" listen "$@"; }

web_up() {
  local dir=$SANDBOX_DIR/web
  mkdir -p "$dir"
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -batch \
    -subj /CN=sandbox.example -keyout "$dir/key.pem" -out "$dir/cert.pem" 2>"$dir/openssl.log" ||
    die "openssl: $(<"$dir/openssl.log")"
  cat >"$dir/nginx.conf" <<END
daemon off; master_process off; worker_processes 1; pid $dir/nginx.pid; error_log $dir/error.log;
events { worker_connections 256; }
http {
  access_log off;
  client_body_temp_path $dir/a; proxy_temp_path $dir/b; fastcgi_temp_path $dir/c;
  uwsgi_temp_path $dir/d; scgi_temp_path $dir/e;
  server {
    listen 80; listen [::]:80; listen 443 ssl; listen [::]:443 ssl;
    ssl_certificate $dir/cert.pem; ssl_certificate_key $dir/key.pem;
    location / { return 200 "\$host\n"; }
  }
}
END
  spawn in_server nginx -e "$dir/error.log" -p "$dir" -c "$dir/nginx.conf" >"$dir/out.log" 2>&1
  wait_until 5 in_server bash -c ': >/dev/tcp/127.0.0.1/443' 2>/dev/null ||
    die "nginx did not start: $(cat "$dir"/*.log)"
}

# --- the daemon

write_policy() { cat >"$POLICY"; }

# A journald private to the client, JOURNALD is its pid: it must not see the machine's kernel log nor
# touch its audit, and keeps what it has in the sandbox. Called again it starts the next.
journald_up() {
  local journald=/lib/systemd/systemd-journald
  [[ -x $journald ]] || skip "no systemd-journald"
  [[ -s /etc/machine-id ]] || skip "journald needs /etc/machine-id"
  on_client bash -euc '
    [[ ! -e /run/systemd/journald.conf.d/sandbox.conf ]] || exit 0
    mkdir -p /run/systemd
    mount -t tmpfs tmpfs /run/systemd
    mkdir -p /run/log /run/systemd/journal /run/systemd/journald.conf.d
    mount -t tmpfs tmpfs /run/log
    mkdir /run/log/journal
    printf "[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=\nRateLimitBurst=0\nForwardToSyslog=no\n" \
      >/run/systemd/journald.conf.d/sandbox.conf'
  on_client rm -f /run/systemd/journal/socket
  spawn on_client "$journald" >"$SANDBOX_DIR/journald.log" 2>&1
  # shellcheck disable=SC2034 # for the test
  JOURNALD=$REPLY
  wait_until 5 on_client test -S /run/systemd/journal/socket ||
    die "journald does not start here: $(<"$SANDBOX_DIR/journald.log")"
}

# EGRESSD_INSIDE=1 puts the daemon into the cgroup it judges; EGRESSD_CGROUP is judged instead of the
# sandbox's own. With BPF that reaches beyond the sandbox.
start_egressd() {
  launch_egressd "$@"
  wait_until 15 egressd_in_force || die "egressd does not enforce: $(ctl status)"
}

# As start_egressd, without the waiting.
launch_egressd() {
  local policy=$1 where=on_client
  shift
  [[ -x ${EGRESSD:-} && -x ${EGRESSCTL:-} ]] || die "EGRESSD and EGRESSCTL name no programs"
  [[ ${EGRESSD_INSIDE:-0} == 1 ]] && where=in_client
  [[ $EGRESSD_BACKEND == both ]] && set -- --nft-scope "${NFT_SCOPE:-host}" "$@"
  spawn "$where" "$EGRESSD" run --policy "$policy" --cgroup "${EGRESSD_CGROUP:-$SANDBOX_CGROUP}" \
    --state-dir "$SANDBOX_DIR/state" --bpffs "$SANDBOX_BPFFS" --socket "$SANDBOX_SOCKET" \
    --backend "$EGRESSD_BACKEND" --log-level "${EGRESSD_LOG_LEVEL:-info}" "$@" >>"$SANDBOX_AUDIT" \
    2>>"$SANDBOX_DIR/egressd.log"
  SANDBOX_AGENT=$REPLY
}

# The control socket answers before the programs are in place: they wait for the first DNS answers.
egressd_in_force() {
  local status
  kill -0 "$SANDBOX_AGENT" 2>/dev/null || die "egressd ended"
  status=$(ctl status --json 2>/dev/null) || return 1
  [[ $status != *'can ask eBPF since Linux'* && $status != *'lacks a part of nftables'* ]] ||
    skip "nftables cannot ask eBPF here"
  [[ $status == *'"attached":true'* && $status != *'"attached":false'* ]]
}

# Reads $POLICY again and waits for the new generation.
reload_egressd() {
  local before
  before=$(status_number generation)
  kill -HUP "$SANDBOX_AGENT"
  wait_until 10 generation_above "$before" || die "the policy was not reloaded"
}

generation_above() { (($(status_number generation) > $1)); }

# stop_egressd [SIGNAL]: ends the daemon, not the enforcement.
stop_egressd() {
  sandbox_reap "$SANDBOX_AGENT" "${1:-TERM}"
  SANDBOX_AGENT=""
}

ctl() { on_client "$EGRESSCTL" "$1" --socket "$SANDBOX_SOCKET" "${@:2}"; }

# Number behind the first "NAME": of the status, 0 if there is none.
status_number() {
  local found
  found=$(ctl status --json 2>/dev/null | tr -d ' \n' | grep -o "\"$1\":[0-9][0-9]*" | head -n 1)
  printf '%s\n' "$((${found##*:}))"
}

# audit_records FROM_LINE NEEDLE…: records after that line which hold every needle.
audit_records() {
  local from=$1 lines needle
  shift
  lines=$(tail -n "+$((from + 1))" "$SANDBOX_AUDIT")
  for needle in "$@"; do
    lines=$(grep -F -- "$needle" <<<"$lines") || return 1
  done
  printf '%s\n' "$lines"
}

audit_lines() { wc -l <"$SANDBOX_AUDIT"; }

# audit_field NAME: its value in the record on standard input.
audit_field() { sed -n "s/.*\"$1\":\"\\{0,1\\}\\([^\",}]*\\).*/\\1/p"; }

# --- checks

pass() {
  SANDBOX_CHECKS=$((SANDBOX_CHECKS + 1))
  printf 'ok    %s\n' "$*"
}

fail() {
  SANDBOX_CHECKS=$((SANDBOX_CHECKS + 1))
  SANDBOX_FAILURES=$((SANDBOX_FAILURES + 1))
  printf 'FAIL  %s\n' "$*"
}

# check WHAT CMD…: CMD must succeed.
check() {
  local what=$1
  shift
  if "$@"; then pass "$what"; else fail "$what"; fi
}

probe() { in_client "$EGRESSD_PROBE" "$@"; }

expect_ok() {
  local what=$1 line
  shift
  line=$(probe "$@" 2>&1) || true
  if [[ $line == ok* ]]; then pass "$what: $line"; else fail "$what: $* gave '$line'"; fi
}

# errno_of ERRNO PROBE: what the probe sees instead of EPERM if nftables enforces.
errno_of() {
  if [[ $EGRESSD_BACKEND == nft && $1 == EPERM && ($2 == tcp || $2 == resolve) ]]; then
    echo ECONNREFUSED
  else
    echo "$1"
  fi
}

# Numbers of status counters are read before and after: a refusal nobody counted is a failure. So
# is one that took 50 ms: connect() must fail at once, not run into a timeout.
expect_errno() {
  local errno reason=$2 what=$3 line before after lines spent
  errno=$(errno_of "$1" "$4")
  shift 3
  before=$(status_number "$reason")
  lines=$(audit_lines)
  line=$(probe "$@" 2>&1) || true
  if [[ $line != "errno=$errno "* ]]; then
    fail "$what: $* gave '$line', not errno=$errno"
    return
  fi
  spent=${line##* after }
  spent=${spent%%.*}
  if ((spent >= 50 * SANDBOX_SLOW)); then
    fail "$what: took ${line##* after }"
    return
  fi
  after=$(status_number "$reason")
  if ((after <= before)); then
    fail "$what: counter $reason stayed at $before; records: $(audit_records "$lines")"
    return
  fi
  if ! wait_until 2 audit_records "$lines" "\"reason\":\"$reason\"" >/dev/null; then
    fail "$what: no audit record with reason $reason; got: $(audit_records "$lines")"
    return
  fi
  pass "$what: $line, $reason counted and recorded"
}

# Why an address is refused whose names the policy no longer allows: nftables still know that it had
# some.
reason_gone() { if [[ $EGRESSD_BACKEND == nft ]]; then echo expired; else echo default_deny; fi; }

# expect_errno, if no daemon is there to ask for counters and records.
expect_errno_alone() {
  local errno what=$2 line
  errno=$(errno_of "$1" "$3")
  shift 2
  line=$(probe "$@" 2>&1) || true
  if [[ $line == "errno=$errno "* ]]; then
    pass "$what: $line"
  else
    fail "$what: $* gave '$line', not errno=$errno"
  fi
}

# What the DNS server was asked; dnsmasq logs a question before it answers.
was_asked() { grep -qF "query[$1] $2 from" "$SANDBOX_DIR/dns.log"; }

# A whole getaddrinfo() has to be over within 100 ms, with all the tries resolv.conf asks for.
expect_unasked() {
  local name=$1 what=$2 line before lines spent
  before=$(status_number dns_name_not_allowed)
  lines=$(audit_lines)
  line=$(probe resolve "$name" 443 2>&1) || true
  spent=${line##* after }
  spent=${spent%%.*}
  if [[ $line != unresolved* ]]; then
    fail "$what: $name gave '$line'"
  elif ((spent >= 100 * SANDBOX_SLOW)); then
    fail "$what: $name took $spent ms to fail"
  elif was_asked A "$name" || was_asked AAAA "$name"; then
    fail "$what: the server was asked for $name"
  elif (($(status_number dns_name_not_allowed) <= before)); then
    fail "$what: dns_name_not_allowed stayed at $before"
  elif ! wait_until 2 audit_records "$lines" '"reason":"dns_name_not_allowed"' "\"$name\"" \
    >/dev/null; then
    fail "$what: no record of $name; got: $(audit_records "$lines")"
  else
    pass "$what: $name $line, never asked, counted and recorded"
  fi
}

# hold_open ADDRESS PORT [PLACE]: HOLD_KIND=hold-udp for a datagram socket. HOLD_PID is who holds it.
hold_open() {
  HOLD_OUT=$(mktemp "$SANDBOX_DIR/hold.XXXXXX")
  mkfifo "$HOLD_OUT.in"
  # Read and write: opening a FIFO for writing alone would wait for the reader.
  exec {HOLD_IN}<>"$HOLD_OUT.in"
  become "${3:-in_client}" "$EGRESSD_PROBE" "${HOLD_KIND:-hold}" "$1" "$2" --timeout "${HOLD_TIMEOUT:-1000}" \
    <"$HOLD_OUT.in" >"$HOLD_OUT" 2>&1 &
  # shellcheck disable=SC2034 # for the tests
  HOLD_PID=$!
  wait_until 5 test -s "$HOLD_OUT" || die "hold $1 $2 said nothing"
  [[ $(<"$HOLD_OUT") == ok* ]] || die "hold $1 $2: $(<"$HOLD_OUT")"
}

# Says what became of one echo over the held connection.
hold_echo() {
  local before
  before=$(wc -l <"$HOLD_OUT")
  echo >&"$HOLD_IN"
  wait_until 5 lines_above "$before" "$HOLD_OUT" || die "the held connection says nothing"
  tail -n 1 "$HOLD_OUT"
}

lines_above() { (($(wc -l <"$2") > $1)); }

expect_hold_ok() {
  local line
  line=$(hold_echo)
  if [[ $line == ok* ]]; then pass "$1: $line"; else fail "$1: the held connection: $line"; fi
}

finish() {
  printf '%d checks, %d failed\n' "$SANDBOX_CHECKS" "$SANDBOX_FAILURES"
  ((SANDBOX_CHECKS > 0)) || die "nothing was checked"
  ((SANDBOX_FAILURES == 0))
  exit
}
