"""The README's Python blocks run as they stand."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from blocks import IN_NAMESPACE, run

README = Path(__file__).parents[2] / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def block(words: str) -> str:
    """The one block that has these words in it."""
    [found] = [block for block in BLOCKS if words in block]
    return found


def test_each_block_is_run_below() -> None:
    tested = ("Adapter.create", "def outgoing", "asyncio", "numpy")
    assert sorted(map(block, tested)) == sorted(BLOCKS)


@pytest.mark.root
@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="creates a TUN device")
def test_first_program() -> None:
    run(IN_NAMESPACE + block("Adapter.create"), "-X", "dev")


@pytest.mark.skipif(sys.platform not in ("linux", "win32"), reason="UdpSocket is for Linux and Windows")
def test_tunnel() -> None:
    assert run(block("def outgoing"), "-X", "dev") == "10 packets came back\n"


def test_asyncio() -> None:
    # Without -X dev, with which asyncio complains of a slow machine.
    packet = bytes([0x45]) + bytes(19)
    assert run(block("asyncio")).startswith(f"[{packet!r}")


def test_numpy() -> None:
    pytest.importorskip("numpy")
    assert run(block("numpy"), "-X", "dev") == "(array([17]),)\n"
