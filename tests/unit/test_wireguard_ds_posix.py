"""The DS byte of WireGuard's messages: congestion goes inwards and not outwards, and handshakes have a DSCP."""

from __future__ import annotations

import socket
import struct
import sys
from typing import TYPE_CHECKING

import pytest

import tunring
from wireguard_joined import DEVICE, LEFT, RIGHT, Joined, data_message, ipv4

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def joined() -> Iterator[Joined]:
    result = Joined()
    yield result
    result.close()


def test_congestion_is_carried_inwards_and_not_outwards(joined: Joined) -> None:
    sent, _ = joined.install()
    joined.right.flags(DEVICE.CONFIRMED)
    with tunring.UdpSocket.bind(("127.0.0.1", 0)) as far:
        joined.to_right.endpoint = far.address  # type: ignore[assignment]
        joined.left.host.send([ipv4(LEFT, RIGHT, tos=tos) for tos in (0xB8, 0xB9, 0xBA, 0xBB)])
        ecn: list[int] = []
        while len(ecn) < 4:
            with far.receive(timeout=10) as batch:
                ecn += list(batch.ecn)
    assert ecn == [0, 1, 2, 2]
    packets = [ipv4(LEFT, RIGHT, tos=tos) for tos in (0xB8, 0xB9, 0xBA)]
    messages = [data_message(sent, joined.indices[1], 10 + i, packet) for i, packet in enumerate(packets)]
    joined.left.socket.send(messages, joined.right.socket.address, ecn=3)
    got = joined.right.receive(3)
    assert [packet[1] for packet in got] == [0xB8, 0xBB, 0xBB]
    for packet in got:
        assert sum(struct.unpack(">10H", packet[:20])) % 0xFFFF == 0


def ipv6(source: bytes, destination: bytes, traffic_class: int) -> bytes:
    return struct.pack(">IHBB", 6 << 28 | traffic_class << 20 | 0x12345, 60, 59, 64) + source + destination + bytes(60)


def test_congestion_is_carried_into_ipv6(joined: Joined) -> None:
    left, right = (bytes.fromhex("fd00") + bytes(13) + bytes([last]) for last in (1, 2))
    joined.to_left.set_allowed_ips([(left, 128)])
    sent, _ = joined.install()
    packets = [ipv6(left, right, traffic_class) for traffic_class in (0xB8, 0xB9, 0xBA, 0xBB)]
    for ecn, carried in ((0, packets), (3, [packets[0], *[packets[3]] * 3])):
        messages = [data_message(sent, joined.indices[1], 10 * (ecn + 1) + i, text) for i, text in enumerate(packets)]
        joined.left.socket.send(messages, joined.right.socket.address, ecn=ecn)
        assert joined.right.receive(4) == carried  # with the flow label that it had


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets programs set and see the whole DS byte")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_handshakes_have_a_ds_byte_and_data_has_only_ecn(joined: Joined, host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    option = (socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS) if ":" in host else (socket.IPPROTO_IP, socket.IP_RECVTOS)
    try:
        udp = tunring.UdpSocket.bind((host, 0))
    except OSError:
        pytest.skip("no IPv6 here")
    with udp, socket.socket(family, socket.SOCK_DGRAM) as far:
        far.bind((host, 0))
        far.settimeout(10)
        far.setsockopt(*option, 1)

        def ds() -> tuple[int, int]:
            """The type of the next message, and its DS byte; none is sent as 0."""
            data, controls, _, _ = far.recvmsg(2000, 100)
            return data[0], next((value[0] for *_, value in controls), 0)

        joined.install()
        joined.left.device.set_socket(udp)
        joined.to_right.endpoint = far.getsockname()[:2]
        assert joined.to_right.send_handshake(b"\1" + bytes(147))
        assert ds() == (1, 0x88)
        assert joined.left.device.send_to(b"\2" + bytes(91), far.getsockname()[:2])
        assert ds() == (2, 0x88)
        joined.left.host.send([ipv4(LEFT, RIGHT, tos=0xB8), ipv4(LEFT, RIGHT, tos=0xBA)])
        assert [ds(), ds()] == [(4, 0), (4, 2)]
        assert joined.to_right.send_keepalive()
        assert ds() == (4, 0)
