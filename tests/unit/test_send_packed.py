from __future__ import annotations

import array
from typing import TYPE_CHECKING, Any

import pytest

import tunring
from packets import MAX_PACKET, packet

if TYPE_CHECKING:
    Pair = tuple[tunring.Session, tunring.Session]

SIZES = [20, 33, 40, 1500]
ITEMS = [packet(size, number=i) for i, size in enumerate(SIZES)]
PACKED = b"".join(ITEMS)


def check(pair: Pair, buffer: Any, lengths: Any) -> None:
    assert pair[0].send_packed(buffer, lengths) == len(SIZES)
    with pair[1].receive(timeout=1) as batch:
        assert batch.tobytes() == ITEMS


@pytest.mark.parametrize("code", "hHiIlLqQ")
def test_lengths_in_arrays(pair: Pair, code: str) -> None:
    check(pair, PACKED, array.array(code, SIZES))
    check(pair, PACKED, memoryview(array.array(code, SIZES)))


@pytest.mark.parametrize("make", [list, tuple, iter, range])
def test_lengths_in_sequences(pair: Pair, make: Any) -> None:
    if make is range:
        assert pair[0].send_packed(packet(20) + packet(21), range(20, 22)) == 2
    else:
        check(pair, PACKED, make(SIZES))


@pytest.mark.parametrize("kind", ["i2", "u2", "i4", "u4", "i8", "u8", ">u2", ">i8", "<u4"])
def test_lengths_in_numpy_arrays(pair: Pair, kind: str) -> None:
    numpy = pytest.importorskip("numpy")
    check(pair, PACKED, numpy.array(SIZES, dtype=kind))
    check(pair, PACKED, numpy.array([SIZES, SIZES], dtype=kind).T.copy()[:, 0])  # strided
    check(pair, numpy.frombuffer(PACKED, dtype=numpy.uint8), [numpy.dtype(kind).type(size) for size in SIZES])


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview, lambda data: array.array("B", data)])
def test_every_kind_of_buffer(pair: Pair, make: Any) -> None:
    check(pair, make(PACKED), SIZES)


def test_what_a_batch_gives(pair: Pair) -> None:
    pair[0].send(ITEMS)
    with pair[1].receive() as batch:
        buffer = bytearray(batch.nbytes)
        batch.pack_into(buffer)
        assert pair[1].send_packed(buffer, batch.lengths) == len(ITEMS)
    with pair[0].receive() as back:
        assert back.tobytes() == ITEMS


def test_nothing(pair: Pair) -> None:
    assert pair[0].send_packed(b"", []) == 0


@pytest.mark.parametrize(
    ("lengths", "error"),
    [
        ([*SIZES[:-1], 1499], ValueError),
        ([*SIZES[:-1], 1501], ValueError),
        (SIZES[:-1], ValueError),
        ([], ValueError),
        ([len(PACKED)], None),
        ([-20, *SIZES, 20], ValueError),
        ([2**32 + 20, *SIZES[1:]], ValueError),
        ([2**64 + 20, *SIZES[1:]], ValueError),
        ([0, *SIZES], ValueError),
        ([19, 34, 40, 1500], ValueError),
        ([20.0, *SIZES[1:]], TypeError),
        (["20", *SIZES[1:]], TypeError),
        (array.array("d", SIZES), TypeError),
        ("abc", TypeError),
        (bytes(SIZES[:3]), TypeError),
        (bytearray(4), TypeError),
        (None, TypeError),
        (1593, TypeError),
    ],
)
def test_wrong_lengths(pair: Pair, lengths: Any, error: type[Exception] | None) -> None:
    if error is None:
        assert pair[0].send_packed(PACKED, lengths) == 1
        return
    with pytest.raises(error):
        pair[0].send_packed(PACKED, lengths)
    assert not pair[1].receive(timeout=0)


@pytest.mark.parametrize(
    ("code", "length"), [("b", -1), ("i", -20), ("i", 65536), ("I", 65536), ("l", -(2**31)), ("Q", 2**64 - 1)]
)
def test_a_wrong_length_in_an_array_is_named(pair: Pair, code: str, length: int) -> None:
    with pytest.raises(ValueError, match=rf"lengths\[1\] must be 0 to 65535, not {length}$"):
        pair[0].send_packed(PACKED, array.array(code, [20, length]))


def test_two_dimensions_of_lengths(pair: Pair) -> None:
    lengths = memoryview(array.array("I", SIZES)).cast("B").cast("I", (2, 2))
    with pytest.raises(ValueError, match="dimension"):
        pair[0].send_packed(PACKED, lengths)


@pytest.mark.parametrize(
    ("buffer", "error"),
    [
        ("x" * 20, TypeError),
        (None, TypeError),
        ([packet()], TypeError),
        (memoryview(bytes(40))[::2], (BufferError, ValueError)),
    ],
)
def test_only_contiguous_buffers(pair: Pair, buffer: Any, error: Any) -> None:
    with pytest.raises(error):
        pair[0].send_packed(buffer, [20])


def test_a_bad_packet_is_named_and_nothing_is_sent(pair: Pair) -> None:
    with pytest.raises(ValueError, match=r"\b1\b"):
        pair[0].send_packed(packet() + bytes(20) + packet(), [20, 20, 20])
    with pytest.raises(ValueError, match=r"\b1\b"):
        pair[0].send_packed(packet() + packet(MAX_PACKET) + b"x", [20, MAX_PACKET + 1])
    assert not pair[1].receive(timeout=0)


def test_the_buffer_is_let_go(pair: Pair) -> None:
    buffer = bytearray(packet())
    lengths = array.array("I", [20])
    pair[0].send_packed(buffer, lengths)
    buffer.append(0)
    lengths.append(0)
    with pytest.raises(ValueError):
        pair[0].send_packed(buffer, lengths)
    buffer.append(0)
    lengths.append(0)


def test_to_a_closed_session(pair: Pair) -> None:
    pair[0].close()
    with pytest.raises(tunring.SessionClosed):
        pair[0].send_packed(packet(), [20])
