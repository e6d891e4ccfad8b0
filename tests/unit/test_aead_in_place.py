"""Opening a batch in place: who can read it afterwards, and which uses prevent it."""

from __future__ import annotations

import asyncio
import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest

import tunring
from packets import packet
from tunring import Batch, SessionClosed, testing
from tunring.aead import Opener, Sealer

if TYPE_CHECKING:
    from collections.abc import Awaitable

KEY = bytes(range(32))
PACKETS = [b"packet %d" % number for number in range(100)]


def pair(header: bytes = b"head") -> tuple[Sealer, Opener]:
    return Sealer("aes-256-gcm", KEY, header=header), Opener("aes-256-gcm", KEY, header=header)


def test_opened_in_place() -> None:
    sealer, opener = pair()
    datagrams = sealer.seal(PACKETS)
    plain = datagrams.tobytes()
    view = datagrams[5]
    packets = opener.open(datagrams)
    assert packets.tobytes() == PACKETS
    assert list(packets.lengths) == [len(data) for data in PACKETS]
    assert packets.nbytes == sum(map(len, PACKETS))
    assert bytes(packets[5]) == b"packet 5"
    packets[5][:6] = b"PACKET"
    assert packets[5:7].tobytes() == [b"PACKET 5", b"packet 6"]
    with pytest.raises(ValueError):
        bytes(view)  # it ended
    for read in (
        lambda: datagrams[5],
        datagrams.tobytes,
        lambda: sealer.seal(datagrams),
        lambda: opener.open(datagrams),
    ):
        with pytest.raises(ValueError, match="opened through another batch"):
            read()
    assert len(datagrams) == len(plain)
    assert list(datagrams.lengths) == [len(data) for data in plain]
    packets.release()
    with pytest.raises(ValueError, match="the batch was released"):
        packets.tobytes()


def test_the_whole_keeps_the_part() -> None:
    """An opened batch keeps the batch alive of which it is a part."""
    sealer, opener = pair()
    packets = opener.open(sealer.seal(PACKETS))
    gc.collect()
    for _ in range(30):
        sealer.seal([bytes(1000)] * 50).release()  # other datagrams use the memory meanwhile
    assert packets.tobytes() == PACKETS
    datagrams = sealer.seal(PACKETS)
    packets = opener.open(datagrams)
    kept = packets[3][:]
    datagrams.release()
    with pytest.raises(ValueError, match="the batch was released"):
        packets.tobytes()
    assert bytes(kept) == b"packet 3"


def test_forged_ones_leave_nothing_behind() -> None:
    sealer, opener = pair()
    datagrams = sealer.seal(PACKETS)
    datagrams[7][20] ^= 1
    datagrams[8][4] ^= 1  # the counter
    packets = opener.open(datagrams)
    assert packets.tobytes() == PACKETS[:7] + PACKETS[9:]
    assert opener.rejected == 2


def test_any_number_of_sends_that_wait_hold_what_was_opened() -> None:
    """A send_async() that was not awaited yet is an operation on the batch: 16,384 of them filled its word."""
    sealer, opener = pair()
    left, right = testing.pair()
    with left, right, tunring.UdpSocket.bind(("127.0.0.1", 0)) as udp:
        udp.send(sealer.seal([packet(100)] * 4), udp.address)
        with udp.receive(timeout=5, min_packets=4, linger=5) as datagrams:
            packets = opener.open(datagrams)
            sends = [left.send_async(packets) for _ in range(1 << 14)]
        assert udp.stats().pinned_packets == 4
        for send in sends[1:]:
            send.close()
        assert udp.stats().pinned_packets == 4
        assert asyncio.run(_awaited(sends[0])) == 4
        assert udp.stats().pinned_packets == 0
        with right.receive(timeout=5) as received:
            assert received.tobytes() == [packet(100)] * 4


def test_any_number_of_sends_that_wait_keep_datagrams_from_being_opened() -> None:
    """Otherwise the socket would send plain text."""
    sealer, opener = pair()
    datagrams = sealer.seal(PACKETS)
    with tunring.UdpSocket.bind(("127.0.0.1", 0)) as udp:
        for count in (1, 1 << 15):
            sends = [udp.send_async(datagrams, udp.address) for _ in range(count)]
            with pytest.raises(BufferError):
                opener.open(datagrams)
            for send in sends:
                send.close()
    assert opener.open(datagrams).tobytes() == PACKETS


async def _awaited(send: Awaitable[int]) -> int:
    return await send


def test_all_forged() -> None:
    sealer, opener = pair()
    datagrams = sealer.seal(PACKETS)
    for view in datagrams:
        view[-1] ^= 1
    packets = opener.open(datagrams)
    assert type(packets) is Batch
    assert len(packets) == 0
    assert packets.tobytes() == []
    assert opener.rejected == len(PACKETS)


def test_from_opener_to_opener() -> None:
    """Each Opener takes its own datagrams of a batch, and leaves the others readable for other Openers."""
    one, two = pair(packet(28) + b"one."), pair(packet(28) + b"two.")  # rings carry what looks like IP
    wires = [sealer.seal(PACKETS).tobytes() for sealer in (one[0], two[0])]
    left, right = testing.pair()
    with left, right:
        left.send([datagram for both in zip(*wires, strict=True) for datagram in both])
        with right.receive(timeout=5) as batch:
            assert one[1].open(batch).tobytes() == PACKETS
            assert (one[1].rejected, one[1].foreign) == (0, len(PACKETS))
            assert batch[1].tobytes() == wires[1][0]
            with pytest.raises(ValueError, match="packet 0 was opened through another batch"):
                two[1].open(batch)
            assert two[1].open(batch[1::2]).tobytes() == PACKETS
            assert (two[1].rejected, two[1].foreign) == (0, 0)


def test_parts() -> None:
    sealer, opener = pair()
    datagrams = sealer.seal(PACKETS)
    middle = opener.open(datagrams[10:20])
    assert middle.tobytes() == PACKETS[10:20]
    assert opener.open(datagrams.select([3, 1])).tobytes() == [b"packet 3", b"packet 1"]
    with pytest.raises(ValueError, match="packet 2 was opened through another batch"):
        opener.open(datagrams[8:12])
    assert opener.open(datagrams[4:10]).tobytes() == PACKETS[4:10]
    assert (opener.rejected, opener.replayed) == (0, 0)
    assert opener.open(datagrams[:0]).tobytes() == []


def test_a_tunnel_in_a_tunnel() -> None:
    inner, outer = pair(b"in"), pair(b"out")
    with inner[0].seal(PACKETS) as datagrams, outer[0].seal(datagrams) as wrapped:
        assert inner[1].open(outer[1].open(wrapped)).tobytes() == PACKETS


def test_something_made_of_a_view_keeps_it_closed() -> None:
    sealer, opener = pair()
    datagrams = sealer.seal(PACKETS)
    array = np.asarray(datagrams[42])
    with pytest.raises(BufferError, match="datagram 42 is still in use"):
        opener.open(datagrams)
    with pytest.raises(BufferError, match="datagram 2 is still in use"):
        opener.open(datagrams[40:])
    assert opener.replayed == opener.rejected == 0
    assert array[:4].tobytes() == b"head"  # nothing was changed
    del array
    assert opener.open(datagrams).tobytes() == PACKETS


def test_released() -> None:
    sealer, opener = pair()
    datagrams = sealer.seal(PACKETS)
    part = datagrams[3:]
    datagrams.release()
    for batch in (datagrams, part):
        with pytest.raises(ValueError, match="the batch was released"):
            opener.open(batch)


def test_closed() -> None:
    sealer, opener = pair()
    datagrams = sealer.seal(PACKETS)
    before = datagrams.tobytes()
    opener.close()
    with pytest.raises(SessionClosed):
        opener.open(datagrams)
    assert datagrams.tobytes() == before
    assert pair()[1].open(datagrams).tobytes() == PACKETS


def test_received_packets_are_opened_in_the_ring() -> None:
    """A packet that a session received can be opened in the ring, and sent from there."""
    sealer, opener = pair(packet(28))
    left, right = testing.pair()
    with left, right:
        left.send(sealer.seal([packet(100, number=number) for number in range(50)]).tobytes())
        with right.receive(timeout=5) as batch, opener.open(batch) as packets:
            assert right.send(packets) == 50
        with left.receive(timeout=5) as back:
            assert back.tobytes() == [packet(100, number=number) for number in range(50)]


@pytest.mark.parametrize("released", [False, True])
def test_threads(released: bool) -> None:
    """One of many openers gets a batch, whole; a release meanwhile waits its turn."""
    sealer, opener = pair()
    for _ in range(30):
        datagrams = sealer.seal(PACKETS)
        started = threading.Barrier(4)

        def work(number: int, datagrams: Batch = datagrams, started: threading.Barrier = started) -> list[bytes] | None:
            started.wait()
            if released and number == 0:
                datagrams.release()
                return None
            try:
                return opener.open(datagrams).tobytes()
            except (ValueError, BufferError):
                return None

        with ThreadPoolExecutor(4) as pool:
            results = [result for result in pool.map(work, range(4)) if result is not None]
        assert results == [PACKETS] if not released else results in ([], [PACKETS])
