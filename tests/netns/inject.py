#!/usr/bin/env python3
"""Puts one UDP packet on the wire past the IP stack, as AF_PACKET lets whoever has CAP_NET_RAW:
inject.py DEVICE ROUTER SOURCE DESTINATION PORT TEXT [reset]. With "reset" a segment of TCP (IPv4) with RST. ROUTER is the link-layer address of the next hop.
Prints "sent"."""

import socket
import struct
import sys

device, router, source, destination, port, text = sys.argv[1:7]
protocol = 6 if sys.argv[7:] == ["reset"] else 17
v6 = ":" in source
family = socket.AF_INET6 if v6 else socket.AF_INET
addresses = socket.inet_pton(family, source) + socket.inet_pton(family, destination)


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def datagram(check):
    if protocol == 6:
        return struct.pack("!HHIIBBHHH", 4444, int(port), 1, 0, 5 << 4, 4, 0, check, 0) + text.encode()
    return struct.pack("!4H", 4444, int(port), 8 + len(text), check) + text.encode()


pseudo = addresses + struct.pack("!IHBB", len(datagram(0)), 0, 0, protocol)
payload = datagram(checksum(pseudo + datagram(0)) or 0xFFFF)
if v6:
    packet = struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64) + addresses + payload
else:
    fields = ("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol)
    head = struct.pack(*fields, 0) + addresses
    packet = struct.pack(*fields, checksum(head)) + addresses + payload

raw = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM)
raw.sendto(packet, (device, 0x86DD if v6 else 0x0800, 0, 0, bytes.fromhex(router.replace(":", ""))))
print("sent")
