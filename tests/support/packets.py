"""Packets that a host accepts, distinguished by a number."""

from __future__ import annotations

#: The smallest packet of each version that a host accepts.
LEAST = {4: 20, 6: 40}

#: The largest packet of the ABI.
MAX_PACKET = 65535


def packet(size: int = 20, *, version: int = 4, number: int = 0) -> bytes:
    """An IP packet of `size` bytes; `number` is at bytes 4 to 7, see number_of()."""
    body = number.to_bytes(4, "big") + bytes([number & 0xFF]) * (size - 8)
    return bytes([version << 4 | 5, 0, *(size & 0xFFFF).to_bytes(2, "big")]) + body


def number_of(data: bytes | memoryview) -> int:
    """The number that packet() was given."""
    return int.from_bytes(data[4:8], "big")


def slot_size(size: int) -> int:
    """Ring bytes that a packet takes."""
    return (size + 4 + 3) & ~3
