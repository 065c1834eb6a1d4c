"""manual.py EGRESSCTL EGRESSD: the manual pages against --help of the programs, the keys of
egressd-policy(5) against deploy/policy.md, and those against the parser, each both ways."""

import re
import subprocess
import sys

# Sections whose options several commands have.
COMMON = ("Common options", "Filters")

found = []


def complain(text):
    found.append(text)


def help_of(program, path):
    """(commands, options, positionals) that --help shows."""
    text = subprocess.run([program, *path, "--help"], check=True, capture_output=True, text=True).stdout
    parts = {"Subcommands:": [], "Options:": [], "Positionals:": []}
    part = None
    for line in text.splitlines():
        if line.endswith(":") and not line.startswith(" "):
            part = parts.get(line)
        elif not line:
            part = None
        elif part is not None and re.match(r"  \S", line):
            part.append(line.split()[0])
    options = {name for entry in parts["Options:"] for name in entry.split(",")}
    return parts["Subcommands:"], options, parts["Positionals:"]


def tree(program, path=()):
    """Every command that can be called: path -> (options, positionals)."""
    commands, options, positionals = help_of(program, path)
    if not commands:
        return {path: (options, positionals)}
    out = {}
    for command in commands:
        out |= tree(program, (*path, command))
    # Those that stand before any command.
    if not path:
        out[()] = (options, [])
    return out


def page(path):
    """Heading of each subsection of COMMANDS and of the common options -> its options."""
    out = {}
    heading = section = None
    with open(path, encoding="utf-8") as source:
        for line in source:
            line = line.rstrip("\n")
            if line.startswith(".Sh "):
                section, heading = line[4:], None
            elif line.startswith(".Ss "):
                heading = line[4:]
                if section == "COMMANDS" or heading in COMMON:
                    out[heading] = set()
            elif line.startswith(".It Fl ") and heading in out:
                out[heading] |= {"-" + name for name in re.findall(r"\bFl (\S+)", line)}
    return out


def compare(program, path):
    commands = tree(program)
    # Whoever calls a command from a program should not have to parse text. Scripts and the agent
    # have no other form; so do the policy and the page that learn and report make.
    if program == sys.argv[1]:
        for command, (options, _) in commands.items():
            if command and command[0] not in ("completion", "learn", "report") and "--json" not in options:
                complain(f"egressctl {' '.join(command)} has no --json")
    headings = page(path)
    common = set().union(*(headings.pop(heading, set()) for heading in COMMON))
    described = {}
    for heading, options in headings.items():
        words = heading.split()
        command = max((c for c in commands if c and tuple(words[:len(c)]) == c), key=len, default=None)
        if command is None:
            complain(f"{path}: there is no command '{heading}'")
            continue
        described[command] = options
        for name in commands[command][1]:
            if name not in words:
                complain(f"{path}: {heading}: {name} is missing")
        for option in options - commands[command][0]:
            complain(f"{path}: {' '.join(command)} has no {option}")
    for command, (options, _) in commands.items():
        if command and command not in described:
            complain(f"{path}: '{' '.join(command)}' is missing")
            continue
        for option in options - common - described.get(command, set()):
            complain(f"{path}: {' '.join(command)}: {option} is missing")
    everywhere = set().union(*(options for options, _ in commands.values()))
    for option in common - everywhere:
        complain(f"{path}: no command has {option}")
    print(f"{path}: {len(commands) - 1} commands")


def compare_keys(page_path, table_path):
    with open(table_path, encoding="utf-8") as source:
        table = set(re.findall(r"`(\w+)`", "".join(
            re.findall(r"^\| (`[^|]*) \|", source.read(), re.M))))
    with open(page_path, encoding="utf-8") as source:
        keys = set(re.findall(r"^\.It Ic (\w+)$", source.read(), re.M))
    table -= {"audit", "off", "allowlist"}  # rows of the table of dns.filter
    for key in sorted(table - keys):
        complain(f"{page_path}: {key} is missing")
    for key in sorted(keys - table - {"dns"}):
        complain(f"{page_path}: {key} is not in {table_path}")
    print(f"{page_path}: {len(keys)} keys")


# The parser names the keys it knows where it meets one that it does not.
STRANGER = """version: 1
mode: audit
stranger: 1
dns: {stranger: 1}
collections:
  - name: a
    priority: 100
    action: allow
    stranger: 1
    rules:
      - {name: b, fqdns: [example.com], ports: [443], stranger: 1}
"""
TABLES = {"the policy": "key", "'dns'": "key of `dns`", "a collection": "key of a collection", "a rule": "key of a rule"}


def compare_parser(program, table_path):
    with open(table_path, encoding="utf-8") as source:
        text = source.read()
    said = subprocess.run([program, "check", "/dev/stdin"], input=STRANGER, capture_output=True, text=True).stderr
    known = dict(re.findall(r"unknown key 'stranger' in (.*?); it may have (.*)", said))
    if set(known) != set(TABLES):
        complain(f"the parser names the keys of {', '.join(known) or 'nothing'}:\n{said}")
    for place, keys in known.items():
        table = re.search(rf"^\| {re.escape(TABLES[place])} \|.*\n((?:\|.*\n)+)", text, re.M)
        rows = re.findall(r"^\| (`[^|]*) \|", table[1], re.M) if table else []
        described = set(re.findall(r"`(\w+)`", " ".join(rows)))
        # `dns` has a table of its own instead of a row.
        for key in sorted(set(keys.split(", ")) ^ (described | ({"dns"} if place == "the policy" else set()))):
            complain(f"{table_path}: {key} of {place} is either missing or not the parser's")


compare(sys.argv[1], "deploy/man/egressctl.1")
compare(sys.argv[2], "deploy/man/egressd.8")
compare_keys("deploy/man/egressd-policy.5", "deploy/policy.md")
compare_parser(sys.argv[1], "deploy/policy.md")
print(*found, sep="\n")
sys.exit(1 if found else 0)
