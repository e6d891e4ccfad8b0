from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import tunring
from packets import number_of, packet

if TYPE_CHECKING:
    from collections.abc import Iterator

    Pair = tuple[tunring.Session, tunring.Session]

SIZES = [20, 33, 1500, 40]


@pytest.fixture
def sent() -> list[bytes]:
    return [packet(size, number=i) for i, size in enumerate(SIZES)]


@pytest.fixture
def batch(pair: Pair, sent: list[bytes]) -> Iterator[tunring.Batch]:
    pair[0].send(sent)
    with pair[1].receive() as batch:
        yield batch


def test_views(batch: tunring.Batch, sent: list[bytes]) -> None:
    for i, view in enumerate(batch):
        assert isinstance(view, memoryview)
        assert (view.format, view.ndim, view.itemsize, view.nbytes) == ("B", 1, 1, SIZES[i])
        assert not view.readonly
        assert view.c_contiguous
        assert view == sent[i]


def test_indices_and_slices(batch: tunring.Batch) -> None:
    assert [number_of(batch[i]) for i in (0, 3, -1, -4)] == [0, 3, 3, 0]
    for part in (slice(None), slice(1, 3), slice(None, None, -2), slice(9, 10), slice(-2, None)):
        assert isinstance(batch[part], tunring.Batch)
        assert [number_of(view) for view in batch[part]] == list(range(4))[part]


@pytest.mark.parametrize("index", [4, -5, 2**40, 2**64, -(2**64)])
def test_indices_out_of_range(batch: tunring.Batch, index: int) -> None:
    with pytest.raises(IndexError):
        batch[index]


@pytest.mark.parametrize("index", [1.0, "1", None, (1, 2)])
def test_indices_of_the_wrong_type(batch: tunring.Batch, index: object) -> None:
    with pytest.raises(TypeError):
        batch[index]


def test_each_view_is_a_new_one_over_the_same_bytes(batch: tunring.Batch) -> None:
    one, other = batch[0], batch[0]
    assert one is not other
    one[19] = 0xAB
    assert other[19] == 0xAB
    assert batch.tobytes()[0][19] == 0xAB


def test_figures(batch: tunring.Batch) -> None:
    assert (len(batch), batch.nbytes, batch.released, bool(batch)) == (4, sum(SIZES), False, True)
    assert "4 packets" in repr(batch)


def test_lengths_have_memory_of_their_own(batch: tunring.Batch) -> None:
    lengths = batch.lengths
    assert (lengths.format, lengths.ndim, lengths.readonly, lengths.tolist()) == ("I", 1, True, SIZES)
    batch.release()
    assert lengths.tolist() == batch.lengths.tolist() == SIZES


def test_tobytes_are_copies(batch: tunring.Batch, sent: list[bytes]) -> None:
    copies = batch.tobytes()
    batch[0][8] = 0xFF
    batch.release()
    assert copies == sent


@pytest.mark.parametrize("extra", [0, 1, 1000])
def test_pack_into(batch: tunring.Batch, sent: list[bytes], extra: int) -> None:
    total = sum(SIZES)
    buffer = bytearray(b"\xee" * (total + extra))
    assert batch.pack_into(buffer) == total
    assert buffer == b"".join(sent) + b"\xee" * extra


def test_pack_into_too_small_a_buffer_writes_nothing(batch: tunring.Batch) -> None:
    buffer = bytearray(sum(SIZES) - 1)
    with pytest.raises(ValueError):
        batch.pack_into(buffer)
    assert not any(buffer)
    assert batch.pack_into(bytearray(sum(SIZES))) == sum(SIZES)


@pytest.mark.parametrize(
    ("buffer", "error"),
    [
        (bytes(5000), BufferError),
        (memoryview(bytearray(5000))[::2], BufferError),
        ("x" * 5000, TypeError),
        (None, TypeError),
        (5000, TypeError),
    ],
)
def test_pack_into_what_can_not_be_written(batch: tunring.Batch, buffer: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        batch.pack_into(buffer)
    batch.release()


def test_what_answers_after_release_and_what_raises(pair: Pair, batch: tunring.Batch) -> None:
    iterator = iter(batch)
    next(iterator)
    batch.release()
    assert (len(batch), batch.nbytes, batch.released, batch.lengths.tolist()) == (4, sum(SIZES), True, SIZES)
    assert "released" in repr(batch)
    for call in (
        lambda: batch[0],
        lambda: batch[:],
        lambda: iter(batch),
        lambda: next(iterator),
        batch.tobytes,
        lambda: batch.pack_into(bytearray(9999)),
        lambda: pair[0].send(batch),
        batch.__enter__,
    ):
        with pytest.raises(ValueError, match="released"):
            call()
    batch.release()


def test_lengths_asked_for_first_after_release(batch: tunring.Batch) -> None:
    batch.release()
    assert batch.lengths.tolist() == SIZES


def test_an_empty_batch_obeys_release_too(pair: Pair) -> None:
    batch = pair[0].receive(timeout=0)
    batch.release()
    for call in (lambda: batch[:], lambda: iter(batch), batch.tobytes, lambda: batch.pack_into(bytearray())):
        with pytest.raises(ValueError, match="released"):
            call()


def test_an_iterator_that_is_done_stays_done(batch: tunring.Batch) -> None:
    iterator = iter(batch)
    assert len(list(iterator)) == 4
    assert list(iterator) == []
