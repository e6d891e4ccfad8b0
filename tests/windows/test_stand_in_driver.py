"""The stand-in behaves as the driver does: in refusing, closing and sleeping."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import pytest

import libraries
import tunring
from packets import packet
from running import check_script, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tunring.testing import Simulator


class Counters(ctypes.Structure):
    """``struct standin_counters``."""

    _fields_ = (
        ("taken", ctypes.c_uint64),
        ("filtered", ctypes.c_uint64),
        ("dropped", ctypes.c_uint64),
        ("sleeps", ctypes.c_uint64),
        ("missed_wakes", ctypes.c_uint64),
        ("longest_stranded", ctypes.c_uint64),
    )


def counters(adapter: tunring.Adapter) -> Counters:
    found = Counters()
    with adapter._handle.lend() as handle:
        code = libraries.stand_in().StandinCounters(ctypes.c_void_p(handle), ctypes.byref(found))
    assert code == 0
    return found


@pytest.fixture
def wintun() -> tunring.Library:
    """The official DLL, over the stand-in."""
    return libraries.load("wintun")


@pytest.fixture
def alone(wintun: tunring.Library, name: str) -> Iterator[tunring.Adapter]:
    """An adapter that the driver's own thread serves."""
    with tunring.Adapter.create(name, library=wintun) as adapter:
        yield adapter


#: The DLL's functions without tunring between, for calls that tunring never makes.
RAW = """
import ctypes
dll = ctypes.WinDLL(library.path, use_last_error=True)
for function in (dll.WintunCreateAdapter, dll.WintunStartSession, dll.WintunAllocateSendPacket):
    function.restype = ctypes.c_void_p
dll.WintunStartSession.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
dll.WintunAllocateSendPacket.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
dll.WintunSendPacket.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
dll.WintunCloseAdapter.argtypes = dll.WintunEndSession.argtypes = [ctypes.c_void_p]
adapter = dll.WintunCreateAdapter("raw", "Tunring", None)
assert adapter
def start(capacity=0x20000):
    ctypes.set_last_error(0)
    return dll.WintunStartSession(adapter, capacity), ctypes.get_last_error()
"""


def test_capacities_that_the_driver_refuses() -> None:
    """The DLL passes anything on."""
    check_script(
        RAW
        + """
for capacity in (0x10000, 0x20001, 0x30000, 0x8000000):
    assert start(capacity) == (None, 87), hex(capacity)
session, code = start()
assert session
assert start() == (None, 1247)
dll.WintunEndSession(session)
session, code = start()
assert session
dll.WintunEndSession(session)
dll.WintunCloseAdapter(adapter)
""",
        library="wintun",
    )


def test_an_end_after_the_removal_is_reported() -> None:
    """A mistake that tunring must never make: the handle may belong to another session by then."""
    check_script(
        RAW
        + """
driver = libraries.stand_in()
session, code = start()
assert session
dll.WintunCloseAdapter(adapter)   # the system removes it, and closes the session's handle
assert driver.StandinAdapterCount() == 0
assert libraries.stale_ends() == 0
dll.WintunEndSession(session)
assert libraries.stale_ends() == 1
""",
        library="wintun",
    )


def test_an_end_before_the_close_is_not(simulated: tunring.Session, simulator: Simulator) -> None:
    simulated.close()
    simulated.adapter.close()
    assert simulator.stale_ends() == 0


def test_too_large_a_packet_ends_the_direction() -> None:
    """The DLL takes it, and the driver then takes nothing more: so tunring refuses it before."""
    check_script(
        RAW
        + """
import time
session, code = start()
slot = dll.WintunAllocateSendPacket(session, 0x10000)
assert slot
dll.WintunSendPacket(session, slot)
limit = time.monotonic() + 20
while dll.WintunAllocateSendPacket(session, 20):
    assert time.monotonic() < limit
    time.sleep(0.01)
assert ctypes.get_last_error() == 38
dll.WintunEndSession(session)
dll.WintunCloseAdapter(adapter)
""",
        library="wintun",
    )


def test_the_driver_takes_what_is_sent_and_sleeps_between(alone: tunring.Adapter) -> None:
    with alone.start_session(tunring.MIN_CAPACITY) as session:
        for turn in range(1, 4):
            assert session.send([packet()] * 10000, timeout=20) == 10000
            session.reserve([20, 1400]).abandon()
            session.send([packet()])
            assert eventually(lambda turn=turn: counters(alone).taken == 10001 * turn)
            assert eventually(lambda: counters(alone).filtered >= 2)
            asleep = counters(alone).sleeps
            assert eventually(lambda asleep=asleep: counters(alone).sleeps >= max(1, asleep))
    assert counters(alone).dropped == 30003, "it is on no network"


def test_a_cable_takes_another_end_when_one_goes(wintun: tunring.Library, name: str) -> None:
    left, right = libraries.cable(wintun, name, name + "b")
    with left, left.start_session() as near:
        right.close()
        near.send([packet()] * 3)
        assert counters(left).dropped == 3
        with tunring.Adapter.create(name + "c", library=wintun) as third:
            libraries.connect(left, third)
            with third.start_session() as far:
                near.send([packet()] * 2)
                with far.receive(timeout=5) as batch:
                    assert len(batch) == 2
                far.send([packet()])
                with near.receive(timeout=5) as batch:
                    assert len(batch) == 1
