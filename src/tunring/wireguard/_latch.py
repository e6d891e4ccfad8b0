"""An event that a signal handler may set in the middle of anything, also of a wait for it."""

from __future__ import annotations

import threading
from contextlib import suppress


class Latch:
    """Set once, and then for good.

    A :class:`threading.Event` has a lock of its own: a handler that sets it in the thread which has just taken that
    lock would wait for ever.
    """

    def __init__(self) -> None:
        self._set = False
        self._lock = threading.Lock()  # locked until it is set; and for a moment by each waiter that was woken
        self._lock.acquire()

    def set(self) -> None:
        """Let everybody go on who waits. Idempotent. May be called from any thread."""
        self._set = True
        with suppress(RuntimeError):  # another one has released it
            self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, or for that many seconds; returns whether it is."""
        if not self._set and self._lock.acquire(timeout=-1 if timeout is None else max(0.0, timeout)):
            self.set()  # for the next one
        return self._set
