"""The items that ``send`` takes, and those that it refuses before the ring is touched."""

from __future__ import annotations

import array
import mmap
from typing import TYPE_CHECKING, Any

import pytest

import tunring
from packets import MAX_PACKET, packet

if TYPE_CHECKING:
    from collections.abc import Iterator

    Pair = tuple[tunring.Session, tunring.Session]


def received(session: tunring.Session) -> list[bytes]:
    with session.receive(65536, timeout=0) as batch:
        return batch.tobytes()


def test_every_kind_of_buffer(pair: Pair) -> None:
    left, right = pair
    data = packet(64)
    mapped = mmap.mmap(-1, 64)
    mapped[:] = data
    items = [
        data,
        bytearray(data),
        memoryview(data),
        memoryview(b"xx" + data + b"x")[2:-1],
        array.array("B", data),
        array.array("I", data),
        memoryview(data).cast("B", (8, 8)),
        mapped,
    ]
    assert left.send(items) == len(items)
    assert received(right) == [data] * len(items)
    mapped.close()  # nothing holds it any more


def test_numpy_arrays(pair: Pair) -> None:
    numpy = pytest.importorskip("numpy")
    rows = numpy.frombuffer(packet(60) * 4, dtype=numpy.uint8).reshape(4, 60)
    assert pair[0].send(rows) == 4
    assert received(pair[1]) == [packet(60)] * 4


@pytest.mark.parametrize("make", [list, tuple, iter, lambda items: (item for item in items), dict.fromkeys])
def test_every_kind_of_iterable(pair: Pair, make: Any) -> None:
    items = [packet(number=i) for i in range(100)]
    assert pair[0].send(make(items)) == 100
    assert received(pair[1]) == items


@pytest.mark.parametrize("empty", [[], (), iter([]), {}])
def test_nothing_to_send(pair: Pair, empty: Any) -> None:
    assert pair[0].send(empty) == 0
    assert pair[0].stats().sent_batches == 0


@pytest.mark.parametrize("single", [packet(), bytearray(packet()), memoryview(packet()), "packet"])
def test_a_single_packet_gets_the_hint(pair: Pair, single: Any) -> None:
    with pytest.raises(TypeError, match=r"send\(\[packet\]\)"):
        pair[0].send(single)


@pytest.mark.parametrize("nothing", [None, 3, object()])
def test_only_iterables(pair: Pair, nothing: Any) -> None:
    with pytest.raises(TypeError):
        pair[0].send(nothing)


BAD_ITEMS = {
    "text": ("text", TypeError),
    "number": (20, TypeError),
    "none": (None, TypeError),
    "list": ([0x45] + [0] * 19, TypeError),
    "strided": (memoryview(packet(40))[::2], ValueError),
    "empty": (b"", ValueError),
    "short 4": (packet(20)[:19], ValueError),
    "short 6": (packet(40, version=6)[:39], ValueError),
    "version 0": (bytes(40), ValueError),
    "version 5": (bytes([0x55]) + bytes(60), ValueError),
    "version 15": (bytes([0xF0]) + bytes(60), ValueError),
    "too large": (packet(MAX_PACKET) + b"x", ValueError),
    "far too large": (bytes([0x45]) + bytes(1 << 20), ValueError),
}


@pytest.mark.parametrize("kind", list(BAD_ITEMS))
@pytest.mark.parametrize("index", [0, 7, 100])
def test_a_bad_item_is_named_and_nothing_is_sent(pair: Pair, kind: str, index: int) -> None:
    bad, error = BAD_ITEMS[kind]
    items: list[Any] = [packet()] * 101
    items[index] = bad
    with pytest.raises(error, match=rf"\b{index}\b"):
        pair[0].send(items)
    assert received(pair[1]) == []
    assert pair[0].stats().sent_packets == 0


def test_a_released_view_is_refused(pair: Pair) -> None:
    view = memoryview(packet())
    view.release()
    with pytest.raises(ValueError, match="1"):
        pair[0].send([packet(), view])


def test_buffers_are_let_go_whatever_happens(pair: Pair) -> None:
    good = bytearray(packet())
    pair[0].send([good])
    good.append(0)  # would raise BufferError while it is held
    with pytest.raises(ValueError):
        pair[0].send([good, b""])
    good.append(0)
    pair[0].close()
    with pytest.raises(tunring.SessionClosed):
        pair[0].send([good])
    good.append(0)


def test_an_iterable_that_raises(pair: Pair) -> None:
    def items() -> Iterator[bytes]:
        yield packet()
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        pair[0].send(items())
    assert received(pair[1]) == []


def test_send_to_a_closed_session(pair: Pair) -> None:
    pair[0].close()
    for items in ([packet()], []):
        with pytest.raises(tunring.SessionClosed) as caught:
            pair[0].send(items)
        assert (caught.value.reason, caught.value.sent) == ("closed", 0)
