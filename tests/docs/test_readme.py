"""The README's Python blocks run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README.read_text("utf-8"), re.DOTALL | re.MULTILINE)

#: Runs a block in a network namespace of its own, where it may create the adapter that it names.
IN_NAMESPACE = "import ctypes; assert ctypes.CDLL(None, use_errno=True).unshare(0x40000000) == 0\n"


def run(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_there_are_blocks() -> None:
    assert len(BLOCKS) == 2


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="creates a TUN device")
def test_first_program() -> None:
    assert "Adapter.create" in BLOCKS[0]
    run(IN_NAMESPACE + BLOCKS[0])


def test_pair() -> None:
    assert "testing.pair" in BLOCKS[1]
    run(BLOCKS[1] + "\nassert received == 1000\n")
