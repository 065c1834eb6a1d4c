#!/usr/bin/env python3
"""One DNS question, and what came of it on one line: RCODE answers=N tc=N ede=N ms=N, or errno=…, or silence.

dns_ask.py SERVER NAME [TYPE] [tcp] [edns] [broken]      TYPE: a number, 1 (A) by default
"""

import errno
import socket
import struct
import sys
import time

RCODES = {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}


def question(name: str, rtype: int, edns: bool, broken: bool) -> bytes:
    wire = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
    out = struct.pack(">6H", 0x4D2, 0x0100, 1, 0, 0, int(edns)) + wire + struct.pack(">2H", rtype, 1)
    if edns:
        out += b"\0" + struct.pack(">2HIH", 41, 1232, 0, 0)
    return out[:-3] if broken else out


def exactly(stream: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = stream.recv(size - len(data))
        if not part:
            raise ConnectionResetError(errno.ECONNRESET, "closed")
        data += part
    return data


def main() -> int:
    server, name, *rest = sys.argv[1:]
    words = {word for word in rest if not word.isdigit()}
    rtype = next((int(word) for word in rest if word.isdigit()), 1)
    message = question(name, rtype, "edns" in words, "broken" in words)
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    began = time.monotonic()
    kind = socket.SOCK_STREAM if "tcp" in words else socket.SOCK_DGRAM
    with socket.socket(family, kind) as sock:
        sock.settimeout(8)
        try:
            sock.connect((server, 53))
            if "tcp" in words:
                sock.sendall(struct.pack(">H", len(message)) + message)
                reply = exactly(sock, struct.unpack(">H", exactly(sock, 2))[0])
            else:
                sock.send(message)
                reply = sock.recv(65535)
        except TimeoutError:
            print("silence")
            return 1
        except OSError as error:
            print(f"errno={errno.errorcode.get(error.errno, error.errno)}")
            return 1
    flags, answers = struct.unpack(">2xH2xH", reply[:8])
    # The extended error is the last option, if there is one.
    ede = struct.unpack(">H", reply[-2:])[0] if reply[-6:-2] == b"\0\x0f\0\2" else 0
    spent = int((time.monotonic() - began) * 1000)
    print(f"{RCODES.get(flags & 15, flags & 15)} answers={answers} tc={flags >> 9 & 1} ede={ede} ms={spent}")
    return 0


sys.exit(main())
