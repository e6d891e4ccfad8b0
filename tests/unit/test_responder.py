"""The responder's answers, byte by byte."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from struct import pack, unpack_from
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tunring.cli.traffic_cable import make_datagram, make_packet, make_ping
from tunring.testing.responder import Responder

if TYPE_CHECKING:
    import tunring

IPAddress = IPv4Address | IPv6Address

PAIRS = [(ip_address("10.77.0.1"), ip_address("10.77.0.2")), (ip_address("fd77::1"), ip_address("fd77::2"))]
both = pytest.mark.parametrize("pair", PAIRS, ids=["IPv4", "IPv6"])

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
MSS = bytes([2, 4, 5, 140])
OPTIONS = bytes([2, 4, 5, 140, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7])


def words(data: bytes) -> int:
    """The one's complement sum, as RFC 1071 has it."""
    total = 0
    for high, low in itertools.zip_longest(data[::2], data[1::2], fillvalue=0):
        total += high << 8 | low
        total = (total & 0xFFFF) + (total >> 16)
    return total


def answer_to(packet: bytes, responder: Responder | None = None) -> bytes | None:
    """The answer, whose checksums are right; or None, and then nothing was changed."""
    buffer = bytearray(packet)
    if not (responder or Responder()).respond(memoryview(buffer)):
        assert buffer == packet
        return None
    if buffer[0] >> 4 == 4:
        assert words(buffer[:20]) == 0xFFFF
    return bytes(buffer)


def is_intact(packet: bytes) -> bool:
    """Return whether the checksum of the ICMPv6 message, datagram or segment in it is right."""
    ipv4 = packet[0] >> 4 == 4
    at, end = (20, unpack_from("!H", packet, 2)[0]) if ipv4 else (40, 40 + unpack_from("!H", packet, 4)[0])
    pseudo = packet[12:20] if ipv4 else packet[8:40]
    protocol = packet[9] if ipv4 else packet[6]
    return words(pseudo + pack("!HH", protocol, end - at) + packet[at:end]) == 0xFFFF


# ---- Pings and UDP


@both
@given(content=st.binary(max_size=1400), number=st.integers(0, 0xFFFF))
@example(content=b"", number=0xFFFF)
def test_ping(pair: tuple[IPAddress, IPAddress], content: bytes, number: int) -> None:
    here, there = pair
    expected = make_ping(there, here, number, content, reply=True)
    assert answer_to(make_ping(here, there, number, content)) == expected
    assert is_intact(expected) if here.version == 6 else words(expected[20:]) == 0xFFFF


@both
@given(content=st.binary(max_size=1400), port=st.integers(1, 0xFFFF))
def test_datagram(pair: tuple[IPAddress, IPAddress], content: bytes, port: int) -> None:
    here, there = pair
    answer = answer_to(make_datagram(here, there, (port, 7), content))
    assert answer == make_datagram(there, here, (7, port), content)
    assert is_intact(answer)


def fragments(packet: bytes, size: int) -> list[bytes]:
    """Cut a packet; `size` bytes of content each, a multiple of 8."""
    ipv4 = packet[0] >> 4 == 4
    head = 20 if ipv4 else 40
    parts = [packet[at : at + size] for at in range(head, len(packet), size)]
    result = []
    for i, part in enumerate(parts):
        more = i + 1 < len(parts)
        if ipv4:
            header = bytearray(packet[:20])
            header[2:4], header[4:6] = pack("!H", 20 + len(part)), b"\x12\x34"
            header[6:8], header[10:12] = pack("!H", more << 13 | i * size // 8), b"\0\0"
            header[10:12] = pack("!H", 0xFFFF - words(header))
        else:
            header = bytearray(packet[:40]) + pack("!BBHI", packet[6], 0, i * size | more, 0x1234)
            header[4:7] = pack("!HB", 8 + len(part), 44)
        result.append(bytes(header + part))
    return result


@both
def test_fragments_are_answered_one_by_one(pair: tuple[IPAddress, IPAddress]) -> None:
    here, there = pair
    content = bytes(i * 7 & 0xFF for i in range(5001))
    cases = [
        (make_ping(here, there, 3, content), make_ping(there, here, 3, content, reply=True)),
        (make_datagram(here, there, (9, 7), content), make_datagram(there, here, (7, 9), content)),
    ]
    for request, reply in cases:
        assert [answer_to(part) for part in fragments(request, 1376)] == fragments(reply, 1376)


@both
def test_what_gets_no_answer(pair: tuple[IPAddress, IPAddress]) -> None:
    here, there = pair
    group = ip_address("224.0.0.251" if here.version == 4 else "ff02::fb")
    wrong_ping = 58 if here.version == 4 else 1
    silent = {
        "to many, ping": make_ping(here, group, 1, b"x"),
        "to many, UDP": make_datagram(here, group, (5353, 5353), b"x"),
        "a reply": make_ping(here, there, 1, b"x", reply=True),
        "the other version's ping": make_packet(here, there, wrong_ping, bytes([8, 0, 0, 0, 0, 0, 0, 0])),
        "from port 0": make_datagram(here, there, (0, 7), b"x"),
        "another protocol": make_packet(here, there, 47, bytes(40)),
        "half a UDP header": make_packet(here, there, 17, bytes(7)),
        "half a ping": make_packet(here, there, 1 if here.version == 4 else 58, bytes([8, 0, 0, 0])),
        "half a TCP header": make_packet(here, there, 6, bytes(19)),
    }
    assert {what: answer_to(packet) for what, packet in silent.items()} == dict.fromkeys(silent)


@both
def test_cut_packets_get_no_answer(pair: tuple[IPAddress, IPAddress]) -> None:
    for packet in (make_ping(*pair, 1, b"abc"), make_datagram(*pair, (9, 7), b"abc"), Peer(*pair).segment(SYN)):
        assert [answer_to(packet[:size]) for size in range(len(packet))] == [None] * len(packet)


@given(
    content=st.binary(min_size=20, max_size=120),
    first=st.sampled_from([0x45, 0x46, 0x4F, 0x60]),
    protocol=st.sampled_from([1, 6, 17, 44, 58]),
)
def test_nonsense_is_survived(content: bytes, first: int, protocol: int) -> None:
    buffer = bytearray(content)
    ipv4 = first != 0x60
    buffer[0], buffer[9 if ipv4 else 6] = first, protocol
    at, size = (2, len(buffer)) if ipv4 else (4, max(0, len(buffer) - 40))
    buffer[at : at + 2] = pack("!H", size)
    Responder().respond(memoryview(buffer))
    assert len(buffer) == len(content)
    Responder().answer([memoryview(bytearray(content)), memoryview(bytearray(content[:3])), memoryview(bytearray())])


def test_a_batch_goes_back_without_what_got_no_answer(pair: tuple[tunring.Session, tunring.Session]) -> None:
    here, there = PAIRS[0]
    left, right = pair
    responder = Responder()
    left.send(
        [
            make_ping(here, there, 1, b"x"),
            make_packet(here, there, 47, bytes(4)),
            make_datagram(here, there, (9, 7), b""),
        ]
    )
    with right.receive() as batch:
        assert responder.answer(batch) == 2
        assert right.send(batch) == 2
    assert right.stats().skipped == 1
    assert responder.counts == {"ping": 1, "ignored": 1, "udp": 1}
    with left.receive() as batch:
        expected = [make_ping(there, here, 1, b"x", reply=True), make_datagram(there, here, (7, 9), b"")]
        assert batch.tobytes() == expected


# ---- TCP


@dataclass
class Peer:
    """The peer's end of a connection, as the kernel would have it."""

    here: IPAddress
    there: IPAddress
    sequence: int = 0xFFFFFFF0  # soon wraps
    acknowledged: int = 0
    window: int = 64000
    port: int = 40000

    def segment(self, flags: int, data: bytes = b"", options: bytes = b"") -> bytes:
        bits = (20 + len(options)) // 4 << 12 | flags
        acknowledged = self.acknowledged if flags & ACK else 0
        fields = pack("!HHIIHH", self.port, 7, self.sequence, acknowledged, bits, self.window)
        end = pack("!H", 0) + options + data
        pseudo = self.here.packed + self.there.packed + pack("!HH", 6, len(fields) + 2 + len(end))
        value = 0xFFFF - words(pseudo + fields + end)
        return make_packet(self.here, self.there, 6, fields + pack("!H", value) + end)

    def parse(self, answer: bytes | None) -> tuple[int, int, int, bytes]:
        """Sequence number, acknowledged number, flags and data of an answer to this peer."""
        assert answer is not None
        assert is_intact(answer)
        ipv4 = self.here.version == 4
        addresses, at = (answer[12:20], 20) if ipv4 else (answer[8:40], 40)
        end = unpack_from("!H", answer, 2)[0] if ipv4 else 40 + unpack_from("!H", answer, 4)[0]
        assert addresses == self.there.packed + self.here.packed
        source, destination, sequence, acknowledged, bits = unpack_from("!HHIIH", answer, at)
        assert (source, destination) == (7, self.port)
        return sequence, acknowledged, bits & 0xFFF, answer[at + (bits >> 12) * 4 : end]

    def window_of(self, answer: bytes | None) -> int:
        """The window of an answer to this peer."""
        self.parse(answer)
        assert answer is not None
        window: int = unpack_from("!H", answer, (20 if self.here.version == 4 else 40) + 14)[0]
        return window

    def connect(self, responder: Responder) -> None:
        sequence, acknowledged, flags, data = self.parse(answer_to(self.segment(SYN), responder))
        assert (acknowledged, flags, data) == ((self.sequence + 1) & 0xFFFFFFFF, SYN | ACK, b"")
        self.sequence, self.acknowledged = acknowledged, (sequence + 1) & 0xFFFFFFFF
        assert answer_to(self.segment(ACK), responder) is None


@both
def test_connection(pair: tuple[IPAddress, IPAddress]) -> None:
    peer, responder = Peer(*pair), Responder()
    peer.connect(responder)
    pieces = [b"a", bytes(1380), b"odd", b"\xff" * 1000]
    # All are sent before the first is acknowledged.
    for piece in pieces:
        sequence, acknowledged, flags, data = peer.parse(answer_to(peer.segment(ACK | PSH, piece), responder))
        assert data == piece
        assert sequence == peer.sequence
        peer.sequence = (peer.sequence + len(piece)) & 0xFFFFFFFF
        assert (acknowledged, flags) == (peer.sequence, ACK | PSH)
    peer.acknowledged = peer.sequence
    assert answer_to(peer.segment(ACK), responder) is None
    sequence, acknowledged, flags, data = peer.parse(answer_to(peer.segment(FIN | ACK, b"last"), responder))
    assert (sequence, flags & FIN, data) == (peer.sequence, FIN, b"last")
    peer.sequence = peer.acknowledged = (peer.sequence + 5) & 0xFFFFFFFF
    assert acknowledged == peer.sequence
    assert answer_to(peer.segment(ACK), responder) is None
    # Both have ended: the connection is unknown from here on.
    assert peer.parse(answer_to(peer.segment(ACK), responder)) == (peer.acknowledged, 0, RST, b"")


@both
def test_of_a_syn_only_the_segment_size_stays(pair: tuple[IPAddress, IPAddress]) -> None:
    peer = Peer(*pair)
    for options in (
        OPTIONS,
        OPTIONS[4:] + MSS,
        MSS + b"\0\0\0\0",
        bytes([1, 1, 1, 3]),
        bytes([8, 200, 2, 4]),
        b"\1\1\1\2",
    ):
        answer = answer_to(peer.segment(SYN, options=options))
        peer.parse(answer)
        assert answer is not None
        kept = answer[-len(options) :]
        assert kept.replace(b"\1", b"").rstrip(b"\0") == (MSS if MSS in options else b"")


@both
def test_what_is_ahead_of_a_gap_is_not_acknowledged(pair: tuple[IPAddress, IPAddress]) -> None:
    peer, responder = Peer(*pair), Responder()
    peer.connect(responder)
    ahead = replace(peer, sequence=(peer.sequence + 10) & 0xFFFFFFFF)
    sequence, acknowledged, flags, data = peer.parse(answer_to(ahead.segment(ACK, b"later"), responder))
    assert (sequence, acknowledged, flags, data) == (peer.sequence, peer.sequence, ACK, b"")
    assert peer.parse(answer_to(peer.segment(ACK, b"0123456789"), responder))[1] == ahead.sequence
    assert peer.parse(answer_to(ahead.segment(ACK, b"later"), responder))[3] == b"later"


@both
def test_what_is_sent_again_is_echoed_again(pair: tuple[IPAddress, IPAddress]) -> None:
    peer, responder = Peer(*pair), Responder()
    peer.connect(responder)
    first = peer.segment(ACK, b"first")
    second = replace(peer, sequence=(peer.sequence + 5) & 0xFFFFFFFF).segment(ACK | FIN, b"second")
    answer_to(first, responder)
    answer_to(second, responder)
    following = (peer.sequence + 12) & 0xFFFFFFFF
    assert peer.parse(answer_to(first, responder)) == (peer.sequence, following, ACK | PSH, b"first")
    assert peer.parse(answer_to(second, responder))[1:] == (following, ACK | PSH | FIN, b"second")


@both
def test_a_probe_is_acknowledged(pair: tuple[IPAddress, IPAddress]) -> None:
    peer, responder = Peer(*pair), Responder()
    peer.connect(responder)
    probe = replace(peer, sequence=(peer.sequence - 1) & 0xFFFFFFFF)
    assert peer.parse(answer_to(probe.segment(ACK), responder)) == (peer.sequence, peer.sequence, ACK, b"")


@both
def test_it_offers_what_is_left_of_the_peers_window(pair: tuple[IPAddress, IPAddress]) -> None:
    """An echo needs as much of the peer's window as its segment needs of ours."""
    peer, responder = Peer(*pair, window=1000), Responder()
    answer = answer_to(peer.segment(SYN), responder)
    assert peer.window_of(answer) == 1000
    peer.sequence, peer.acknowledged = peer.parse(answer)[1], peer.parse(answer)[1]
    assert answer_to(peer.segment(ACK), responder) is None
    for left in (700, 400, 100):
        assert peer.window_of(answer_to(peer.segment(ACK, bytes(300)), responder)) == left
        peer.sequence = (peer.sequence + 300) & 0xFFFFFFFF
    assert peer.window_of(answer_to(peer.segment(ACK, bytes(100)), responder)) == 0


@both
def test_room_is_announced(pair: tuple[IPAddress, IPAddress]) -> None:
    """A peer that has no room for data sends none, and hears nothing else."""
    peer, responder = Peer(*pair, window=1000), Responder()
    peer.connect(responder)
    answer_to(peer.segment(ACK, bytes(1000)), responder)
    peer.sequence = (peer.sequence + 1000) & 0xFFFFFFFF
    full = replace(peer, acknowledged=peer.sequence, window=0)
    assert answer_to(full.segment(ACK), responder) is None
    read = replace(full, window=600)
    answer = answer_to(read.segment(ACK), responder)
    assert peer.parse(answer) == (peer.sequence, peer.sequence, ACK, b"")
    assert peer.window_of(answer) == 600
    for known in (read, full):  # known to the peer already, and one that was overtaken
        assert answer_to(known.segment(ACK), responder) is None
    answer = answer_to(replace(read, window=64000).segment(ACK), responder)
    assert peer.window_of(answer) == 64000
    # With this much room the peer isn't waiting.
    assert answer_to(replace(read, window=65000).segment(ACK), responder) is None


@both
def test_what_would_overrun_the_window_is_dropped_and_answered(pair: tuple[IPAddress, IPAddress]) -> None:
    peer, responder = Peer(*pair, window=8), Responder()
    peer.connect(responder)
    answer = answer_to(peer.segment(ACK, b"012345678"), responder)
    assert peer.parse(answer) == (peer.sequence, peer.sequence, ACK, b"")
    assert peer.window_of(answer) == 8
    assert peer.parse(answer_to(peer.segment(ACK, b"01234567"), responder))[3] == b"01234567"
    peer.sequence = (peer.sequence + 8) & 0xFFFFFFFF
    answer = answer_to(peer.segment(ACK, b"8"), responder)
    assert peer.parse(answer) == (peer.sequence, peer.sequence, ACK, b"")
    assert peer.window_of(answer) == 0
    peer.acknowledged = peer.sequence
    assert peer.parse(answer_to(peer.segment(ACK | FIN, b"8"), responder))[3] == b"8"


@both
def test_unknown_connections_are_reset(pair: tuple[IPAddress, IPAddress]) -> None:
    peer, responder = Peer(*pair, acknowledged=77), Responder()
    assert peer.parse(answer_to(peer.segment(ACK, b"data"), responder)) == (77, 0, RST, b"")
    for flags in (RST, RST | ACK, SYN | ACK, FIN, 0):
        assert answer_to(peer.segment(flags), responder) is None
    peer.connect(responder)
    assert answer_to(peer.segment(RST), responder) is None
    assert peer.parse(answer_to(peer.segment(ACK, b"data"), responder))[2] == RST


@both
def test_damage_is_not_covered_up(pair: tuple[IPAddress, IPAddress]) -> None:
    def damaged(packet: bytes) -> bytes:
        return packet[:-1] + bytes([packet[-1] ^ 1])

    peer, responder = Peer(*pair), Responder()
    assert answer_to(damaged(peer.segment(SYN, options=MSS)), responder) is None
    peer.connect(responder)
    for packet in (peer.segment(ACK, b"data"), make_datagram(*pair, (9, 7), b"data")):
        answer = answer_to(damaged(packet), responder)
        assert answer is not None
        assert not is_intact(answer)


@both
def test_the_oldest_connection_is_forgotten(pair: tuple[IPAddress, IPAddress]) -> None:
    responder = Responder(connections=2)
    peers = [Peer(*pair, port=port) for port in (1, 2, 3)]
    for peer in peers:
        peer.connect(responder)
    flags = [peer.parse(answer_to(peer.segment(ACK, b"x"), responder))[2] for peer in peers]
    assert flags == [RST, ACK | PSH, ACK | PSH]
