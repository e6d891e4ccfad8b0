"""Threads and processes of tests."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from typing import TYPE_CHECKING, Any, Self

import libraries

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

#: True in a build of Python that needs no GIL. For Python 3.13 some packages have no wheels of that kind.
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))

SANITIZED = bool(os.environ.get("TUNRING_SANITIZE"))

#: Seconds within which every call returns once its session is closed.
PROMPT = 1.0 if SANITIZED else 0.1

#: Seconds after which something that should have happened never will.
NEVER = 20.0


class Threads:
    """Runs functions in threads; the block's end waits for them and raises what the first of them raised.

    `results` has what they returned, and `ended` the clock's time when each returned, in order of start.
    """

    def __init__(self, limit: float = NEVER) -> None:
        self.limit = limit  # seconds from the block's end
        self.threads: list[threading.Thread] = []
        self.results: list[Any] = []
        self.ended: list[float] = []
        self.errors: list[BaseException] = []

    def start(self, function: Callable[..., Any], *arguments: Any) -> None:
        index = len(self.threads)
        self.results.append(None)
        self.ended.append(0.0)

        def run() -> None:
            try:
                self.results[index] = function(*arguments)
            except BaseException as error:
                self.errors.append(error)
            finally:
                self.ended[index] = time.monotonic()

        thread = threading.Thread(target=run, daemon=True)
        self.threads.append(thread)
        thread.start()

    def join(self) -> None:
        limit = time.monotonic() + self.limit
        for thread in self.threads:
            thread.join(max(0.0, limit - time.monotonic()))
        assert not any(thread.is_alive() for thread in self.threads), "a thread hangs"
        if self.errors:
            raise self.errors[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.join()


def eventually(condition: Callable[[], bool], seconds: float = NEVER) -> bool:
    """True as soon as the condition holds; False when it doesn't in time."""
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit:
            return False
        time.sleep(0.001)
    return True


#: A signal that tests send to themselves.
SIGNAL = signal.SIGINT if sys.platform == "win32" else signal.SIGUSR1


def kick(seconds: float = 0.05) -> None:
    """Sends a signal to the main thread after a while."""
    threading.Timer(seconds, _kick).start()


def _kick() -> None:
    if sys.platform == "win32":
        signal.raise_signal(SIGNAL)  # whichever thread raises it
    else:
        signal.pthread_kill(threading.main_thread().ident or 0, SIGNAL)


def is_set(event: int) -> bool:
    """True if a read event of our own libraries is ready, which a look does not change."""
    if sys.platform == "win32":
        return ctypes.windll.kernel32.WaitForSingleObject(ctypes.c_void_p(event), 0) == 0
    return bool(select.select([event], [], [], 0)[0])


#: ERROR_INTERNAL_ERROR
_INTERNAL_ERROR = 1359

_PREAMBLE = """
import tunring, tunring.testing
def packet(size=20, number=0):
    return bytes([0x45, 0, *size.to_bytes(2, "big"), *number.to_bytes(4, "big")]) + bytes(size - 8)
"""


def run_script(source: str, *options: str, library: str = "") -> subprocess.CompletedProcess[str]:
    """Runs a script in a Python of its own, in which `tunring` and `packet` are known.

    If it is over a library, so are `library`, the loaded one, and `pair`.
    """
    source = _PREAMBLE + (libraries.for_scripts(library) if library else "") + source
    command = [sys.executable, *options, "-c", source]
    return _started(command, capture_output=True, text=True, timeout=60)


def _started(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """The outcome of a program, which is started again where the system fails to."""
    for _ in range(3):
        try:
            return subprocess.run(command, check=False, **options)
        except OSError as error:
            # Wine's own, rarely: the program hasn't begun.
            if getattr(error, "winerror", None) != _INTERNAL_ERROR:
                raise
    raise AssertionError("no program can be started")


def check_script(source: str, *options: str, library: str = "") -> str:
    """Runs a script that must succeed and print nothing on stderr. Returns what it printed."""
    done = run_script(source, *options, library=library)
    assert (done.returncode, done.stderr) == (0, ""), f"exit code {done.returncode}:\n{done.stderr}"
    return done.stdout


def check_program(*command: str | Path, **options: Any) -> str:
    """Runs a program that must succeed, outside the tree, and returns its output."""
    done = _started(
        [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        **{"cwd": "/", **options},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout
