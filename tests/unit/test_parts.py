"""Parts of batches: slices, selections, groups, headers. They hold nothing and end with the batch they are part of."""

from __future__ import annotations

import array
import gc
from typing import TYPE_CHECKING

import numpy as np
import pytest

import tunring
from packets import number_of, packet

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZES = [20, 40, 20, 60, 40, 20]


def receive(pair: tuple[tunring.Session, tunring.Session]) -> tunring.Batch:
    left, right = pair
    left.send([packet(size, number=number) for number, size in enumerate(SIZES)])
    return right.receive(timeout=5)


@pytest.fixture
def batch(pair: tuple[tunring.Session, tunring.Session]) -> Iterator[tunring.Batch]:
    with receive(pair) as batch:
        yield batch


def numbers(part: tunring.Batch) -> list[int]:
    return [number_of(view) for view in part]


def test_a_slice_is_a_batch(batch: tunring.Batch) -> None:
    part = batch[1:4]
    assert isinstance(part, tunring.Batch)
    assert numbers(part) == [1, 2, 3]
    assert list(part.lengths) == [40, 20, 60]
    assert list(part.offsets) == [0, 40, 60]
    assert part.nbytes == 120
    assert part.tobytes() == batch.tobytes()[1:4]
    target = bytearray(120)
    assert part.pack_into(target) == 120
    assert bytes(target) == b"".join(part.tobytes())


def test_parts_of_parts(batch: tunring.Batch) -> None:
    assert numbers(batch[1:][::2][1:]) == [3, 5]
    assert numbers(batch[::-1].select([0, 0, -1])) == [5, 5, 0]
    assert len(batch[6:]) == 0
    assert not batch[6:]
    assert batch[6:].tobytes() == []
    assert numbers(batch[6:][:]) == []


@pytest.mark.parametrize(
    "indices",
    [[4, 0], array.array("B", [4, 0]), np.array([4, 0], np.int64), {4: "", 0: ""}, np.array([4, 0], ">i4")],
)
def test_a_selection_by_indices(batch: tunring.Batch, indices: object) -> None:
    assert numbers(batch.select(indices)) == [4, 0]


@pytest.mark.parametrize("kind", "bhilq")
def test_negative_integers_of_every_size(batch: tunring.Batch, kind: str) -> None:
    assert numbers(batch.select(array.array(kind, [-1, 0, -6]))) == [5, 0, 0]
    groups = batch.split(array.array(kind, [-1, 7, -1, -100, 7, 0]))
    assert [(key, numbers(part)) for key, part in groups] == [(-1, [0, 2]), (7, [1, 4]), (-100, [3]), (0, [5])]


@pytest.mark.parametrize("kind", ["uint64", "ulonglong"])
def test_large_unsigned_integers(batch: tunring.Batch, kind: str) -> None:
    """They have the bits of negative numbers."""
    largest = 2**64 - 1
    with pytest.raises(ValueError, match=rf"packets\[1\] must fit 63 bits, not {largest}"):
        batch.select(np.array([0, largest], kind))
    keys = [largest, 5, 2**63, 5, largest, 0]
    parts = {key: numbers(part) for key, part in batch.split(np.array(keys, kind))}
    assert parts == {largest: [0, 4], 5: [1, 3], 2**63: [2], 0: [5]}


@pytest.mark.parametrize("kind", "BHILQ")
def test_the_largest_integers_of_every_size(batch: tunring.Batch, kind: str) -> None:
    largest = min(2 ** (8 * array.array(kind).itemsize) - 1, 2**63 - 1)
    assert [key for key, _ in batch.split(array.array(kind, [largest, 1, 1, 1, largest, 1]))] == [largest, 1]


@pytest.mark.parametrize(
    "mask", [[size > 20 for size in SIZES], np.array(SIZES) > 20, memoryview(np.array(SIZES) > 20)]
)
def test_a_selection_by_mask(batch: tunring.Batch, mask: object) -> None:
    assert numbers(batch.select(mask)) == [1, 3, 4]


@pytest.mark.parametrize(
    ("packets", "error", "words"),
    [
        ([6], IndexError, r"packets\[0\] is packet 6 of a batch of 6"),
        ([0, -7], IndexError, r"packets\[1\] is packet -7"),
        ([2**63], ValueError, "64 bits"),
        ([True], ValueError, "one item per packet, 6, not 1"),
        (np.zeros(7, bool), ValueError, "one item per packet, 6, not 7"),
        (["a"], TypeError, r"packets\[0\] must be an integer, not 'a'"),
        ("ab", TypeError, "must be integers"),
        (5, TypeError, "not iterable"),
        (np.zeros((2, 2), int), ValueError, "one dimension"),
    ],
)
def test_selections_that_are_refused(batch: tunring.Batch, packets: object, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        batch.select(packets)


@pytest.mark.parametrize("kind", [np.array, list, lambda sizes: array.array("I", sizes)])
def test_groups_come_in_order_of_appearance(batch: tunring.Batch, kind: type) -> None:
    parts = batch.split(kind(SIZES))
    assert [(key, numbers(part)) for key, part in parts] == [(20, [0, 2, 5]), (40, [1, 4]), (60, [3])]


def test_groups_by_objects_and_by_rows(batch: tunring.Batch) -> None:
    names = ["a", None, "a", (1, 2), None, "a"]
    assert [(key, numbers(part)) for key, part in batch.split(names)] == [
        ("a", [0, 2, 5]),
        (None, [1, 4]),
        ((1, 2), [3]),
    ]
    rows = np.asarray(batch.headers(20))[:, 2:4]
    parts = batch.split(rows)
    assert [numbers(part) for _, part in parts] == [numbers(part) for _, part in batch.split(rows.copy())]
    assert all(isinstance(key, bytes) and len(key) == 2 for key, _ in parts)


def test_groups_by_columns_and_by_empty_rows(batch: tunring.Batch) -> None:
    headers = np.asarray(batch.headers(20))
    column = headers[:, 3]  # of the length, not back to back
    assert [(key, numbers(part)) for key, part in batch.split(column)] == [(20, [0, 2, 5]), (40, [1, 4]), (60, [3])]
    assert [key for key, _ in batch.split(column[::-1])] == [20, 40, 60]
    assert numbers(batch.select(np.arange(12)[::2][:3])) == [0, 2, 4]
    assert [(key, numbers(part)) for key, part in batch.split(headers[:, :0])] == [(b"", [0, 1, 2, 3, 4, 5])]
    with batch[:0] as nothing:
        assert nothing.split(headers[:0]) == []


@pytest.mark.parametrize(
    ("keys", "error"),
    [
        ([1], ValueError),
        (np.zeros(7, int), ValueError),
        (np.zeros(6), TypeError),
        (np.zeros((5, 2), np.uint8), ValueError),
        (np.zeros((6, 2), np.int32), ValueError),
        ([[]] * 6, TypeError),
        (7, TypeError),
    ],
)
def test_keys_that_are_refused(batch: tunring.Batch, keys: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        batch.split(keys)


def test_headers(batch: tunring.Batch) -> None:
    headers = batch.headers(30)
    assert (headers.shape, headers.format, headers.readonly) == ((6, 30), "B", True)
    for row, data in zip(np.asarray(headers), batch.tobytes(), strict=True):
        assert bytes(row) == data[:30].ljust(30, b"\0")
    assert batch[6:].headers(4).shape == (0, 4)
    with pytest.raises(ValueError, match="1 to 65535, not 0"):
        batch.headers(0)
    for size in (2**63, -(2**63) - 1, 65536):
        with pytest.raises(ValueError, match=f"size must be 1 to 65535, not {size}"):
            batch.headers(size)


def test_a_part_keeps_its_batch_alive(pair: tuple[tunring.Session, tunring.Session]) -> None:
    batch = receive(pair)
    part = batch[2:3]
    del batch
    gc.collect()
    assert numbers(part) == [2]
    assert pair[1].stats().pinned_packets == 6
    del part
    gc.collect()
    assert pair[1].stats().pinned_packets == 0


def test_a_part_ends_with_its_batch(batch: tunring.Batch, pair: tuple[tunring.Session, tunring.Session]) -> None:
    part = batch[2:4]
    view = part[0]
    kept = part[1][:4]
    part.release()
    with pytest.raises(ValueError, match="released"):
        part[0]
    assert number_of(view) == 2
    assert pair[1].stats().pinned_packets == 6
    rest = batch[4:]
    batch.release()
    with pytest.raises(ValueError, match="released"):
        view[0]
    for call in (lambda: rest[0], rest.tobytes, lambda: rest[:1], lambda: rest.select([0]), lambda: rest.headers(1)):
        with pytest.raises(ValueError, match="released"):
            call()
    with pytest.raises(ValueError, match="released"):
        pair[1].send(rest)
    assert pair[1].stats().pinned_packets == 1
    del kept
    assert pair[1].stats().pinned_packets == 0


def test_parts_are_sent(batch: tunring.Batch, pair: tuple[tunring.Session, tunring.Session]) -> None:
    left, right = pair
    assert right.send(batch[::2]) == 3
    assert right.send(batch.select([1])) == 1
    with left.receive(timeout=5) as back:
        assert numbers(back) == [0, 2, 4, 1]


@pytest.mark.parametrize("name", ["sources", "source_index", "ecn"])
def test_packets_of_a_session_have_no_sources(batch: tunring.Batch, name: str) -> None:
    with pytest.raises(AttributeError, match="UdpSocket"):
        getattr(batch, name)
    with pytest.raises(AttributeError, match="UdpSocket"):
        batch[1:].runs()


@pytest.mark.parametrize("code", "bhilq")
def test_negative_numbers_keep_their_sign(batch: tunring.Batch, code: str) -> None:
    keys = array.array(code, [-1, 2, -1, -3, 2, 0])
    assert [key for key, _ in batch.split(keys)] == [-1, 2, -3, 0]
    assert numbers(batch.select(array.array(code, [-1]))) == [5]
