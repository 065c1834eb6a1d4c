"""simultaneous_open.py INTERFACE ADDRESS: answers a SYN to ADDRESS, which nobody has, with a SYN of
its own (RFC 9293 3.5), and what is sent on that connection with the same. Says "ready" first."""

import socket
import struct
import sys

INTERFACE, ADDRESS = sys.argv[1], socket.inet_aton(sys.argv[2])
SYN, RST, ACK = 2, 4, 16


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def main():
    link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
    link.bind((INTERFACE, 0))
    print("ready", flush=True)
    sent = 1000
    while True:
        frame = link.recv(65536)
        ip = frame[14:]
        if ip[9] != socket.IPPROTO_TCP or ip[16:20] != ADDRESS:
            continue
        tcp = ip[(ip[0] & 15) * 4 : struct.unpack("!H", ip[2:4])[0]]
        sport, dport, seq = struct.unpack("!HHI", tcp[:8])
        data, flags = tcp[(tcp[12] >> 4) * 4 :], tcp[13]
        if flags & RST:
            continue
        if flags & (SYN | ACK) == SYN:
            what, ack = SYN, 0
        elif flags & SYN or data:
            what, ack = ACK, (seq + len(data) + bool(flags & SYN)) % 2**32
        else:
            continue
        head = struct.pack("!HHIIBBHHH", dport, sport, sent, ack, 5 << 4, what, 65535, 0, 0)
        pseudo = ADDRESS + ip[12:16] + struct.pack("!HH", socket.IPPROTO_TCP, len(head + data))
        head = head[:16] + struct.pack("!H", checksum(pseudo + head + data)) + head[18:]
        outer = struct.pack("!BBHIBBH", 0x45, 0, 20 + len(head + data), 0, 64, socket.IPPROTO_TCP, 0)
        outer += ADDRESS + ip[12:16]
        outer = outer[:10] + struct.pack("!H", checksum(outer)) + outer[12:]
        link.send(frame[6:12] + frame[0:6] + b"\x08\x00" + outer + head + data)
        sent += len(data) + (what == SYN)


main()
