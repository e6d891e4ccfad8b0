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
    """Fork, run a command in the child, and return its exit code. Interrupts are handed on."""
    sys.stdout.flush()
    sys.stderr.flush()
    signals = (signal.SIGINT, signal.SIGTERM)
    # Held back until both sides know what to do with them.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    child = os.fork()
    if child == 0:
        code = 1
        try:
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
        _, status = os.waitpid(child, 0)
    finally:
        for number, handler in zip(signals, handlers, strict=True):
            signal.signal(number, handler)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code  # of a signal, as shells have it
