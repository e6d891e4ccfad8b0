"""Signal handlers at each line of Python code."""

from __future__ import annotations

import faulthandler
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

T = TypeVar("T")

#: The beginning of scripts that use what is here.
BEGIN = f"""
import sys
sys.path.append({str(Path(__file__).parent)!r})
from lines import at_each_line
"""

#: Seconds after which one operation hangs.
_LIMIT = 30


def at_each_line(make: Callable[[], T], operation: Callable[[T], object], handler: Callable[[T], object]) -> int:
    """Performs an operation again and again, each time with a signal handler at the next line that it executes.

    Lines of other modules count, such as those of :mod:`threading`. Returns the number of lines; an operation that
    hangs ends the process, with the stacks of its threads. For the main thread.
    """
    assert threading.current_thread() is threading.main_thread()
    wanted = 0
    while True:
        wanted += 1
        subject = make()
        if not _perform(lambda subject=subject: operation(subject), wanted, lambda subject=subject: handler(subject)):
            return wanted - 1


def _perform(operation: Callable[[], object], wanted: int, handler: Callable[[], object]) -> bool:
    """Perform it once. False if it had fewer lines."""
    lines = 0

    def handle(*_: object) -> None:
        sys.settrace(None)
        handler()

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal lines
        if event == "line" and frame.f_code.co_filename != __file__:
            lines += 1
            if lines == wanted:
                signal.raise_signal(signal.SIGUSR1)
        return trace

    signal.signal(signal.SIGUSR1, handle)
    # By a signal, which ends the process after the stacks. A thread that watches the clock, as dump_traceback_later()
    # has, may hold the allocator of GCC's sanitizer when the handler forks: the child would hang at its next object.
    faulthandler.register(signal.SIGALRM, chain=True)
    signal.alarm(_LIMIT)
    sys.settrace(trace)
    try:
        operation()
    finally:
        sys.settrace(None)
        signal.alarm(0)
    return lines >= wanted
