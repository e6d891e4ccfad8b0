"""Time stamps of initiations: TAI64N, too coarse to reveal the clock, and strictly rising."""

from __future__ import annotations

import os
import struct
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

#: Bytes of a time stamp.
TIMESTAMP_BYTES = 12

#: The label of second 0 of 1970, and nanoseconds in a second.
_EPOCH = (1 << 62) + 10
_SECOND = 1_000_000_000

#: Stamps are multiples of it within their second, some 17 ms.
_GRAIN = 1 << 24

#: Stamps that are kept before those that the clock has passed are looked for.
_FEW = 1024

_LAYOUT = struct.Struct(">QI")


def encode(nanoseconds: int) -> bytes:
    """The stamp of a time since 1970, as it is: big-endian, so that stamps compare as bytes do."""
    seconds, rest = divmod(nanoseconds, _SECOND)
    return _LAYOUT.pack(_EPOCH + seconds, rest)


def decode(stamp: bytes) -> int:
    """Nanoseconds since 1970 of a stamp, for people."""
    seconds, rest = _LAYOUT.unpack(stamp)
    return int((seconds - _EPOCH) * _SECOND + rest)


class Stamps:
    """A source of stamps, of which each is greater than all before for the same peer, whatever the clock does.

    Any thread may ask. Each peer is counted for itself: one counter for all would run ahead of the clock where many
    peers are tried, and after a restart all would refuse us until the clock has caught up.

    Parameters
    ----------
    clock : callable, optional
        Nanoseconds since 1970, by default the system's.
    """

    def __init__(self, clock: Callable[[], int] = time.time_ns) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        #: The latest time that the clock has shown.
        self._now = 0
        #: The last stamps by public key; who is missing has had one that is before now.
        self._last: dict[bytes, int] = {}
        self._limit = _FEW

    def renew_lock(self) -> None:
        """Take another lock: in a child, as another thread of the parent may have held it when the process forked."""
        self._lock = threading.Lock()

    def next(self, peer: bytes) -> bytes:
        """A new stamp for the peer with this public key."""
        with self._lock:
            self._now = max(self._now, _truncated(self._clock()))
            stamp = max(self._now, _after(self._last.get(peer, -1)))
            if len(self._last) >= self._limit:
                self._last = {key: last for key, last in self._last.items() if last >= self._now}
                self._limit = max(_FEW, 2 * len(self._last))
            self._last[peer] = stamp
            return encode(stamp)


def _truncated(nanoseconds: int) -> int:
    seconds, rest = divmod(nanoseconds, _SECOND)
    return seconds * _SECOND + rest // _GRAIN * _GRAIN


def _after(stamp: int) -> int:
    """The next stamp after one."""
    seconds, rest = divmod(stamp, _SECOND)
    rest = rest // _GRAIN * _GRAIN + _GRAIN
    return seconds * _SECOND + rest if rest < _SECOND else (seconds + 1) * _SECOND


#: The process's: a device that is made anew must not begin before where the last one ended.
STAMPS = Stamps()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=STAMPS.renew_lock)
