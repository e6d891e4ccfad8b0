"""Superpackets to and from a real interface, against os.read and os.write on one without offloads."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest
from netns import Namespace, may_make_namespaces
from ring import BATCH
from test_receive import plain_tun
from tun import HERE, PORT, datagram

import tunring

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.skipif(
    not may_make_namespaces(), reason="needs root, and the right to make network namespaces"
)


#: Packets of a round of sending.
PACKETS = 2048

#: Packets of a round while the kernel keeps sending.
LIVE = 16384

#: Keeps a queue full: sends of many datagrams each, from a process of its own.
_FLOOD = """
import os, socket, sys
size, cpu = map(int, sys.argv[1:])
if cpu >= 0:
    os.sched_setaffinity(0, {cpu})
link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
link.connect(("10.9.0.2", 9))
link.setsockopt(socket.SOL_UDP, 103, size)
data = bytes(size * min(64, 65507 // size))
print("ready", flush=True)
while True:
    link.send(data)
"""


class Flood:
    """A process that sends without end, while it isn't paused."""

    def __init__(self, namespace: Namespace, size: int, cpu: int) -> None:
        with namespace.entered():
            self._process = subprocess.Popen(
                [sys.executable, "-c", _FLOOD, str(size - 28), str(cpu)], stdout=subprocess.PIPE, text=True
            )
        assert self._process.stdout
        assert self._process.stdout.readline() == "ready\n"
        self.flows = True
        self.pause()

    def pause(self) -> None:
        if self.flows:
            self._process.send_signal(signal.SIGSTOP)
        self.flows = False

    def resume(self) -> None:
        if not self.flows:
            self._process.send_signal(signal.SIGCONT)
        self.flows = True

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


class Ends:
    """Our session in a namespace of its own, and a descriptor of a plain interface in another."""

    def __init__(self, stack: ExitStack) -> None:
        self.here, self.there = Namespace(), Namespace()
        stack.callback(self.here.close)
        stack.callback(self.there.close)
        with self.here.entered():
            adapter = stack.enter_context(tunring.Adapter.create("tun0", library=tunring.load("tun_linux")))
        self.session = stack.enter_context(adapter.start_session())
        self.tun = stack.enter_context(plain_tun(self.there))
        os.set_blocking(self.tun, True)
        for namespace in (self.here, self.there):
            namespace.set_up("tun0", f"{HERE}/24")


@pytest.fixture
def ends() -> Iterator[Ends]:
    with ExitStack() as stack:
        yield Ends(stack)


@contextmanager
def on_cpu(numbers: set[int]) -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, numbers)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def test_receive_superpackets(compare: Callable[..., None], ends: Ends, size: int) -> None:
    """While the kernel keeps sending: batches, their lengths, and no more."""
    cpus = sorted(os.sched_getaffinity(0))
    theirs = cpus[0] if len(cpus) > 1 else -1
    session, tun = ends.session, ends.tun

    def take(packets: int = LIVE) -> None:
        left = packets
        while left > 0:
            with session.receive(BATCH) as batch:
                left -= len(batch.lengths)

    def prepare() -> None:
        if not flood.flows:
            flood.resume()
            take()

    def read(packets: int = LIVE) -> None:
        for _ in range(packets):
            os.read(tun, 2048)

    def read_plainly(rounds: int) -> list[float]:
        flood.pause()
        plain_flood.resume()
        read()
        taken = []
        for _ in range(rounds):
            began = time.perf_counter_ns()
            read()
            taken.append(float(time.perf_counter_ns() - began))
        plain_flood.pause()
        return taken

    with ExitStack() as stack:
        flood, plain_flood = (Flood(namespace, size, theirs) for namespace in (ends.here, ends.there))
        stack.callback(flood.close)
        stack.callback(plain_flood.close)
        stack.enter_context(on_cpu(set(cpus[-1:])))
        compare(f"receive {size} B GSO, live", take, prepare, {"os.read": read_plainly}, packets=LIVE)


def refused(namespace: Namespace) -> int:
    """Datagrams that a socket had no room for."""
    return namespace.counters()["UdpRcvbufErrors"]


def test_send_superpackets(compare: Callable[..., None], ends: Ends, size: int) -> None:
    """Into a socket that nobody reads."""
    packet = datagram(size)
    packets = [packet] * BATCH
    session, tun = ends.session, ends.tun

    def send() -> None:
        for _ in range(PACKETS // BATCH):
            session.send(packets)

    def write_plainly(rounds: int) -> list[float]:
        taken = []
        for _ in range(rounds):
            began = time.perf_counter_ns()
            for _ in range(PACKETS):
                os.write(tun, packet)
            taken.append(float(time.perf_counter_ns() - began))
        return taken

    with ExitStack() as stack:
        for namespace in (ends.here, ends.there):
            stack.enter_context(namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)).bind((HERE, PORT))
        # The first round fills the sockets' buffers.
        for _ in range(2):
            before = refused(ends.here), refused(ends.there)
            send()
            write_plainly(1)
        assert (refused(ends.here) - before[0], refused(ends.there) - before[1]) == (PACKETS, PACKETS)
        compare(f"send {size} B into a socket", send, lambda: None, {"os.write": write_plainly}, packets=PACKETS)
        assert session.stats().write_errors == 0
        assert ends.here.counters()["UdpInCsumErrors"] == 0
