"""The ring alone, over a loopback cable: every way to receive and to send, beside plain C."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
from ring import BATCH, BATCHES, RECEIVE, SEND, SIZES, Cable, Loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Work = Callable[[Cable, int], None]


@pytest.fixture(params=SIZES, ids=lambda size: f"{size}B")
def size(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def cable(size: int) -> Iterator[Cable]:
    made = Cable(size)
    yield made
    made.close()


@pytest.fixture
def loop(size: int) -> Iterator[Loop]:
    made = Loop(size)
    yield made
    made.close()


def in_c(loop: Loop, what: str, batch: int) -> dict[str, Callable[[int], list[float]]]:
    return {"plain C": partial(loop.rounds, what, batch)}


def receive(compare: Callable[..., None], cable: Cable, loop: Loop, work: Work, batch: int) -> None:
    def prepare() -> None:
        cable.drain()
        cable.fill()

    what = f"receive {cable.size} B, {work.__name__}, {batch}"
    compare(what, partial(work, cable, batch), prepare, in_c(loop, "receive", batch), packets=cable.packets)
    assert cable.left.stats().sent_packets == cable.right.stats().received_packets
    assert not cable.right.receive(timeout=0)


@pytest.mark.parametrize("work", RECEIVE, ids=lambda work: work.__name__)
def test_receive(compare: Callable[..., None], cable: Cable, loop: Loop, work: Work) -> None:
    receive(compare, cable, loop, work, BATCH)


@pytest.mark.parametrize("batch", [batch for batch in BATCHES if batch != BATCH])
@pytest.mark.parametrize("size", [64], ids=["64B"])
def test_receive_by_batches_of(compare: Callable[..., None], cable: Cable, loop: Loop, batch: int) -> None:
    receive(compare, cable, loop, RECEIVE[0], batch)


@pytest.mark.parametrize("work", SEND, ids=lambda work: work.__name__)
def test_send(compare: Callable[..., None], cable: Cable, loop: Loop, work: Work) -> None:
    what = f"send {cable.size} B, {work.__name__}, {BATCH}"
    others = in_c(loop, "send", BATCH)
    compare(what, partial(work, cable, BATCH), cable.drain, others, packets=cable.packets)
    cable.drain()
    assert cable.right.stats().received_packets == cable.left.stats().sent_packets
    assert cable.left.stats().ring_full == 0
