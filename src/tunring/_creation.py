"""Creating an adapter, where one of its name may be there already."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from tunring import _core
from tunring._system.privilege import is_elevated
from tunring._win32 import Win32
from tunring.errors import AccessDenied, AdapterBusy, AlreadyExists, NotFound, WintunError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Policies for an adapter of that name.
IfExists: TypeAlias = Literal["error", "open", "recreate"]

#: Codes of the official DLL for an adapter that is just going: its key, or its device, has gone already.
_GOING = {Win32.KEY_DELETED, Win32.DEVICE_NOT_AVAILABLE}

#: Within which the official DLL has cleaned up after a process that died.
_CLEAN_UP_SECONDS = 5.0


def check_if_exists(if_exists: str) -> None:
    """Refuse other policies."""
    if if_exists not in get_args(IfExists):
        raise ValueError(f"if_exists must be one of {', '.join(map(repr, get_args(IfExists)))}, not {if_exists!r}")


def create_handle(
    library: _core.Library,
    name: str,
    tunnel_type: str,
    guid: bytes | None,
    if_exists: IfExists,
    ours: set[int],
    queues: int,
) -> tuple[_core.AdapterHandle, bool]:
    """Create an adapter, or open the one that is there; returns it, and whether it was there.

    Parameters
    ----------
    ours : set of int
        LUIDs of the adapters of this library that this process has open, which are not orphans.
    queues : int
        More than 1 only for ``tun_linux``.
    """
    with explained(library):
        if if_exists != "error" and (found := _open(library, name)):
            if if_exists == "open":
                return found, True
            _remove(library, name, found, ours)
        if not library.official:
            return library.create_adapter(name, tunnel_type, guid, queues), False
        _refuse_taken_name(library, name)
        handle = library.create_adapter(name, tunnel_type, guid or _stable_guid(name))
        _refuse_other_name(handle, name)
        return handle, False


@contextmanager
def explained(library: _core.Library) -> Iterator[None]:
    """A failure caused by missing elevation is reported as such, whatever code the DLL returned."""
    try:
        yield
    except (AlreadyExists, AdapterBusy, NotFound):
        raise
    except WintunError as error:
        if library.official and not is_elevated():
            from tunring._system.official import ELEVATION_ADVICE

            raise AccessDenied(Win32.ACCESS_DENIED, f"{error.strerror}\n{ELEVATION_ADVICE}") from None
        raise


def open_handle(library: _core.Library, name: str) -> _core.AdapterHandle:
    """Open an adapter. One that is just going is waited for, and then there is none of that name."""
    end = time.monotonic() + _CLEAN_UP_SECONDS
    while True:
        try:
            return library.open_adapter(name)
        except WintunError as error:
            if error.winerror not in _GOING:
                raise
            if time.monotonic() > end:
                raise AdapterBusy(Win32.BUSY, f"the adapter {name!r} is being removed, and still exists") from error
        time.sleep(0.01)


def _open(library: _core.Library, name: str) -> _core.AdapterHandle | None:
    try:
        return open_handle(library, name)
    except NotFound:
        return None


def _taken(name: str, why: str) -> AlreadyExists:
    return AlreadyExists(Win32.ALREADY_EXISTS, f"can't create adapter {name!r}: {why}")


def _remove(library: _core.Library, name: str, found: _core.AdapterHandle, ours: set[int]) -> None:
    """Remove an orphan: an interface that no process uses."""
    luid = found.luid
    try:
        if luid in ours or library.name == "loopback":
            raise _taken(name, "this process has an adapter of that name open")
        if sys.platform == "linux" and library.name == "tun_linux":
            from tunring._system.orphan_linux import remove

            remove(found, name)
    finally:
        found.close()
    if library.official:
        _wait_for_clean_up(library, name)


def _wait_for_clean_up(library: _core.Library, name: str) -> None:
    # Whenever a handle is closed the DLL removes, on a thread of its own, the adapters whose processes have died.
    end = time.monotonic() + _CLEAN_UP_SECONDS
    while found := _open(library, name):
        found.close()
        if time.monotonic() > end:
            raise _taken(name, "the process that made the adapter of that name is still running")
        time.sleep(0.05)


def _refuse_taken_name(library: _core.Library, name: str) -> None:
    """The official DLL would silently make "Name 1" of a name that is taken."""
    if found := _open(library, name):
        found.close()
        if pinned := _core.pinned_sessions():
            message = f"adapter {name!r} can't be removed until the packets of {pinned} closed sessions are released"
            raise AdapterBusy(Win32.BUSY, message)
        raise _taken(name, "an adapter of that name exists already")
    if sys.platform == "win32":
        from tunring._system.alias_windows import luid_of

        if luid_of(name) is not None:
            raise _taken(name, "another network interface has that name")


def _refuse_other_name(handle: _core.AdapterHandle, name: str) -> None:
    """Somebody may have been faster."""
    if sys.platform == "win32":
        from tunring._system.alias_windows import alias_of

        alias = alias_of(handle.luid)
        if alias is not None and alias.lower() != name.lower():
            handle.close()
            raise _taken(name, "another network interface has just taken that name")


def _stable_guid(name: str) -> bytes | None:
    if sys.platform == "win32":
        from tunring._system.official import stable_guid
        from tunring._system.official_windows import machine_id

        return stable_guid(name, machine_id()).bytes_le
    else:
        return None
