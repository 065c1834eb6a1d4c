"""The unit's SystemCallFilter= lets the agent do what its own filter (confine.cpp) does, and what it
takes to get there. A call that is missing is not seen before it is needed on somebody's machine."""

import re
import subprocess
import sys

START = {"bpf", "capset", "prctl", "seccomp", "socket", "clone"}


def expand(word):
    """The calls of a @group, with those of the groups in it."""
    if not word.startswith("@"):
        return {word}
    listed = subprocess.run(
        ["systemd-analyze", "syscall-filter", "--no-pager", word],
        capture_output=True, text=True, check=True).stdout
    calls = set()
    for line in listed.splitlines()[1:]:
        if line.strip() and not line.strip().startswith("#"):
            calls |= expand(line.strip())
    return calls


allowed = set()
with open("deploy/systemd/egressd.service", encoding="utf-8") as unit:
    for line in unit:
        if line.startswith("SystemCallFilter="):
            words = line.partition("=")[2].strip()
            calls = set().union(*map(expand, words.lstrip("~").split()))
            allowed = allowed - calls if words.startswith("~") else allowed | calls

with open("agent/daemon/confine.cpp", encoding="utf-8") as source:
    listed = source.read().partition("kAllowed[] = {")[2].partition("};")[0]
needed = set(re.findall(r'"(\w+)"', listed)) | START
print(f"{len(needed)} system calls of the agent, {len(allowed)} of the unit")
missing = sorted(needed - allowed)
if len(needed) < 100 or missing:
    sys.exit("egressd.service: SystemCallFilter= lacks " + ", ".join(missing or ["all"]))
