"""Traffic over a session: pings and datagrams made in Python, for where the kernel can't be used."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from struct import pack
from typing import TYPE_CHECKING

from tunring.cli.traffic import DATAGRAM_SIZE, PING_SIZE, TIMEOUT, WINDOW, Count, Tally
from tunring.errors import SessionClosed
from tunring.testing.checksum import checksum

if TYPE_CHECKING:
    from tunring import Session

_ICMP, _UDP, _ICMPV6 = 1, 17, 58
_PORT = 7  # echo

IPAddress = IPv4Address | IPv6Address


def make_packet(source: IPAddress, destination: IPAddress, protocol: int, content: bytes) -> bytes:
    """Put an IP header before some content."""
    if isinstance(source, IPv4Address):
        head = pack("!BBHIBB", 0x45, 0, 20 + len(content), 0, 64, protocol)
        addresses = source.packed + destination.packed
        return head + pack("!H", checksum(head, addresses)) + addresses + content
    return pack("!IHBB", 0x60000000, len(content), protocol, 64) + source.packed + destination.packed + content


def make_ping(source: IPAddress, destination: IPAddress, number: int, content: bytes, *, reply: bool = False) -> bytes:
    """Make an echo request or its reply."""
    protocol, kind = (_ICMP, 8 * (not reply)) if source.version == 4 else (_ICMPV6, 128 + reply)
    rest = pack("!HH", 0, number) + content
    pseudo: tuple[int | bytes, ...] = ()
    if source.version == 6:
        pseudo = (source.packed, destination.packed, 4 + len(rest), protocol)
    value = checksum(*pseudo, kind << 8, rest)
    return make_packet(source, destination, protocol, pack("!BBH", kind, 0, value) + rest)


def make_datagram(source: IPAddress, destination: IPAddress, ports: tuple[int, int], content: bytes) -> bytes:
    """Make a UDP datagram."""
    size = 8 + len(content)
    head = pack("!HHH", *ports, size)
    value = checksum(source.packed, destination.packed, _UDP, size, head, content)
    return make_packet(source, destination, _UDP, head + pack("!H", value) + content)


class CableTraffic:
    """Pings and datagrams to each host, one after the other, over one session."""

    def __init__(self, session: Session, local: list[str], hosts: list[str]) -> None:
        self.tally = Tally()
        self._session = session
        self._pings: list[tuple[bytes, bytes]] = []
        self._bursts: list[tuple[list[bytes], list[bytes]]] = []
        for source, destination in zip(map(ip_address, local), map(ip_address, hosts), strict=True):
            content = os.urandom(PING_SIZE)
            ping = make_ping(source, destination, 1, content)
            self._pings.append((ping, make_ping(destination, source, 1, content, reply=True)))
            contents = [os.urandom(DATAGRAM_SIZE) for _ in range(WINDOW)]
            sent = [make_datagram(source, destination, (4096, _PORT), content) for content in contents]
            returned = [make_datagram(destination, source, (_PORT, 4096), content) for content in contents]
            self._bursts.append((sent, returned))

    def round(self) -> None:
        """Send a little of everything, and wait for all of it to come back."""
        for ping, reply in self._pings:
            started = time.perf_counter_ns()
            if self._exchange(self.tally.pings, [ping], [reply]):
                self.tally.round_trips.append(time.perf_counter_ns() - started)
        for sent, returned in self._bursts:
            self._exchange(self.tally.datagrams, sent, returned)

    def _exchange(self, count: Count, sent: list[bytes], returned: list[bytes]) -> bool:
        """Send packets; whether they all came back, in order."""
        with suppress(SessionClosed):
            count.sent += self._session.send(sent)
        at = 0
        while at < len(returned):
            with self._session.receive(timeout=TIMEOUT) as batch:
                if not batch:
                    return False
                for packet in batch:
                    if packet == returned[at]:
                        count.returned += 1
                    else:
                        self.tally.damaged += 1
                    at += 1
        return True

    def close(self) -> None:
        """Do nothing: the session is the caller's."""
