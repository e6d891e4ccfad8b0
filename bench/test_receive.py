"""Receiving from a real interface, whose queue was filled before, against os.read."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
from netns import Namespace, may_make_namespaces
from ring import BATCH

import tunring

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def lazily(session: tunring.Session, packets: int) -> None:
    """Take batches, look at the lengths, and let go."""
    left = packets
    while left > 0:
        with session.receive(BATCH, 0) as batch:
            left -= len(batch.lengths)


def with_views(session: tunring.Session, packets: int) -> None:
    """Take batches, and a memoryview of each packet."""
    left = packets
    while left > 0:
        with session.receive(BATCH, 0) as batch:
            for _packet in batch:
                left -= 1


#: Datagrams that are waiting when a round begins: fewer than the interface's queue has room for.
WAITING = 400

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000


@contextmanager
def datagrams(namespace: Namespace, size: int) -> Iterator[Callable[[], None]]:
    """Makes the kernel send packets of this size to the namespace's tun0."""
    namespace.set_up("tun0", "10.9.0.1/24")
    with namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.connect(("10.9.0.2", 9))
        payload = bytes(size - 28)

        def send() -> None:
            for _ in range(WAITING):
                link.send(payload)

        yield send


@contextmanager
def plain_tun(namespace: Namespace) -> Iterator[int]:
    """The descriptor of an interface tun0, as a Python program without tunring would have it."""
    with namespace.entered():
        tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", b"tun0", IFF_TUN | IFF_NO_PI))
    try:
        yield tun
    finally:
        os.close(tun)


def read_plainly(tun: int, send: Callable[[], None], rounds: int) -> list[float]:
    """Nanoseconds that each round of reading takes with os.read."""
    taken = []
    for _ in range(rounds):
        send()
        began = time.perf_counter_ns()
        for _ in range(WAITING):
            os.read(tun, 2048)
        taken.append(float(time.perf_counter_ns() - began))
    return taken


@pytest.mark.skipif(not may_make_namespaces(), reason="needs root, and the right to make network namespaces")
@pytest.mark.parametrize("take", [lazily, with_views])
def test_receive_from_the_kernel(compare: Callable[..., None], size: int, take: Callable[..., None]) -> None:
    here, there = Namespace(), Namespace()
    with here.entered():
        adapter = tunring.Adapter.create("tun0", library=tunring.load("tun_linux"))
    with (
        adapter,
        adapter.start_session() as session,
        datagrams(here, size) as send,
        plain_tun(there) as tun,
        datagrams(there, size) as send_there,
    ):
        what = f"receive {size} B from kernel, {take.__name__}"
        others = {"os.read": partial(read_plainly, tun, send_there)}
        compare(what, lambda: take(session, WAITING), send, others, packets=WAITING)
        assert session.stats().host_dropped == 0
    here.close()
    there.close()
