#!/usr/bin/env bash
# Every #include against the table of agent/README.md, and which third-party library may appear
# where. Also: nothing in bpf/ may hide one of libbpf's <bpf/…> headers.
set -euo pipefail
source tests/check/tracked.sh
need python3
tracked 'agent/*.h' 'agent/*.cpp' 'nft/*' 'bpf/*' | python3 tests/check/layers.py
