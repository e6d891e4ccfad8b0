"""Captures of UDP sockets, as tshark dissects them: addresses, ports, lengths and checksums are right."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tshark import fields, tshark

import tunring
from tunring.pcapng import Writer

if TYPE_CHECKING:
    from pathlib import Path

    from netns import Namespace

PAYLOADS = [b"abc" * 400] * 70 + [b"odd", b"", b"", b"\xff" * 7, bytes(65507)]


@pytest.mark.parametrize(
    ("left_address", "right_address", "ip"),
    [("127.0.0.1", "127.0.0.1", "ip"), ("::1", "::1", "ipv6"), ("::", "127.0.0.1", "ip")],
)
def test_what_tshark_reads(
    left_address: str, right_address: str, ip: str, namespace: Namespace, tmp_path: Path
) -> None:
    path = tmp_path / "udp.pcapng"
    with (
        namespace.entered(),
        tunring.UdpSocket.bind((left_address, 0)) as left,
        tunring.UdpSocket.bind((right_address, 0)) as right,
        Writer(path, name="left") as writer,
        left.capture(writer),
        right.capture(writer, interface=writer.add_interface("right")),
    ):
        assert left.send(PAYLOADS, right.address[:2], ecn=2) == len(PAYLOADS)
        count = 0
        while count < len(PAYLOADS):
            with right.receive(timeout=10) as batch:
                assert batch
                count += len(batch)
                right.send(batch[:1], batch.sources[0])
        left.receive(timeout=10).release()
        assert writer.dropped == 0
    got = fields(
        path,
        "frame.interface_name",
        "frame.packet_flags_direction",
        f"{ip}.src",
        f"{ip}.dst",
        "udp.srcport",
        "udp.dstport",
        "udp.length",
        "ip.dsfield.ecn" if ip == "ip" else "ipv6.tclass.ecn",
    )
    there = (right_address, str(right.address[1]))
    for name, direction in (("left", 2), ("right", 1)):
        mine = [each for each in got if (each[0], int(each[1], 16)) == (name, direction)]
        assert [int(each[6]) for each in mine] == [8 + len(payload) for payload in PAYLOADS]
        assert {(each[3], each[5]) for each in mine} == {there}
        assert {each[4] for each in mine} == {str(left.address[1])}
        assert {int(each[7], 0) for each in mine} == {2}
        # A socket that is bound to any address doesn't know which one the system takes; the receiver does.
        known = left_address if left_address != "::" else {"left": "0.0.0.0", "right": "127.0.0.1"}[name]
        assert {each[2] for each in mine} == {known}
    replies = [each for each in got if (each[0], int(each[1], 16)) == ("left", 1)]
    assert replies
    assert {(each[2], each[4]) for each in replies} == {there}
    # IPv6's largest is longer than what a capture keeps of a packet; and what a wildcard hides is not in the sum.
    check = ("-o", "udp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE")
    whole = "frame.cap_len == frame.len"
    assert tshark(path, *check, "-Y", f"udp.checksum.status != 1 && {whole}") == []
    assert len(tshark(path, *check, "-Y", "udp.checksum.status == 1")) >= 2 * len(PAYLOADS) - 2
    if ip == "ip":
        assert tshark(path, *check, "-Y", "ip.checksum.status != 1") == []
    assert tshark(path, *check, "-Y", "ip.bogus_ip_length || udp.length.bad") == []
