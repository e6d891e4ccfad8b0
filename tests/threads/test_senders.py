"""Several senders of more than a ring each: nothing is lost, and each one's packets keep their order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import tunring
from packets import number_of, packet
from running import Threads

if TYPE_CHECKING:
    from collections.abc import Callable

    Pair = tuple[tunring.Session, tunring.Session]

COUNT = 4000


def by_list(session: tunring.Session, packets: list[bytes]) -> None:
    assert session.send(packets, timeout=50) == len(packets)


def by_packed(session: tunring.Session, packets: list[bytes]) -> None:
    assert session.send_packed(b"".join(packets), list(map(len, packets)), timeout=50) == len(packets)


def by_reservation(session: tunring.Session, packets: list[bytes]) -> None:
    for i in range(0, len(packets), 20):
        part = packets[i : i + 20]
        with session.reserve([len(data) for data in part], on_full="wait", timeout=50) as slots:
            for slot, data in zip(slots, part, strict=True):
                slot[:] = data


@pytest.mark.parametrize(
    "senders",
    [(by_list, by_list), (by_list, by_packed), (by_list, by_reservation), (by_reservation,) * 3, (by_packed,) * 4],
)
def test_order_is_kept_and_nothing_lost(
    library: tunring.Library, pair: Pair, senders: tuple[Callable[[tunring.Session, list[bytes]], None], ...]
) -> None:
    left, right = pair
    sizes = [20, 60, 100, 150]
    assert COUNT * sum(sizes) / len(sizes) > 2 * left.capacity
    total = COUNT * len(senders)
    seen: list[list[int]] = [[] for _ in senders]
    with Threads() as threads:
        for i, send in enumerate(senders):
            threads.start(send, left, [packet(sizes[k % 4], number=i << 24 | k) for k in range(COUNT)])
        got = 0
        while got < total:
            with right.receive(timeout=20) as batch:
                assert batch, f"{total - got} packets are lost"
                got += len(batch)
                for view in batch:
                    number = number_of(view)
                    seen[number >> 24].append(number & 0xFFFFFF)
    assert seen == [list(range(COUNT))] * len(senders)
    stats = left.stats()
    assert (stats.sent_packets, stats.dropped) == (total, 0)
    # The official DLL can't tell the room beforehand: the part of a too large reservation that fits goes out as filler.
    assert stats.fillers == 0 or library.official


def test_both_ways_at_once(pair: Pair) -> None:
    def run(session: tunring.Session) -> None:
        with Threads() as inner:
            inner.start(session.send, [packet(1000, number=i) for i in range(COUNT)])
            got = 0
            while got < COUNT:
                with session.receive(timeout=20) as batch:
                    assert batch
                    assert [number_of(view) for view in batch] == list(range(got, got + len(batch)))
                    got += len(batch)

    with Threads() as threads:
        for session in pair:
            threads.start(run, session)
