"""Superpackets while the ring has no room for them."""

from __future__ import annotations

import random
import selectors
import socket
import struct
import time
from typing import TYPE_CHECKING

import pytest
from datagrams import checksum
from superpackets import SEGMENTS, both_families, frames, numbered, payloads_of, pin, send_segments, sender

import tunring
from running import Threads

if TYPE_CHECKING:
    from netns import Namespace

pytestmark = pytest.mark.root


@both_families
@pytest.mark.parametrize("size", [60, 1000])
def test_pinned_ring_loses_nothing_and_does_not_spin(
    small: tunring.Session, namespace: Namespace, family: int, here: str, there: str, size: int
) -> None:
    session, dice = small, random.Random(2)
    expected = numbered(60 * SEGMENTS, size)
    with sender(namespace, family, there) as link, selectors.DefaultSelector() as selector:
        selector.register(session, selectors.EVENT_READ)
        # Sixty wait in the kernel at most, of the five hundred that its queue has room for.
        for first in range(0, len(expected), SEGMENTS):
            send_segments(link, b"".join(expected[first : first + SEGMENTS]), size)
        received: list[bytes] = []
        rounds = 0
        while len(received) < len(expected):
            held = pin(session)
            received += [payload for batch in held for payload in payloads_of(batch)]
            if len(received) < len(expected):
                rounds += 1
                assert not selector.select(0)
                assert not session.receive(timeout=0.01)
            if rounds == 1:
                wait_without_cpu(session)
            # The oldest pins everything; in other orders nothing changes before it goes.
            for batch in sorted(held[1:], key=lambda _: dice.random()):
                batch.release()
            if len(received) < len(expected):
                assert not selector.select(0)
            held[0].release()
            assert bool(selector.select(0)) == (len(received) < len(expected))
        assert rounds >= 1
        assert received == expected
        assert not session.receive(timeout=0)
    assert session.stats().host_dropped == 0


def wait_without_cpu(session: tunring.Session) -> None:
    """Superpackets come while a receive is blocked for half a second."""
    before = time.process_time()
    assert not session.receive(timeout=0.5)
    assert time.process_time() - before < 0.05


def test_superpackets_keep_coming_while_the_ring_is_pinned(small: tunring.Session, namespace: Namespace) -> None:
    """The kernel drops whole superpackets, and counts them; those that were read come in order when there is room."""
    session = small
    stop: list[bool] = []

    def send(link: socket.socket) -> int:
        sent = 0
        while not stop:
            send_segments(link, b"".join(numbered(20, 500, sent)), 500)
            sent += 20
            time.sleep(0.0001)
        return sent

    with sender(namespace, socket.AF_INET, "10.9.0.77") as link, Threads() as threads:
        threads.start(send, link)
        held = []
        while (pinned := session.receive(timeout=0.2)) or not held:
            held.append(pinned)
        time.sleep(0.5)
        received = [payload for batch in held for payload in payloads_of(batch)]
        for batch in held:
            batch.release()
        stop.append(True)
        threads.join()
        while batch := session.receive(timeout=0.1):
            with batch:
                received += payloads_of(batch)
    numbers = [struct.unpack_from("!I", payload)[0] for payload in received]
    assert numbers == sorted(set(numbers))
    # Superpackets are whole: whatever is missing was dropped before it was read.
    assert numbers == [first + i for first in sorted({n - n % 20 for n in numbers}) for i in range(20)]
    assert len(numbers) + 20 * (session.stats().host_dropped or 0) == threads.results[0]


SYN, PSH, ACK = 2, 8, 16
#: The minimum size of TCP's segments.
MIN_MSS = 48


def tcp6(there: str, here: str, ports: tuple[int, int], numbers: tuple[int, int], flags: int, options: bytes) -> bytes:
    """A TCP packet without data."""
    addresses = socket.inet_pton(socket.AF_INET6, there) + socket.inet_pton(socket.AF_INET6, here)
    size = 20 + len(options)
    upper = struct.pack("!HHIIBBHHH", *ports, *numbers, size << 2, flags, 65535, 0, 0) + options
    value = checksum(addresses + struct.pack("!II", size, 6) + upper)
    return struct.pack("!IHBB", 6 << 28, size, 6, 64) + addresses + upper[:16] + struct.pack("!H", value) + upper[18:]


def tcp_segment(packet: bytes) -> tuple[int, int, int, bytes]:
    """Source port, sequence number, flags and data of an IPv6 packet, whose checksum must be right."""
    upper = packet[40:]
    assert packet[6] == 6
    assert struct.unpack_from("!H", packet, 4)[0] == len(upper)
    assert checksum(packet[8:40] + struct.pack("!II", len(upper), 6) + upper) == 0
    return (
        struct.unpack_from("!H", upper)[0],
        *struct.unpack_from("!I", upper, 4),
        upper[13],
        upper[upper[12] >> 4 << 2 :],
    )


@pytest.mark.parametrize("pinned", [False, True], ids=["free", "pinned"])
def test_superpacket_larger_than_the_ring(small: tunring.Session, namespace: Namespace, pinned: bool) -> None:
    """64 KiB of the smallest TCP segments: 150 KB of packets, and a ring of 128 KiB."""
    session = small
    here, there = "fd09::1", "fd09::77"
    namespace.write_sysctl("net/ipv4/tcp_tso_rtt_log", "31")  # superpackets as large as they come, at once
    namespace.write_sysctl("net/ipv4/tcp_timestamps", "0")
    namespace.write_sysctl("net/ipv4/tcp_wmem", "4096 4194304 4194304")
    namespace.ip("-6 route add fd09::77/128 dev tun0 initcwnd 4000")
    data = random.Random(3).randbytes(65000)
    with namespace.socket(socket.AF_INET6, socket.SOCK_STREAM) as link:
        link.setblocking(False)
        assert link.connect_ex((there, 7000)) != 0
        link.settimeout(10)
        with session.receive(1, timeout=10) as batch:
            port, sequence, flags, _ = tcp_segment(batch.tobytes()[0])
        assert flags & SYN
        # Their largest segment, and windows in units of 64 bytes.
        options = struct.pack("!BBHBBBB", 2, 4, MIN_MSS, 1, 3, 3, 6)
        ours, theirs = 1000, sequence + 1 & 0xFFFFFFFF
        session.send([tcp6(there, here, (7000, port), (ours, theirs), SYN | ACK, options)])
        with session.receive(1, timeout=10) as batch:
            assert tcp_segment(batch.tobytes()[0])[2] == ACK
        session.send([tcp6(there, here, (7000, port), (ours + 1, theirs), ACK, b"")])
        _, before = frames(namespace)
        link.sendall(data)
        held: list[tunring.Batch] = []
        segments: list[tuple[int, int, int, bytes]] = []
        stops = 0
        while sum(len(segment[3]) for segment in segments) < len(data):
            batch = session.receive(5000, timeout=0 if held else 10)
            if not batch:
                assert held, f"{len(segments)} segments have come"
                stops += 1
                for kept in held:
                    kept.release()
                held.clear()
                continue
            segments += map(tcp_segment, batch.tobytes())
            if pinned:
                held.append(batch)
            else:
                batch.release()
        for kept in held:
            kept.release()
        _, after = frames(namespace)
        assert after - before == 1, "the kernel made more than one superpacket of it"
        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert len(segments) == -(-len(data) // MIN_MSS)
    assert stops == (1 if pinned else 0)
    at = theirs
    for _, sequence, _, piece in segments:
        assert sequence == at
        at = at + len(piece) & 0xFFFFFFFF
    assert b"".join(segment[3] for segment in segments) == data
    assert {segment[2] for segment in segments[:-1]} == {ACK}
    assert segments[-1][2] == ACK | PSH
