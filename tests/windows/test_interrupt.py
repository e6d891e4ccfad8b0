"""Ctrl-C out of every wait, through Python's own event, and where there is no such event."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

import tunring
from running import Threads, check_script, kick

if TYPE_CHECKING:
    Pair = tuple[tunring.Session, tunring.Session]

assert sys.platform == "win32"

WAITS = {
    "receive": "session.receive()",
    "receive in time": "session.receive(timeout=20)",
    "batches": "next(iter(session.batches()))",
    "send": "session.send([packet()] * 3)",
    "send_packed": "session.send_packed(packet(), [20])",
    "reserve": "session.reserve([20], on_full='wait')",
}

FULL = """
import time
adapter = tunring.Adapter.create("full", library=tunring.load("loopback"))
driver = tunring.testing.Simulator.attach(adapter)
session = adapter.start_session(tunring.MIN_CAPACITY)
session.send([packet()] * 10000, on_full="partial")
def check(wait):
    began = time.perf_counter()
    try:
        wait()
    except KeyboardInterrupt:
        assert time.perf_counter() - began < 10
    else:
        raise AssertionError("it returned")
"""


@pytest.fixture
def _not_for_us() -> object:
    """Ctrl-C reaches all programs of the console: only the one that is tested listens."""
    kernel = ctypes.windll.kernel32
    kernel.SetConsoleCtrlHandler(None, True)
    yield
    kernel.SetConsoleCtrlHandler(None, False)


@pytest.mark.usefixtures("_not_for_us")
@pytest.mark.parametrize("wait", list(WAITS))
def test_ctrl_c_in_the_console(wait: str) -> None:
    check_script(f"""{FULL}
import ctypes, threading
kernel = ctypes.WinDLL("kernel32", use_last_error=True)
kernel.SetConsoleCtrlHandler(None, False)
def press():
    if not kernel.GenerateConsoleCtrlEvent(0, 0):
        print("not pressed:", ctypes.get_last_error())
for i in range(2):
    threading.Timer(0.1, press).start()
    check(lambda: {WAITS[wait]})
session.close()
adapter.close()
""")


def test_before_the_wait_it_is_not_missed(pair: Pair) -> None:
    for i in range(50):
        with pytest.raises(KeyboardInterrupt):
            kick(i * 0.0002)
            pair[0].receive(timeout=20)
            raise AssertionError("a wait slept through it")


def test_the_next_wait_sleeps_again(pair: Pair) -> None:
    kick()
    with pytest.raises(KeyboardInterrupt):
        pair[0].receive()
    before = pair[0].stats().waits
    began = time.perf_counter()
    assert not pair[0].receive(timeout=0.2)
    assert time.perf_counter() - began >= 0.19
    assert pair[0].stats().waits - before <= 2, "the event was still set"


def test_other_threads_wait_on(pair: Pair) -> None:
    left, right = pair
    with Threads() as threads:
        threads.start(right.receive)
        kick()
        with pytest.raises(KeyboardInterrupt):
            left.receive()
        right.close()
        threads.threads[0].join()
        assert isinstance(threads.errors.pop(), tunring.SessionClosed)


@pytest.mark.parametrize("wait", list(WAITS))
def test_without_the_event(wait: str) -> None:
    source = f"""
import sys, ctypes  # which looks there too
del sys.dllhandle  # where the event is looked up
import signal, threading
import tunring, tunring.testing
def packet():
    return bytes([0x45]) + bytes(19)
{FULL}
for i in range(2):
    threading.Timer(0.1, signal.raise_signal, (signal.SIGINT,)).start()
    check(lambda: {WAITS[wait]})
session.close()
adapter.close()
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
