"""Superpackets: the kernel hands them over and takes them, and nobody on either side can tell."""

from __future__ import annotations

import asyncio
import os
import random
import selectors
import socket
import struct
import sys
import time
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import TYPE_CHECKING

import pytest
import test_forwarder
from datagrams import checksum, udp4, udp6, udp_payload

import tunring
from running import NEVER, PROMPT, Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from netns import Namespace

pytestmark = pytest.mark.root

# Python's socket module doesn't know them.
UDP_SEGMENT = 103
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33

#: The most datagrams that every kernel makes of one send.
SEGMENTS = 64

V4 = pytest.param(socket.AF_INET, "10.9.0.1", "10.9.0.77", id="v4")
V6 = pytest.param(socket.AF_INET6, "fd09::1", "fd09::77", id="v6")
both_families = pytest.mark.parametrize(("family", "here", "there"), [V4, V6])
on_and_off = pytest.mark.parametrize("offloads", [True, False], indirect=True, ids=["offloads", "plain"])

iperf3 = test_forwarder.iperf3
plain = test_forwarder.plain


@pytest.fixture
def offloads(request: pytest.FixtureRequest) -> bool:
    """Whether adapters use them: True unless a test says otherwise."""
    return bool(getattr(request, "param", True))


@pytest.fixture
def tun(offloads: bool) -> Iterator[tunring.Library]:
    yield tunring.load("tun_linux", offloads=offloads)
    tunring.load("tun_linux", offloads=True)


@pytest.fixture
def small(adapter: tunring.Adapter, namespace: Namespace) -> Iterator[tunring.Session]:
    """A session with the smallest ring, in which nothing waits."""
    with adapter.start_session(tunring.MIN_CAPACITY) as session:
        namespace.set_up("tun0", "10.9.0.1/24", "fd09::1/64")
        drain(session)
        yield session


def drain(session: tunring.Session) -> None:
    """Take what the kernel says on its own account when an interface comes up."""
    while batch := session.receive(timeout=0.05):
        batch.release()


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
    """What the UDP packets carry, whose checksums must be right. Packets of other kinds are left out."""
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
    """What tun0 has taken from Python and given to it, as the kernel counts: a superpacket is one."""
    with namespace.entered(), open("/proc/thread-self/net/dev", encoding="ascii") as lines:
        values = next(line.split()[1:] for line in lines if line.strip().startswith("tun0:"))
    return int(values[1]), int(values[9])


# ---- Received ----


@on_and_off
@both_families
def test_segments_received(
    session: tunring.Session, namespace: Namespace, offloads: bool, family: int, here: str, there: str
) -> None:
    """Superpackets and plain datagrams, mixed: each arrives byte for byte, with right checksums, in order."""
    dice = random.Random(1)
    largest = 65507 if family == socket.AF_INET else 65487
    with sender(namespace, family, there) as link:
        _, before = frames(namespace)
        packets = 0
        for size in (1, 2, 7, 48, 64, 65, 511, 1000, 1399, 1400, 1452):
            for count in (2, 3, 17, SEGMENTS):
                for last in (size, (size + 1) // 2, 1):
                    data = dice.randbytes(min((count - 1) * size + last, largest))
                    alone = dice.randbytes(dice.randint(0, 1452))
                    expected = send_segments(link, data, size)
                    link.send(alone)
                    expected.append(alone)
                    assert receive(session, len(expected), dice) == expected
                    packets += len(expected)
        _, after = frames(namespace)
    # Otherwise the kernel has split them, and this has tested nothing.
    assert after - before == (2 * 11 * 4 * 3 if offloads else packets)
    assert (session.stats().host_dropped, session.stats().host_filtered) == (0, 0)
    assert not namespace.damage()


@both_families
def test_event_is_exact_within_a_superpacket(
    session: tunring.Session, namespace: Namespace, family: int, here: str, there: str
) -> None:
    drain(session)
    with sender(namespace, family, there) as link, selectors.DefaultSelector() as selector:
        selector.register(session, selectors.EVENT_READ)
        for count in (1, 2, 5, SEGMENTS):
            assert not selector.select(0)
            expected = send_segments(link, b"".join(numbered(count, 100)), 100)
            received = []
            while selector.select(0):
                with session.receive(1, timeout=0) as batch:
                    assert len(batch) == 1
                    received += payloads_of(batch)
            assert received == expected
            assert not session.receive(timeout=0)


def test_asyncio_takes_leftovers(session: tunring.Session, namespace: Namespace) -> None:
    """A superpacket's packets, one by one, by a loop's reader, which is called for each and no more."""
    drain(session)
    received: list[bytes] = []
    calls = 0

    def read() -> None:
        nonlocal calls
        calls += 1
        with session.receive(1, timeout=0) as batch:
            received.extend(payloads_of(batch))

    async def take(count: int) -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(session.fileno(), read)
        for _ in range(2000):
            if len(received) == count:
                break
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)
        loop.remove_reader(session.fileno())

    with sender(namespace, socket.AF_INET, "10.9.0.9") as link:
        expected = send_segments(link, b"".join(numbered(SEGMENTS, 100)), 100)
        asyncio.run(take(len(expected)))
    assert received == expected
    assert calls == len(expected)


# ---- The ring is full ----


def pin(session: tunring.Session) -> list[tunring.Batch]:
    """Take packets and hold them until there is no room for more."""
    held = []
    while batch := session.receive(50, timeout=0):
        held.append(batch)
    return held


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
    """Blocked in a receive for half a second."""
    before = time.process_time()
    assert not session.receive(timeout=0.5)
    assert time.process_time() - before < 0.05


def test_superpackets_keep_coming_while_the_ring_is_pinned(small: tunring.Session, namespace: Namespace) -> None:
    """The kernel drops whole superpackets, and says so; what was read comes in order when there is room."""
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


# ---- Larger than the ring ----

SYN, PSH, ACK = 2, 8, 16
#: What TCP sends a segment at least.
LEAST_MSS = 48


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
        options = struct.pack("!BBHBBBB", 2, 4, LEAST_MSS, 1, 3, 3, 6)
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
    assert len(segments) == -(-len(data) // LEAST_MSS)
    assert stops == (1 if pinned else 0)
    at = theirs
    for _, sequence, _, piece in segments:
        assert sequence == at
        at = at + len(piece) & 0xFFFFFFFF
    assert b"".join(segment[3] for segment in segments) == data
    assert {segment[2] for segment in segments[:-1]} == {ACK}
    assert segments[-1][2] == ACK | PSH


# ---- Sent ----


def datagram(there: tuple[str, int], here: tuple[str, int], payload: bytes, number: int) -> bytes:
    """A packet with an identification, if its kind has one: without, IPv4 packets of a run belong together."""
    if ":" in there[0]:
        return udp6(there, here, payload)
    packet = bytearray(udp4(there, here, payload))
    struct.pack_into("!H", packet, 4, number & 0xFFFF)
    struct.pack_into("!H", packet, 10, 0)
    struct.pack_into("!H", packet, 10, checksum(bytes(packet[:20])))
    return bytes(packet)


def sizes_of(kind: str, dice: random.Random) -> list[int]:
    """The lengths of a run's payloads."""
    if kind == "equal":
        return [dice.randint(1, 1400)] * 200
    if kind == "a short last one":
        size = dice.randint(2, 1400)
        return ([size] * dice.randint(1, 90) + [dice.randint(1, size - 1)]) * 3
    return [dice.choice((0, 1, 100, 100, 100, 1400)) for _ in range(200)]


@on_and_off
@both_families
@pytest.mark.parametrize("kind", ["equal", "a short last one", "mixed"])
def test_runs_sent(
    session: tunring.Session, namespace: Namespace, offloads: bool, family: int, here: str, there: str, kind: str
) -> None:
    dice = random.Random(4)
    with listener(namespace, family, here, 4001) as link:
        for _ in range(10):
            payloads = [dice.randbytes(size) for size in sizes_of(kind, dice)]
            packets = [datagram((there, 5), (here, 4001), payload, i) for i, payload in enumerate(payloads)]
            before, _ = frames(namespace)
            assert session.send(packets) == len(packets)
            assert [link.recv(2000) for _ in payloads] == payloads
            after, _ = frames(namespace)
            if offloads and kind == "equal":
                assert after - before <= 10
            elif not offloads:
                assert after - before == len(packets)
    assert session.stats().write_errors == 0
    assert not namespace.damage()


@both_families
def test_interleaved_flows_keep_their_order(
    session: tunring.Session, namespace: Namespace, family: int, here: str, there: str
) -> None:
    dice = random.Random(5)
    with listener(namespace, family, here, 4001) as first, listener(namespace, family, here, 4002) as second:
        for _ in range(10):
            expected: dict[tuple[int, int], list[bytes]] = {}
            packets = []
            for number in range(300):
                flow = dice.randint(10, 14), dice.choice((4001, 4002))
                payload = struct.pack("!I", number) + bytes(dice.choice((96, 96, 96, 500)))
                expected.setdefault(flow, []).append(payload)
                packets.append(datagram((there, flow[0]), (here, flow[1]), payload, len(expected[flow])))
            before, _ = frames(namespace)
            assert session.send(packets) == len(packets)
            received: dict[tuple[int, int], list[bytes]] = {}
            for link, port in ((first, 4001), (second, 4002)):
                for _ in range(sum(len(sent) for flow, sent in expected.items() if flow[1] == port)):
                    payload, source = link.recvfrom(2000)
                    received.setdefault((source[1], port), []).append(payload)
            assert received == expected
            assert frames(namespace)[0] - before < len(packets)
    assert session.stats().write_errors == 0
    assert not namespace.damage()


def expect_only(link: socket.socket, payloads: Sequence[bytes]) -> None:
    """These come, and nothing else."""
    assert [link.recv(2000) for _ in payloads] == list(payloads)
    link.setblocking(False)
    with pytest.raises(BlockingIOError):
        link.recv(2000)
    link.settimeout(10)


@both_families
@pytest.mark.parametrize("bad", [0, 1, 31, 62, 63])
@pytest.mark.parametrize("where", ["payload", "checksum"])
def test_corrupt_packet_in_a_run_stays_corrupt(
    session: tunring.Session, namespace: Namespace, family: int, here: str, there: str, bad: int, where: str
) -> None:
    payloads = numbered(SEGMENTS, 700)
    packets = [bytearray(datagram((there, 5), (here, 4001), payload, i)) for i, payload in enumerate(payloads)]
    udp = 20 if family == socket.AF_INET else 40
    packets[bad][udp + 6 if where == "checksum" else -1] ^= 0x40
    with listener(namespace, family, here, 4001) as link:
        before, _ = frames(namespace)
        assert session.send(packets) == len(packets)
        expect_only(link, payloads[:bad] + payloads[bad + 1 :])
        # Its neighbours are still merged.
        assert frames(namespace)[0] - before <= 4
    name = "Udp" if family == socket.AF_INET else "Udp6"
    assert namespace.damage() == {f"{name}InErrors": 1, f"{name}InCsumErrors": 1}


def test_corrupt_ip_header_in_a_run_stays_corrupt(session: tunring.Session, namespace: Namespace) -> None:
    payloads = numbered(SEGMENTS, 700)
    packets = [
        bytearray(datagram(("10.9.0.77", 5), ("10.9.0.1", 4001), payload, i)) for i, payload in enumerate(payloads)
    ]
    packets[20][10] ^= 1
    with listener(namespace, socket.AF_INET, "10.9.0.1", 4001) as link:
        assert session.send(packets) == len(packets)
        expect_only(link, payloads[:20] + payloads[21:])
    damage = namespace.damage()
    assert damage["IpInHdrErrors"] == 1
    assert "UdpInCsumErrors" not in damage


def test_datagrams_without_checksums_arrive(session: tunring.Session, namespace: Namespace) -> None:
    """IPv4's right. Among them one whose data is wrong for the others' checksum."""
    payloads = numbered(SEGMENTS, 700)
    packets = [
        bytearray(datagram(("10.9.0.77", 5), ("10.9.0.1", 4001), payload, i)) for i, payload in enumerate(payloads)
    ]
    for packet in packets[10:40:3]:
        packet[26:28] = b"\0\0"
    with listener(namespace, socket.AF_INET, "10.9.0.1", 4001) as link:
        assert session.send(packets) == len(packets)
        expect_only(link, payloads)
    assert not namespace.damage()


# ---- Bad days ----


def test_interface_down_and_up_between_superpackets(session: tunring.Session, namespace: Namespace) -> None:
    dice = random.Random(6)
    here, there = "10.9.0.1", "10.9.0.77"
    with sender(namespace, socket.AF_INET, there) as out, listener(namespace, socket.AF_INET, here, 4001) as link:
        payloads = numbered(SEGMENTS, 700)
        packets = [datagram((there, 5), (here, 4001), payload, i) for i, payload in enumerate(payloads)]
        for turn in range(1, 4):
            expected = send_segments(out, b"".join(payloads), 700)
            assert receive(session, len(expected), dice) == expected
            namespace.ip("link set tun0 down")
            assert session.send(packets) == len(packets)
            assert session.stats().write_errors == turn * len(packets)
            drain(session)
            assert not session.receive(timeout=0)
            namespace.ip("link set tun0 up")
            assert session.send(packets) == len(packets)
            expect_only(link, payloads)
    assert session.stats().write_errors == 3 * SEGMENTS
    assert not namespace.damage()


@both_families
def test_mtu_changed_while_running(
    session: tunring.Session, namespace: Namespace, family: int, here: str, there: str
) -> None:
    dice = random.Random(7)
    headers = 28 if family == socket.AF_INET else 48
    with sender(namespace, family, there) as out, listener(namespace, family, here, 4001) as link:
        for mtu in (1500, 1280, 9000, 30000, 1400, 65535):
            namespace.ip(f"link set tun0 mtu {mtu}")
            size = min(mtu - headers, 31000)
            expected = send_segments(out, dice.randbytes(min(65000, size * SEGMENTS)), size)
            assert len(expected) > 1
            assert receive(session, len(expected), dice) == expected
            packets = [datagram((there, 5), (here, 4001), payload, i) for i, payload in enumerate(expected)]
            assert session.send(packets) == len(packets)
            assert [link.recv(70000) for _ in expected] == expected
    assert session.stats().write_errors == 0
    assert not namespace.damage()


def test_two_adapters_four_threads(namespace: Namespace, create: Callable[..., tunring.Adapter]) -> None:
    def to_python(session: tunring.Session, link: socket.socket, seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(150):
            size = dice.randint(4, 1400)
            expected = send_segments(link, dice.randbytes(size * dice.randint(1, 40)), size)
            assert receive(session, len(expected), dice) == expected

    def from_python(session: tunring.Session, link: socket.socket, there: str, here: str, seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(150):
            payloads = numbered(dice.randint(1, 60), dice.randint(4, 1400))
            session.send([datagram((there, 5), (here, 4001), payload, i) for i, payload in enumerate(payloads)])
            assert [link.recv(2000) for _ in payloads] == payloads

    with ExitStack() as stack, Threads() as threads:
        for number in range(2):
            here, there = f"10.9.{number}.1", f"10.9.{number}.77"
            session = stack.enter_context(create(f"tun{number}").start_session(tunring.MIN_CAPACITY))
            namespace.set_up(f"tun{number}", f"{here}/24")
            out = stack.enter_context(sender(namespace, socket.AF_INET, there))
            link = stack.enter_context(listener(namespace, socket.AF_INET, here, 4001))
            threads.start(to_python, session, out, number)
            threads.start(from_python, session, link, there, here, number)
        threads.join()
    assert not namespace.damage()


def test_close_while_a_superpacket_waits(adapter: tunring.Adapter, namespace: Namespace) -> None:
    """Its rest goes with the session; the next session knows nothing of it."""
    dice = random.Random(8)
    namespace.set_up("tun0", "10.9.0.1/24")
    with sender(namespace, socket.AF_INET, "10.9.0.77") as link:
        for taken in (1, 30):
            session = adapter.start_session(tunring.MIN_CAPACITY)
            drain(session)
            payloads = numbered(SEGMENTS, 900)
            for _ in range(4):
                send_segments(link, b"".join(payloads), 900)
            held = session.receive(taken, timeout=10)
            full = pin(session)
            session.close()
            assert payloads_of(held) == payloads[:taken]
            for batch in (held, *full):
                batch.release()
            with adapter.start_session(tunring.MIN_CAPACITY) as session:
                drain(session)
                expected = send_segments(link, b"".join(payloads[::-1]), 900)
                assert receive(session, len(expected), dice) == expected


def test_closed_by_another_thread_while_splitting(adapter: tunring.Adapter, namespace: Namespace) -> None:
    namespace.set_up("tun0", "10.9.0.1/24")
    stop: list[bool] = []

    def flood(link: socket.socket) -> None:
        while not stop:
            send_segments(link, bytes(64000), 1000)

    def take(session: tunring.Session) -> None:
        with pytest.raises(tunring.SessionClosed):
            while True:
                session.receive(64, timeout=NEVER).release()

    with sender(namespace, socket.AF_INET, "10.9.0.77") as link, Threads() as threads:
        threads.start(flood, link)
        for _ in range(10):
            session = adapter.start_session(tunring.MIN_CAPACITY)
            with Threads() as takers:
                for _ in range(2):
                    takers.start(take, session)
                time.sleep(0.02)
                began = time.monotonic()
                session.close()
            assert max(takers.ended) - began < 10 * PROMPT  # four threads, and a flood
        stop.append(True)


# ---- In bulk ----

_FORWARDER = f"""
import runpy, sys, tunring
tunring.load("tun_linux", offloads=sys.argv.pop(1) == "on")
runpy.run_path({str(test_forwarder.HERE / "forwarder.py")!r}, run_name="__main__")
"""


@test_forwarder.families
def test_bulk_tcp_is_twice_as_fast(
    iperf3: str,
    plain: list[str],
    namespaces: tuple[Namespace, Namespace],
    family: socket.AddressFamily,
    there: str,
) -> None:
    """The same forwarder with offloads and without, and plain C for the retransmissions, in turns."""
    python = [sys.executable, "-W", "error", "-c", _FORWARDER]
    commands = {"with": [*python, "on"], "without": [*python, "off"], "plain C": plain}
    transfers: dict[str, list[test_forwarder.Transfer]] = {what: [] for what in commands}
    for _ in range(3):
        for what, command in commands.items():
            with test_forwarder.running(command, namespaces) as forwarder:
                transfers[what].append(test_forwarder.Transfer(iperf3, namespaces, there))
            if what != "plain C":
                test_forwarder.check_figures(forwarder.figures)
    for what, results in transfers.items():
        print(f"{what}: " + "; ".join(map(str, results)))
    for namespace in namespaces:
        assert not namespace.damage()
    rates = {what: median(transfer.rate for transfer in results) for what, results in transfers.items()}
    again = {what: median(transfer.retransmits for transfer in results) for what, results in transfers.items()}
    if not os.environ.get("TUNRING_SANITIZE"):  # checked memory has speeds of its own
        assert rates["with"] >= 2 * rates["without"]
    # One segment in 10,000 more is the machine's doing.
    chance = min(transfer.segments for transfer in transfers["with"]) // 10000
    assert again["with"] <= again["plain C"] + chance
