"""Lists the C sources of this tree: which part consists of which files, for which system, and where headers are found.

Whatever compiles asks here: setup.py, the C tests, the fuzzers, the driver's stand-in, the benchmarks and the gate.
Shell scripts run it:

    python3 sources.py include                  the compiler's -I options
    python3 sources.py SYSTEM [PART ...]        files of these parts (default: all that the system has)

SYSTEM is linux, windows or posix, which stands for any other.
"""

from __future__ import annotations

import sys
from pathlib import Path

#: Where headers are found, from the root.
INCLUDE = ("include", "src")

#: Globs of each part, from the root.
PARTS = {
    # The part of the platform that back ends need, and all of it.
    "os": ("src/platform/os_*.c", "src/platform/utf16.c"),
    "core": ("src/core/*.c", "src/packet/*.c", "src/platform/*.c"),
    "wireguard": ("src/wireguard/*.c",),
    # Two parts: a test may link the one without a whole back end.
    "common": ("src/backends/common/backend_log.c",),
    "ring": ("src/backends/ring/*.c",),
    "loopback": ("src/backends/loopback/*.c", "src/backends/common/front.c"),
    "offloads": ("src/backends/tun_linux/offload_*.c", "src/packet/*.c"),
    # A session over any descriptor, and what makes one of a device.
    "tun_session": (
        "src/backends/tun_linux/tun_re*.c",
        "src/backends/tun_linux/tun_send.c",
        "src/backends/tun_linux/tun_session.c",
        "src/backends/tun_linux/tun_uring*.c",
    ),
    "tun_device": (
        "src/backends/tun_linux/tun_adapter.c",
        "src/backends/tun_linux/tun_[dln]*.c",
        "src/backends/common/front.c",
    ),
    "extension": ("src/extension/*.c",),
}

#: The parts that each back end consists of, by the systems that have it.
BACK_ENDS = {
    "loopback": (("windows", "linux", "posix"), ("loopback", "ring", "common", "os")),
    "tun_linux": (("linux",), ("tun_session", "tun_device", "offloads", "ring", "common", "os")),
}

#: The last word of a file's name says for which systems it is compiled; any other word: for all.
_SYSTEMS = {"windows": {"windows"}, "posix": {"linux", "posix"}, "linux": {"linux"}, "pipe": {"posix"}}


def this_system() -> str:
    """The system that this Python runs on."""
    return {"linux": "linux", "win32": "windows"}.get(sys.platform, "posix")


def matching(root: Path, system: str, *patterns: str) -> list[Path]:
    """The files that match, less those of other systems. Raises ValueError for a pattern that matches nothing."""
    found: list[Path] = []
    for pattern in patterns:
        paths = sorted(root.glob(pattern))
        if not paths:
            raise ValueError(f"no source matches {pattern!r}")
        found += [path for path in paths if system in _SYSTEMS.get(path.stem.rpartition("_")[2], {system})]
    return list(dict.fromkeys(found))


def c_files(root: Path, system: str, *parts: str) -> list[Path]:
    """The sources of these parts."""
    return matching(root, system, *(pattern for part in parts for pattern in PARTS[part]))


def back_ends(system: str) -> dict[str, tuple[str, ...]]:
    """The back ends that the system has, and their parts."""
    return {name: parts for name, (systems, parts) in BACK_ENDS.items() if system in systems}


def headers(root: Path) -> list[Path]:
    """Every header of the library."""
    return sorted(path for folder in INCLUDE for path in (root / folder).rglob("*.h"))


def main() -> None:
    """Prints what the command line asks for."""
    what, *parts = sys.argv[1:] or [""]
    root = Path(__file__).resolve().parent
    if what == "include":
        print(*(f"-I{root / folder}" for folder in INCLUDE))
    elif what in ("linux", "windows", "posix") and set(parts) <= set(PARTS):
        parts = parts or ["core", *(part for used in back_ends(what).values() for part in used)]
        print(*c_files(root, what, *parts), sep="\n")
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
