"""Reads NUL-separated file names on standard input and checks their #include lines."""

import os
import re
import sys

# Folder of agent/ -> folders it may include besides itself. The table of agent/README.md.
MAY_INCLUDE = {
    "base": set(),
    "net": {"base"},
    "policy": {"base", "net"},
    "dns": {"base", "net"},
    "enforce": {"base", "net", "nft", "abi"},
    "audit": {"base", "net", "abi"},
    "analysis": {"base", "net", "policy", "abi"},
    "control": {"base"},
    "metrics": {"base", "net"},
    "daemon": {"base", "net", "policy", "dns", "enforce", "audit", "control", "metrics", "abi"},
    # As the daemon it looks at every sibling; the command only shows what it found.
    "doctor": {"base", "net", "policy", "dns", "enforce", "control"},
    "cli": {"base", "net", "policy", "analysis", "control", "doctor", "abi"},
    "main": {"base", "daemon"},
    "nft": {"base", "net"},
    "bpf": {"abi"},
}
# Single headers beyond that. `egressctl watch` prints the agent's records; `egressctl detach` is
# the way out and must work without an agent, so it removes the pins itself; `egressctl exec` makes
# a cgroup. The daemon leads DNS to its forwarder, whatever the backend. The doctor looks at the name servers the daemon would. The hash of a name is
# computed on both sides, by one piece of code.
ALSO = {
    "analysis": {"audit/record.h"},
    "cli": {"audit/record.h", "enforce/pins.h", "enforce/cgroup.h", "enforce/break_glass.h", "enforce/boot_table.h",
            "enforce/nft_table.h",
            "enforce/process_sockets.h"},
    "daemon": {"nft/redirect.h"},
    "doctor": {"daemon/name_servers.h", "daemon/last_good.h"},
    "enforce": {"bpf/dns_hash.h"},
}

# Third-party header prefix -> the folders whose .cpp files may use it. No header of ours may, but
# one that only its own folder's .cpp files include and whose business is that library's values.
PRIVATE_HEADERS = {"agent/cli/ask.h": "nlohmann/"}
THIRD_PARTY = {
    "ares": {"dns"},
    "bpf/bpf.h": {"enforce"},
    "bpf/btf.h": {"enforce"},
    "bpf/libbpf.h": {"enforce", "audit"},
    "libmnl/": {"nft", "daemon"},
    "libnftnl/": {"nft"},
    "seccomp.h": {"daemon"},
    "cap-ng.h": {"daemon"},
    "yaml.h": {"policy"},
    "idn2.h": {"policy"},
    "libpsl.h": {"policy"},
    "nlohmann/": {"audit", "analysis", "control", "daemon", "doctor", "cli"},
    "prometheus/": {"metrics"},
    "microhttpd.h": {"metrics"},
    "spdlog/": {"daemon", "cli", "main"},
    "CLI/": {"cli", "main"},
}
LIBBPF_NAMES = re.compile(r"^(bpf|btf|libbpf|libbpf_.*|bpf_.*|hashmap|nlattr|skel_internal|usdt.*)\.h$")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def module_of(path):
    parts = path.split("/")
    if parts[0] != "agent":
        return parts[0]
    return parts[1] if len(parts) > 2 else "main"


def target_of(name):
    """The module an include names, or None if it is none of ours."""
    if name == "bpf/egressd_abi.h" or name == "egressd_abi.h":
        return "abi"
    first = name.split("/")[0]
    return first if "/" in name and first in MAY_INCLUDE else None


def problems(path, text):
    module = module_of(path)
    header = path.endswith(".h")
    for number, line in enumerate(text.splitlines(), 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        quote, name = match.groups()
        where = f"{path}:{number}: "
        if quote == '"':
            target = target_of(name)
            if module == "bpf":
                if target not in (None, "abi", "bpf"):
                    yield where + f"bpf/ includes nothing of {target}/"
            elif target is None:
                if not name.endswith(".skel.h"):
                    yield where + f'"{name}": write the folder, or <…> for other libraries'
            elif (target != module and target not in MAY_INCLUDE[module]
                  and name not in ALSO.get(module, ())):
                yield where + f"{module}/ must not include {name}"
        elif module != "bpf":
            if target_of(name) and not name.startswith("bpf/"):
                yield where + f'<{name}> is ours: use "…"'
            for prefix, folders in THIRD_PARTY.items():
                if name.startswith(prefix):
                    if header and prefix != PRIVATE_HEADERS.get(path):
                        yield where + f"<{name}> in a header: keep it in the .cpp"
                    elif module not in folders:
                        yield where + f"<{name}> belongs into {' or '.join(sorted(folders))}"
    if module == "bpf" and LIBBPF_NAMES.match(os.path.basename(path)):
        yield f"{path}: hides libbpf's <bpf/{os.path.basename(path)}>"


def main():
    files = [name for name in sys.stdin.read().split("\0") if name]
    found = []
    for path in files:
        if path.endswith((".h", ".c", ".cpp")):
            with open(path, encoding="utf-8") as source:
                found += problems(path, source.read())
    print(*found, sep="\n")
    print(f"{len(files)} files, {len(found)} problems")
    return 1 if found or not files else 0


if __name__ == "__main__":
    sys.exit(main())
