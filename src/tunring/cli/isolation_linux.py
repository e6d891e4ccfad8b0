"""A child process for what would change its process for good."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

assert sys.platform == "linux"


def run_in_child(command: Callable[[], int]) -> int:
    """Fork, run a command in the child, and return its exit code. Interrupts are handed on.

    The child is interrupted once: a terminal sends Ctrl-C to both processes, and the second one of the two would
    interrupt what cleans up after the first.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    signals = (signal.SIGINT, signal.SIGTERM)
    # Held back until both sides know what to do with them.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.signal(signal.SIGINT, _interrupt_once)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            code = command()
            sys.stdout.flush()
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(code)
    handlers = [signal.signal(number, lambda number, _: os.kill(child, number)) for number in signals]
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        # Without reaping it: until then the handlers may send it signals, and its number is nobody else's.
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    finally:
        for number, handler in zip(signals, handlers, strict=True):
            signal.signal(number, handler)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code  # of a signal, as shells have it


def _interrupt_once(number: int, _: object) -> None:
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
