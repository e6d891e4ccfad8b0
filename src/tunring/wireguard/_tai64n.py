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
    """A source of stamps, of which each is greater than all before, whatever the clock does. Any thread may ask.

    Parameters
    ----------
    clock : callable, optional
        Nanoseconds since 1970, by default the system's.
    """

    def __init__(self, clock: Callable[[], int] = time.time_ns) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._last = -1

    def renew_lock(self) -> None:
        """Take another lock: in a child, as another thread of the parent may have held it when the process forked."""
        self._lock = threading.Lock()

    def next(self) -> bytes:
        """A new stamp."""
        with self._lock:
            seconds, rest = divmod(max(self._clock(), 0), _SECOND)
            stamp = seconds * _SECOND + rest // _GRAIN * _GRAIN
            if stamp <= self._last:
                seconds, rest = divmod(self._last, _SECOND)
                rest += _GRAIN
                stamp = seconds * _SECOND + rest if rest < _SECOND else (seconds + 1) * _SECOND
            self._last = stamp
            return encode(stamp)


#: The process's: a device that is made anew must not begin before where the last one ended.
STAMPS = Stamps()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=STAMPS.renew_lock)
