"""The offloads in C against those in Python: on packets that are right, almost right, and wrong."""

from __future__ import annotations

import ctypes
import os
import shlex
import subprocess
from pathlib import Path

import pytest
import sources
from hypothesis import given, settings
from hypothesis import strategies as st

import offload_reference as reference
from offload_reference import ACK, CWR, ECE, FIN, PSH, TCP, UDP, Virtio

ROOT = Path(__file__).parents[2]

#: These are quick.
many = settings(max_examples=5 * settings().max_examples)


class Offloads:
    """The functions of offload_flat.c."""

    def __init__(self, path: Path) -> None:
        self.library = ctypes.CDLL(str(path))
        self.result = ctypes.create_string_buffer(1 << 23)
        self.sizes = (ctypes.c_uint32 * 70000)()

    def _results(self, count: int) -> list[bytes]:
        view, at, found = memoryview(self.result), 0, []
        for size in self.sizes[:count]:
            found.append(bytes(view[at : at + size]))
            at += size
        return found

    def split(self, virtio: Virtio, packet: bytes) -> list[bytes] | None:
        count = self.library.flat_split(virtio.pack(), packet, len(packet), self.result, self.sizes)
        return None if count < 0 else self._results(count)

    def coalesce(self, packets: list[bytes], offloads: int) -> tuple[list[int], list[bytes]]:
        lengths = (ctypes.c_uint32 * len(packets))(*map(len, packets))
        groups = (ctypes.c_uint8 * len(packets))()
        count = self.library.flat_coalesce(
            b"".join(packets), lengths, len(packets), offloads, groups, self.result, self.sizes
        )
        return list(groups), self._results(count)


@pytest.fixture(scope="module")
def offloads(tmp_path_factory: pytest.TempPathFactory) -> Offloads:
    path = tmp_path_factory.mktemp("offload") / "offload.so"
    files = [ROOT / "tests/support/offload_flat.c", *sources.c_files(ROOT, "posix", "offloads")]
    compiler = shlex.split(os.environ.get("CC", "cc"))
    flags = [
        "-std=c11",
        "-D_GNU_SOURCE",
        "-O2",
        "-shared",
        "-fPIC",
        *(f"-I{ROOT / folder}" for folder in sources.INCLUDE),
    ]
    subprocess.run([*compiler, *flags, *map(str, files), "-o", str(path)], check=True)
    return Offloads(path)


@st.composite
def _packets(draw: st.DrawFn, payload: st.SearchStrategy[int]) -> bytes:
    """A valid TCP or UDP packet; few values in each field, so that flows meet."""
    version, protocol = draw(st.sampled_from([4, 6])), draw(st.sampled_from([TCP, UDP]))
    ports = bytes([0, draw(st.integers(1, 2)), 0, 9])
    hops = draw(st.sampled_from([64] * 6 + [33, 32, 1]))
    if protocol == TCP:
        options = draw(st.sampled_from([b"", b"\1\1\x08\x0a" + bytes(8), b"\1" * 40]))
        flags = draw(st.sampled_from([ACK] * 5 + [ACK | PSH, ACK | CWR, ACK | ECE | CWR, ACK | FIN | PSH, 0x02, 0xFF]))
        sequence = draw(st.sampled_from([0, 5000, 0xFFFFFFF0]))
        transport = ports + sequence.to_bytes(4, "big") + bytes([0, 0, 0, 7])
        transport += bytes([(20 + len(options)) // 4 << 4, flags, 1, 245, 0, 0, 0, 0]) + options
    else:
        transport = ports + bytes(4)
    if version == 4:
        fragment = draw(st.sampled_from([0x40, 0x40, 0, 0, 0x20]))
        extra = draw(st.sampled_from([b""] * 5 + [b"\1" * 8]))
        header = bytes([0x45 + len(extra) // 4, 0, 0, 0, 255, 255, fragment, 0, hops, protocol, 0, 0])
        header += bytes([10, 0, 0, 1, 10, 0, 0, 2]) + extra
    else:
        header = bytes([0x60, 0, 0, 0, 0, 0, protocol, hops]) + bytes(15) + b"\1" + bytes(15) + b"\2"
    size, start = draw(payload), draw(st.integers(0, 255))
    return reference.seal(header + transport + bytes((start + 7 * i) & 0xFF for i in range(size)))


_bytes_changed = st.lists(st.tuples(st.integers(0, 119), st.integers(0, 255)), max_size=2)


def _changed(packet: bytes, changes: list[tuple[int, int]]) -> bytes:
    data = bytearray(packet)
    for at, value in changes:
        data[at % len(data)] = value
    return bytes(data)


@many
@given(data=st.data())
def test_split(offloads: Offloads, data: st.DataObject) -> None:
    packet = data.draw(_packets(st.one_of(st.integers(0, 300), st.integers(0, 65400))))
    changes = data.draw(_bytes_changed)
    headers = reference.parse(packet)
    start, offset, kind = 0, 16, 0
    segment = data.draw(st.one_of(st.integers(20, 1500), st.integers(0, 65535))) or data.draw(st.integers(0, 1))
    if headers:
        start, offset = headers.transport, reference.checksum_at(headers) - headers.transport
        kind = 5 if headers.protocol == UDP else {4: 1, 6: 4}[headers.version]
        whole = bytearray(packet)
        length = len(packet) - start
        if headers.protocol == UDP:  # as it is, or unset
            length = data.draw(st.sampled_from([length, length, 0, 8 + segment, 9])) & 0xFFFF
            reference.put16(whole, start + 4, length)
        if data.draw(st.integers(0, 3)) == 0:
            reference.put16(whole, {4: 2, 6: 4}[headers.version], 0)
        if data.draw(st.booleans()):
            reference.put16(whole, start + offset, reference.pseudo(packet, headers, length))
        packet = bytes(whole)
    virtio = Virtio(
        data.draw(st.sampled_from([1, 1, 1, 0, 3])),
        data.draw(st.sampled_from([kind, kind, kind, kind | 0x80, 0, 1, 3, 4, 5])),
        data.draw(st.integers(0, 65535)),
        segment,
        data.draw(st.sampled_from([start] * 9 + [20, 40, 0, 65535])),
        data.draw(st.sampled_from([offset] * 9 + [6, 16, 0, 65535])),
    )
    packet = _changed(packet, changes)
    assert offloads.split(virtio, packet) == reference.split(virtio, packet)


def _follow(packet: bytes, size: int) -> bytes:
    """Return the packet that comes after this one, with `size` bytes of payload."""
    headers = reference.parse(packet)
    if headers is None or headers.extended:
        return packet
    data = bytearray(packet[: headers.length] + bytes((size + 3 * i) & 0xFF for i in range(size)))
    if headers.version == 4:
        reference.put16(data, 4, reference.get16(packet, 4) + 1)
    if headers.protocol == TCP:
        sequence = reference.get32(packet, headers.transport + 4) + len(packet) - headers.length
        data[headers.transport + 4 : headers.transport + 8] = (sequence & 0xFFFFFFFF).to_bytes(4, "big")
    return reference.seal(bytes(data))


@st.composite
def _runs(draw: st.DrawFn) -> list[bytes]:
    """A few packets and packets that follow them, some of them damaged."""
    flows = draw(st.lists(_packets(st.sampled_from([100, 100, 1, 0])), min_size=1, max_size=4))
    packets = []
    for _ in range(draw(st.integers(1, 30))):
        index = draw(st.integers(0, len(flows) - 1))
        packet, damage = flows[index], draw(st.integers(0, 15))
        changes = draw(_bytes_changed) if damage == 0 else []
        packets.append(_changed(packet, changes))
        if damage == 1:  # changed, and right all the same
            packet = reference.seal(_changed(packet, [(draw(st.sampled_from([1, 8, 20, 33, 40])), 77)]))
        flows[index] = _follow(packet, draw(st.sampled_from([100] * 8 + [99, 1, 0])))
    return packets


@many
@given(packets=_runs(), flags=st.sampled_from([7, 7, 7, 3, 1, 0]))
def test_coalesce(offloads: Offloads, packets: list[bytes], flags: int) -> None:
    expected = reference.coalesce(packets, flags)
    groups, written = offloads.coalesce(packets, flags)
    assert [[i for i, group in enumerate(groups) if group == g] for g in range(len(written))] == [
        group.indices for group in expected
    ]
    assert written == [group.virtio.pack() + group.data for group in expected]


@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("version", [4, 6])
def test_round_trip(offloads: Offloads, version: int, protocol: int) -> None:
    """Split and coalesce in C and in Python."""
    head = bytes([0x45, 0, 0, 0, 1, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2])
    head = head if version == 4 else bytes([0x60, 0, 0, 0, 0, 0, protocol, 64]) + bytes(range(32))
    head += bytes([0, 80, 0, 90, 0, 0, 0, 0]) + (bytes([0, 0, 0, 7, 0x50, ACK, 1, 1, 0, 0, 0, 0]) * (protocol == TCP))
    packet = reference.seal(head + bytes(1400))
    packets = [packet]
    for size in [1400] * 30 + [7]:
        packets.append(_follow(packets[-1], size))
    groups, written = offloads.coalesce(packets, 7)
    assert set(groups) == {0}
    virtio, superpacket = Virtio.unpack(written[0][:10]), written[0][10:]
    assert reference.split(virtio, superpacket) == packets
    assert offloads.split(virtio, superpacket) == packets
