"""Bursts that several threads take one packet at a time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeAlias

from packets import packet
from running import Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import tunring

    #: Takes packets until the session is closed, and returns how many it got.
    Taker: TypeAlias = Callable[[tunring.Session], int]

BURST = 200


def check_bursts(left: tunring.Session, right: tunring.Session, takers: Sequence[Taker]) -> None:
    """Sends ten bursts, of which everything must be taken: nobody may sleep beside packets. Closes `right`."""
    total = 0
    with Threads() as threads:
        for take in takers:
            threads.start(take, right)
        for _ in range(10):
            time.sleep(0.005)
            total += left.send([packet()] * BURST)
            limit = time.monotonic() + 10
            while right.stats().received_packets < total:
                assert time.monotonic() < limit, f"asleep beside {total - right.stats().received_packets} packets"
                time.sleep(0.0005)
        right.close()
    assert sum(threads.results) == total == 10 * BURST


def by_receive(session: tunring.Session) -> int:
    got = 0
    for batch in session.batches(1):
        assert len(batch) == 1
        got += 1
    return got
