"""fileno(): readable if and only if receive(timeout=0) would return a packet or raise."""

from __future__ import annotations

import random
import select
import selectors
import time
from typing import TYPE_CHECKING

import pytest

import tunring
from packets import MAX_PACKET, packet
from running import Threads, eventually

if TYPE_CHECKING:
    Pair = tuple[tunring.Session, tunring.Session]


def readable(session: tunring.Session) -> bool:
    return bool(select.select([session], [], [], 0)[0])


def test_it_is_the_read_event(pair: Pair) -> None:
    assert pair[0].fileno() == pair[0].read_event >= 0


@pytest.mark.parametrize("waiter", ["select", "poll", "epoll", "selectors"])
def test_level_triggered_while_leftovers_wait(pair: Pair, waiter: str) -> None:
    left, right = pair
    if waiter == "select":
        ready = lambda: readable(right)  # noqa: E731
    elif waiter == "selectors":
        selector = selectors.DefaultSelector()
        selector.register(right, selectors.EVENT_READ)
        ready = lambda: bool(selector.select(0))  # noqa: E731
    else:
        polled = getattr(select, waiter)()
        polled.register(right.fileno(), select.POLLIN)
        ready = lambda: bool(polled.poll(0))  # noqa: E731
    assert not ready()
    left.send([packet()] * 5)
    for _ in range(5):
        assert ready()
        assert ready()
        right.receive(1, timeout=0).release()
    assert not ready()
    if waiter == "selectors":
        selector.close()
    elif waiter == "epoll":
        polled.close()


@pytest.mark.parametrize("seed", range(10))
def test_after_each_step_of_a_random_sequence(pair: Pair, seed: int) -> None:
    left, right = pair
    choose = random.Random(seed)
    held: list[tunring.Batch] = []
    for _ in range(200):
        step = choose.choice(["send", "send", "fill", "receive", "receive", "release", "poll"])
        if step == "send":
            left.send([packet(choose.choice([20, 100, 1500]))] * choose.randint(1, 5), on_full="partial")
        elif step == "fill":
            left.send([packet(choose.choice([1500, MAX_PACKET]))] * 200, on_full="partial")
        elif step == "receive":
            before = readable(right)
            batch = right.receive(choose.choice([1, 2, 300]), timeout=0)
            assert bool(batch) is before
            held.append(batch)
        elif held and step == "release":
            held.pop(choose.randrange(len(held))).release()
        state = readable(right)
        if choose.random() < 0.2:
            batch = right.receive(1, timeout=0)
            assert bool(batch) is state
            held.append(batch)
    for batch in held:
        batch.release()


def test_ready_when_the_ring_is_corrupt(simulated: tunring.Session, simulator: tunring.testing.Simulator) -> None:
    simulator.inject([packet()])
    simulator.corrupt(tunring.testing.Corruption.RECEIVE_SIZE, 70000)
    for _ in range(3):
        assert readable(simulated)
        with pytest.raises(tunring.RingCorrupt):
            simulated.receive(timeout=0)


@pytest.mark.filterwarnings("ignore:the system had removed:ResourceWarning")
def test_ready_when_the_adapter_is_removed(simulated: tunring.Session, simulator: tunring.testing.Simulator) -> None:
    assert not readable(simulated)
    simulator.remove()
    for _ in range(3):
        assert readable(simulated)
        with pytest.raises(tunring.SessionClosed) as caught:
            simulated.receive(timeout=0)
        assert caught.value.reason == "removed"


def test_ready_when_the_adapter_is_closed_by_another_handle(library: tunring.Library, name: str) -> None:
    owner = tunring.Adapter.create(name, library=library)
    with tunring.Adapter.open(name, library=library) as adapter, adapter.start_session() as session:
        assert not readable(session)
        owner.close()
        assert readable(session)
        with pytest.raises(tunring.SessionClosed) as caught:
            session.receive(timeout=0)
        assert caught.value.reason == "removed"


def test_after_close_there_is_none(pair: Pair) -> None:
    pair[0].close()
    for ask in (pair[0].fileno, lambda: pair[0].read_event):
        with pytest.raises(tunring.SessionClosed) as caught:
            ask()
        assert caught.value.reason == "closed"


@pytest.mark.parametrize("waiter", ["select", "poll"])
def test_close_in_another_thread_wakes_who_polls(pair: Pair, waiter: str) -> None:
    session = pair[0]

    def wait() -> bool:
        if waiter == "select":
            return bool(select.select([session], [], [], 20)[0])
        polled = select.poll()
        polled.register(session, select.POLLIN)
        return bool(polled.poll(20000))

    with Threads() as threads:
        threads.start(wait)
        time.sleep(0.05)
        began = time.monotonic()
        session.close()
    assert threads.results == [True]
    assert threads.ended[0] - began < 5


def test_a_waiter_by_descriptor_sees_every_packet(pair: Pair) -> None:
    left, right = pair
    count = 5000

    def take() -> int:
        got = 0
        while got < count:
            assert select.select([right], [], [], 20)[0], f"sleeps beside {count - got} packets"
            with right.receive(1, timeout=0) as batch:
                got += len(batch)
        return got

    with Threads() as threads:
        threads.start(take)
        for i in range(0, count, 10):
            left.send([packet()] * 10)
            if i % 1000 == 0:
                time.sleep(0.001)
    assert threads.results == [count]
    assert eventually(lambda: not readable(right), 1)
