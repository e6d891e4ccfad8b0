"""The libraries' log lines, in Python.

The libraries call back on any thread that has something to log. The core queues the lines without Python, and one
thread here drains the queue.
"""

from __future__ import annotations

import atexit
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from tunring import _core
from tunring._library import the_library

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    #: ``callable(level, text)`` with a level of the logging module, or a logger.
    LogTarget = Callable[[int, str], object] | logging.Logger

# The logging module is imported only when lines are wanted: the package loads in three quarters of the time without it.
_INFO, _WARNING, _ERROR = 20, 30, 40  # as in that module
_LEVELS = {0: _INFO, 1: _WARNING, 2: _ERROR}

# A signal handler or a finalizer may set a logger as well, in a thread that is just setting one.
_lock = threading.RLock()
_targets: dict[int, Callable[[int, str], object]] = {}
#: The one that drains the queue, once it is needed.
_threads: dict[str, threading.Thread] = {}


def _drain() -> None:
    while (line := _core.log_next()) is not None:
        library, level, _, text = line
        target = _targets.get(library)
        if target is None:
            continue
        _deliver(target, _LEVELS.get(level, _ERROR), text)


def _deliver(target: Callable[[int, str], object], level: int, text: str) -> None:
    # SystemExit, too, is only a failure here: this thread serves all libraries, and its end would not end the program.
    try:
        target(level, text)
    except BaseException:
        import logging

        # The handlers that this comes to may be what failed.
        with suppress(BaseException):
            logging.getLogger("tunring").exception("the log target failed")


def _stop() -> None:
    _core.log_stop()
    for thread in _threads.values():
        if thread.ident is not None:  # else it never started
            thread.join()


def _start_thread() -> None:
    if _threads:
        return
    thread = threading.Thread(target=_drain, name="tunring-log", daemon=True)
    # In one step, for what may come here in the middle of it.
    if _threads.setdefault("drain", thread) is thread:
        atexit.register(_stop)
        thread.start()


def _forget_parent() -> None:
    # The child of a fork has neither the thread nor its queue.
    global _lock  # noqa: PLW0603
    _lock = threading.RLock()
    _targets.clear()
    _threads.clear()
    atexit.unregister(_stop)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)


def set_logger(target: LogTarget | None, library: _core.Library | None = None) -> None:
    """Send a library's log lines to a callable or a logger, or nowhere with None.

    Parameters
    ----------
    target : callable, logging.Logger or None
        A callable gets the level, as in the logging module, and the text. It runs in a thread of tunring's own, a
        moment after the line was written, and may do anything, even close sessions.
    library : Library, optional
        The library whose lines are sent; by default that of :func:`tunring.load`.

    Raises
    ------
    TypeError
        ``target`` is neither.

    Examples
    --------
    >>> import logging, tunring
    >>> tunring.set_logger(logging.getLogger("tunring"), tunring.load("loopback"))
    >>> tunring.set_logger(None, tunring.load("loopback"))
    """
    import logging

    call = target.log if isinstance(target, logging.Logger) else target
    if call is not None and not callable(call):
        raise TypeError(f"target must be a callable, a logging.Logger or None, not {target!r}")
    library = the_library(library)
    with _lock:
        if call is None:
            _core.log_enable(library, False)
            _targets.pop(library.log_id, None)
            return
        _targets[library.log_id] = call
        _core.log_enable(library, True)
        _start_thread()
