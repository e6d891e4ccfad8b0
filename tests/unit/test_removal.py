"""The system removes the adapter. The session's handle is gone then: the session must not be ended by it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

import tunring
from packets import packet
from running import PROMPT, Threads
from tunring import _core

if TYPE_CHECKING:
    from collections.abc import Callable

    from tunring.testing import Simulator

pytestmark = pytest.mark.filterwarnings("ignore:the system had removed:ResourceWarning")


def test_a_blocked_receiver_hears_of_it(simulated: tunring.Session, simulator: Simulator) -> None:
    with Threads() as threads:

        def wait() -> str:
            with pytest.raises(tunring.SessionClosed) as caught:
                simulated.receive()
            assert caught.value.winerror == 38
            return caught.value.reason

        threads.start(wait)
        time.sleep(0.05)
        began = time.monotonic()
        simulator.remove()
    assert threads.results == ["removed"]
    assert threads.ended[0] - began < 10 * PROMPT


def test_a_blocked_sender_hears_of_it(simulated: tunring.Session, simulator: Simulator) -> None:
    simulated.send([packet()] * 10000, on_full="partial")
    with Threads() as threads:

        def wait() -> tuple[str, int]:
            with pytest.raises(tunring.SessionClosed) as caught:
                simulated.send([packet()])
            return caught.value.reason, caught.value.sent

        threads.start(wait)
        time.sleep(0.05)
        simulator.remove()
    assert threads.results == [("removed", 0)]


def test_every_call_says_so(simulated: tunring.Session, simulator: Simulator) -> None:
    simulator.inject([packet()])
    reservation = simulated.reserve([20])
    simulator.remove()
    calls: list[Callable[[], object]] = [
        lambda: simulated.receive(timeout=0),
        simulated.receive,
    ]
    for call in calls:
        with pytest.raises(tunring.SessionClosed) as caught:
            call()
        assert caught.value.reason == "removed"
    assert list(simulated.batches()) == []
    reservation.abandon()
    for call in (lambda: simulated.send([packet()]), lambda: simulated.reserve([20])):
        with pytest.raises(tunring.SessionClosed) as caught:
            call()
        assert caught.value.reason == "removed"
    simulated.stats()


def test_a_wait_for_room_to_reserve_hears_of_it(simulated: tunring.Session, simulator: Simulator) -> None:
    simulated.send([packet()] * 10000, on_full="partial")
    with Threads() as threads:

        def wait() -> str:
            with pytest.raises(tunring.SessionClosed) as caught:
                simulated.reserve([20], on_full="wait", timeout=5)
            return caught.value.reason

        threads.start(wait)
        time.sleep(0.05)
        simulator.remove()
    assert threads.results == ["removed"]


def test_close_never_ends_the_session_and_warns(simulated: tunring.Session, simulator: Simulator) -> None:
    leaked, stale = _core.leaked_sessions(), simulator.stale_ends()
    simulator.remove()
    with pytest.warns(ResourceWarning, match="removed"):
        simulated.close()
    assert _core.leaked_sessions() == leaked + 1
    assert simulator.stale_ends() == stale == 0
    simulated.close()
    assert _core.leaked_sessions() == leaked + 1


@pytest.mark.parametrize("noticed", [False, True])
def test_a_session_that_is_closed_says_so(simulated: tunring.Session, simulator: Simulator, noticed: bool) -> None:
    simulator.remove()
    if noticed:
        with pytest.raises(tunring.SessionClosed):
            simulated.receive(timeout=0)
    assert not simulated.closed
    simulated.close()
    assert simulated.closed
    with pytest.raises(tunring.SessionClosed):
        _ = simulated.read_event
    with pytest.raises(tunring.SessionClosed):
        simulated.receive(timeout=0)


def test_what_was_received_stays(simulated: tunring.Session, simulator: Simulator) -> None:
    leaked = _core.leaked_sessions()
    simulator.inject([packet(number=1), packet(number=2)])
    batch = simulated.receive()
    kept = batch[1][:]
    simulator.remove()
    simulated.close()
    assert batch.tobytes() == [packet(number=1), packet(number=2)]
    batch.release()
    assert kept == packet(number=2)
    kept.release()
    # The last one that lets go ends what is left, on a thread of its own.
    limit = time.monotonic() + 5
    while _core.leaked_sessions() == leaked and time.monotonic() < limit:
        time.sleep(0.001)
    assert _core.leaked_sessions() == leaked + 1
    assert simulator.stale_ends() == 0


def test_the_adapter_closes_after_it(adapter: tunring.Adapter, simulator: Simulator) -> None:
    session = adapter.start_session()
    simulator.remove()
    with pytest.raises(tunring.NotFound):
        simulator.remove()
    adapter.close()
    assert session.closed
    tunring.Adapter.create(adapter.name, library=adapter.library).close()


def test_without_a_session(adapter: tunring.Adapter, simulator: Simulator) -> None:
    simulator.remove()
    with pytest.raises(tunring.NotFound):
        adapter.start_session()
