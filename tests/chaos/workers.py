"""Threads of an operation's own."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from ledger import Wrong

import tunring

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Workers:
    """A thread for each function, which may end by SessionClosed, and by no other exception."""

    def __init__(self, works: Iterable[Callable[[], None]]) -> None:
        self._failures: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(work,), daemon=True) for work in works]
        for thread in self._threads:
            thread.start()

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except tunring.SessionClosed:
            pass
        except BaseException as error:
            self._failures.append(error)

    def end(self, what: str) -> None:
        """Wait for all. Raises Wrong if one goes on, `what` says which; and what one has raised."""
        for thread in self._threads:
            thread.join(15)
        if any(thread.is_alive() for thread in self._threads):
            raise Wrong(what)
        if self._failures:
            raise self._failures[0]
