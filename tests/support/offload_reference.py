"""The offloads in plain Python: slow, short, and written from the protocols alone.

A packet that is read from or written to a TUN descriptor carries a virtio header, here a `Virtio`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import NamedTuple

TCP, UDP = 6, 17
FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << bit for bit in range(8))
NEEDS_CHECKSUM = 1
GSO_TCP4, GSO_TCP6, GSO_UDP, GSO_ECN = 1, 4, 5, 0x80
#: Flags of coalesce(): the superpackets that the kernel takes.
TSO4, TSO6, USO = 1, 2, 4
MAX_PACKET = 65535
MOST_DATAGRAMS = 64
#: Datagrams with at most this lifetime may be probes, and stay alone.
MOST_PROBE_HOPS = 32


class Virtio(NamedTuple):
    """The virtio header."""

    flags: int = 0
    gso_type: int = 0
    header_length: int = 0
    gso_size: int = 0
    checksum_start: int = 0
    checksum_offset: int = 0

    def pack(self) -> bytes:
        return struct.pack("=BBHHHH", *self)

    @classmethod
    def unpack(cls, data: bytes) -> Virtio:
        return cls(*struct.unpack("=BBHHHH", data))


@dataclass
class Headers:
    """Where the headers of a TCP or UDP packet are."""

    version: int
    protocol: int
    transport: int  # offset
    length: int  # of all headers
    extended: bool  # IPv4 options or IPv6 extension headers


def total(data: bytes | bytearray, start: int = 0) -> int:
    """The one's complement sum of 16-bit words; 0 only if all are 0."""
    number = int.from_bytes(data, "big") << 8 * (len(data) % 2)
    result = start + number
    return (result - 1) % 0xFFFF + 1 if result else 0


def put16(data: bytearray, at: int, value: int) -> None:
    data[at : at + 2] = (value & 0xFFFF).to_bytes(2, "big")


def get16(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "big")


def get32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big")


def parse(packet: bytes, segment: int | None = None) -> Headers | None:
    """The headers of whole TCP or UDP packets in IP packets of just this length.

    A superpacket of segments of this size may have its IP length unset, and a UDP length of 0 or of one segment.
    """
    unset = set() if segment is None else {0}
    version = packet[0] >> 4 if packet else 0
    if version == 4:
        if len(packet) < 20 or get16(packet, 2) not in {len(packet), *unset} or get16(packet, 6) & 0x3FFF:
            return None
        protocol, at = packet[9], (packet[0] & 15) * 4
        if not 20 <= at <= len(packet):
            return None
    elif version == 6:
        if len(packet) < 40 or get16(packet, 4) not in {len(packet) - 40, *unset}:
            return None
        protocol, at = packet[6], 40
        while protocol in {0, 43, 60}:
            if len(packet) < at + 8:
                return None
            protocol, at = packet[at], at + 8 * (packet[at + 1] + 1)
            if at > len(packet):
                return None
    else:
        return None
    left = len(packet) - at
    if protocol == TCP and left >= 20:
        size = (packet[at + 12] >> 4) * 4
        if not 20 <= size <= left:
            return None
    elif protocol == UDP and left >= 8:
        if get16(packet, at + 4) not in ({left} if segment is None else {left, 0, 8 + segment}):
            return None
        size = 8
    else:
        return None
    return Headers(version, protocol, at, at + size, at > (20 if version == 4 else 40))


def pseudo(packet: bytes | bytearray, headers: Headers, length: int) -> int:
    """The sum of the pseudo-header for a transport length."""
    addresses = packet[12:20] if headers.version == 4 else packet[8:40]
    return total(addresses, headers.protocol + length)


def checksum_at(headers: Headers) -> int:
    return headers.transport + (16 if headers.protocol == TCP else 6)


def seal(packet: bytes) -> bytes:
    """The packet with all lengths and checksums right."""
    data = bytearray(packet)
    if data[0] >> 4 == 4:
        put16(data, 2, len(data))
        put16(data, 10, 0)
        put16(data, 10, ~total(bytes(data[: (data[0] & 15) * 4])))
        protocol, transport = data[9], (data[0] & 15) * 4
    else:
        put16(data, 4, len(data) - 40)
        protocol, transport = data[6], 40
    if protocol == UDP:
        put16(data, transport + 4, len(data) - transport)
    headers = parse(bytes(data))
    if headers:
        at = checksum_at(headers)
        put16(data, at, 0)
        start = pseudo(data, headers, len(data) - headers.transport)
        value = ~total(bytes(data[headers.transport :]), start) & 0xFFFF
        put16(data, at, value or (0xFFFF if headers.protocol == UDP else 0))
    return bytes(data)


def split(virtio: Virtio, packet: bytes) -> list[bytes] | None:
    """The packets of which one was made; None if the headers can't be right."""
    if not packet:
        return None
    return _split_superpacket(virtio, packet) if virtio.gso_type else _complete(virtio, packet)


def _complete(virtio: Virtio, packet: bytes) -> list[bytes] | None:
    if len(packet) > MAX_PACKET:
        return None
    if not virtio.flags & NEEDS_CHECKSUM:
        return [packet]
    minimum = {4: (packet[0] & 15) * 4, 6: 40}.get(packet[0] >> 4, 0)
    start, at = virtio.checksum_start, virtio.checksum_start + virtio.checksum_offset
    if minimum < 20 or start < minimum or at + 2 > len(packet):
        return None
    data = bytearray(packet)
    value = ~total(packet[start:]) & 0xFFFF
    put16(data, at, value or (0xFFFF if virtio.checksum_offset == 6 else 0))
    return [bytes(data)]


def _split_superpacket(virtio: Virtio, packet: bytes) -> list[bytes] | None:
    headers = parse(packet, virtio.gso_size) if virtio.gso_size else None
    if headers is None:
        return None
    if headers.protocol == UDP:
        types = {GSO_UDP}
    else:
        types = {GSO_TCP4, GSO_TCP4 | GSO_ECN} if headers.version == 4 else {GSO_TCP6, GSO_TCP6 | GSO_ECN}
    if virtio.gso_type not in types:
        return None
    at = checksum_at(headers)
    length = get16(packet, headers.transport + 4) if headers.protocol == UDP else len(packet) - headers.transport
    if virtio.flags & NEEDS_CHECKSUM:
        if (virtio.checksum_start, virtio.checksum_offset) != (headers.transport, at - headers.transport):
            return None
        start = get16(packet, at) + (0xFFFF - length % 0xFFFF)
    elif headers.extended:
        return None
    else:
        start = pseudo(packet, headers, 0)

    payload = packet[headers.length :]
    pieces = [payload[i : i + virtio.gso_size] for i in range(0, len(payload), virtio.gso_size)] or [b""]
    if headers.length + len(pieces[0]) > MAX_PACKET:
        return None
    result = []
    for index, piece in enumerate(pieces):
        data = bytearray(packet[: headers.length] + piece)
        if headers.version == 4:
            put16(data, 2, len(data))
            put16(data, 4, get16(packet, 4) + index)
            put16(data, 10, 0)
            put16(data, 10, ~total(bytes(data[: headers.transport])))
        else:
            put16(data, 4, len(data) - 40)
        if headers.protocol == UDP:
            put16(data, headers.transport + 4, len(data) - headers.transport)
        else:
            sequence = get32(packet, headers.transport + 4) + index * virtio.gso_size
            data[headers.transport + 4 : headers.transport + 8] = (sequence & 0xFFFFFFFF).to_bytes(4, "big")
            if index:
                data[headers.transport + 13] &= ~CWR & 0xFF
            if index + 1 < len(pieces):
                data[headers.transport + 13] &= ~(FIN | PSH) & 0xFF
        put16(data, at, 0)
        value = ~total(bytes(data[headers.transport :]), start + len(data) - headers.transport) & 0xFFFF
        put16(data, at, value or (0xFFFF if headers.protocol == UDP else 0))
        result.append(bytes(data))
    return result


def verifies(packet: bytes, headers: Headers) -> bool:
    """True if the checksums of a packet without extensions are right; UDP must have one."""
    if headers.version == 4 and total(packet[:20]) != 0xFFFF:
        return False
    if headers.protocol == UDP and not get16(packet, checksum_at(headers)):
        return False
    length = len(packet) - headers.transport
    return total(packet[headers.transport :], pseudo(packet, headers, length)) == 0xFFFF


@dataclass
class Group:
    """Packets, by their indices, that are written at once."""

    indices: list[int]
    headers: Headers | None = None
    flow: tuple[int, bytes, bytes] | None = None
    open: bool = False
    virtio: Virtio = field(default_factory=Virtio)
    data: bytes = b""


def coalesce(packets: list[bytes], offloads: int) -> list[Group]:
    """The writes that a run of packets needs, each with its virtio header and all its bytes."""
    groups: list[Group] = []
    for index, packet in enumerate(packets):
        headers = parse(packet)
        if headers and not headers.extended:
            flow = _flow(packet, headers)
            same = [group for group in groups if group.flow == flow]
            if same and same[-1].open and _joins([packets[i] for i in same[-1].indices], packet, headers, offloads):
                same[-1].indices.append(index)
                continue
            for group in same:
                group.open = False
            groups.append(Group([index], headers, flow, open=True))
        else:
            for group in groups:
                if _addresses(packet) in {b"", _addresses(packets[group.indices[0]])}:
                    group.open = False
            groups.append(Group([index]))
    for group in groups:
        members = [packets[i] for i in group.indices]
        group.data = members[0]
        if len(members) > 1 and group.headers:
            group.virtio, group.data = _merge(members, group.headers)
    return groups


def _addresses(packet: bytes) -> bytes:
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= 20:
        return packet[12:20]
    return packet[8:40] if version == 6 and len(packet) >= 40 else b""


def _flow(packet: bytes, headers: Headers) -> tuple[int, bytes, bytes]:
    return headers.protocol, _addresses(packet), packet[headers.transport : headers.transport + 4]


def _constant(packet: bytes, headers: Headers) -> bytes:
    """The headers without what may differ between the packets of a superpacket."""
    data, transport = bytearray(packet[: headers.length]), headers.transport
    if headers.version == 4:
        data[2:6] = bytes(4)  # length and identification
        data[10:12] = bytes(2)
    else:
        data[4:6] = bytes(2)
    put16(data, checksum_at(headers), 0)
    if headers.protocol == TCP:
        data[transport + 4 : transport + 8] = bytes(4)  # sequence number
        data[transport + 13] &= ~(FIN | PSH | CWR) & 0xFF
    else:
        put16(data, transport + 4, 0)
    return bytes(data)


def _joins(members: list[bytes], packet: bytes, headers: Headers, offloads: int) -> bool:
    first = members[0]
    transport = headers.transport
    needed = USO if headers.protocol == UDP else TSO4 if headers.version == 4 else TSO6
    first_headers = parse(first)
    assert first_headers
    if not offloads & needed or _constant(first, first_headers) != _constant(packet, headers):
        return False
    sizes = [len(member) - headers.length for member in [*members, packet]]
    if 0 in sizes or len(set(sizes[:-1])) > 1 or sizes[-1] > sizes[0] or headers.length + sum(sizes) > MAX_PACKET:
        return False
    if headers.version == 4 and not packet[6] & 0x40 and get16(packet, 4) != (get16(first, 4) + len(members)) & 0xFFFF:
        return False
    if headers.protocol == UDP:
        if len(members) >= MOST_DATAGRAMS or packet[8 if headers.version == 4 else 7] <= MOST_PROBE_HOPS:
            return False
    else:
        flags = [member[transport + 13] for member in [*members, packet]]
        if any(each & (SYN | RST | URG) for each in flags) or any(each & (FIN | PSH) for each in flags[:-1]):
            return False
        if flags[-1] & CWR:
            return False
        if get32(packet, transport + 4) != (get32(first, transport + 4) + sum(sizes[:-1])) & 0xFFFFFFFF:
            return False
    return verifies(first, headers) and verifies(packet, headers)


def _merge(members: list[bytes], headers: Headers) -> tuple[Virtio, bytes]:
    transport = headers.transport
    data = bytearray(members[0][: headers.length] + b"".join(member[headers.length :] for member in members))
    length = len(data) - transport
    kind = GSO_UDP
    if headers.protocol == TCP:
        kind = GSO_TCP4 if headers.version == 4 else GSO_TCP6
        kind |= GSO_ECN if members[0][transport + 13] & CWR else 0
        data[transport + 13] |= members[-1][transport + 13] & (FIN | PSH)
    else:
        put16(data, transport + 4, length)
    if headers.version == 4:
        put16(data, 2, len(data))
        put16(data, 10, 0)
        put16(data, 10, ~total(bytes(data[:20])))
    else:
        put16(data, 4, length)
    at = checksum_at(headers)
    put16(data, at, pseudo(data, headers, length))
    size = len(members[0]) - headers.length
    return Virtio(NEEDS_CHECKSUM, kind, headers.length, size, transport, at - transport), bytes(data)
