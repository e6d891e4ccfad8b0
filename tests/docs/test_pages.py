"""The documentation's Python blocks: those of a page are one program, which prints the output that the page shows."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

import tunring
from blocks import IN_NAMESPACE, run

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```(python|output)\n(.*?)^```$", re.DOTALL | re.MULTILINE)

#: The blocks of each page that has any.
PAGES = {
    path.relative_to(DOCS).as_posix(): blocks
    for path in sorted(DOCS.rglob("*.md"))
    if (blocks := BLOCK.findall(path.read_text("utf-8")))
}


def joined(page: str, kind: str) -> str:
    return "".join(text for found, text in PAGES[page] if found == kind)


def test_there_are_pages() -> None:
    assert {"quick-start.md", "guide/sessions.md", "guide/tunnel.md", "guide/full-tunnel.md"} <= PAGES.keys()


def test_every_fence_is_known() -> None:
    """A misspelt language would take a block out of the tests."""
    known = {"python", "output", "sh", "text", "ini", "{toctree}", "{eval-rst}", "{include}"}
    for path in DOCS.rglob("*.md"):
        fences = re.findall(r"^```(\S+)", path.read_text("utf-8"), re.MULTILINE)
        assert set(fences) <= known, path


@pytest.mark.parametrize("path", [*sorted(DOCS.rglob("*.md")), DOCS.parent / "README.md"], ids=lambda path: path.name)
def test_code_fits_the_width_of_a_page(path: Path) -> None:
    """Built pages cut longer lines off. Narrow ones show pictures whole, by the width in _static/narrow.css."""
    for kind, code in re.findall(r"^```(\w+)\n(.*?)^```$", path.read_text("utf-8"), re.DOTALL | re.MULTILINE):
        assert [line for line in code.splitlines() if len(line) > (70 if kind == "text" else 90)] == []


def test_every_public_name_has_a_place_in_the_reference() -> None:
    text = "".join(path.read_text("utf-8") for path in (DOCS / "reference").glob("*.md"))
    named = set(re.findall(r"^\.\. auto(?:class|data|exception|function):: tunring\.(\w+)$", text, re.MULTILINE))
    assert named == set(tunring.__all__) - {"__version__"}


@pytest.mark.parametrize("page", PAGES)
def test_page_runs(page: str) -> None:
    code = joined(page, "python")
    if "UdpSocket" in code and sys.platform not in ("linux", "win32"):
        pytest.skip("UdpSocket is for Linux and Windows")
    if "Adapter.create" in code:
        if sys.platform != "linux" or os.geteuid() != 0:
            pytest.skip("creates a TUN device")
        code = IN_NAMESPACE + code
    # Without -X dev, with which asyncio complains of a slow machine.
    assert run(code) == joined(page, "output")


#: The network is away for a moment, and strangers send what is not a packet.
BAD_MOMENT = """
import socket
class Flaky(socket.socket):
    sends = receives = 0
    def sendto(self, data, peer):
        self.sends += 1
        if self.sends in (2, 5):
            raise OSError(101, "Network is unreachable")
        return super().sendto(data, peer)
    def recv(self, size):
        self.receives += 1
        if self.receives in (1, 4):
            raise ConnectionResetError(104, "Connection reset by peer")
        return (b"", b"no packet")[self.receives % 2] if self.receives < 4 else super().recv(size)
    def settimeout(self, timeout):
        super().settimeout(0.05)
socket.socket = Flaky
"""


def test_tunnel_survives_a_bad_moment() -> None:
    """Two of ten datagrams can't be sent: the others go through."""
    code = joined("windows.md", "python").replace("timeout=5", "timeout=0.5")
    assert run(BAD_MOMENT + code, "-X", "dev") == "8 packets came back\n"
