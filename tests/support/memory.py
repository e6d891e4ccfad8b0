"""Memory, as others than its owner see it: where a buffer is, what lies at an address, and how it is mapped."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import RawIOBase


class _PyBuffer(ctypes.Structure):
    """Python's Py_buffer, as far as it is looked at."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.c_void_p),
        ("len", ctypes.c_ssize_t),
        ("rest", ctypes.c_void_p * 10),
    )


def address_of(exporter: object) -> int:
    """Return the address of a buffer's memory. The buffer is released again."""
    buffer = _PyBuffer()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(exporter), ctypes.byref(buffer), 0)
    address = buffer.buf
    ctypes.pythonapi.PyBuffer_Release(ctypes.byref(buffer))
    return address or 0


def at(address: int, size: int = 32) -> bytes:
    """Read memory, whoever it belongs to now."""
    return ctypes.string_at(address, size)


class Mapping(NamedTuple):
    """One of a process's mappings."""

    first: int
    end: int
    name: str
    flags: frozenset[str]

    @property
    def keeps_secrets(self) -> bool:
        """True for memory that a core dump lacks and a child finds empty."""
        return {"dd", "wf"} <= self.flags


def mappings(process: int | str = "self") -> Iterator[Mapping]:
    """The mappings of a process, by /proc."""
    first = end = 0
    name = ""
    for line in Path(f"/proc/{process}/smaps").read_text().splitlines():
        words = line.split()
        if words[0] == "VmFlags:":
            yield Mapping(first, end, name, frozenset(words[1:]))
        elif not words[0].endswith(":"):
            first, end = (int(number, 16) for number in words[0].split("-"))
            name = words[5] if len(words) > 5 else ""


#: Bytes that are read at a time, and of the largest mapping that may have data: the sanitizer's own is of terabytes.
_PIECE = 1 << 24
_LARGEST = 1 << 36


def _pieces(memory: RawIOBase, mapping: Mapping, overlap: int) -> Iterator[bytes]:
    """A mapping's content. Each piece begins with the end of the one before it."""
    kept = b""
    memory.seek(mapping.first)
    for first in range(mapping.first, mapping.end, _PIECE):
        try:
            read = memory.read(min(_PIECE, mapping.end - first))
        except OSError:  # a device's memory
            return
        assert read
        piece = kept + read
        yield piece
        kept = piece[-overlap:]


def find(process: int, needles: dict[str, bytes]) -> dict[str, tuple[int, int]]:
    """How often each of these bytes lies in a process's memory: in mappings for secrets, and elsewhere.

    All must be of the same length.
    """
    (length,) = set(map(len, needles.values()))
    found: dict[str, Any] = {name: [0, 0] for name in needles}
    with open(f"/proc/{process}/mem", "rb", buffering=0) as memory:
        for mapping in mappings(process):
            if not {"rd", "wr"} <= mapping.flags or mapping.end - mapping.first > _LARGEST:
                continue  # nothing can have been written there
            for piece in _pieces(memory, mapping, length - 1):
                for name, needle in needles.items():
                    found[name][not mapping.keeps_secrets] += piece.count(needle)
    return {name: (inside, outside) for name, (inside, outside) in found.items()}
