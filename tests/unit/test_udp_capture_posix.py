"""Captures of UDP sockets, as a reader of our own has them: addresses, ports, lengths, checksums."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

import tunring
from pcapng_reader import read
from tunring.pcapng import Writer

if TYPE_CHECKING:
    from pathlib import Path

    Address = tuple[bytes, int]


def sums_up(data: bytes) -> bool:
    """Return whether data holds its own checksum."""
    data += bytes(len(data) % 2)
    return sum(memoryview(data).cast("H")) % 0xFFFF == 0


def parse(packet: bytes) -> tuple[Address, Address, int, bytes]:
    """Source, destination, ECN and payload of a UDP datagram, all of whose fields are checked."""
    if packet[0] >> 4 == 4:
        assert packet[0] == 0x45
        assert int.from_bytes(packet[2:4], "big") == len(packet)
        assert sums_up(packet[:20])
        protocol, ecn, source, destination, udp = packet[9], packet[1], packet[12:16], packet[16:20], packet[20:]
    else:
        assert packet[0] >> 4 == 6
        assert int.from_bytes(packet[4:6], "big") == len(packet) - 40
        protocol, ecn = packet[6], packet[1] >> 4
        source, destination, udp = packet[8:24], packet[24:40], packet[40:]
    assert protocol == 17
    assert int.from_bytes(udp[4:6], "big") == len(udp)
    pseudo = source + destination + (17 + len(udp)).to_bytes(4, "big")
    assert udp[6:8] != bytes(2)
    assert sums_up(pseudo + udp)
    ports = int.from_bytes(udp[:2], "big"), int.from_bytes(udp[2:4], "big")
    return (source, ports[0]), (destination, ports[1]), ecn, udp[8:]


def packed(address: tuple[str, int]) -> Address:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    return socket.inet_pton(family, address[0]), address[1]


#: Equal ones, a shorter last one, empty ones, odd lengths, one whose checksum would be 0, the largest.
PAYLOADS = [b"abc" * 400] * 5 + [b"odd", b"", b"", b"\xff" * 7, bytes(65507)]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_both_directions(host: str, tmp_path: Path) -> None:
    path = tmp_path / "udp.pcapng"
    try:
        left = tunring.UdpSocket.bind((host, 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    with left, tunring.UdpSocket.bind((host, 0)) as right:
        with (
            Writer(tmp_path / "first.pcapng") as writer,
            left.capture(writer),
            pytest.raises(RuntimeError, match="the socket is captured already"),
        ):
            left.capture(writer)
        with (
            Writer(path, name="left", snaplen=65535) as writer,
            left.capture(writer),
            right.capture(writer, interface=writer.add_interface("right"), sent=False),
        ):
            assert left.send(PAYLOADS, right.address, ecn=2) == len(PAYLOADS)
            found: list[bytes] = []
            while len(found) < len(PAYLOADS):
                with right.receive(timeout=10) as batch:
                    found += batch.tobytes()
                    last = batch.sources[0]
            # A reply has its source from the endpoint; what the other captures of it is received.
            assert right.send([b"reply"], last) == 1
            left.receive(timeout=10).release()
        assert writer.dropped == 0
    here, there = packed(left.address[:2]), packed(right.address[:2])
    packets = read(path).packets
    whole = [packet for packet in packets if packet.length <= 65535]
    for interface, direction in ((0, "out"), (1, "in")):
        mine = [parse(each.data) for each in whole if (each.interface, each.direction) == (interface, direction)]
        expected = [(here, there, 2, payload) for payload in PAYLOADS if len(payload) <= 65535 - 48 or host != "::1"]
        assert mine == expected
    replies = [parse(each.data) for each in packets if (each.interface, each.direction) == (0, "in")]
    assert replies == [(there, here, 0, b"reply")]
    for cut in packets:
        assert len(cut.data) == min(cut.length, 65535)


def test_what_is_cut_and_what_is_not_known(tmp_path: Path) -> None:
    """A socket that is bound to any address, and a snaplen within the headers."""
    path = tmp_path / "udp.pcapng"
    with (
        tunring.UdpSocket.bind(("127.0.0.1", 0)) as right,
        tunring.UdpSocket.bind(("0.0.0.0", 0)) as left,
        Writer(path, snaplen=30) as writer,
        left.capture(writer),
    ):
        left.send([b"x" * 100], right.address)
        right.receive(timeout=10).release()
        right.send([b"question"], ("127.0.0.2", left.address[1]))
        with left.receive(timeout=10) as batch:
            left.send([b""], batch.sources[0])  # leaves from the address that was written to
    first, question, second = read(path).packets
    assert (len(first.data), first.length) == (30, 128)
    assert first.data[12:20] == bytes([0, 0, 0, 0, 127, 0, 0, 1])
    assert question.data[12:20] == bytes([127, 0, 0, 1, 127, 0, 0, 2])
    assert second.length == 28
    assert second.data[12:20] == bytes([127, 0, 0, 2, 127, 0, 0, 1])


def test_what_the_system_refuses_is_not_in_it(tmp_path: Path) -> None:
    path = tmp_path / "udp.pcapng"
    with tunring.UdpSocket.bind(("127.0.0.1", 0)) as udp, Writer(path) as writer, udp.capture(writer):
        assert udp.send([b"a"], ("255.255.255.255", 9)) == 1
        assert udp.stats().refused_unreachable == 1
        assert udp.send([b"b"], udp.address) == 1
        udp.close()  # which ends the capture
        assert writer.packets == 1
