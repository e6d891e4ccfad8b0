from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

import tunring
from libraries import reported
from packets import packet
from running import Threads

if TYPE_CHECKING:
    Pair = tuple[tunring.Session, tunring.Session]

FIELDS = """
received_packets received_bytes received_batches sent_packets sent_bytes sent_batches waits wakes spins ring_full
dropped skipped fillers pinned_packets pinned_bytes reservations capacity
""".split()

# The official DLL doesn't report them.
HOST_FIELDS = ["host_dropped", "host_filtered", "write_errors"]


def test_the_fields_and_their_first_values(pair: Pair) -> None:
    stats = pair[0].stats()
    assert isinstance(stats, tunring.Stats)
    host = dict.fromkeys(HOST_FIELDS, reported(pair[0], 0))
    assert dataclasses.asdict(stats) == {**dict.fromkeys(FIELDS, 0), "capacity": tunring.MIN_CAPACITY, **host}


# As by a signal handler that interrupts the first call, while that still imports what it makes Stats of.
ASKED_AT_ANY_TIME = """
import sys
import tunring, tunring.testing
sessions = []
def imported(event, arguments):
    if event == "import" and sessions:
        sessions[0].stats()
sys.addaudithook(imported)
assert "dataclasses" not in sys.modules, "the test looks at the wrong thing"
one, other = tunring.testing.pair()
with one, other:
    sessions.append(one)
    assert one.stats().sent_packets == 0
    sessions.clear()
"""


def test_they_can_be_asked_for_while_the_first_call_still_imports() -> None:
    command = [sys.executable, "-c", ASKED_AT_ANY_TIME]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_they_are_frozen_and_of_their_moment(pair: Pair) -> None:
    stats = pair[0].stats()
    with pytest.raises(dataclasses.FrozenInstanceError):
        stats.sent_packets = 3
    pair[0].send([packet()])
    assert stats.sent_packets == 0


def test_packets_bytes_and_batches_each_way(pair: Pair) -> None:
    left, right = pair
    left.send([packet(100)] * 3)
    left.send([packet(50)])
    with right.receive(3), right.receive():
        stats = right.stats()
        assert (stats.received_packets, stats.received_bytes, stats.received_batches) == (4, 350, 2)
        assert (stats.pinned_packets, stats.pinned_bytes) == (4, 350)
    stats = right.stats()
    assert (stats.received_packets, stats.pinned_packets, stats.pinned_bytes) == (4, 0, 0)
    stats = left.stats()
    assert (stats.sent_packets, stats.sent_bytes, stats.sent_batches) == (4, 350, 2)


def test_a_poll_is_not_a_wait_and_a_sleep_is_one(pair: Pair) -> None:
    left, right = pair
    right.receive(timeout=0)
    assert right.stats().waits == right.stats().wakes == 0
    right.receive(timeout=0.05)
    assert (right.stats().waits, right.stats().wakes) == (1, 0)
    with Threads() as threads:
        threads.start(right.receive)
        time.sleep(0.05)
        left.send([packet()])
    assert (right.stats().waits, right.stats().wakes) == (2, 1)
    threads.results[0].release()


@pytest.mark.ours_only(reason="the official DLL doesn't say what the driver dropped")
def test_what_the_library_lost_for_want_of_a_listener(pair: Pair) -> None:
    left, right = pair
    right.close()
    left.send([packet()] * 5)
    assert left.stats().host_dropped == 5


def test_they_stay_after_close(pair: Pair) -> None:
    left, right = pair
    right.close()
    left.send([packet()] * 5)
    before = left.stats()
    left.close()
    assert left.stats() == before
