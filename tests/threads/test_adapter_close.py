"""Closing an adapter while other threads use it. A failure may be a crash, hence the processes."""

from __future__ import annotations

import textwrap

import pytest

import libraries
import tunring
from running import check_script, eventually

#: Rounds of a race at most, and its seconds: where a thread is slow to wake, or an adapter to make, there are fewer.
ROUNDS, SECONDS = 2000, 8

#: One thread does `work(adapter)` again and again until it raises; `close(adapter)` comes at some moment of that.
RACE = """
import random, sys, threading, time
sys.setswitchinterval(1e-6)
random.seed(1)

def rounds(maximum):
    end = time.monotonic() + SECONDS
    for turn in range(maximum):
        if time.monotonic() > end:
            break
        yield turn

def race(adapter, work):
    going, ended = threading.Event(), []
    def run():
        going.set()
        try:
            while True:
                work(adapter)
        except Exception as error:
            ended.append(error)
    thread = threading.Thread(target=run)
    thread.start()
    going.wait()
    for _ in range(random.randrange(300)):
        pass
    adapter.close()
    thread.join()
    return ended[0]
"""


def run_race(library: str, source: str) -> None:
    limits = f"ROUNDS, SECONDS = {ROUNDS}, {SECONDS}\n"
    check_script(limits + RACE + textwrap.dedent(source), "-X", "dev", library=library)


@pytest.fixture(params=libraries.NAMES)
def over(request: pytest.FixtureRequest) -> str:
    """A library's name."""
    return str(request.param)


def test_no_session_starts_on_a_closed_adapter(over: str) -> None:
    run_race(
        over,
        """
        sessions = []
        def start(adapter):
            session = adapter.start_session(0x20000)
            sessions.append(session)
            if random.random() < 0.5:
                session.close()
            session.close()

        for turn in rounds(ROUNDS):
            adapter = tunring.Adapter.create("race", library=library)
            error = race(adapter, start)
            assert isinstance(error, tunring.SessionClosed) and error.reason == "closed", repr(error)
            assert "the adapter is closed" in str(error)
            assert all(session.closed for session in sessions)
            sessions.clear()
        """,
    )


def test_a_session_that_starts_meanwhile_is_closed_with_its_adapter(over: str) -> None:
    run_race(
        over,
        """
        def start(adapter):
            session = adapter.start_session(0x20000)
            try:
                session.receive()  # which nobody but the adapter's close can end
            finally:
                assert session.closed

        for turn in rounds(ROUNDS):
            adapter = tunring.Adapter.create("race", library=library)
            error = race(adapter, start)
            assert isinstance(error, tunring.SessionClosed) and error.reason == "closed", repr(error)
        """,
    )


def test_questions_end_with_the_adapter(over: str) -> None:
    run_race(
        over,
        """
        def ask(adapter):
            assert adapter.name == "race" and adapter.luid
            adapter._handle.pinned
            adapter.ifindex

        for turn in rounds(ROUNDS):
            adapter = tunring.Adapter.create("race", library=library)
            error = race(adapter, ask)
            assert isinstance(error, ValueError) and "the adapter is closed" in str(error), repr(error)
        """,
    )


def test_the_simulators_calls_end_with_the_adapter(over: str) -> None:
    run_race(
        over,
        """
        packets = [packet()] * 50
        def play(adapter):
            driver.inject(packets)
            driver.drain_all()

        for turn in rounds(ROUNDS):
            adapter = tunring.Adapter.create("race", library=library)
            driver = tunring.testing.Simulator.attach(adapter)
            session = adapter.start_session(0x20000)
            error = race(adapter, play)
            assert isinstance(error, (ValueError, tunring.SessionClosed, tunring.RingFull)), repr(error)
            assert session.closed
        """,
    )


def test_close_returns_when_the_adapter_is_gone_whoever_closes_its_session(over: str) -> None:
    run_race(
        over,
        """
        for turn in rounds(ROUNDS):
            adapter = tunring.Adapter.create("race", library=library)
            session = adapter.start_session(0x400000)
            threads = [threading.Thread(target=close) for close in (session.close, adapter.close)]
            for thread in threads:
                thread.start()
            for _ in range(random.randrange(300)):
                pass
            adapter.close()
            try:
                tunring.Adapter.open("race", library=library)
            except tunring.NotFound:
                pass
            else:
                raise AssertionError("the adapter is still there")
            for thread in threads:
                thread.join()
        """,
    )


def test_nobody_is_blamed_for_anothers_leak(over: str) -> None:
    run_race(
        over,
        """
        import warnings
        warnings.simplefilter("error")

        def close(session, barrier, blamed):
            barrier.wait()
            for _ in range(random.randrange(100)):
                pass
            try:
                session.close()
            except ResourceWarning:
                blamed.append(session)

        for turn in rounds(ROUNDS // 5):  # each leaks a session
            barrier, blamed, sessions, threads = threading.Barrier(2), [], [], []
            for name in "ab":
                adapter = tunring.Adapter.create(name, library=library)
                driver = tunring.testing.Simulator.attach(adapter)
                sessions.append(adapter.start_session(0x20000))
            driver.remove()
            for session in sessions:
                threads.append(threading.Thread(target=close, args=(session, barrier, blamed)))
                threads[-1].start()
            for thread in threads:
                thread.join()
            assert blamed == [sessions[1]], f"round {turn}: {len(blamed)} were blamed"
            for session in sessions:
                session.adapter.close()
        """,
    )


def test_what_was_lent_stays_until_it_is_given_back(library: tunring.Library, name: str) -> None:
    adapter = tunring.Adapter.create(name, library=library)
    with adapter._handle.lend() as handle:
        assert handle
        adapter.close()
        with pytest.raises(ValueError, match="closed"):
            adapter._handle.lend()
        tunring.Adapter.open(name, library=library).close()
    # A thread of the core's own closes it.
    assert eventually(lambda: not exists(library, name))


def exists(library: tunring.Library, name: str) -> bool:
    try:
        tunring.Adapter.open(name, library=library).close()
    except tunring.NotFound:
        return False
    return True
