#!/usr/bin/env bash
# Every command that README.md, the guides and the manual pages mention within their text or give as an
# example, run as it stands there, against an agent with all defaults. What they write in capitals is
# filled in below. The blocks of commands are run by docs_test, scripts/nspawn-test.sh and
# scripts/kubernetes-test.sh.
set -euo pipefail
cd "$(dirname "$0")"
source ./sandbox.sh
[[ $EGRESSD_BACKEND == bpf ]] || skip "the commands are the same for every backend"

sandbox_up
web_up
dns_set pypi.org 203.0.113.10
# The directories of an installed agent, for the client alone.
# shellcheck disable=SC2016 # expanded by the inner shell
on_client sh -euc '
  mkdir "$1/etc" "$1/work"
  mount -t overlay -o "lowerdir=/etc,upperdir=$1/etc,workdir=$1/work" egressd /etc
  mount --bind "$1/resolv.conf" /etc/resolv.conf
  mount --bind "$1/nsswitch.conf" /etc/nsswitch.conf
  for directory in /run /var/lib /var/log; do mount -t tmpfs egressd "$directory"; done
  mount -t bpf egressd /sys/fs/bpf
  mkdir /etc/egressd /var/log/egressd' _ "$SANDBOX_DIR"
journald_up
here=$SANDBOX_DIR/here
mkdir "$SANDBOX_DIR/bin" "$here"
printf '#!/bin/sh\nexec "$@"\n' >"$SANDBOX_DIR/bin/sudo"
printf '#!/bin/sh\nexec "%s" resolve pypi.org 443\n' "$EGRESSD_PROBE" >"$SANDBOX_DIR/bin/pip"
chmod +x "$SANDBOX_DIR"/bin/*
write_policy <<END
version: 1
mode: enforce
dns:
  servers: [$DNS4]
tags: [PythonPackages]
END
on_client cp "$POLICY" /etc/egressd/policy.yaml
cp "$POLICY" "$here/p.yaml"

# A command per line, each once.
found() {
  python3 - ../../README.md ../../SECURITY.md ../../deploy/*.md ../../deploy/man/*.[18] <<'PYTHON'
import re
import sys

seen = set()
for path in sys.argv[1:]:
    with open(path, encoding="utf-8") as file:
        text = file.read()
    if path.endswith(".md"):
        text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
        commands = re.findall(r"`((?:egressctl|egressd) [^`]+)`", text)
    else:
        examples = text.partition(".Sh EXAMPLES\n")[2].partition("\n.Sh ")[0]
        blocks = re.findall(r"^\.Bd -literal.*?\n(.*?)^\.Ed", examples, flags=re.M | re.S)
        commands = "".join(blocks).replace("\\e\n", "").splitlines()
    for command in commands:
        command = re.sub(r"\s+", " ", command.partition(" # ")[0]).strip()
        if command not in seen:
            seen.add(command)
            print(command)
PYTHON
}

# What the capitals of the documents stand for here. The agent's cgroup is the sandbox's.
filled_in() {
  sed -e "s|FILE|p.yaml|; s|HOST:PORT/PROTO|pypi.org:443/tcp|; s|HOST|pypi.org|; s|ADDRESS:PORT|127.0.0.1:9478|" \
    -e "s|NAME|PythonPackages|; s|WHY|outage|; s|COMMAND|true|; s|\\bPATH|$SANDBOX_CGROUP|" \
    -e "s|192.0.2.9:514|$DNS4:514|; s|192.0.2.1:9477|$CLIENT4:9477|" <<<"$1"
}
limit=20 # seconds
there() {
  # shellcheck disable=SC2016 # expanded by the inner shell
  on_client env PATH="$SANDBOX_DIR/bin:${EGRESSCTL%/*}:${EGRESSD%/*}:$PATH" USER=root timeout "$limit" bash -c \
    'cd "$1" && set -euo pipefail && eval "$2"' _ "$here" "$1"
}
in_force() { grep -q '"attached":true' <<<"$(there 'egressctl status --json' 2>/dev/null)"; }
run_agent() {
  # shellcheck disable=SC2016 # expanded by the inner shell
  spawn on_client env PATH="${EGRESSD%/*}:$PATH" bash -c 'cd "$1" && eval "exec $2"' _ "$here" "$1" \
    >"$SANDBOX_DIR/agent.out" 2>"$SANDBOX_DIR/agent.log"
  SANDBOX_AGENT=$REPLY
  wait_until 15 in_force || die "$1: $(tail -n 3 "$SANDBOX_DIR/agent.log")"
}

mapfile -t commands < <(found)
check "commands are found: ${#commands[@]}" test "${#commands[@]}" -ge 40

# The agent itself, each way it is started in.
readonly only_sandbox="--cgroup $SANDBOX_CGROUP"
for command in "${commands[@]}"; do
  [[ $command == "egressd run"* ]] || continue
  line=$(filled_in "$command")
  [[ $line == *--policy* ]] || line+=" --policy p.yaml"
  [[ $line == *--cgroup* ]] || line+=" $only_sandbox"
  run_agent "$line"
  kill "$SANDBOX_AGENT"
  status=0
  wait "$SANDBOX_AGENT" || status=$?
  check "$command" test "$status" -eq 0
  SANDBOX_AGENT=""
  there 'egressctl detach' >"$SANDBOX_DIR/out" 2>&1 || fail "detach: $(<"$SANDBOX_DIR/out")"
done

run_agent "egressd run --policy /etc/egressd/policy.yaml $only_sandbox --audit-log /var/log/egressd/denials.jsonl"
probe tcp 198.51.100.9 443 >/dev/null 2>&1 || true
logged() { there 'test -s /var/log/egressd/denials.jsonl'; }
check "something is on record" wait_until 5 logged
there 'cp /var/log/egressd/denials.jsonl audit.jsonl'
for command in "${commands[@]}"; do
  line=$(filled_in "$command")
  wanted=0
  limit=20
  case $command in
    "egressd run"* | "egressctl detach") continue ;;
    "egressctl watch"* | "egressctl top"*)
      limit=1
      wanted=124 # it goes on until it is ended
      ;;
    "egressctl check" | "egressctl completion" | "egressctl explain" | "egressctl learn" | "egressctl open" | \
      "egressctl replay" | "egressctl report" | "egressctl tags show" | "egressctl try" | "egressctl verdict")
      line+=" --help" # the text names the command, not a way to call it
      ;;
    "egressctl doctor") wanted="0|1" ;; # a machine may lack something
    "egressctl replay"*) wanted=1 ;; # something would change
    "egressctl confirm" | "egressctl rollback")
      # Ends a trial, which the command before has ended.
      there "egressctl try /etc/egressd/policy.yaml --for 60s" >"$SANDBOX_DIR/out" 2>&1 || true
      ;;
  esac
  if grep -qE '(^|[ :])[A-Z]{2,}([ :]|$)' <<<"${line//INC-4711/}"; then
    fail "nobody says what the capitals in '$command' stand for"
  fi
  status=0
  there "$line" >"$SANDBOX_DIR/out" 2>&1 || status=$?
  if [[ $status =~ ^($wanted)$ ]]; then
    pass "$command"
  else
    fail "$command: status $status: $(grep -v "^ok" "$SANDBOX_DIR/out" | head -n 5)"
  fi
done
limit=20
check "detach" there 'egressctl detach'
check "nothing is pinned any more" test -z "$(there "find /sys/fs/bpf -name 'egressd_*'")"
finish
