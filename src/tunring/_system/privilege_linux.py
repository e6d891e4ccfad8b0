"""The capabilities of this process that tunring has to do with."""

from __future__ import annotations

import ctypes
import struct

#: By their bits.
CAPABILITIES = {12: "CAP_NET_ADMIN", 13: "CAP_NET_RAW", 21: "CAP_SYS_ADMIN"}

#: The header of capget(): version 3, this thread. The version has two blocks of effective, permitted and inheritable.
_HEADER = struct.pack("=Ii", 0x20080522, 0)
_BLOCKS = struct.Struct("=6I")


def capabilities() -> set[str]:
    """Which of them are effective. The kernel itself is asked, as there may be no /proc."""
    header, blocks = ctypes.create_string_buffer(_HEADER, len(_HEADER)), ctypes.create_string_buffer(_BLOCKS.size)
    if ctypes.CDLL(None).capget(header, blocks) != 0:
        return set()  # a kernel without that version, which is older than any that has what tunring needs
    effective = _BLOCKS.unpack(blocks.raw)[0]
    return {name for bit, name in CAPABILITIES.items() if effective >> bit & 1}
