"""close() by Python code that runs inside a call of the same session: signal handlers and destructors."""

from __future__ import annotations

import gc
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

import tunring
from packets import packet
from running import SIGNAL, kick

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Pair = tuple[tunring.Session, tunring.Session]


@pytest.fixture
def on_signal() -> Iterator[Callable[[Callable[[], object]], None]]:
    before = signal.getsignal(SIGNAL)
    yield lambda function: signal.signal(SIGNAL, lambda *_: function())
    signal.signal(SIGNAL, before)


@pytest.fixture
def full(simulated: tunring.Session) -> tunring.Session:
    simulated.send([packet()] * 10000, on_full="partial")
    return simulated


class Closer:
    """Closes a session when garbage is collected."""

    def __init__(self, session: tunring.Session) -> None:
        self.session = session
        self.cycle = self

    def __del__(self) -> None:
        self.session.close()


WAITS: dict[str, Callable[[tunring.Session], object]] = {
    "receive": lambda session: session.receive(timeout=20),
    "receive for ever": lambda session: session.receive(),
    "send": lambda session: session.send([packet()], timeout=20),
    "send_packed": lambda session: session.send_packed(packet(), [20], timeout=20),
    "reserve": lambda session: session.reserve([20], on_full="wait", timeout=20),
}


@pytest.mark.parametrize("wait", list(WAITS))
@pytest.mark.parametrize("by", ["handler", "destructor"])
def test_close_while_this_very_thread_waits(full: tunring.Session, on_signal: Any, wait: str, by: str) -> None:
    if by == "handler":
        on_signal(full.close)
    else:
        Closer(full)
        on_signal(gc.collect)
    kick()
    began = time.perf_counter()
    with pytest.raises(tunring.SessionClosed) as caught:
        WAITS[wait](full)
    assert caught.value.reason == "closed"
    assert time.perf_counter() - began < 10


def test_batches_end(pair: Pair, on_signal: Any) -> None:
    on_signal(pair[0].close)
    kick()
    assert list(pair[0].batches()) == []


def test_a_handler_may_use_the_session_while_its_thread_waits(pair: Pair, on_signal: Any) -> None:
    left, right = pair
    right.send([packet(number=1)])
    held = left.receive()
    seen = []

    def handler() -> None:
        held.release()
        seen.append(left.stats().pinned_packets)
        seen.append(len(left.receive(timeout=0)))
        left.send([packet(number=2)])
        right.send([packet(number=3)])

    on_signal(handler)
    kick()
    with left.receive(timeout=20) as batch:
        assert batch.tobytes() == [packet(number=3)]
    assert seen == [0, 0]


def test_a_handler_may_wait_in_the_session_too(pair: Pair, on_signal: Any) -> None:
    left, right = pair
    seen = []

    def handler() -> None:
        seen.append(len(left.receive(timeout=0.02)))
        right.send([packet()])

    on_signal(handler)
    kick()
    with left.receive(timeout=20) as batch:
        assert len(batch) == 1
    assert seen == [0]


def test_a_handler_that_raises_ends_the_wait(full: tunring.Session, on_signal: Any) -> None:
    def handler() -> None:
        raise KeyError("mine")

    on_signal(handler)
    for wait in WAITS.values():
        # The signal may come before the wait has begun.
        with pytest.raises(KeyError, match="mine"):
            kick(0.02)
            wait(full)
    assert not full.receive(timeout=0)


def test_a_handler_that_returns_does_not_end_the_wait(pair: Pair, on_signal: Any) -> None:
    calls: list[int] = []
    on_signal(lambda: calls.append(1))
    for i in range(5):
        kick(0.02 * (i + 1))
    began = time.perf_counter()
    assert not pair[0].receive(timeout=0.3)
    assert time.perf_counter() - began >= 0.3
    assert len(calls) == 5


def test_a_destructor_during_the_making_of_views(pair: Pair) -> None:
    left, right = pair
    left.send([packet(number=i) for i in range(200)])
    batch = right.receive()

    class Nosy:
        def __init__(self) -> None:
            self.cycle = self

        def __del__(self) -> None:
            batch[5][0]

    thresholds = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for i, view in enumerate(batch):
            Nosy()
            assert int.from_bytes(view[4:8], "big") == i
    finally:
        gc.set_threshold(*thresholds)
    gc.collect()  # those that are left look at the batch too
    batch.release()
    assert right.stats().pinned_packets == 0
