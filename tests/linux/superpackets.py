"""Traffic that the kernel keeps together: superpackets of datagrams and of TCP segments."""

from __future__ import annotations

import random
import socket
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from datagrams import checksum, udp4, udp6, udp_payload

import tunring

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from netns import Namespace

# Python's socket module doesn't know them.
UDP_SEGMENT = 103
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33

#: The maximum number of datagrams that every kernel makes of one send.
SEGMENTS = 64

V4 = pytest.param(socket.AF_INET, "10.9.0.1", "10.9.0.77", id="v4")
V6 = pytest.param(socket.AF_INET6, "fd09::1", "fd09::77", id="v6")
both_families = pytest.mark.parametrize(("family", "here", "there"), [V4, V6])
on_and_off = pytest.mark.parametrize("offloads", [True, False], indirect=True, ids=["offloads", "plain"])


@contextmanager
def sender(namespace: Namespace, family: int, there: str, port: int = 4000) -> Iterator[socket.socket]:
    """A socket whose datagrams go to Python."""
    with namespace.socket(family, socket.SOCK_DGRAM) as link:
        link.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 8 << 20)
        link.connect((there, port))
        yield link


@contextmanager
def listener(namespace: Namespace, family: int, here: str, port: int) -> Iterator[socket.socket]:
    """A socket that Python's datagrams go to."""
    with namespace.socket(family, socket.SOCK_DGRAM) as link:
        link.bind((here, port))
        link.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
        yield link


def send_segments(link: socket.socket, data: bytes, size: int) -> list[bytes]:
    """One send, of which the kernel makes datagrams of this size and a shorter last one."""
    link.setsockopt(socket.SOL_UDP, UDP_SEGMENT, size)
    assert link.send(data) == len(data)
    link.setsockopt(socket.SOL_UDP, UDP_SEGMENT, 0)
    return [data[start : start + size] for start in range(0, len(data), size)]


def numbered(count: int, size: int, first: int = 0) -> list[bytes]:
    """Payloads that can be told apart."""
    return [struct.pack("!I", number) + bytes([number & 0xFF]) * (size - 4) for number in range(first, first + count)]


def payloads_of(batch: tunring.Batch) -> list[bytes]:
    """The payloads of UDP packets, whose checksums must be right. Packets of other kinds are left out."""
    found = [udp_payload(packet) for packet in batch.tobytes()]
    return [payload for payload in found if payload is not None]


def receive(session: tunring.Session, count: int, dice: random.Random) -> list[bytes]:
    """The next payloads, by batches of all sizes."""
    received: list[bytes] = []
    while len(received) < count:
        batch = session.receive(dice.choice((1, 3, 64, 256)), timeout=10)
        assert batch, f"{len(received)} of {count} packets have come"
        with batch:
            received += payloads_of(batch)
    return received


def frames(namespace: Namespace) -> tuple[int, int]:
    """Counters of tun0's packets from and to Python, as the kernel has them: a superpacket is one."""
    with namespace.entered(), open("/proc/thread-self/net/dev", encoding="ascii") as lines:
        values = next(line.split()[1:] for line in lines if line.strip().startswith("tun0:"))
    return int(values[1]), int(values[9])


def datagram(there: tuple[str, int], here: tuple[str, int], payload: bytes, number: int) -> bytes:
    """A packet with an identification, if its kind has one: without, IPv4 packets of a run belong together."""
    if ":" in there[0]:
        return udp6(there, here, payload)
    packet = bytearray(udp4(there, here, payload))
    struct.pack_into("!H", packet, 4, number & 0xFFFF)
    struct.pack_into("!H", packet, 10, 0)
    struct.pack_into("!H", packet, 10, checksum(bytes(packet[:20])))
    return bytes(packet)


def pin(session: tunring.Session) -> list[tunring.Batch]:
    """Take packets and hold them until there is no room for more."""
    held = []
    while batch := session.receive(50, timeout=0):
        held.append(batch)
    return held


def expect_only(link: socket.socket, payloads: Sequence[bytes]) -> None:
    """These come, and nothing else."""
    assert [link.recv(2000) for _ in payloads] == list(payloads)
    link.setblocking(False)
    with pytest.raises(BlockingIOError):
        link.recv(2000)
    link.settimeout(10)
