"""Configuring one adapter's interface: in one piece or not at all, and undone when the adapter is closed.

How a system does it is in ``configuration._linux`` and ``configuration._windows``, behind the same face. An adapter is
nothing here but a :class:`Target`.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, TypeVar

from tunring.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tunring import _core
    from tunring.configuration import Configuration
    from tunring.configuration._request import Given, Request

#: A thing that configuration changes: its kind, and which one.
Key: TypeAlias = tuple[Any, ...]

#: Kinds of things that don't go with the interface.
_OUTLIVING = {"bypass", "dns", "rule", "sysctl"}

T = TypeVar("T")


class Target(NamedTuple):
    """An adapter's interface, and where it is."""

    name: str
    #: None for an adapter that the system has no interface of, or not yet.
    ifindex: int | None
    luid: int
    #: A descriptor of the network namespace it is in, or -1. It belongs to whoever has the target.
    namespace: int
    #: The name of the adapter's library.
    library: str
    #: The library is the official DLL.
    official: bool


def name_of(handle: _core.AdapterHandle, library: _core.Library, luid: int) -> str | None:
    """The interface's name as the system knows it now, or None where the library doesn't report it."""
    if sys.platform == "win32" and library.official:
        from tunring._system.alias_windows import alias_of

        return alias_of(luid)
    return handle.name


def index_of(handle: _core.AdapterHandle, library: _core.Library, luid: int) -> int | None:
    """The interface's index now, or None where the library can't tell or the system has no such interface."""
    index = handle.index  # raises ValueError once it is closed
    if sys.platform == "win32" and library.official:
        from tunring._system.iphelper_windows import index_of as index_of_luid

        return index_of_luid(luid)
    return index


def locate(handle: _core.AdapterHandle, library: _core.Library, luid: int, name: str) -> Target:
    """Where an adapter's interface is now. It is not a method, so that no reference leads in a circle."""
    index = index_of(handle, library, luid)
    name = name_of(handle, library, luid) or name
    return Target(name, index, luid, handle.open_namespace(), library.name, library.official)


class Changes:
    """Values from before each change, by the call that is going on and by all calls.

    Parameters
    ----------
    first : dict
        The state before the first change of each thing. All calls add to it as they go on, since a signal handler
        may configure, or close the adapter, in the middle of another call.
    """

    def __init__(self, first: dict[Key, Any]) -> None:
        self._first = first
        self._added: list[Key] = []
        self._originals: dict[Key, Any] = {}
        self.noted: dict[Key, Any] = {}

    def note(self, key: Key, before: Any) -> None:
        """Note a setting before it is changed; None if there is none. The first note of a setting counts."""
        if key in self.noted:
            return
        self.noted[key] = before
        if key not in self._first:
            self._added.append(key)
        self._originals[key] = self._first.setdefault(key, before)

    def original(self) -> dict[Key, Any]:
        """Values from before the first call; of those that this one has changed, also after the adapter was closed."""
        return self._originals | self._first

    def forget(self) -> None:
        """Take the notes of this call back, which has changed nothing in the end."""
        for key in self._added:
            self._first.pop(key, None)


class System(Protocol):
    """One interface, as the system's own tools see it."""

    def apply(self, request: Request, earlier: Request, changes: Changes) -> Configuration:
        """Apply a request, note what was there before it is changed, and compare with the system's state afterwards."""

    def read(self) -> Configuration:
        """Read the interface's configuration from the system."""

    def restore(self, before: Mapping[Key, Any]) -> Exception | None:
        """Make things what they were; returns the first failure, which keeps the others from nothing."""

    def sweep(self, *, interface: bool) -> None:
        """Remove what a killed process has left: on the interface too, or only beside it."""


def _call(target: Target, work: Callable[[System], T]) -> T:
    """Call a function with the interface, where it is."""
    if sys.platform == "linux":
        from tunring.configuration._linux import call_with_interface

        return call_with_interface(target, work)
    elif sys.platform == "win32":
        from tunring.configuration import _windows

        return _windows.call_with_interface(target, work)
    else:
        raise NotImplementedError(f"configuring adapters is not built for {sys.platform}")


def _bypass(target: Target, sock: Any, given: Request) -> None:
    if sys.platform == "linux":
        from tunring.configuration._linux import bypass

        bypass(target, sock, given)
    elif sys.platform == "win32":
        from tunring.configuration import _windows

        _windows.bypass(target, sock, given)
    else:
        raise NotImplementedError(f"configuring adapters is not built for {sys.platform}")


#: Those that have something to take back which would stay, for programs that end without closing their adapters.
_configured: weakref.WeakSet[Configurator] = weakref.WeakSet()


@atexit.register
def _undo_at_exit() -> None:
    for configurator in list(_configured):
        configurator.close()


class Configurator:
    """Everything that ``configure()`` has given an adapter's interface, and how to take it back.

    Parameters
    ----------
    locate : callable
        Gives the target of the moment, and raises ValueError once the adapter is closed.
    stays : bool
        The interface does, when the adapter is closed.
    opened : bool
        It was there before the adapter, which nobody but this process is attached to.
    call : callable, optional
        Calls a function with the target's interface, as the system has it.
    """

    def __init__(
        self, locate: Callable[[], Target], *, stays: bool, opened: bool, call: Callable[[Target, Any], Any] = _call
    ) -> None:
        # The same thread may come again, by a signal handler that configures or closes the adapter.
        self._lock = threading.RLock()
        self._locate = locate
        self._call = call
        self._stays = stays
        self._opened = opened
        self._swept = False
        self._given: Request | None = None
        self._before: dict[Key, Any] = {}
        self._closed = False
        self._process = os.getpid()

    @property
    def queue_length(self) -> int | None:
        """The length of the interface's queue that was asked for."""
        return None if self._given is None else self._given.queue_length

    def _own_lock(self, *, getpid: Callable[[], int] = os.getpid) -> threading.RLock:  # at exit, modules may be empty
        """Return the lock. A forked child gets one of its own, as another thread may hold its parent's.

        A child that inherits this object by a fork has nothing to undo.
        """
        if self._process != getpid():
            self._process = getpid()
            self._lock = threading.RLock()
            self._before = {}
            self._swept = True
        return self._lock

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise ValueError("the adapter is closed")

    @contextmanager
    def _target(self) -> Iterator[Target]:
        target = self._locate()
        try:
            yield target
        finally:
            if target.namespace >= 0:
                os.close(target.namespace)

    def configure(self, given: Given) -> Configuration:
        """Implement :meth:`tunring.Adapter.configure`."""
        from tunring.configuration._request import Request, check_request

        with self._own_lock():
            self._refuse_if_closed()
            earlier = self._given or Request()
            request = check_request(given, earlier)
            changes = Changes(self._before)

            def work(interface: System) -> Configuration:
                self._sweep(interface)
                try:
                    return interface.apply(request, earlier, changes)
                except BaseException:
                    if not interface.restore(changes.noted):
                        changes.forget()
                    raise

            with self._target() as target:
                _require_interface(target)
                try:
                    found: Configuration = self._call(target, work)
                    # A signal handler may have configured meanwhile.
                    self._given = request.after(self._given or Request()).resolved(found)
                except Exception as error:
                    if self._closed:  # by a signal handler meanwhile: the changes it took back are missed
                        raise ValueError("the adapter is closed") from error
                    raise
                finally:
                    if self._before and (self._stays or self._outliving()):
                        _configured.add(self)
                    if self._closed:  # by a signal handler meanwhile, which has undone what came before
                        self._call(target, lambda interface: interface.restore(changes.original()))
                        self._before.clear()
            return found

    def read(self) -> Configuration:
        """Implement :meth:`tunring.Adapter.configuration`."""
        with self._target() as target:
            _require_interface(target)
            found: Configuration = self._call(target, lambda interface: interface.read())
            return found

    def bypass(self, sock: Any) -> None:
        """Implement :meth:`tunring.Adapter.bypass`."""
        given = self._given
        if given is None or not given.default:
            raise RuntimeError("the adapter has no default route to bypass: configure(default=True) gives it one")
        with self._target() as target:
            _bypass(target, sock, given)

    def close(self) -> Exception | None:
        """Take back what was given, or what of it would outlive the interface if that goes.

        Returns the problem, if any: closing goes on nevertheless. Idempotent. May be called at any time.
        """
        with self._own_lock():
            self._closed = True
            before = dict(self._before) if self._stays else self._outliving()
            self._before.clear()
            unswept = self._opened and not self._swept
            # At exit, modules may be empty already: without something to do, none is asked.
            if not (before or unswept):
                return None
            try:
                return self._restore(before)
            except (NotFound, NotImplementedError, ValueError):
                return None  # the interface is gone, and took it all along
            except Exception as error:
                return error if before else None

    def leave(self) -> None:
        """Take nothing back any more: somebody else goes on with the interface."""
        with self._lock:
            self._closed = True
            self._before = {}
            _configured.discard(self)

    def _restore(self, before: dict[Key, Any]) -> Exception | None:
        def work(interface: System) -> Exception | None:
            self._sweep(interface)
            return interface.restore(before)

        with self._target() as target:
            failure: Exception | None = self._call(target, work)
            return failure

    def _sweep(self, interface: System) -> None:
        """Once, before anything is changed: nobody but a process that is gone can have made what is marked as ours."""
        if not self._swept:
            interface.sweep(interface=self._opened)
            self._swept = True

    def _outliving(self) -> dict[Key, Any]:
        return {key: before for key, before in self._before.items() if key[0] in _OUTLIVING}


def _require_interface(target: Target) -> None:
    if target.ifindex is None and not target.official:
        text = f"adapter {target.name!r} of {target.library} can't be configured: the system has no such interface"
        raise NotImplementedError(text)
