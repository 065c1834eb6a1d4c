"""completion.py EGRESSCTL: types into bash and zsh on a terminal of their own, presses Tab, and looks
at the words the command then gets; asks fish, which can be asked."""

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time

PATIENCE = 30

# What is typed ("\t" is the key) -> the words egressctl gets.
CASES = [
    ("sta\t", ["status"]),
    ("tags sho\tUbuntuUp\t", ["tags", "show", "UbuntuUpdates"]),
    ("tags list --clo\tusg\t", ["tags", "list", "--cloud", "usgov"]),
    ("watch --soc\t/dev/nul\t --dn\t", ["watch", "--socket", "/dev/null", "--dns"]),
    ("verdict --json --pol\tpol\thost", ["verdict", "--json", "--policy", "policy.yaml", "host"]),
    ("check pol\t", ["check", "policy.yaml"]),
    ("detach --bpffs dire\t", ["detach", "--bpffs", "directory"]),
    ("exec --use\tnobod\t -- egressd_unique_co\t", ["exec", "--user", "nobody", "--", "egressd_unique_command"]),
    ("exec --policy policy.yaml egressd_unique_co\t--not-ours pol\t",
     ["exec", "--policy", "policy.yaml", "egressd_unique_command", "--not-ours", "policy.yaml"]),
    ("learn --from pol\t --name pol\t", ["learn", "--from", "policy.yaml", "--name", "pol"]),
    ("open --bpffs dire\t --reason pol\t", ["open", "--bpffs", "directory", "--reason", "pol"]),
    ("explain --bp\tdire\t pol\t", ["explain", "--bpffs", "directory", "pol"]),
    ("watch --reas\tdns_serv\t --cgroup pol\t --fqdn pol\t",
     ["watch", "--reason", "dns_server_not_allowed", "--cgroup", "pol", "--fqdn", "pol"]),
    ("top --by\tproc\t --once --limit 5", ["top", "--by", "process", "--once", "--limit", "5"]),
    ("completion zs\t", ["completion", "zsh"]),
]

BASH = "PS1='READY '; bind 'set bell-style none'; source {script}\n"
# An insecure-directory question would be asked of a person.
ZSH = "PS1='READY '; unsetopt beep; autoload -Uz compinit; compinit -u -D; source {script}\n"
SHOW = "egressctl() {{ printf 'GOT'; printf '<%s>' \"$@\"; printf 'END\\n'; }}\n"


class Shell:
    def __init__(self, argv, directory):
        self.seen = ""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(directory)
            os.environ.update(TERM="dumb", HOME=directory, LC_ALL="C.UTF-8",
                              PATH=directory + "/bin:/usr/bin:/bin:/usr/sbin:/sbin")
            os.environ.pop("BASH_ENV", None)
            os.execvp(argv[0], argv)

    def wait(self, pattern):
        deadline = time.monotonic() + PATIENCE
        while not (match := re.search(pattern, self.seen)):
            if not select.select([self.fd], [], [], deadline - time.monotonic())[0]:
                raise TimeoutError(f"no {pattern!r} in {self.seen!r}")
            self.seen += os.read(self.fd, 65536).decode(errors="replace")
        self.seen = self.seen[match.end():]
        return match

    def type(self, text):
        os.write(self.fd, text.encode())

    def end(self):
        os.kill(self.pid, 9)
        os.waitpid(self.pid, 0)
        os.close(self.fd)


def terminal(name, argv, setup, script, directory, cases):
    wrong = 0
    shell = Shell(argv, directory)
    try:
        shell.type((SHOW + setup + "echo SET''UP\n").format(script=script))
        shell.wait("SETUP")
        shell.wait("READY ")
        for typed, wanted in cases:
            shell.type("egressctl " + typed + "\n")
            words = re.findall("<(.*?)>", shell.wait("GOT(<.*>)END").group(1))
            # zsh puts values behind a =, and takes the last slash away again.
            words = [part.rstrip("/") or part for word in words
                     for part in (word.split("=", 1) if word.startswith("--") else [word])]
            shell.wait("READY ")
            if words != wanted:
                wrong += 1
                print(f"{name}: {typed!r} gave {words}, not {wanted}")
    except TimeoutError as error:
        wrong += 1
        print(f"{name}: {error}")
    finally:
        shell.end()
    print(f"{name}: {len(cases)} lines, {wrong} wrong")
    return wrong


def fish(script, directory, cases):
    wrong = 0
    for typed, wanted in cases:
        out = subprocess.run(
            ["fish", "--no-config", "-c", f"source {script}; complete -C'egressctl {typed}'"],
            cwd=directory, env={**os.environ, "HOME": directory, "PATH": directory + "/bin:" + os.environ["PATH"]},
            check=True, capture_output=True, text=True).stdout
        words = [line.split("\t")[0] for line in out.splitlines()]
        if words != wanted:
            wrong += 1
            print(f"fish: {typed!r} offers {words}, not {wanted}")
    print(f"fish: {len(cases)} lines, {wrong} wrong")
    return wrong


def main():
    egressctl = sys.argv[1]
    missing = [shell for shell in ("bash", "zsh", "fish") if not shutil.which(shell)]
    if missing:
        print("SKIPPED: not installed:", *missing)
        return 77
    run = lambda *words: subprocess.run([egressctl, *words], check=True, capture_output=True, text=True).stdout
    with tempfile.TemporaryDirectory() as directory:
        os.makedirs(directory + "/directory")
        os.makedirs(directory + "/bin")
        open(directory + "/policy.yaml", "w").close()
        with open(directory + "/bin/egressd_unique_command", "w") as command:
            command.write("#!/bin/sh\n")
        os.chmod(directory + "/bin/egressd_unique_command", 0o755)
        for shell in ("bash", "zsh", "fish"):
            with open(f"{directory}/c.{shell}", "w") as script:
                script.write(run("completion", shell))
        wrong = terminal("bash", ["bash", "--norc", "--noprofile", "-i"], BASH, directory + "/c.bash",
                         directory, CASES)
        wrong += terminal("zsh", ["zsh", "-f", "-i"], ZSH, directory + "/c.zsh", directory, CASES)
        wrong += fish(directory + "/c.fish", directory, [
            ("sta", ["status"]),
            ("tags ", ["list", "show"]),
            ("tags list --cloud u", ["usgov"]),
            ("watch --dn", ["--dns"]),
            ("watch --socket /dev/null --cou", ["--count"]),
            ("top --by ru", ["rule"]),
            ("watch --reason dns_serv", ["dns_server_not_allowed"]),
            ("check pol", ["policy.yaml"]),
            ("detach --bpffs dire", ["directory/"]),
            ("exec egressd_unique_co", ["egressd_unique_command"]),
            ("completion z", ["zsh"]),
        ])
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
