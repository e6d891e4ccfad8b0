"""The Internet checksum."""

from __future__ import annotations


def checksum(*parts: int | bytes | memoryview) -> int:
    """Compute the checksum of numbers and buffers; only the last buffer may have an odd size.

    One's complement addition of 16-bit words is arithmetic modulo 0xFFFF, and there a number has the value of its
    words, however wide it is. The result is never 0 but 0xFFFF, which means the same; so is that of something that
    holds its own checksum, if it is intact.

    Examples
    --------
    >>> from tunring.testing.checksum import checksum
    >>> hex(checksum(bytes.fromhex("080000000001 0001")))
    '0xf7fd'
    >>> hex(checksum(bytes.fromhex("0800f7fd0001 0001")))
    '0xffff'
    """
    total = 0
    for part in parts:
        total += part if isinstance(part, int) else int.from_bytes(part, "big") << 8 * (len(part) & 1)
    return 0xFFFF - total % 0xFFFF


def adjusted(value: int, before: int, after: int) -> int:
    """Adjust a checksum after numbers with the sum ``before`` were replaced by numbers with the sum ``after``."""
    return 0xFFFF - (0xFFFF - value - before + after) % 0xFFFF
