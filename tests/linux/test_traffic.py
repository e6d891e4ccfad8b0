"""Real packets of the kernel, both directions, answered from Python."""

from __future__ import annotations

import hashlib
import os
import random
import socket
import struct
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from datagrams import udp4, udp6, udp_payload

import tunring
from running import Threads
from tunring.testing.responder import Responder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from netns import Namespace

pytestmark = pytest.mark.root

# Python's socket module doesn't know it.
SO_RCVBUFFORCE = 33

V4 = pytest.param(socket.AF_INET, "10.9.0.1", "10.9.0.77", id="v4")
V6 = pytest.param(socket.AF_INET6, "fd09::1", "fd09::77", id="v6")
both_families = pytest.mark.parametrize(("family", "here", "there"), [V4, V6])


@contextmanager
def answering(session: tunring.Session) -> Iterator[Responder]:
    """Every host behind the session answers, by batches, in a thread."""
    responder = Responder()
    faults = []

    def answer() -> None:
        try:
            for batch in session.batches():
                responder.answer(batch)
                session.send(batch)
        except tunring.SessionClosed:
            return  # between the two
        except BaseException as fault:
            faults.append(fault)
            raise

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield responder
    finally:
        session.close()
        thread.join(10)
        assert not thread.is_alive()
        assert not faults


def ping(link: socket.socket, family: int, there: str, data: bytes, sequence: int) -> bytes:
    """Ping with this data; returns what comes back."""
    kind = 8 if family == socket.AF_INET else 128
    link.sendto(struct.pack("!BBHHH", kind, 0, 0, 0, sequence) + data, (there, 0))
    while True:
        reply, source = link.recvfrom(70000)
        if struct.unpack_from("!H", reply, 6)[0] == sequence:
            assert source[0] == there
            return reply[8:]


@both_families
@pytest.mark.parametrize("size", [56, 1000, 1472, 9000, 40000, 65000])
def test_pings_come_back_byte_for_byte(
    session: tunring.Session, namespace: Namespace, family: int, here: str, there: str, size: int
) -> None:
    namespace.ip("link set tun0 mtu 65535")
    protocol = socket.IPPROTO_ICMP if family == socket.AF_INET else socket.IPPROTO_ICMPV6
    with namespace.socket(family, socket.SOCK_DGRAM, protocol) as link, answering(session) as responder:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        for sequence in range(20):
            data = os.urandom(size)
            assert ping(link, family, there, data, sequence) == data
    assert responder.counts["ping"] == 20
    assert not namespace.damage()


def test_ping_program_is_answered(session: tunring.Session, namespace: Namespace) -> None:
    with answering(session):
        for there in ("10.9.0.77", "fd09::77"):
            # In fragments too, which is what 1500 bytes of MTU make of the larger ones.
            for size in (56, 1400, 30000):
                assert " 0% packet loss" in namespace.run(
                    "ping", "-c", "20", "-i", "0.002", "-W", "5", "-s", str(size), "-p", "a55a37", there
                )
    assert not namespace.damage()


@both_families
def test_udp_to_python_is_complete_and_in_order(
    session: tunring.Session, namespace: Namespace, family: int, here: str, there: str
) -> None:
    dice = random.Random(1)
    payloads = [dice.randbytes(dice.randint(0, 1452)) for _ in range(3000)]
    received = []
    with namespace.socket(family, socket.SOCK_DGRAM) as link:
        link.connect((there, 4000))
        # Fewer than the interface's queue has room for at a time: it would drop what is too much.
        for start in range(0, len(payloads), 100):
            for payload in payloads[start : start + 100]:
                link.send(payload)
            while len(received) < start + 100:
                batch = session.receive(dice.randint(1, 64), timeout=10)
                assert batch, f"{len(received)} packets have come"
                with batch:
                    found = [udp_payload(packet) for packet in batch.tobytes()]
                received += [payload for payload in found if payload is not None]
    assert received == payloads
    assert not namespace.damage()


@both_families
def test_udp_from_python_is_complete_and_in_order(
    session: tunring.Session, namespace: Namespace, family: int, here: str, there: str
) -> None:
    dice = random.Random(2)
    make = udp4 if family == socket.AF_INET else udp6
    with namespace.socket(family, socket.SOCK_DGRAM) as link:
        link.bind((here, 4001))
        link.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
        for _ in range(30):
            payloads = [dice.randbytes(dice.randint(0, 1452)) for _ in range(dice.randint(1, 200))]
            assert session.send([make((there, 5), (here, 4001), payload) for payload in payloads]) == len(payloads)
            assert [link.recv(2000) for _ in payloads] == payloads
    assert session.stats().write_errors == 0
    assert not namespace.damage()


@both_families
def test_udp_from_reservations_and_packed_buffers(
    session: tunring.Session, namespace: Namespace, family: int, here: str, there: str
) -> None:
    dice = random.Random(3)
    make = udp4 if family == socket.AF_INET else udp6
    payloads = [dice.randbytes(dice.randint(0, 1452)) for _ in range(64)]
    packets = [make((there, 5), (here, 4002), payload) for payload in payloads]
    with namespace.socket(family, socket.SOCK_DGRAM) as link:
        link.bind((here, 4002))
        link.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
        with session.reserve([len(packet) for packet in packets]) as slots:
            for slot, packet in zip(slots, packets, strict=True):
                slot[:] = packet
        assert [link.recv(2000) for _ in payloads] == payloads
        # Room for the largest, and every fourth packet is none after all.
        with session.reserve([1500] * len(packets)) as slots:
            for i, packet in enumerate(packets):
                slots[i][: len(packet)] = packet
                slots.shrink(i, len(packet))
                if i % 4 == 0:
                    slots.drop(i)
        assert [link.recv(2000) for i in range(64) if i % 4] == [payloads[i] for i in range(64) if i % 4]
        assert session.stats().host_filtered == session.stats().fillers == 16
        assert session.send_packed(b"".join(packets), [len(packet) for packet in packets]) == len(packets)
        assert [link.recv(2000) for _ in payloads] == payloads
    assert not namespace.damage()


@both_families
def test_udp_echo_of_every_large_size(
    session: tunring.Session, namespace: Namespace, family: int, here: str, there: str
) -> None:
    namespace.ip("link set tun0 mtu 65535")
    dice = random.Random(4)
    largest = 65507 if family == socket.AF_INET else 65487
    with namespace.socket(family, socket.SOCK_DGRAM) as link, answering(session):
        link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        link.connect((there, 7))
        for size in [0, 1, 2, 3, largest - 1, largest, *(dice.randint(4, largest) for _ in range(60))]:
            payload = dice.randbytes(size)
            link.send(payload)
            assert link.recv(70000) == payload
    assert not namespace.damage()


@both_families
def test_tcp_echo(session: tunring.Session, namespace: Namespace, family: int, here: str, there: str) -> None:
    data = os.urandom(4096) * 50
    with namespace.socket(family, socket.SOCK_STREAM) as link, answering(session):
        link.connect((there, 7))
        echoed = b""
        for start in range(0, len(data), 8192):
            link.sendall(data[start : start + 8192])
            while len(echoed) < min(start + 8192, len(data)):
                piece = link.recv(65536)
                assert piece
                echoed += piece
    assert hashlib.sha256(echoed).digest() == hashlib.sha256(data).digest()
    assert not namespace.damage()


@both_families
@pytest.mark.parametrize("pause", [0.0, 0.005], ids=["quick", "slow"])
@pytest.mark.parametrize("buffer", [0, 4096], ids=["any-buffer", "small-buffer"])
def test_tcp_echo_in_bulk(
    session: tunring.Session, namespace: Namespace, family: int, here: str, there: str, pause: float, buffer: int
) -> None:
    """Written and read at once, also by a reader that leaves its window closed."""
    data = os.urandom(300_000)

    def send_and_receive() -> None:
        echoed = bytearray()
        with namespace.socket(family, socket.SOCK_STREAM) as link, Threads() as threads:
            if buffer:
                link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            link.settimeout(10)
            link.connect((there, 7))
            threads.start(link.sendall, data)
            while len(echoed) < len(data):
                time.sleep(pause)
                piece = link.recv(65536)
                assert piece
                echoed += piece
        assert echoed == data

    with answering(session):
        for _ in range(1 if pause else 6):
            began = time.monotonic()
            send_and_receive()
            assert time.monotonic() - began < 5
    assert not namespace.damage()


@both_families
def test_kernel_counts_damage(
    session: tunring.Session, namespace: Namespace, family: int, here: str, there: str
) -> None:
    """All tests here rely on this: a wrong byte is seen."""
    make = udp4 if family == socket.AF_INET else udp6
    packet = bytearray(make((there, 5), (here, 4003), b"payload"))
    packet[-1] ^= 1
    with namespace.socket(family, socket.SOCK_DGRAM) as link:
        link.bind((here, 4003))
        assert session.send([packet]) == 1
        link.settimeout(0.2)
        with pytest.raises(TimeoutError):
            link.recv(100)
    name = "Udp" if family == socket.AF_INET else "Udp6"
    assert namespace.damage() == {f"{name}InErrors": 1, f"{name}InCsumErrors": 1}


def test_stats_agree_with_the_kernels(session: tunring.Session, namespace: Namespace) -> None:
    with namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.connect(("10.9.0.77", 4000))
        for size in range(100):
            link.send(bytes(size))
        count = 0
        while count < 100:
            with session.receive(timeout=10) as batch:
                assert batch
                count += len(batch)
        packet = udp4(("10.9.0.77", 9), ("10.9.0.1", 9), b"")
        assert session.send([packet] * 50) == 50
    with namespace.entered(), open("/proc/thread-self/net/dev", encoding="ascii") as lines:
        values = next(line.split()[1:] for line in lines if line.strip().startswith("tun0:"))
    stats = session.stats()
    # Their "received" is what we sent.
    assert (stats.sent_packets, stats.sent_bytes) == (int(values[1]), int(values[0])) == (50, 50 * 28)
    assert (stats.received_packets, stats.received_bytes) == (int(values[9]), int(values[8]))
    assert (stats.host_dropped, stats.host_filtered, stats.write_errors) == (0, 0, 0)
