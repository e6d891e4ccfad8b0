"""Descriptors of TUN interfaces as other programs have them: opened and attached by hand."""

from __future__ import annotations

import fcntl
import os
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from netns import Namespace

TUNSETIFF, TUNSETOFFLOAD, TUNGETIFF, TUNSETVNETHDRSZ = 0x400454CA, 0x400454D0, 0x800454D2, 0x400454D8
IFF_TUN, IFF_TAP, IFF_NO_PI, IFF_VNET_HDR, IFF_MULTI_QUEUE = 0x1, 0x2, 0x1000, 0x4000, 0x100

#: Superpackets of TCP and UDP, both families: TUN_F_CSUM, TSO4, TSO6, USO4, USO6.
ALL_OFFLOADS = 0x01 | 0x02 | 0x04 | 0x20 | 0x40


@contextmanager
def attached(namespace: Namespace, flags: int, name: str = "tun0") -> Iterator[int]:
    """A descriptor as another program would have it."""
    with namespace.entered():
        fd = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
    try:
        yield fd
    finally:
        os.close(fd)


def flags_of(fd: int) -> int:
    """The flags that the descriptor is attached with."""
    return int(struct.unpack_from("H", fcntl.ioctl(fd, TUNGETIFF, bytes(40)), 16)[0])
