"""The libraries that the tests run over, and what differs between them: how a cable and a simulator come about.

The official DLL is one of them where ``TUNRING_TEST_STANDIN`` names the DLL that plays the driver for it.
"""

from __future__ import annotations

import ctypes
import functools
import os
import uuid

import tunring
import tunring.testing
from tunring import _core

STANDIN = os.environ.get("TUNRING_TEST_STANDIN", "")

#: Those that work here without privileges.
NAMES = ["loopback", "wintun"] if STANDIN else ["loopback"]


@functools.cache
def stand_in() -> ctypes.CDLL:
    """The driver's stand-in, installed: wintun.dll must not be loaded before."""
    library = ctypes.CDLL(STANDIN)
    assert library.StandinInstall(), "the stand-in can't be installed"
    library.StandinConnect.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    return library


@functools.cache
def load(name: str) -> tunring.Library:
    """The library of that name, with a simulator."""
    if name != "wintun":
        return tunring.load(name)
    stand_in()
    # The guard's fillers would take room in rings that tests fill to the byte.
    library = tunring.load("wintun", wake_guard=False)
    assert library.official
    tunring.testing.use_simulator(library, STANDIN, "StandinSimulator")
    return library


def cable(library: tunring.Library, left: str, right: str) -> tuple[tunring.Adapter, tunring.Adapter]:
    """Two new adapters with a cable between them."""
    guid = None if library.official else uuid.uuid4()
    one = tunring.Adapter.create(left, guid=guid, library=library)
    try:
        other = tunring.Adapter.create(right, guid=guid, library=library)
    except BaseException:
        one.close()
        raise
    if library.official:
        connect(one, other)
    return one, other


def connect(left: tunring.Adapter, right: tunring.Adapter) -> None:
    """Plugs `right` into the other end of `left`'s cable, over the stand-in."""
    with left._handle.lend() as one, right._handle.lend() as other:
        code = stand_in().StandinConnect(one, other)
    assert code == 0, f"StandinConnect: {code}"


def pair(library: tunring.Library, capacity: int = 0x400000) -> tuple[tunring.Session, tunring.Session]:
    """The same as tunring.testing.pair(), over any library."""
    if not library.official:
        return tunring.testing.pair(capacity)
    number = uuid.uuid4().hex[:12]
    one, other = cable(library, f"pair-{number}-a", f"pair-{number}-b")
    try:
        return one._start(capacity, closes_adapter=True), other._start(capacity, closes_adapter=True)
    except BaseException:
        one.close()
        other.close()
        raise


def settle(library: tunring.Library) -> None:
    """Lets the driver see the room that releases have made, which the official DLL doesn't report to it."""
    if library.official:
        stand_in().StandinSettle()


def stale_ends() -> int:
    """Sessions that were ended after the system had closed their handle, over the stand-in: there must be none."""
    return _core.simulator_stale_ends(load("wintun")) if STANDIN else 0


def reported(session: tunring.Session, figure: int) -> int | None:
    """The figure of a session's host half, or None over the official DLL, which doesn't report it."""
    return None if session.adapter.library.official else figure


def failure_line(library: tunring.Library, name: str) -> str:
    """Part of what the library logs when there is no adapter of that name to open."""
    return "Failed to find matching adapter name" if library.official else name


def for_scripts(name: str) -> str:
    """The beginning of a script in a Python of its own, to have `library`, and `pair` over it."""
    return f"""
import sys
sys.path.append({os.path.dirname(__file__)!r})
import libraries
library = libraries.load({name!r})
def pair(capacity=0x400000):
    return libraries.pair(library, capacity)
"""
