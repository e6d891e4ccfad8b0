"""Runs of packets sent: the kernel takes them as superpackets, and nobody behind it can tell."""

from __future__ import annotations

import random
import socket
import struct
from typing import TYPE_CHECKING

import pytest
from superpackets import SEGMENTS, V4, both_families, datagram, expect_only, frames, listener, numbered, on_and_off

import tunring

if TYPE_CHECKING:
    from netns import Namespace

pytestmark = pytest.mark.root


def sizes_of(kind: str, dice: random.Random) -> list[int]:
    """The lengths of a run's payloads."""
    if kind == "equal":
        return [dice.randint(1, 1400)] * 200
    if kind == "a short last one":
        size = dice.randint(2, 1400)
        return ([size] * dice.randint(1, 90) + [dice.randint(1, size - 1)]) * 3
    return [dice.choice((0, 1, 100, 100, 100, 1400)) for _ in range(200)]


@on_and_off
@both_families
@pytest.mark.parametrize("kind", ["equal", "a short last one", "mixed"])
def test_runs_sent(
    session: tunring.Session, namespace: Namespace, offloads: bool, family: int, here: str, there: str, kind: str
) -> None:
    dice = random.Random(4)
    with listener(namespace, family, here, 4001) as link:
        for _ in range(10):
            payloads = [dice.randbytes(size) for size in sizes_of(kind, dice)]
            packets = [datagram((there, 5), (here, 4001), payload, i) for i, payload in enumerate(payloads)]
            before, _ = frames(namespace)
            assert session.send(packets) == len(packets)
            assert [link.recv(2000) for _ in payloads] == payloads
            after, _ = frames(namespace)
            if offloads and kind == "equal":
                assert after - before <= 10
            elif not offloads:
                assert after - before == len(packets)
    assert session.stats().write_errors == 0
    assert not namespace.damage()


@on_and_off
@both_families
def test_checksums_are_filled(
    session: tunring.Session, namespace: Namespace, offloads: bool, family: int, here: str, there: str
) -> None:
    payloads = [bytes([i]) * (100 + i % 2) for i in range(100)]
    packets = [bytearray(datagram((there, 5), (here, 4001), payload, i)) for i, payload in enumerate(payloads)]
    for packet in packets:
        if family == socket.AF_INET:
            packet[10:12] = b"\x12\x34"
            packet[26:28] = b"\x12\x34"
        else:
            packet[46:48] = b"\x12\x34"
    wrong = list(map(bytes, packets))
    with listener(namespace, family, here, 4001) as link:
        assert session.send(packets) == len(packets)  # which the kernel drops
        before, _ = frames(namespace)
        assert session.send(packets, checksums="fill") == len(packets)
        after, _ = frames(namespace)
        # A shorter one ends a superpacket, and a longer one does not belong to it.
        assert after - before == (len(packets) // 2 + 1 if offloads else len(packets))
        assert [link.recv(2000) for _ in payloads] == payloads
        link.setblocking(False)
        with pytest.raises(BlockingIOError):
            link.recv(2000)
    assert packets == wrong


@on_and_off
@pytest.mark.parametrize(("family", "here", "there"), [V4])
def test_what_the_kernel_cannot_complete_is_filled(
    session: tunring.Session, namespace: Namespace, offloads: bool, family: int, here: str, there: str
) -> None:
    """Datagrams with IP options, and pings: those the kernel would not complete, or answer with a wrong checksum."""
    payload = b"behind options"
    plain = datagram((there, 5), (here, 4001), payload, 1)
    with_options = bytearray(plain[:20] + bytes([1] * 4) + plain[20:])
    with_options[0] = 0x46
    with_options[2:4] = len(with_options).to_bytes(2, "big")
    with_options[10:12] = with_options[30:32] = b"\x12\x34"
    ping = bytearray(plain[:20] + bytes([8, 0, 0x12, 0x34, 0, 7, 0, 1]) + b"ping")
    ping[2:4] = len(ping).to_bytes(2, "big")
    ping[9], ping[10:12] = 1, b"\x12\x34"
    with listener(namespace, family, here, 4001) as link:
        assert session.send([with_options, ping, with_options], checksums="fill") == 3
        assert [link.recv(2000) for _ in range(2)] == [payload] * 2
    replies: list[bytes] = []
    while not replies:
        with session.receive(timeout=10) as batch:
            assert batch, "nobody answered the ping"
            replies = [packet for packet in batch.tobytes() if packet[9:10] == b"\x01" and packet[20] == 0]
    assert replies[0][24:] == bytes(ping[24:])


@both_families
def test_interleaved_flows_keep_their_order(
    session: tunring.Session, namespace: Namespace, family: int, here: str, there: str
) -> None:
    dice = random.Random(5)
    with listener(namespace, family, here, 4001) as first, listener(namespace, family, here, 4002) as second:
        for _ in range(10):
            expected: dict[tuple[int, int], list[bytes]] = {}
            packets = []
            for number in range(300):
                flow = dice.randint(10, 14), dice.choice((4001, 4002))
                payload = struct.pack("!I", number) + bytes(dice.choice((96, 96, 96, 500)))
                expected.setdefault(flow, []).append(payload)
                packets.append(datagram((there, flow[0]), (here, flow[1]), payload, len(expected[flow])))
            before, _ = frames(namespace)
            assert session.send(packets) == len(packets)
            received: dict[tuple[int, int], list[bytes]] = {}
            for link, port in ((first, 4001), (second, 4002)):
                for _ in range(sum(len(sent) for flow, sent in expected.items() if flow[1] == port)):
                    payload, source = link.recvfrom(2000)
                    received.setdefault((source[1], port), []).append(payload)
            assert received == expected
            assert frames(namespace)[0] - before < len(packets)
    assert session.stats().write_errors == 0
    assert not namespace.damage()


@both_families
@pytest.mark.parametrize("bad", [0, 1, 31, 62, 63])
@pytest.mark.parametrize("where", ["payload", "checksum"])
def test_corrupt_packet_in_a_run_stays_corrupt(
    session: tunring.Session, namespace: Namespace, family: int, here: str, there: str, bad: int, where: str
) -> None:
    payloads = numbered(SEGMENTS, 700)
    packets = [bytearray(datagram((there, 5), (here, 4001), payload, i)) for i, payload in enumerate(payloads)]
    udp = 20 if family == socket.AF_INET else 40
    packets[bad][udp + 6 if where == "checksum" else -1] ^= 0x40
    with listener(namespace, family, here, 4001) as link:
        before, _ = frames(namespace)
        assert session.send(packets) == len(packets)
        expect_only(link, payloads[:bad] + payloads[bad + 1 :])
        # Its neighbours are still merged.
        assert frames(namespace)[0] - before <= 4
    name = "Udp" if family == socket.AF_INET else "Udp6"
    assert namespace.damage() == {f"{name}InErrors": 1, f"{name}InCsumErrors": 1}


def test_corrupt_ip_header_in_a_run_stays_corrupt(session: tunring.Session, namespace: Namespace) -> None:
    payloads = numbered(SEGMENTS, 700)
    packets = [
        bytearray(datagram(("10.9.0.77", 5), ("10.9.0.1", 4001), payload, i)) for i, payload in enumerate(payloads)
    ]
    packets[20][10] ^= 1
    with listener(namespace, socket.AF_INET, "10.9.0.1", 4001) as link:
        assert session.send(packets) == len(packets)
        expect_only(link, payloads[:20] + payloads[21:])
    damage = namespace.damage()
    assert damage["IpInHdrErrors"] == 1
    assert "UdpInCsumErrors" not in damage


def test_datagrams_without_checksums_arrive(session: tunring.Session, namespace: Namespace) -> None:
    """IPv4 allows UDP without a checksum: such datagrams arrive among others."""
    payloads = numbered(SEGMENTS, 700)
    packets = [
        bytearray(datagram(("10.9.0.77", 5), ("10.9.0.1", 4001), payload, i)) for i, payload in enumerate(payloads)
    ]
    for packet in packets[10:40:3]:
        packet[26:28] = b"\0\0"
    with listener(namespace, socket.AF_INET, "10.9.0.1", 4001) as link:
        assert session.send(packets) == len(packets)
        expect_only(link, payloads)
    assert not namespace.damage()
