"""``UdpSocket.send`` and ``receive`` beside C's ``sendmsg`` and ``recvmsg``: ``python bench/udp.py [TURNS]`` on Linux.

Rounds of 8 runs of 40 datagrams of 1400 bytes, between two sockets on this machine. The table has nanoseconds per
datagram, medians of the turns and their range, and their ratio within each turn. A batch of a ring is sent, and what is
received is taken lazily: no object per datagram. C's ``recvmsg`` reads into one buffer again and again, which stays in
the cache, or, as a batch needs it, each run into memory of its own.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from statistics import median

from programs import c_program
from turns import Turns, take_turns

import tunring
import tunring.testing

SIZE = 1400
RUN = 40
RUNS = 8
COUNT = RUN * RUNS
ROUNDS = 300
UDP_SEGMENT = 103
UDP_GRO = 104
IP_PKTINFO = 8


def by_c(mode: str, gro: bool) -> list[float]:
    command = [c_program("c/udp.c"), mode, str(SIZE), str(int(gro)), str(ROUNDS)]
    return [float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)]


def by_send(gro: bool) -> list[float]:
    packets = [bytes([0x45]) + bytes(SIZE - 1)] * COUNT
    room = bytearray(1 << 16)
    figures = []
    with ExitStack() as stack:
        left, right = (stack.enter_context(session) for session in tunring.testing.pair())
        left.send(packets)
        batch = stack.enter_context(right.receive(COUNT))
        far = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        far.bind(("127.0.0.1", 0))
        far.setblocking(False)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 20)
        far.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        far.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        if gro:
            far.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
        udp = stack.enter_context(tunring.UdpSocket.bind(("127.0.0.1", 0)))
        to = tunring.Endpoint(*far.getsockname())
        for _ in range(ROUNDS):
            began = time.perf_counter_ns()
            sent = udp.send(batch, to)
            figures.append((time.perf_counter_ns() - began) / COUNT)
            assert sent == COUNT
            while True:
                try:
                    far.recv_into(room)
                except BlockingIOError:
                    break
    return [median(figures)]


def by_receive() -> list[float]:
    control = [(socket.IPPROTO_UDP, UDP_SEGMENT, SIZE.to_bytes(2, sys.byteorder))]
    run = bytes(SIZE * RUN)
    figures = []
    with ExitStack() as stack:
        near = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 7 << 20)
        udp = stack.enter_context(tunring.UdpSocket.bind(("127.0.0.1", 0)))
        for _ in range(ROUNDS):
            for _ in range(RUNS):
                near.sendmsg([run], control, 0, udp.address)
            got = 0
            began = time.perf_counter_ns()
            while batch := udp.receive(2 * COUNT, 0):
                with batch:
                    got += len(batch)
            figures.append((time.perf_counter_ns() - began) / COUNT)
            assert got == COUNT
    return [median(figures)]


def send(gro: bool, *, turns: int) -> Turns:
    """Nanoseconds per datagram that is sent."""
    return take_turns({"sendmsg": lambda: by_c("send", gro), "UdpSocket.send": lambda: by_send(gro)}, turns)


def receive(*, turns: int) -> Turns:
    """Nanoseconds per datagram that is received in runs."""
    sides = {
        "recvmsg": lambda: by_c("receive", True),
        "recvmsg, kept": lambda: by_c("keep", True),
        "UdpSocket.receive": by_receive,
    }
    return take_turns(sides, turns)


def main() -> None:
    turns = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    for gro in (False, True):
        print(f"far end {'with' if gro else 'without'} GRO")
        print(*send(gro, turns=turns).lines("sendmsg", "ns per datagram"), sep="\n", flush=True)
    received = receive(turns=turns)
    for base in ("recvmsg", "recvmsg, kept"):
        print(*received.lines(base, "ns per datagram"), sep="\n")


if __name__ == "__main__":
    main()
