"""Checksums completed and segment sizes lowered, against scapy's own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tunring
import tunring.testing
from pcapng_reader import read
from tunring.packets import clamp_mss, fill_checksums
from tunring.pcapng import Writer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

scapy = pytest.importorskip("scapy.all")
inet6 = pytest.importorskip("scapy.layers.inet6")

IP4 = {"src": "10.0.0.1", "dst": "10.0.0.2"}
IP6 = {"src": "fd00::1", "dst": "fd00::2"}
SUMS = {"chksum", "cksum"}

PACKETS = {
    "udp": lambda: scapy.IP(**IP4) / scapy.UDP(sport=7, dport=9) / b"odd",
    "empty udp": lambda: scapy.IP(**IP4) / scapy.UDP(sport=7, dport=9),
    "tcp": lambda: scapy.IP(**IP4) / scapy.TCP(sport=7, dport=9, flags="PA") / (b"x" * 1400),
    "icmp": lambda: scapy.IP(**IP4) / scapy.ICMP() / b"ping!",
    "options": lambda: scapy.IP(**IP4, options=[scapy.IPOption_NOP()] * 3) / scapy.UDP() / b"data",
    "other protocol": lambda: scapy.IP(**IP4, proto=47) / b"some bytes",
    "udp 6": lambda: scapy.IPv6(**IP6) / scapy.UDP(sport=7, dport=9) / b"odd",
    "tcp 6": lambda: scapy.IPv6(**IP6) / scapy.TCP(sport=7, dport=9) / b"data",
    "icmp 6": lambda: scapy.IPv6(**IP6) / inet6.ICMPv6EchoRequest(data=b"ping!"),
    "extensions": lambda: (
        scapy.IPv6(**IP6) / inet6.IPv6ExtHdrHopByHop() / inet6.IPv6ExtHdrDestOpt() / scapy.UDP(dport=9) / b"data"
    ),
}


@pytest.fixture
def sessions() -> Iterator[tuple[tunring.Session, tunring.Session]]:
    left, right = tunring.testing.pair()
    with left, right:
        yield left, right


def right_and_wrong(name: str) -> tuple[bytes, bytes]:
    """A packet with scapy's checksums, and the same with others."""
    whole = scapy.raw(PACKETS[name]())
    parsed = (scapy.IP if whole[0] >> 4 == 4 else scapy.IPv6)(whole)
    layer = parsed
    while layer:
        for field in SUMS & set(layer.fields):
            layer.setfieldval(field, 0x1234)
        layer = layer.payload
    return whole, scapy.raw(parsed)


@pytest.mark.parametrize("name", PACKETS)
def test_checksums_are_those_of_scapy(name: str) -> None:
    whole, wrong = right_and_wrong(name)
    packet = bytearray(wrong)
    assert fill_checksums([packet]) == 1
    assert packet == whole
    assert fill_checksums([memoryview(packet)]) == 1
    assert packet == whole


def test_a_batch_is_completed_in_place(sessions: tuple[tunring.Session, tunring.Session]) -> None:
    left, right = sessions
    pairs = [right_and_wrong(name) for name in PACKETS]
    left.send([wrong for _, wrong in pairs])
    with right.receive() as batch:
        assert fill_checksums(batch[1:]) == len(pairs) - 1
        assert batch.tobytes() == [pairs[0][1], *(whole for whole, _ in pairs[1:])]
    with pytest.raises(ValueError, match="released"):
        fill_checksums(batch)


def test_send_completes_what_it_sends_and_not_what_it_is_given(
    sessions: tuple[tunring.Session, tunring.Session],
) -> None:
    left, right = sessions
    pairs = [right_and_wrong(name) for name in PACKETS]
    whole, wrong = [pair[0] for pair in pairs], [bytearray(pair[1]) for pair in pairs]
    assert left.send(wrong, checksums="fill") == len(wrong)
    with right.receive() as batch:
        assert batch.tobytes() == whole
    assert wrong == [bytearray(pair[1]) for pair in pairs]
    lengths = [len(packet) for packet in wrong]
    assert left.send_packed(b"".join(wrong), lengths, checksums="fill") == len(wrong)
    assert left.send(wrong) == len(wrong)
    with right.receive(max_packets=len(wrong)) as batch:
        assert batch.tobytes() == whole
    with right.receive() as batch:
        assert batch.tobytes() == wrong
        assert right.send(batch, checksums="fill") == len(wrong)
        assert batch.tobytes() == wrong
    with left.receive() as batch:
        assert batch.tobytes() == whole


def test_a_capture_shows_what_was_completed(sessions: tuple[tunring.Session, tunring.Session], tmp_path: Path) -> None:
    left, _ = sessions
    pairs = [right_and_wrong(name) for name in PACKETS] * 20
    path = tmp_path / "sent.pcapng"
    with Writer(path) as writer, left.capture(writer):
        left.send([wrong for _, wrong in pairs], checksums="fill")
        left.send([wrong for _, wrong in pairs[:3]])
        # More than is copied at once.
        left.send([bytes([0x45]) + bytes(60_000)] * 10, checksums="fill")
    shown = [packet.data for packet in read(path).packets]
    assert shown[: len(pairs)] == [whole for whole, _ in pairs]
    assert shown[len(pairs) : len(pairs) + 3] == [wrong for _, wrong in pairs[:3]]
    assert [len(data) for data in shown[len(pairs) + 3 :]] == [60_001] * 10


def test_many_are_completed_in_a_small_ring() -> None:
    whole, wrong = right_and_wrong("tcp")
    left, right = tunring.testing.pair(capacity=tunring.MIN_CAPACITY)
    with left, right:
        sent = left.send([wrong] * 1000, checksums="fill", on_full="partial")
        got = 0
        while batch := right.receive(timeout=0):
            with batch:
                assert set(batch.tobytes()) == {whole}
                got += len(batch)
        assert got == sent
        assert 64 < sent < 1000


def test_sends_of_tasks_are_completed_too(sessions: tuple[tunring.Session, tunring.Session]) -> None:
    left, right = sessions
    whole, wrong = right_and_wrong("tcp")

    async def send() -> None:
        assert await left.send_async([wrong], checksums="fill") == 1
        assert await left.send_packed_async(wrong, [len(wrong)], checksums="fill") == 1

    asyncio.run(send())
    with right.receive() as batch:
        assert batch.tobytes() == [whole, whole]


@pytest.mark.parametrize("checksums", ["", "Fill", True, 1, b"fill"])
def test_bad_checksums(sessions: tuple[tunring.Session, tunring.Session], checksums: Any) -> None:
    left, right = sessions
    with pytest.raises(ValueError, match="checksums must be 'fill' or None"):
        left.send([right_and_wrong("udp")[1]], checksums=checksums)
    with pytest.raises(ValueError, match="checksums must be 'fill' or None"):
        left.send_packed(right_and_wrong("udp")[1], [31], checksums=checksums)
    assert not right.receive(timeout=0)


def test_fragments_and_source_routes_are_left_alone() -> None:
    for packet in (
        scapy.IP(**IP4, flags="MF") / scapy.UDP(chksum=5) / b"data",
        scapy.IP(**IP4, frag=3) / b"some data of the middle",
        scapy.IP(**IP4, options=[scapy.IPOption_LSRR(routers=["10.0.0.3"])]) / scapy.UDP(chksum=5) / b"data",
        scapy.IPv6(**IP6) / inet6.IPv6ExtHdrFragment(m=1) / scapy.UDP(chksum=5) / b"data",
        scapy.IPv6(**IP6) / inet6.IPv6ExtHdrRouting(segleft=1, addresses=["fd00::3"]) / scapy.UDP(chksum=5) / b"data",
    ):
        whole = scapy.raw(packet)
        changed = bytearray(whole)
        assert fill_checksums([changed]) == 0
        assert changed == whole  # scapy has set the header's
    atomic = scapy.raw(scapy.IPv6(**IP6) / inet6.IPv6ExtHdrFragment() / scapy.UDP(dport=9) / b"data")
    changed = bytearray(atomic)
    assert fill_checksums([changed]) == 1
    assert changed == atomic


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from(sorted(PACKETS)),
    st.integers(0, 200),
    st.lists(st.tuples(st.integers(0, 59), st.binary(min_size=1, max_size=2))),
)
def test_anything_may_come(name: str, cut: int, changes: list[tuple[int, bytes]]) -> None:
    packet = bytearray(right_and_wrong(name)[1])
    for at, data in changes:
        packet[at : at + len(data)] = data
    del packet[max(len(packet) - cut, 0) :]
    size = len(packet)
    filled = fill_checksums([packet])
    once = bytes(packet)
    assert fill_checksums([packet]) == filled
    assert bytes(packet) == once
    clamp_mss([packet], mss=500)
    assert len(packet) == size


@pytest.mark.parametrize("options", [[], [("NOP", None)], [("NOP", None), ("WScale", 7)], [("Timestamp", (1, 2))]])
@pytest.mark.parametrize("ip", [scapy.IP(**IP4), scapy.IPv6(**IP6)], ids=["ipv4", "ipv6"])
def test_segment_sizes_are_lowered(ip: Any, options: list[Any]) -> None:
    def syn(mss: int) -> bytes:
        return scapy.raw(ip / scapy.TCP(flags="S", options=[*options, ("MSS", mss)]))  # type: ignore[no-any-return]

    allowed = 1400 - (40 if ip.version == 4 else 60)
    for before, after in ((1460, allowed), (65535, allowed), (allowed + 1, allowed), (allowed, allowed), (500, 500)):
        packet = bytearray(syn(before))
        assert clamp_mss([packet], mtu=1400) == (before != after)
        assert packet == syn(after)
    packet = bytearray(syn(1460))
    assert clamp_mss([packet], mss=1000) == 1
    assert packet == syn(1000)
    packet = bytearray(syn(1460))
    packet[(20 if ip.version == 4 else 40) + 13] = 0x10  # an acknowledgement
    assert clamp_mss([packet], mss=1000) == 0


def test_bad_arguments() -> None:
    for arguments in ({}, {"mtu": 1400, "mss": 1300}):
        with pytest.raises(TypeError, match="either mtu or mss"):
            clamp_mss([], **arguments)
    for arguments in ({"mtu": 127}, {"mtu": 65536}, {"mss": 47}, {"mss": -1}, {"mss": 2**70}):
        with pytest.raises(ValueError, match="must be"):
            clamp_mss([], **arguments)
    with pytest.raises(TypeError):
        clamp_mss([], mss="1400")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("packets", "error", "words"),
    [
        ([bytearray(20), b"E" + bytes(19)], ValueError, "packet 1 must be one contiguous, writable"),
        ([5], TypeError, "packet 0"),
        (bytearray(20), TypeError, "not one bytearray"),
        ("text", TypeError, "not one str"),
        (None, TypeError, "iterable"),
        ([bytearray(70000)], ValueError, "70000 bytes"),
    ],
)
def test_bad_packets(packets: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        fill_checksums(packets)
