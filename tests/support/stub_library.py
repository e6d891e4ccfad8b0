"""Libraries that export any names, for tests of what is refused."""

from __future__ import annotations

import os
import platform
import shlex
import struct
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

#: Where the one section is in memory, and in the file.
_PLACE, _OFFSET = 0x1000, 0x200

#: Each 64-bit machine's number, and its instructions that return 0.
_MACHINES = {"AMD64": (0x8664, "31c0c3"), "ARM64": (0xAA64, "000080d2c0035fd6")}


def build(folder: Path, names: list[str]) -> Path:
    """Makes a library that exports these names as functions, none of which does anything."""
    result = folder / "library.so"
    if sys.platform == "win32":
        result.write_bytes(_dll(names))  # a compiler is not to be had everywhere
        return result
    source = folder / "library.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in names))
    compiler = shlex.split(os.environ.get("CC", "cc"))
    subprocess.run([*compiler, "-shared", "-fPIC", "-o", result, source], check=True)
    return result


def _dll(names: list[str]) -> bytes:
    """A DLL of one section: the function, a table of relocations that has none, and the exports."""
    machine, instructions = _MACHINES[platform.machine()]
    code = bytes.fromhex(instructions).ljust(16, b"\xcc")
    relocations = struct.pack("<IIHH", _PLACE, 12, 0, 0)
    exports = _exports(sorted(names), _PLACE + len(code) + len(relocations))
    section = code + relocations + exports
    directories = [(0, 0)] * 16
    directories[0] = (_PLACE + len(code) + len(relocations), len(exports))
    directories[5] = (_PLACE + len(code), len(relocations))
    stub = struct.pack("<2s58xI", b"MZ", 64)
    header = struct.pack("<4sHHIIIHH", b"PE\0\0", machine, 1, 0, 0, 0, 240, 0x2022)
    sizes = struct.pack("<HBBIIIII", 0x20B, 0, 0, len(section), 0, 0, 0, _PLACE)
    places = struct.pack(
        "<QIIHHHHHHIIIIHH", 0x180000000, 0x1000, 0x200, 6, 0, 0, 0, 6, 0, 0, 0x2000, _OFFSET, 0, 2, 0x160
    )
    memory = struct.pack("<QQQQII", 0x100000, 0x1000, 0x100000, 0x1000, 0, 16)
    table = b"".join(struct.pack("<II", *directory) for directory in directories)
    raw = -len(section) % 0x200
    entry = struct.pack(
        "<8sIIIIIIHHI", b".text", len(section), _PLACE, len(section) + raw, _OFFSET, 0, 0, 0, 0, 0x60000020
    )
    headers = stub + header + sizes + places + memory + table + entry
    return headers.ljust(_OFFSET, b"\0") + section + bytes(raw)


def _exports(names: list[str], place: int) -> bytes:
    """The export directory for sorted names, which lies at `place`; all are the function at the section's start."""
    count = len(names)
    functions, pointers, ordinals = (place + 40 + offset for offset in (0, 4 * count, 8 * count))
    at = ordinals + 2 * count
    texts, where = b"", []
    for name in ["library.dll", *names]:
        where.append(at + len(texts))
        texts += name.encode() + b"\0"
    head = struct.pack("<IIHHIIIIIII", 0, 0, 0, 0, where[0], 1, count, count, functions, pointers, ordinals)
    tables = struct.pack(f"<{count}I{count}I{count}H", *[_PLACE] * count, *where[1:], *range(count))
    return head + tables + texts
