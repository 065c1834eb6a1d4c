#!/usr/bin/env python3
"""Sends one datagram over IPv6 with any source address, without a privilege:
forged_source.py SOURCE PORT DESTINATION PORT. IPV6_FREEBIND lets a socket have an address that is
nobody's here. With "answer" for a destination it waits for a datagram and answers that, by the same
socket, after a word on standard output. Prints "sent", or the name of the error."""

import errno
import socket
import sys

IPV6_FREEBIND = 78

source, sport, destination = sys.argv[1:4]
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
s.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
s.bind((source, int(sport)))
if destination == "answer":
    print("ready", flush=True)
    to = s.recvfrom(100)[1]
else:
    to = (destination, int(sys.argv[4]))
try:
    s.sendto(b"egressd", to)
    print("sent")
except OSError as error:
    print(errno.errorcode.get(error.errno, error))
