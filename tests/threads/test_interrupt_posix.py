"""Ctrl-C, and the wake-up descriptor that an event loop may have set."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

import tunring
from packets import packet
from running import Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Pair = tuple[tunring.Session, tunring.Session]


@pytest.fixture
def full(simulated: tunring.Session) -> tunring.Session:
    simulated.send([packet()] * 10000, on_full="partial")
    return simulated


@pytest.fixture
def ctrl_c() -> Iterator[Callable[[float], None]]:
    """Presses Ctrl-C after the given seconds, with Python's own handler."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timers = []

    def press(seconds: float) -> None:
        timers.append(threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT)))
        timers[-1].start()

    yield press
    for timer in timers:
        timer.join()
    signal.signal(signal.SIGINT, before)


WAITS: dict[str, Callable[[tunring.Session], object]] = {
    "receive": lambda session: session.receive(),
    "receive in time": lambda session: session.receive(timeout=20),
    "batches": lambda session: next(iter(session.batches())),
    "send": lambda session: session.send([packet()] * 3),
    "send_packed": lambda session: session.send_packed(packet(), [20]),
    "reserve": lambda session: session.reserve([20], on_full="wait"),
}


@pytest.mark.parametrize("wait", list(WAITS))
def test_ctrl_c_ends_every_wait_promptly(full: tunring.Session, ctrl_c: Callable[[float], None], wait: str) -> None:
    for _ in range(2):
        began = time.monotonic()
        ctrl_c(0.05)
        with pytest.raises(KeyboardInterrupt):
            WAITS[wait](full)
        assert time.monotonic() - began < 1
    assert not full.receive(timeout=0.01), "the session is as it was"
    assert full.stats().reservations == 0


@pytest.mark.parametrize("packed", [False, True])
def test_an_interrupted_send_tells_how_far_it_came(pair: Pair, ctrl_c: Callable[[float], None], packed: bool) -> None:
    left, _ = pair
    ctrl_c(0.05)
    with pytest.raises(KeyboardInterrupt) as caught:
        left.send_packed(packet() * 20000, [20] * 20000) if packed else left.send([packet()] * 20000)
    sent = left.stats().sent_packets
    assert 0 < sent < 20000
    assert caught.value.__notes__ == [f"tunring: {sent} of 20000 packets were sent"]


def test_ctrl_c_before_the_wait_is_not_missed(pair: Pair, ctrl_c: Callable[[float], None]) -> None:
    for i in range(50):
        with pytest.raises(KeyboardInterrupt):
            ctrl_c(i * 0.0002)
            pair[0].receive(timeout=5)
            raise AssertionError("a wait slept through Ctrl-C")


def test_handlers_run_while_packets_follow_each_other(pair: Pair) -> None:
    """Waits that end soon are not prepared for signals; a handler has to run all the same, and the wait goes on."""
    left, right = pair
    packets, calls = 300, 0

    def handler(number: int, frame: object) -> None:
        nonlocal calls
        calls += 1
        signal.setitimer(signal.ITIMER_REAL, 0.002)

    def send() -> None:
        for _ in range(packets):
            left.send([packet()])
            time.sleep(0.0005)

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.002)
        with Threads() as threads:
            threads.start(send)
            got = 0
            while got < packets:
                with right.receive(timeout=20) as batch:
                    assert batch
                    got += len(batch)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert calls > 10


def test_what_was_sent_before_ctrl_c_is_sent(pair: Pair, ctrl_c: Callable[[float], None]) -> None:
    left, right = pair
    ctrl_c(0.05)
    with pytest.raises(KeyboardInterrupt):
        left.send([packet()] * 100000)
    with right.receive(65536) as batch:
        got = len(batch)
    while batch := right.receive(65536, timeout=0):
        got += len(batch)
        batch.release()
    assert got == left.stats().sent_packets > 0


def test_other_threads_wait_on(pair: Pair, ctrl_c: Callable[[float], None]) -> None:
    left, right = pair
    with Threads() as threads:
        threads.start(right.receive)
        ctrl_c(0.05)
        with pytest.raises(KeyboardInterrupt):
            left.receive()
        left.send([packet()])
    assert len(threads.results[0]) == 1
    threads.results[0].release()


@pytest.fixture
def wakeup() -> Iterator[socket.socket]:
    """The reading end of a wake-up descriptor such as asyncio's."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    reader.setblocking(False)
    handler = signal.signal(signal.SIGUSR1, lambda *_: None)
    before = signal.set_wakeup_fd(writer.fileno())
    yield reader
    assert signal.set_wakeup_fd(before) == writer.fileno(), "it was not restored"
    signal.signal(signal.SIGUSR1, handler)
    reader.close()
    writer.close()


def test_its_bytes_arrive_and_it_is_restored(pair: Pair, wakeup: socket.socket) -> None:
    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1)).start()
    assert not pair[0].receive(timeout=0.2)
    assert wakeup.recv(10) == bytes([signal.SIGUSR1])
    signal.raise_signal(signal.SIGUSR1)
    assert wakeup.recv(10) == bytes([signal.SIGUSR1])


def test_a_wait_that_ends_by_the_signal_passes_it_on(pair: Pair, wakeup: socket.socket) -> None:
    signal.signal(signal.SIGUSR1, lambda *_: pair[0].close())
    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1)).start()
    with pytest.raises(tunring.SessionClosed):
        pair[0].receive(timeout=20)
    assert wakeup.recv(10) == bytes([signal.SIGUSR1])


def test_a_handler_may_set_another_one(pair: Pair) -> None:
    reader, writer = socket.socketpair()
    writer.setblocking(False)

    def change(*_: object) -> None:
        signal.set_wakeup_fd(writer.fileno())

    before = signal.signal(signal.SIGUSR1, change)
    old = signal.set_wakeup_fd(-1)
    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1)).start()
    assert not pair[0].receive(timeout=0.2)
    assert signal.set_wakeup_fd(old) == writer.fileno()
    signal.signal(signal.SIGUSR1, before)
    reader.close()
    writer.close()


def test_asyncio_goes_on(pair: Pair) -> None:
    import asyncio

    async def main() -> list[str]:
        seen: list[str] = []
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, seen.append, "signal")
        threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        pair[0].receive(timeout=0.1)  # blocks the loop: the signal must not be lost
        for _ in range(200):
            if seen:
                break
            await asyncio.sleep(0.01)
        loop.remove_signal_handler(signal.SIGUSR1)
        return seen

    assert asyncio.run(main()) == ["signal"]


def test_a_descriptor_that_its_owner_closed_meanwhile(pair: Pair) -> None:
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    old = signal.set_wakeup_fd(writer.fileno())
    threading.Timer(0.05, lambda: (writer.close(), reader.close())).start()
    try:
        assert not pair[0].receive(timeout=0.2)
    finally:
        assert signal.set_wakeup_fd(old) == -1


@pytest.mark.parametrize("blocking", [False, True])
def test_its_number_is_another_files_by_now(pair: Pair, blocking: bool) -> None:
    """Nothing is written to an unrelated file with the descriptor's number, during the wait or after it."""
    handler = signal.signal(signal.SIGUSR1, lambda *_: None)
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    others: list[socket.socket] = []

    def replace() -> None:
        number = writer.fileno()
        writer.close()
        others.extend(socket.socketpair())
        assert number in [other.fileno() for other in others]
        for other in others:
            other.setblocking(blocking)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    old = signal.set_wakeup_fd(writer.fileno())
    timer = threading.Timer(0.05, replace)
    timer.start()
    try:
        assert not pair[0].receive(timeout=0.2)
        signal.raise_signal(signal.SIGUSR1)
    finally:
        set_by_then = signal.set_wakeup_fd(old)
        signal.signal(signal.SIGUSR1, handler)
        timer.join()
    assert set_by_then == -1
    for other in others:
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            other.recv(10)
    for end in (*others, reader):
        end.close()


def test_ctrl_c_after_a_handler_that_ran_a_loop(pair: Pair, ctrl_c: Callable[[float], None]) -> None:
    """The loop sets the wake-up descriptor, and none at its end; the wait goes on and must still hear of signals."""
    import asyncio

    async def run() -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, lambda: None)
        await asyncio.sleep(0)

    before = signal.signal(signal.SIGUSR1, lambda *_: asyncio.run(run()))
    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1)).start()
    ctrl_c(0.3)
    began = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            pair[0].receive(timeout=5)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert time.monotonic() - began < 2


def test_a_wait_in_a_handler_of_another(pair: Pair, wakeup: socket.socket, ctrl_c: Callable[[float], None]) -> None:
    """An inner wait leaves the outer one its signals, and the program its descriptor."""
    inner: list[tunring.Batch] = []
    signal.signal(signal.SIGUSR1, lambda *_: inner.append(pair[0].receive(timeout=0.05)))
    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1)).start()
    ctrl_c(0.4)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        pair[1].receive(timeout=5)
    assert time.monotonic() - began < 2
    assert inner
    assert signal.SIGUSR1 in wakeup.recv(10)
