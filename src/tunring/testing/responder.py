"""A host at the far end of a tunnel that answers everything: pings, UDP and TCP echo, over IPv4 and IPv6.

Each answer is written over its request, in ring memory, so the same batch is sent back. It serves the demo and
``tunring echo``, and programs that need another end to talk to.
"""

from __future__ import annotations

from collections import Counter
from struct import Struct
from typing import TYPE_CHECKING

from tunring.testing._responder_tcp import TcpResponder
from tunring.testing.checksum import adjusted

if TYPE_CHECKING:
    from collections.abc import Iterable

_ICMP, _TCP, _UDP, _IPV6_FRAGMENT, _ICMPV6 = 1, 6, 17, 44, 58

#: Types of a ping and of its reply, by how many numbers an address pair is.
_PINGS = {2: (_ICMP, 8, 0), 4: (_ICMPV6, 128, 129)}

_ADDRESSES4 = Struct("!II")
_ADDRESSES6 = Struct("!QQQQ")
_PORTS = Struct("!HH")
_WORD = Struct("!H")

#: Of an IPv4 header's flags and fragment offset: more follow, and the offset.
_MORE, _OFFSET = 0x2000, 0x1FFF


class Responder:
    """Answers packets in place.

    A ping gets its reply, a UDP datagram comes back as it is, a TCP connection gets back each byte that it sends (see
    ``_responder_tcp.TcpResponder`` for what that can't do). Fragments are answered one by one. Everything
    else, and packets to broadcast and multicast addresses, are ignored.

    Parameters
    ----------
    connections : int
        TCP connections to remember; the oldest is forgotten for a new one.

    Attributes
    ----------
    counts : collections.Counter
        Answers by kind: ``"ping"``, ``"udp"``, ``"tcp"``; and ``"ignored"`` packets.

    Examples
    --------
    >>> import tunring.testing
    >>> from tunring.testing.responder import Responder
    >>> left, right = tunring.testing.pair()
    >>> ping = bytes.fromhex("4500001c0001000040016642 0a4d0001 0a4d0002 0800f7fd00010001")
    >>> left.send([ping])
    1
    >>> with right.receive() as batch:
    ...     Responder().answer(batch), right.send(batch)
    (1, 1)
    >>> with left.receive() as batch:
    ...     bytes(batch[0][12:]).hex(" ", 4)
    '0a4d0002 0a4d0001 0000fffd 00010001'
    >>> left.close(); right.close()
    """

    def __init__(self, connections: int = 1024) -> None:
        self.counts: Counter[str] = Counter()
        self._tcp = TcpResponder(connections)

    def answer(self, packets: Iterable[memoryview]) -> int:
        """Turn each packet of a batch into its answer, so that the batch can be sent.

        A packet without an answer gets IP version 0: sending the batch skips it.

        Parameters
        ----------
        packets : iterable of writable memoryviews
            A received :class:`tunring.Batch`, or a list of packets.

        Returns
        -------
        int
            The number of packets that got an answer.
        """
        answered = 0
        respond = self.respond
        for packet in packets:
            if respond(packet):
                answered += 1
            elif len(packet):
                packet[0] = 0
        return answered

    def respond(self, packet: memoryview) -> bool:
        """Turn one packet into its answer. Returns False, and changes nothing, if it has none."""
        version = packet[0] >> 4 if len(packet) >= 20 else 0
        kind = self._respond4(packet) if version == 4 else self._respond6(packet) if version == 6 else None
        self.counts[kind or "ignored"] += 1
        return kind is not None

    def _respond4(self, packet: memoryview) -> str | None:
        at = (packet[0] & 15) * 4
        end: int = _WORD.unpack_from(packet, 2)[0]
        if not 20 <= at <= end <= len(packet) or packet[16] >= 224:
            return None
        fragment = _WORD.unpack_from(packet, 6)[0] & (_MORE | _OFFSET)
        addresses = _ADDRESSES4.unpack_from(packet, 12)
        kind, new_end = self._respond_upper(packet, packet[9], at, end, fragment, addresses)
        if kind is None:
            return None
        # The header's checksum doesn't depend on the order of the addresses.
        _ADDRESSES4.pack_into(packet, 12, addresses[1], addresses[0])
        if new_end != end:
            _WORD.pack_into(packet, 2, new_end)
            _WORD.pack_into(packet, 10, adjusted(_WORD.unpack_from(packet, 10)[0], end, new_end))
        return kind

    def _respond6(self, packet: memoryview) -> str | None:
        if len(packet) < 40:
            return None
        at, end, protocol, fragment = 40, 40 + _WORD.unpack_from(packet, 4)[0], packet[6], 0
        if end > len(packet) or packet[24] == 0xFF:
            return None
        if protocol == _IPV6_FRAGMENT and end >= 48:
            at, protocol = 48, packet[40]
            place = _WORD.unpack_from(packet, 42)[0]
            fragment = place >> 3 | (place & 1) * _MORE
        addresses = _ADDRESSES6.unpack_from(packet, 8)
        kind, new_end = self._respond_upper(packet, protocol, at, end, fragment, addresses)
        if kind is None:
            return None
        _ADDRESSES6.pack_into(packet, 8, *addresses[2:], *addresses[:2])
        if new_end != end:
            _WORD.pack_into(packet, 4, new_end - 40)
        return kind

    def _respond_upper(
        self, packet: memoryview, protocol: int, at: int, end: int, fragment: int, addresses: tuple[int, ...]
    ) -> tuple[str | None, int]:
        """Answer what is inside IP, from ``at`` on: its kind, and where the answer ends."""
        ping, request, reply = _PINGS[len(addresses)]
        kind = None
        if protocol == ping and _respond_ping(packet, at, end, fragment, request, reply):
            kind = "ping"
        elif protocol == _UDP and _respond_udp(packet, at, end, fragment):
            kind = "udp"
        elif protocol == _TCP and not fragment and (new_end := self._tcp.respond(packet, at, end, addresses)):
            kind, end = "tcp", new_end
        return kind, end


def _respond_ping(packet: memoryview, at: int, end: int, fragment: int, request: int, reply: int) -> bool:
    if fragment & _OFFSET:
        return True  # data alone
    if end - at < 8 or packet[at] != request or packet[at + 1]:
        return False
    # Adjusted and not computed anew: damage stays visible, and of fragments the first will do.
    value = adjusted(_WORD.unpack_from(packet, at + 2)[0], request << 8, reply << 8)
    packet[at] = reply
    _WORD.pack_into(packet, at + 2, value)
    return True


def _respond_udp(packet: memoryview, at: int, end: int, fragment: int) -> bool:
    if fragment & _OFFSET:
        return True  # data alone
    if end - at < 8:
        return False
    source, destination = _PORTS.unpack_from(packet, at)
    if not source:
        return False  # wants no answer
    _PORTS.pack_into(packet, at, destination, source)
    return True
