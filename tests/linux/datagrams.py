"""UDP packets, made and taken apart by hand, so that tests depend on nothing that they test."""

from __future__ import annotations

import socket
import struct


def checksum(data: bytes) -> int:
    """The Internet checksum."""
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def udp4(source: tuple[str, int], target: tuple[str, int], payload: bytes) -> bytes:
    addresses = socket.inet_aton(source[0]) + socket.inet_aton(target[0])
    upper = _udp(addresses, source[1], target[1], payload)
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(upper), 1, 0, 64, 17, 0) + addresses
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + upper


def udp6(source: tuple[str, int], target: tuple[str, int], payload: bytes) -> bytes:
    addresses = socket.inet_pton(socket.AF_INET6, source[0]) + socket.inet_pton(socket.AF_INET6, target[0])
    upper = _udp(addresses, source[1], target[1], payload)
    return struct.pack("!IHBB", 6 << 28, len(upper), 17, 64) + addresses + upper


def _udp(addresses: bytes, source: int, target: int, payload: bytes) -> bytes:
    size = 8 + len(payload)
    pseudo_header = addresses + struct.pack("!II", size, 17)
    value = checksum(pseudo_header + struct.pack("!HHHH", source, target, size, 0) + payload) or 0xFFFF
    return struct.pack("!HHHH", source, target, size, value) + payload


def udp_payload(packet: bytes) -> bytes | None:
    """The payload of a UDP packet, whose checksums must be right; None for packets of another kind."""
    version = packet[0] >> 4
    start, addresses, protocol = (20, packet[12:20], packet[9]) if version == 4 else (40, packet[8:40], packet[6])
    if protocol != 17:
        return None
    upper = packet[start:]
    assert version == 6 or checksum(packet[:20]) == 0
    assert checksum(addresses + struct.pack("!II", len(upper), 17) + upper) == 0
    return upper[8:]
