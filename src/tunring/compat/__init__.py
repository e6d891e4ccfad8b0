"""A drop-in for pytun-pmd3 3.x: import ``TunTapDevice`` from here instead of from ``pytun_pmd3``.

The methods do the same as in that package on the same system, which differs between systems: on Linux ``read(size)``
and ``write(data)`` have the four bytes of packet information in front of each packet, and on Windows
``read(timeout)`` takes milliseconds and returns bare packets. The asynchronous ones use bare packets everywhere.

Where they differ from that package: a read in progress when the device goes down or is closed raises an OSError,
a write waits for room, and a task that is cancelled in a read loses no packet. ``fileno()`` on Linux is for select,
poll and event loops; packets come by :meth:`read`, not by ``os.read``.
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    from tunring.compat._windows import TunTapDevice
else:
    from tunring.compat._linux import TunTapDevice

__all__ = ["TunTapDevice"]
