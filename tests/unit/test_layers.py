"""The C sources' layers: the headers that each folder may include. Core and back ends share include/ alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: The core's interface is not among them.
BELOW_BACK_ENDS = {"src/platform", "wintun.h", "tunring_packet.h", "tunring_backend.h"}

#: A folder, and the folders and public headers that its files may include in addition to their own folder.
ALLOWED: dict[str, set[str]] = {
    "include": set(),
    "src/platform": {"wintun.h", "tunring_packet.h", "tunring_endpoint.h"},
    "src/packet": {"wintun.h", "tunring_packet.h", "tunring_packets.h"},
    "src/core": {"src/packet", "src/platform", "include"},
    "src/wireguard": {"src/packet", "src/platform", "src/core", "include"},
    "src/extension": {"src/platform", "include"},
    "src/backends/common": {*BELOW_BACK_ENDS, "src/backends/ring"},
    "src/backends/ring": BELOW_BACK_ENDS,
    "src/backends/loopback": {*BELOW_BACK_ENDS, "src/backends/common", "src/backends/ring"},
    # src/packet has its interface in tunring_packets.h.
    "src/backends/tun_linux": {
        *BELOW_BACK_ENDS,
        "tunring_packets.h",
        "src/backends/common",
        "src/backends/ring",
        "src/packet",
    },
}

FILES = [
    path
    for folder in ("include", "src")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in {".c", ".h", ".pxd", ".pyx", ".pxi"}
]


def room_of(path: Path) -> str:
    return path.parent.relative_to(ROOT).as_posix()


def included(path: Path) -> list[str]:
    """Return the files of this project that a file includes, as they are written there."""
    found = re.findall(r'^\s*#\s*include "(.+)"|^cdef extern from "(.+)"', path.read_text("utf-8"), re.MULTILINE)
    return [name for pair in found for name in pair if name and name != "Python.h"]


def test_every_file_is_in_a_room() -> None:
    assert {room_of(path) for path in FILES} == set(ALLOWED)


def test_file_names_are_unique() -> None:
    names = [path.name for path in FILES]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_includes_only_what_it_stands_on(room: str) -> None:
    allowed = {*ALLOWED[room], room}
    for path in FILES:
        if room_of(path) != room:
            continue
        for name in included(path):
            # By its path from src, or a public header by its name: other forms are not found.
            [header] = [folder / name for folder in (ROOT / "src", ROOT / "include") if (folder / name).is_file()]
            assert room_of(header) in allowed or header.name in allowed, f"{path.relative_to(ROOT)} includes {name}"
