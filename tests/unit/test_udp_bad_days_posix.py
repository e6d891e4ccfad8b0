"""Sockets on bad days that need no privileges: a wait of the user's own, huge batches, views that are kept."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

import pytest

import tunring
from running import Threads, eventually
from tunring.aead import Opener, Sealer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Pair = tuple[tunring.UdpSocket, tunring.UdpSocket]

KEY = bytes(range(32))


@pytest.fixture
def pair() -> Iterator[Pair]:
    with tunring.UdpSocket.bind(("127.0.0.1", 0)) as left, tunring.UdpSocket.bind(("127.0.0.1", 0)) as right:
        yield left, right


def by_select(descriptor: int) -> object:
    return select.select([descriptor], [], [], 20)[0]


def by_poll(descriptor: int) -> object:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return poll.poll(20000)


@pytest.mark.parametrize("wait", [by_select, by_poll])
def test_close_wakes_a_wait_of_the_users_own(wait: Callable[[int], object]) -> None:
    for delay in (0.0, 0.0, 0.02, 0.02):
        udp = tunring.UdpSocket.bind(("127.0.0.1", 0))
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(wait, udp.fileno())
            time.sleep(delay)
            if delay:
                began = time.monotonic()
                udp.close()
                assert waiting.result()
                assert time.monotonic() - began < 10
            else:  # it may not have begun to wait, and then its descriptor is a bad one
                udp.close()
                with contextlib.suppress(OSError, ValueError):
                    assert waiting.result()


@pytest.mark.parametrize("offloads", [None, False])
def test_a_batch_of_65536(offloads: bool | None) -> None:
    with bind(offloads) as left, bind(offloads) as right:
        check_a_batch_of_65536(left, right)


def bind(offloads: bool | None) -> tunring.UdpSocket:
    return tunring.UdpSocket.bind(("127.0.0.1", 0), segment=offloads, coalesce=offloads)


def check_a_batch_of_65536(left: tunring.UdpSocket, right: tunring.UdpSocket) -> None:
    count, size = 65536, 16
    packed = b"".join(number.to_bytes(size, "big") for number in range(count))
    per_read = 64 if left.stats().segment and right.stats().coalesce else 1

    def send() -> None:
        for first in range(0, count, 1024):  # as the receiver gets on: the system's queue is short
            part = packed[first * size : (first + 1024) * size]
            assert left.send_packed(part, [size] * 1024, right.address) == 1024
            assert eventually(lambda first=first: right.stats().reads >= (first + 1024) // per_read)

    with Threads() as threads:
        threads.start(send)
        with right.receive(count, timeout=20, min_packets=count, linger=30) as batch:
            assert len(batch) == count
            assert b"".join(batch.tobytes()) == packed
            assert len(batch.sources) == 1
            assert len(batch.source_index) == count
            assert left.send(batch[:1000], right.address) == 1000
            (part,) = (run for _, run in batch.runs())
            assert len(part) == count
    assert right.stats().host_dropped == 0
    with pytest.raises(ValueError, match="max_packets must be 1 to 65536, not 65537"):
        right.receive(65537)


def test_views_that_are_kept_pin_their_chunks(pair: Pair) -> None:
    """One datagram of each chunk is enough to keep it, and the socket waits until one of them goes."""
    left, _ = pair
    with tunring.UdpSocket.bind(("127.0.0.1", 0), pinned_limit=1 << 20) as udp:
        kept: list[memoryview] = []
        for number in range(100):
            left.send([bytes([number]) * 60000], udp.address)
            batch = udp.receive(timeout=0)
            if not batch:
                break
            if number % 4 == 0:
                kept.append(batch[0][100:200])
            batch.release()
        assert len(kept) == 4  # chunks of 256 KiB
        assert number == 16
        assert udp.stats().pinned_packets == 4
        assert [bytes(view[:1]) for view in kept] == [bytes([number]) for number in range(0, 16, 4)]
        assert not udp.receive(timeout=0.02)
        kept.pop().release()
        with udp.receive(timeout=10) as batch:
            assert bytes(batch[0][:1]) == bytes([16])
        for view in kept:
            view.release()
        assert udp.stats().pinned_bytes == 0


def test_an_error_has_the_systems_number() -> None:
    """Another file in the socket's place, which nothing can be received from."""
    before = set(os.listdir("/proc/self/fd"))
    with tunring.UdpSocket.bind(("127.0.0.1", 0)) as udp:
        made = [f"/proc/self/fd/{number}" for number in set(os.listdir("/proc/self/fd")) - before]
        [number] = [int(path.rpartition("/")[2]) for path in made if os.path.exists(path) and is_socket(path)]
        kept = os.dup(number)
        null = os.open("/dev/null", os.O_RDWR)
        os.dup2(null, number)
        os.close(null)
        try:
            with pytest.raises(tunring.WintunError) as caught:
                udp.receive(timeout=0)
            assert caught.value.errno == errno.ENOTSOCK
            assert udp.stats().icmp_errors == 0
        finally:
            os.dup2(kept, number)
            os.close(kept)
        assert not udp.receive(timeout=0)


def is_socket(path: str) -> bool:
    return stat.S_ISSOCK(os.stat(path).st_mode)


def test_opening_what_another_thread_sends(pair: Pair) -> None:
    """Either comes first: the datagrams sent are as they were sealed, and those opened are the originals."""
    left, right = pair
    packets = [b"packet %d" % number + bytes(1000) for number in range(60)]
    sealer, opener = Sealer("aes-256-gcm", KEY), Opener("aes-256-gcm", KEY)
    outcomes = set()
    with ThreadPoolExecutor(1) as pool:
        for _ in range(100):
            sealed = sealer.seal(packets)
            plain = sealed.tobytes()
            left.send(sealed, right.address)
            sealed.release()
            with right.receive(timeout=10, min_packets=len(packets), linger=10) as batch:
                assert batch.tobytes() == plain
                sending = pool.submit(_sent, right, batch, left.address)
                try:
                    opened = opener.open(batch)
                except BufferError:
                    outcomes.add("busy")
                    opened = None
                sent = sending.result()
                if opened is None:
                    opened = opener.open(batch)
                assert opened.tobytes() == packets
            assert sent in (0, len(packets))
            if sent:
                outcomes.add("sent")
                with left.receive(timeout=10, min_packets=sent, linger=10) as echo:
                    assert echo.tobytes() == plain
    assert outcomes


def _sent(udp: tunring.UdpSocket, batch: tunring.Batch, to: tuple[str, int]) -> int:
    try:
        return udp.send(batch, to)
    except ValueError as error:
        assert "opened through another batch" in str(error)
        return 0


def test_opening_a_batch_of_which_something_is_kept(pair: Pair) -> None:
    left, right = pair
    sealer, opener = Sealer("aes-256-gcm", KEY), Opener("aes-256-gcm", KEY)
    with sealer.seal([b"a", b"b", b"c"]) as sealed:
        left.send(sealed, right.address)
    with right.receive(timeout=10, min_packets=3, linger=10) as batch:
        part = batch[1:]
        kept = bytes(batch[2]), batch[2][1:]
        with pytest.raises(BufferError, match="2"):
            opener.open(batch)
        assert bytes(batch[2]) == kept[0]
        kept[1].release()
        opened = opener.open(batch)
        assert opened.tobytes() == [b"a", b"b", b"c"]
        assert [endpoint.port for endpoint, _ in opened.runs()] == [left.address[1]]
        with pytest.raises(ValueError, match="opened through another batch"):
            right.send(part, left.address)


def test_sealing_a_batch_that_is_released_meanwhile(pair: Pair) -> None:
    """Either comes first: all of it is sealed as it was, or nothing. Each delay is a try at their coming together."""
    left, right = pair
    sealer, opener = Sealer("aes-256-gcm", KEY), Opener("aes-256-gcm", KEY, window=8192)
    packets = [b"packet %d" % number + bytes(1200) for number in range(60)]
    outcomes = []
    # How long the release waits for the sealing, or that for the release, at most: the last two orders are certain.
    delays = [*(microseconds / 1e6 for microseconds in range(-100, 101)), -20, 20]

    def release(batch: tunring.Batch, sealed: threading.Event, delay: float) -> None:
        sealed.wait(max(delay, 0))
        batch.release()

    with ThreadPoolExecutor(1) as pool:
        for delay in delays:
            left.send(packets, right.address)
            batch = right.receive(timeout=10, min_packets=len(packets), linger=10)
            sealed = threading.Event()
            releasing = pool.submit(release, batch, sealed, delay)
            wait([releasing], max(-delay, 0))
            try:
                with sealer.seal(batch) as datagrams:
                    assert opener.open(datagrams).tobytes() == packets
                outcomes.append("sealed")
            except ValueError as error:
                assert "released" in str(error)
                outcomes.append("released")
            sealed.set()
            releasing.result()
            assert sealer.counter == len(packets) * outcomes.count("sealed")
    assert outcomes[-2:] == ["released", "sealed"]
    assert right.stats().pinned_packets == 0
