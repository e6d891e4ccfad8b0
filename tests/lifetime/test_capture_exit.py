"""Captures that are open when the interpreter ends: all of each is in its file, which ends with a whole block."""

from __future__ import annotations

from pathlib import Path

import pytest

from pcapng_reader import read
from running import run_script

BEGIN = """
import threading, time
from tunring.pcapng import Writer
left, right = pair()
packets = [packet(1000)] * 100

def exchange():
    assert left.send(packets) == 100
    right.receive(200).release()
"""

#: A program's lines, and the number of packets in its file; None for any number.
SCENES: dict[str, tuple[str, int | None]] = {
    "written": ("writer = Writer({path!r})\nfor _ in range(100): writer.write(packets)", 10000),
    "captured": ("writer = Writer({path!r}); left.capture(writer)\nfor _ in range(100): exchange()", 10000),
    "closed session": ("left.capture(Writer({path!r}))\nfor _ in range(10): exchange()\nleft.close()", 1000),
    "dropped": ("writer = Writer({path!r})\nfor _ in range(100): writer.write(packets)\ndel writer", 10000),
    "cycle": ("writer = Writer({path!r})\nwriter.write(packets)\nc = [writer]; c.append(c); del writer, c", 100),
    "at exit": (
        """
import atexit
writer = Writer({path!r})
atexit.register(writer.close)
atexit.register(writer.write, packets)
""",
        100,
    ),
    "daemon sends": (
        """
writer = Writer({path!r}); left.capture(writer)
def run():
    while True: exchange()
threading.Thread(target=run, daemon=True).start()
time.sleep(0.05)
""",
        None,
    ),
    "daemon writes": (
        """
writer = Writer({path!r})
def run():
    try:
        writer.write(packets * 1000)
    except ValueError as error:
        assert "the interpreter exits" in str(error)
threading.Thread(target=run, daemon=True).start()
time.sleep(0.02)
""",
        None,
    ),
}


@pytest.mark.parametrize("scene", list(SCENES))
def test_what_is_open_at_exit_is_finished(tmp_path: Path, scene: str) -> None:
    path = tmp_path / "test.pcapng"
    program, packets = SCENES[scene]
    for _ in range(5):
        done = run_script(BEGIN + program.format(path=str(path)), library="loopback")
        assert (done.returncode, done.stderr) == (0, "")
        written = read(path).data
        assert len(written) > 0 if packets is None else len(written) == packets
        path.unlink()
