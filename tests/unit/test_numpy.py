"""Batches and numpy: one array instead of an object per packet."""

from __future__ import annotations

import ipaddress
import struct
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tunring
import tunring.testing
from packets import packet

numpy = pytest.importorskip("numpy")

if TYPE_CHECKING:
    from collections.abc import Iterator

    Pair = tuple[tunring.Session, tunring.Session]

COUNT = 256


@pytest.fixture
def roomy() -> Iterator[Pair]:
    """Two connected sessions whose rings hold 256 packets of any size that these tests send."""
    left, right = tunring.testing.pair(0x100000)
    with left, right:
        yield left, right


def ipv4(payload: bytes, protocol: int, source: int, destination: int, identification: int) -> bytes:
    header = struct.pack(
        "!BBHHHBBHII", 0x45, 0, 20 + len(payload), identification, 0, 64, protocol, 0, source, destination
    )
    return header + payload


PACKETS = st.builds(
    ipv4,
    st.binary(max_size=60),
    st.integers(0, 255),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**16 - 1),
)


def pack(batch: tunring.Batch) -> Any:
    """The batch's packets in one array."""
    data = numpy.empty(batch.nbytes, numpy.uint8)
    assert batch.pack_into(data) == data.size
    return data


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(PACKETS, min_size=1, max_size=COUNT))
def test_headers_of_a_batch_in_one_go_are_those_of_each_packet(roomy: Pair, packets: list[bytes]) -> None:
    # Always COUNT packets: the examples, repeated.
    packets = (packets * COUNT)[:COUNT]
    assert roomy[0].send(packets) == COUNT
    with roomy[1].receive(COUNT, timeout=1) as batch:
        assert len(batch) == COUNT
        one_by_one = [struct.unpack_from("!BBHHHBBHII", view) for view in batch]
        data = pack(batch)
    names = ["version", "tos", "length", "id", "fragment", "ttl", "protocol", "checksum", "source", "destination"]
    formats = ["u1", "u1", ">u2", ">u2", ">u2", "u1", "u1", ">u2", ">u4", ">u4"]
    layout = numpy.dtype({"names": names, "formats": formats})
    rows = data[numpy.asarray(batch.offsets)[:, None] + numpy.arange(layout.itemsize)]
    headers = numpy.ascontiguousarray(rows).view(layout)[:, 0]
    assert headers.tolist() == one_by_one
    assert headers["length"].tolist() == batch.lengths.tolist() == [len(data) for data in packets]
    assert str(ipaddress.IPv4Address(int(headers["source"][0]))) == str(ipaddress.IPv4Address(packets[0][12:16]))


def test_offsets(roomy: Pair) -> None:
    sizes = [20, 1500, 33, 40]
    roomy[0].send([packet(size, number=i) for i, size in enumerate(sizes)])
    with roomy[1].receive(timeout=1) as batch:
        offsets = batch.offsets
        assert (offsets.format, offsets.ndim, offsets.readonly) == ("I", 1, True)
        assert offsets.tolist() == [0, 20, 1520, 1553]
        data = pack(batch).tobytes()
        ends = [start + size for start, size in zip(offsets, batch.lengths, strict=True)]
        assert [data[start:end] for start, end in zip(offsets, ends, strict=True)] == batch.tobytes()
    # They have memory of their own, and none is made twice.
    assert offsets.tolist() == batch.offsets.tolist()
    assert batch.offsets is offsets


def test_offsets_asked_for_first_after_release(roomy: Pair) -> None:
    roomy[0].send([packet(20), packet(30)])
    batch = roomy[1].receive(timeout=1)
    batch.release()
    assert batch.offsets.tolist() == [0, 20]


def test_offsets_of_an_empty_batch(roomy: Pair) -> None:
    batch = roomy[1].receive(timeout=0)
    assert batch.offsets.tolist() == []
    assert numpy.asarray(batch.offsets).dtype == numpy.uint32


def test_buffers_become_arrays_without_a_copy(roomy: Pair) -> None:
    roomy[0].send([packet(100)] * 3)
    with roomy[1].receive(timeout=1) as batch:
        for figures in (batch.lengths, batch.offsets):
            array = numpy.asarray(figures)
            assert array.dtype == numpy.uint32
            assert not array.flags.writeable
            assert numpy.shares_memory(array, numpy.frombuffer(figures, numpy.uint32))
        view = numpy.frombuffer(batch[0], numpy.uint8)
        view[19] = 0xAB
        assert batch[0][19] == 0xAB
        del view


def test_send_packed_from_arrays(roomy: Pair) -> None:
    lengths = numpy.array([20 + i % 50 for i in range(COUNT)], numpy.uint32)
    offsets = numpy.cumsum(lengths) - lengths
    data = numpy.zeros(lengths.sum(), numpy.uint8)
    data[offsets] = 0x45
    data[offsets + 9] = numpy.arange(COUNT)  # protocol
    assert roomy[0].send_packed(data, lengths) == COUNT
    with roomy[1].receive(COUNT, timeout=1) as batch:
        assert batch.offsets.tolist() == offsets.tolist()
        assert [view[9] for view in batch] == list(range(COUNT))
        # Back again, changed for all at once: with numpy a rewrite costs nothing per packet.
        packed = pack(batch)
        packed[numpy.asarray(batch.offsets) + 8] = 64
        assert roomy[1].send_packed(packed, batch.lengths) == COUNT
    with roomy[0].receive(COUNT, timeout=1) as back:
        assert {view[8] for view in back} == {64}


def test_send_packed_takes_no_array_with_gaps(roomy: Pair) -> None:
    data = numpy.zeros(80, numpy.uint8)
    with pytest.raises((ValueError, BufferError)):
        roomy[0].send_packed(data[::2], [40])
    assert not roomy[1].receive(timeout=0)


def test_pack_into_a_part_of_an_array(roomy: Pair) -> None:
    roomy[0].send([packet(20, number=7)] * 2)
    whole = numpy.full((2, 64), 0xEE, numpy.uint8)
    with roomy[1].receive(timeout=1) as batch:
        assert batch.pack_into(whole[1]) == 40
        with pytest.raises(ValueError, match="40 bytes"):
            batch.pack_into(whole[0, :39])
    assert whole[0].tolist() == [0xEE] * 64
    assert whole[1, :40].tobytes() == packet(20, number=7) * 2
