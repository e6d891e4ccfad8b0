"""A strict reader of the pcapng files that tunring writes."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Interface:
    link_type: int
    snaplen: int
    options: dict[int, bytes]

    @property
    def name(self) -> str:
        return self.options[2].decode()


@dataclass
class Packet:
    interface: int
    time: int
    data: bytes
    length: int
    options: dict[int, bytes]

    @property
    def direction(self) -> str | None:
        return {0: None, 1: "in", 2: "out"}[int.from_bytes(self.options[2], "little")]


@dataclass
class File:
    application: str = ""
    interfaces: list[Interface] = field(default_factory=list)
    packets: list[Packet] = field(default_factory=list)

    @property
    def data(self) -> list[bytes]:
        return [packet.data for packet in self.packets]


def _options(body: bytes) -> dict[int, bytes]:
    found = {}
    while body:
        code, size = struct.unpack_from("<HH", body)
        if code == 0:
            assert (size, len(body)) == (0, 4), "something is behind the options' end"
            return found
        found[code] = body[4 : 4 + size]
        padding = body[4 + size : 4 + (size + 3) // 4 * 4]
        assert not any(padding)
        body = body[4 + (size + 3) // 4 * 4 :]
    raise AssertionError("the options have no end")


def parse(data: bytes) -> File:
    """Everything in it; an AssertionError or struct.error if a byte is not as it should be."""
    result = File()
    at = 0
    while at < len(data):
        assert len(data) >= at + 12, "a torn block"
        kind, size = struct.unpack_from("<II", data, at)
        assert size % 4 == 0
        assert 12 <= size <= len(data) - at, "a torn block"
        assert struct.unpack_from("<I", data, at + size - 4) == (size,)
        body = data[at + 8 : at + size - 4]
        at += size
        if kind == 0x0A0D0D0A:
            assert not result.application
            assert struct.unpack_from("<IHHq", body) == (0x1A2B3C4D, 1, 0, -1)
            result.application = _options(body[16:])[4].decode()
        elif kind == 1:
            link_type, reserved, snaplen = struct.unpack_from("<HHI", body)
            assert reserved == 0
            result.interfaces.append(Interface(link_type, snaplen, _options(body[8:])))
            assert result.interfaces[-1].options[9] == b"\x09"
        elif kind == 6:
            interface, high, low, captured, length = struct.unpack_from("<IIIII", body)
            end = 20 + (captured + 3) // 4 * 4
            assert interface < len(result.interfaces)
            assert captured <= min(length, result.interfaces[interface].snaplen)
            assert not any(body[20 + captured : end])
            options = _options(body[end:])
            result.packets.append(Packet(interface, high << 32 | low, body[20 : 20 + captured], length, options))
        else:
            raise AssertionError(f"a block of type {kind:#x}")
    return result


def read(path: Path | str) -> File:
    return parse(Path(path).read_bytes())


def read_so_far(path: Path | str) -> list[bytes]:
    """The packets of a file that is still being written; none while its last block is torn."""
    try:
        return read(path).data
    except AssertionError:
        return []
