"""Packets that are made or changed by a program: their checksums, and the segment size that TCP announces.

These work in place, in C, on a whole :class:`tunring.Batch` or on writable buffers, such as those of a reservation.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

from tunring import _core

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import SupportsIndex

    from tunring import Batch
    from tunring._buffers import Buffer

__all__ = ["clamp_mss", "fill_checksums"]

_MAX = 65535
_MIN_MTU = 128
_MIN_MSS = 48

#: Bytes of the headers of IPv4 and IPv6 with that of TCP.
_IP4_HEADERS = 40
_IP6_HEADERS = 60


def fill_checksums(packets: Batch | Iterable[Buffer]) -> int:
    """Write the checksums of IPv4 headers, TCP, UDP, ICMP and ICMPv6 into packets.

    ``session.send(packets, checksums="fill")`` does the same in the packets that are sent, and leaves these alone.

    Parameters
    ----------
    packets : Batch, or iterable of writable bytes-like objects
        IP packets. Their checksum fields are overwritten.

    Returns
    -------
    int
        The number of completed packets. Others are left alone: those that are not IP, end before their headers do or
        contradict their length fields. Of fragments, and of packets with a source route not at its end, only the IPv4
        header is completed.

    Raises
    ------
    TypeError, ValueError
        An item is not a writable buffer; its index is named, and nothing was changed. The batch was released.

    Examples
    --------
    >>> import tunring.packets
    >>> ping = bytearray.fromhex("4500002000010000400100000a0000010a0000020800000000010001") + bytearray(4)
    >>> tunring.packets.fill_checksums([ping])
    1
    >>> ping[10:12].hex(), ping[22:24].hex()
    ('66da', 'f7fd')
    """
    return _core.fill_checksums(packets)


def clamp_mss(
    packets: Batch | Iterable[Buffer], *, mtu: SupportsIndex | None = None, mss: SupportsIndex | None = None
) -> int:
    """Lower the maximum segment size that TCP's SYNs announce, so that segments fit a tunnel. Checksums are adjusted.

    Parameters
    ----------
    packets : Batch, or iterable of writable bytes-like objects
        IP packets; all but SYNs with that option stay as they are.
    mtu : int, optional
        Bytes of the largest packet, 128 to 65535: a segment may have 40 bytes less by IPv4, and 60 by IPv6.
    mss : int, optional
        Bytes of the largest segment, 48 to 65535. Either this or ``mtu`` is given.

    Returns
    -------
    int
        The number of changed packets.

    Raises
    ------
    TypeError, ValueError
        As for :func:`fill_checksums`; or a number is out of range, or not exactly one is given.

    Examples
    --------
    >>> import tunring.packets
    >>> header = bytes.fromhex("4500002c0001000040060000 0a000001 0a000002")
    >>> syn = bytearray(header + bytes.fromhex("00010002 00000000 00000000 60020000 00000000 020405b4"))
    >>> tunring.packets.clamp_mss([syn], mtu=1380), int.from_bytes(syn[-2:])
    (1, 1340)
    """
    if mss is not None and mtu is None:
        size = _number("mss", mss, _MIN_MSS)
        return _core.clamp_mss(packets, size, size)
    if mtu is not None and mss is None:
        size = _number("mtu", mtu, _MIN_MTU)
        return _core.clamp_mss(packets, size - _IP4_HEADERS, size - _IP6_HEADERS)
    raise TypeError("clamp_mss takes either mtu or mss")


def _number(name: str, value: SupportsIndex, smallest: int) -> int:
    number = operator.index(value)
    if not smallest <= number <= _MAX:
        raise ValueError(f"{name} must be {smallest} to {_MAX}, not {value!r}")
    return number
