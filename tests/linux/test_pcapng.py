"""Captures of real traffic, as tshark reads them; a disk that is full."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from readers import LIBRARIES, tcpdump
from tshark import fields, tshark

import tunring
import tunring.testing
from pcapng_reader import read
from running import eventually
from tunring.pcapng import Writer
from tunring.testing.checksum import checksum
from tunring.testing.responder import Responder

if TYPE_CHECKING:
    from pathlib import Path

    from netns import Namespace


def datagram(number: int, size: int) -> bytes:
    """A UDP datagram over IPv4 with right checksums, none for UDP."""
    header = bytearray([0x45, 0, *(28 + size).to_bytes(2, "big"), *number.to_bytes(2, "big"), 0, 0, 64, 17, 0, 0])
    header += bytes([10, 0, 0, 1, 10, 0, 0, 2])
    header[10:12] = checksum(header).to_bytes(2, "big")
    ports = (50123).to_bytes(2, "big") + (50124).to_bytes(2, "big") + (8 + size).to_bytes(2, "big") + bytes(2)
    return bytes(header + ports + bytes([number & 0xFF]) * size)


def test_what_tshark_reads(tmp_path: Path) -> None:
    path = tmp_path / "test.pcapng"
    left, right = tunring.testing.pair()
    sent = [datagram(number, number) for number in range(300)]
    times = [1_700_000_000_123_456_789 + number for number in range(300)]
    with left, right, Writer(path, name="left", mtu=1420) as writer:
        writer.write(sent, "out", times)
        with left.capture(writer, interface=writer.add_interface("second")):
            right.send(sent)
            left.receive(300).release()
            left.send(sent[:1])
    got = fields(
        path,
        "frame.time_epoch",
        "frame.interface_name",
        "frame.packet_flags_direction",
        "frame.protocols",
        "ip.id",
        "ip.checksum.status",
        "udp.length",
    )
    assert len(got) == 601
    for number, (time, name, direction, protocols, identity, status, length) in enumerate(got[:300]):
        assert time == f"1700000000.{123456789 + number:09}"
        assert (name, int(direction, 16)) == ("left", 2)
        assert protocols.startswith("raw:ip:udp")
        assert (int(identity, 16), status, int(length)) == (number, got[0][5], 8 + number)
    assert {(each[1], int(each[2], 16)) for each in got[300:600]} == {("second", 1)}
    assert (got[600][1], int(got[600][2], 16)) == ("second", 2)
    # tshark reports nothing unusual.
    assert tshark(path, "-Y", "_ws.expert || _ws.malformed") == []


def test_what_others_read(tmp_path: Path) -> None:
    """One interface, IPv4 and IPv6, both directions, a packet that is cut."""
    path = tmp_path / "test.pcapng"
    left, right = tunring.testing.pair()
    sent = [datagram(number, 200) for number in range(100)]
    ipv6 = bytes([0x60, 0, 0, 0, 0, 0, 59, 64]) + bytes(32)
    with left, right, Writer(path, name="tun0", mtu=1420, snaplen=150) as writer, left.capture(writer):
        left.send(sent)
        right.send([*sent[:10], ipv6])
        left.receive().release()
    written = read(path).data
    assert written == [data[:150] for data in [*sent, *sent[:10], ipv6]]
    lines = tcpdump(path)
    assert len(lines) == 111
    assert sum("IP 10.0.0.1.50123 > 10.0.0.2.50124: UDP, length 200" in line for line in lines) == 110
    assert " IP6 " in lines[-1]
    for by_library in LIBRARIES:
        assert by_library(path.read_bytes()) == written, by_library


@pytest.mark.root
def test_an_interface_is_captured(session: tunring.Session, namespace: Namespace, tmp_path: Path) -> None:
    """Pings, answered: request and reply, in that order, by their numbers."""
    path = tmp_path / "ping.pcapng"
    responder = Responder()
    with namespace.entered():
        ping = subprocess.Popen(["ping", "-q", "-c", "20", "-i", "0.01", "10.9.0.2"], stdout=subprocess.DEVNULL)
    with Writer(path, name="tun0", mtu=1500) as writer, session.capture(writer), ping:
        while ping.poll() is None:
            with session.receive(timeout=0.05) as batch:
                if responder.answer(batch):
                    session.send(batch)
    assert ping.returncode == 0
    got = fields(path, "icmp.type", "icmp.seq", "frame.packet_flags_direction", "icmp.checksum.status")
    pings = [(kind, sequence, int(direction, 16)) for kind, sequence, direction, status in got if kind]
    assert pings == [way for number in range(1, 21) for way in (("8", str(number), 1), ("0", str(number), 2))]


@pytest.mark.root
def test_the_adapter_goes_in_mid_capture(session: tunring.Session, namespace: Namespace, tmp_path: Path) -> None:
    path = tmp_path / "gone.pcapng"
    with Writer(path) as writer, session.capture(writer) as recording:
        sent = session.send([datagram(number, 100) for number in range(50)])
        namespace.ip("link del tun0")
        assert eventually(lambda: _is_over(session))
        with pytest.raises(tunring.SessionClosed):
            session.send([datagram(1, 1)])
        assert recording.failure is None
    assert len(fields(path, "ip.id")) == writer.packets >= sent == 50


def _is_over(session: tunring.Session) -> bool:
    try:
        session.receive(timeout=0.01).release()
    except tunring.SessionClosed:
        return True
    return False


FULL = """
import json, sys
import tunring.testing
from tunring.pcapng import Writer

packets = [bytes([0x45, number]) + bytes(1000) for number in range(100)]
left, right = tunring.testing.pair()
with left, right:
    writer = Writer(sys.argv[1])
    with open(sys.argv[2], "wb") as copy:
        try:
            with writer, left.capture(writer):
                for _ in range(5):
                    assert left.send(packets) == 100
                    right.receive().release()
        except OSError as error:
            print(json.dumps([error.errno, error.filename, writer.packets, writer.dropped]))
        assert left.send(packets) == 100
        with open(sys.argv[1], "rb") as file:
            copy.write(file.read())
"""


@pytest.mark.root
def test_a_full_disk(tmp_path: Path) -> None:
    """The error is the system's, the file whole up to there, and the session alive."""
    disk, copy = tmp_path / "disk", tmp_path / "copy.pcapng"
    disk.mkdir()
    mount = 'mount -t tmpfs -o size=200k none "$0" && exec "$@"'
    path = disk / "full.pcapng"
    command = [sys.executable, "-W", "error", "-c", FULL, str(path), str(copy)]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mount, str(disk), *command],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    number, name, packets, dropped = json.loads(done.stdout)
    assert (number, name) == (errno.ENOSPC, str(path))
    assert packets + dropped == 500
    assert 100 < packets < 200, "a disk of 200 KiB"
    assert len(read(copy).packets) == packets == len(tshark(copy))
