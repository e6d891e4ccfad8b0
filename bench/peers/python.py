"""The peers in Python, tunring among them: one program, of which the first word names the library it uses.

    python.py LIBRARY receive                 for each number on its standard input receives that many packets
    python.py LIBRARY send PACKET             sends that many; PACKET is in hexadecimal
    python.py LIBRARY echo                    answers every packet
    python.py LIBRARY forward NETNS NETNS     between "tun0" in two network namespaces, given as descriptors

LIBRARY is ``tunring`` (looks at a batch's lengths), ``tunring-views`` (a memoryview of each packet), ``tunring-plain``
(without offloads), ``os`` (plain
os.read and os.write), ``pytun`` or ``pmd3``. receive and send print the nanoseconds that it took.
"""

from __future__ import annotations

import fcntl
import os
import struct
import sys
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

BATCH = 256
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000


def swap(packet: bytearray | memoryview) -> None:
    """Make a UDP datagram its own answer; the checksums stay right."""
    packet[12:24] = bytes(packet[16:20]) + bytes(packet[12:16]) + bytes(packet[22:24]) + bytes(packet[20:22])


# ---- A packet a call ----


def open_os() -> tuple[Callable[[], bytes], Callable[[bytes], object]]:
    tun = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", b"tun0", IFF_TUN | IFF_NO_PI))
    return (lambda read=os.read: read(tun, 2048)), (lambda packet, write=os.write: write(tun, packet))


def open_library(library: str) -> tuple[Callable[[], bytes], Callable[[bytes], object]]:
    if library == "os":
        return open_os()
    if library == "pytun":
        import pytun as module
    else:
        import pytun_pmd3 as module
    device = module.TunTapDevice(name="tun0", flags=IFF_TUN | IFF_NO_PI)
    return (lambda read=device.read: read(2048)), device.write


def serve_plain(library: str, work: str, packet: bytes) -> None:
    read, write = open_library(library)
    print("ready", flush=True)
    if work == "echo":
        while True:
            answer = bytearray(read())
            swap(answer)
            write(bytes(answer))
    for line in sys.stdin:
        turns = range(int(line))
        began = time.perf_counter_ns()
        if work == "receive":
            for _ in turns:
                read()
        else:
            for _ in turns:
                write(packet)
        print(time.perf_counter_ns() - began, flush=True)


def forward_plain(library: str, namespaces: list[int]) -> None:
    from tunring._system.namespace_linux import enter_network

    ends = []
    for namespace in namespaces:
        enter_network(namespace)
        ends.append(open_library(library))

    def pass_on(read: Callable[[], bytes], write: Callable[[bytes], object]) -> None:
        while True:
            try:
                write(read())
            except OSError:
                continue  # what the interface refuses is lost, as on any wire

    print("ready", flush=True)
    threading.Thread(target=pass_on, args=(ends[0][0], ends[1][1]), daemon=True).start()
    pass_on(ends[1][0], ends[0][1])


# ---- tunring ----


def serve_tunring(views: bool, offloads: bool, work: str, packet: bytes) -> None:
    import tunring

    tun_linux = tunring.load("tun_linux", offloads=offloads)
    adapter = tunring.Adapter.create("tun0", library=tun_linux)
    session = adapter.start_session()
    packets = [packet] * BATCH

    def take(left: int) -> None:
        while left > 0:
            with session.receive(BATCH) as batch:
                left -= len(batch.lengths)

    def take_views(left: int) -> None:
        while left > 0:
            with session.receive(BATCH) as batch:
                for _packet in batch:
                    left -= 1

    def give(left: int) -> None:
        for _ in range(left // BATCH):
            session.send(packets)
        session.send(packets[: left % BATCH])

    act = give if work == "send" else take_views if views else take
    print("ready", flush=True)
    if work == "echo":
        for batch in session.batches():
            for each in batch:
                swap(each)
            session.send(batch)
    for line in sys.stdin:
        number = int(line)
        began = time.perf_counter_ns()
        act(number)
        print(time.perf_counter_ns() - began, flush=True)
    session.close()
    adapter.close()


def forward_tunring(namespaces: list[int]) -> None:
    import tunring
    from tunring._system.namespace_linux import enter_network

    sessions = []
    for namespace in namespaces:
        enter_network(namespace)
        sessions.append(tunring.Adapter.create("tun0").start_session())

    def pass_on(source: tunring.Session, target: tunring.Session) -> None:
        for batch in source.batches():
            target.send(batch)

    print("ready", flush=True)
    threading.Thread(target=pass_on, args=sessions, daemon=True).start()
    pass_on(*sessions[::-1])


def main() -> None:
    library, work, *rest = sys.argv[1:]
    if work == "forward":
        namespaces = [int(word) for word in rest]
        if library.startswith("tunring"):
            forward_tunring(namespaces)
        forward_plain(library, namespaces)
    packet = bytes.fromhex(rest[0]) if rest else b""
    if library.startswith("tunring"):
        serve_tunring(library == "tunring-views", library != "tunring-plain", work, packet)
    else:
        serve_plain(library, work, packet)


if __name__ == "__main__":
    main()
