"""Captures that one thread ends while another starts one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tunring
import tunring.testing
from packets import packet
from pcapng_reader import read_so_far
from running import NEVER, Threads, eventually
from tunring.pcapng import Writer

Pair = tuple[tunring.Session, tunring.Session]

ROUNDS = 200


@pytest.fixture(autouse=True)
def _switch_often() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


# A warning that is recorded would keep the writer.
@pytest.mark.filterwarnings("ignore:unclosed")
def test_the_end_of_one_capture_leaves_the_next_alone(tmp_path: Path) -> None:
    """Afterwards the session alone holds the second file, to which all packets go."""
    sent = [packet(100, number=number) for number in range(4)]
    for number in range(ROUNDS):
        left, right = tunring.testing.pair()
        first = left.capture(Writer(tmp_path / f"first-{number}"))
        ready: list[bool] = []

        def second(left: tunring.Session = left, number: int = number, ready: list[bool] = ready) -> None:
            writer = Writer(tmp_path / f"second-{number}")
            ready.append(True)
            while True:
                try:
                    left.capture(writer)
                except RuntimeError:
                    continue
                return

        with left, right:
            with Threads() as threads:
                threads.start(second)
                while not ready:
                    continue
                first.close()
            del first
            left.send(sent)
            assert len(right.receive(timeout=NEVER)) == len(sent)
        # With its last user the file is closed, in the background.
        assert eventually(lambda number=number: read_so_far(tmp_path / f"second-{number}") == sent)


def test_any_thread_may_end_a_capture(pair: Pair, tmp_path: Path) -> None:
    """Several threads end the same capture, and one that has started since goes on."""
    left, right = pair
    with Writer(tmp_path / "all.pcapng") as writer:
        for number in range(ROUNDS):
            recording = left.capture(writer)
            with Threads() as threads:
                for _ in range(3):
                    threads.start(recording.close)
                recording.close()
                with left.capture(writer):
                    left.send([packet()])
                    right.receive(timeout=NEVER).release()
            assert writer.packets == number + 1
