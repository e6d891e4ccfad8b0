"""Configuring one adapter's interface: in one piece or not at all, and undone when the adapter is closed.

How a system does it is in ``_linux`` and ``_windows``, behind the same face.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from tunring.configuration import Request, check_request
from tunring.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    from tunring._adapter import Adapter
    from tunring.configuration import Address, Configuration, Host, RouteLike

    #: What was changed -> how to make it what it was, given the system's interface. Each may be done when it is so.
    Changes = dict[tuple[Hashable, ...], Callable[[Any], None]]

T = TypeVar("T")


class System(Protocol):
    """One interface, as the system's own tools see it."""

    def apply(self, request: Request, earlier: Request, changes: Changes) -> None:
        """Do what is asked for, note how to undo it as it is done, and compare what the system then says."""

    def read(self) -> Configuration:
        """Ask the system what the interface has."""


class Target(Protocol):
    """Where an adapter's interface is to be configured: a block in which that is possible."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...

    def run(self, work: Callable[[System], T]) -> T:
        """Call a function with the interface."""


def _target(adapter: Adapter) -> Target:
    if sys.platform == "linux":
        from tunring.configuration._linux import LinuxTarget

        return LinuxTarget(adapter)
    elif sys.platform == "win32":
        from tunring.configuration._windows import WindowsTarget

        return WindowsTarget(adapter)
    else:
        raise NotImplementedError(f"configuring adapters is not built for {sys.platform}")


#: Adapters whose interfaces stay and have something to take back, for programs that end without closing them.
_configured: weakref.WeakSet[Adapter] = weakref.WeakSet()


@atexit.register
def _undo_at_exit() -> None:
    for adapter in list(_configured):
        adapter._configurator.undo(adapter, everything=True)  # noqa: SLF001


class Configurator:
    """What ``configure()`` has given an adapter's interface, and how to take it back."""

    def __init__(self) -> None:
        # The same thread may come again, by a signal handler that closes the adapter.
        self._lock = threading.RLock()
        self._given = Request()
        self._undo: Changes = {}
        # Whoever inherits this object by a fork has nothing to take back.
        self._process = os.getpid()

    def configure(
        self,
        adapter: Adapter,
        addresses: Iterable[Address],
        mtu: int | None,
        metric: int | None,
        dns: Iterable[str | Host],
        routes: Iterable[RouteLike],
        up: bool,
    ) -> Configuration:
        """Do what :meth:`tunring.Adapter.configure` says."""
        with self._lock:
            earlier = self._given
            request = check_request(addresses, mtu, metric, dns, routes, up, earlier)
            changes: Changes = {}

            def work(interface: System) -> Configuration:
                try:
                    interface.apply(request, earlier, changes)
                    return interface.read()
                except BaseException:
                    _roll_back(interface, changes)
                    raise

            with _target(adapter) as target:
                try:
                    found = target.run(work)
                    self._given = request.after(earlier)
                finally:
                    if adapter._stays:  # noqa: SLF001
                        _configured.add(adapter)
                    for what, undo in changes.items():
                        self._undo.setdefault(what, undo)
                    if adapter.closed:  # meanwhile: close() has undone what came before
                        target.run(lambda interface: _roll_back(interface, self._undo))
            return found

    def undo(self, adapter: Adapter, *, everything: bool) -> Exception | None:
        """Take back what was given; unless everything, then only what would outlive the interface itself.

        Returns what went wrong, if anything: closing goes on all the same.
        """
        with self._lock:
            changes, self._undo = self._undo, {}
            if not everything:
                changes = {what: undo for what, undo in changes.items() if what[0] == "dns"}
            if not changes or self._process != os.getpid():
                return None
            try:
                with _target(adapter) as target:
                    target.run(lambda interface: _roll_back(interface, changes, strict=True))
            except (NotFound, NotImplementedError):
                return None  # the interface is gone, and took it all along
            except Exception as error:
                return error
            return None


def read(adapter: Adapter) -> Configuration:
    """Do what :meth:`tunring.Adapter.configuration` says."""
    with _target(adapter) as target:
        return target.run(lambda interface: interface.read())


def _roll_back(interface: System, changes: Changes, *, strict: bool = False) -> None:
    """Undo changes, the last first; what fails doesn't keep the others, and is raised at the end if strict."""
    failure: OSError | None = None
    while changes:
        _, undo = changes.popitem()
        try:
            undo(interface)
        except OSError as error:
            failure = failure or error
    if strict and failure:
        raise failure
