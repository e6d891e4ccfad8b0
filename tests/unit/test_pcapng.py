"""Captures: the files' contents, captured sessions, and everything that is refused."""

from __future__ import annotations

import asyncio
import gc
import io
import pickle
import sys
import time
from pathlib import Path

import pytest

import libraries
import tunring
from packets import packet
from pcapng_reader import parse, read, read_so_far
from running import Threads, eventually
from tunring.pcapng import Writer

Pair = tuple[tunring.Session, tunring.Session]

#: Sizes around the padding to 32 bits, and the largest.
SIZES = [20, 21, 22, 23, 24, 40, 1280, 65535]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "test.pcapng"


def test_headers(path: Path) -> None:
    with Writer(path, name="tun0", mtu=1420) as writer:
        assert writer.add_interface("Büro", snaplen=100) == 1
        assert writer.add_interface("hall", description="to the left") == 2
        assert writer.add_interface("attic", description="stairs", mtu=1280) == 3
    written = read(path)
    assert written.application == f"tunring {tunring.__version__}"
    assert [(each.name, each.link_type, each.snaplen) for each in written.interfaces] == [
        ("tun0", 101, 65535),
        ("Büro", 101, 100),
        ("hall", 101, 65535),
        ("attic", 101, 65535),
    ]
    assert written.interfaces[0].options[3] == b"MTU 1420"
    assert 3 not in written.interfaces[1].options
    assert written.interfaces[2].options[3] == b"to the left"
    assert written.interfaces[3].options[3] == b"stairs, MTU 1280"
    assert written.packets == []


def test_packets_as_they_are(path: Path) -> None:
    sent = [packet(size, version=6 if size >= 40 else 4, number=size) for size in SIZES]
    times = [0, 1, 2**32 - 1, 2**32, 2**64 - 1, *range(3)]
    with Writer(path) as writer:
        assert writer.write(sent, "in", times) == len(sent)
        assert writer.write(sent[:1], "out", 77) == 1
        before = time.time_ns()
        assert writer.write([bytearray(sent[1]), memoryview(sent[2])]) == 2
        after = time.time_ns()
        assert writer.write([]) == 0
        assert (writer.packets, writer.dropped, writer.failure) == (len(sent) + 3, 0, None)
    written = read(path).packets
    assert [each.data for each in written] == [*sent, sent[0], sent[1], sent[2]]
    assert [each.length for each in written[: len(sent)]] == SIZES
    assert [each.direction for each in written] == ["in"] * len(sent) + ["out", None, None]
    assert [each.time for each in written[:-2]] == [*times, 77]
    assert before <= written[-2].time == written[-1].time <= after


def test_a_batch(pair: Pair, path: Path) -> None:
    left, right = pair
    sent = [packet(size, number=size) for size in range(20, 84)]
    left.send(sent)
    with right.receive() as batch, Writer(path) as writer:
        assert writer.write(batch, "in") == 64
        with pytest.raises(ValueError, match="64 packets need as many timestamps, not 2"):
            writer.write(batch, "in", [1, 2])
        batch.release()
        with pytest.raises(ValueError, match="released"):
            writer.write(batch)
        with right.receive(timeout=0) as empty:
            assert writer.write(empty) == 0
    assert read(path).data == sent
    assert right.stats().pinned_packets == 0


def test_more_than_the_buffer_holds(path: Path) -> None:
    sent = [packet(size, number=size) for size in range(60000, 60050)] * 2
    with Writer(path) as writer:
        assert writer.write(sent, timestamps=list(range(100))) == 100
    written = read(path)
    assert written.data == sent
    assert [each.time for each in written.packets] == list(range(100))


def test_snaplen(path: Path) -> None:
    sent = packet(1000)
    with Writer(path, snaplen=65) as writer:
        whole = writer.add_interface("whole")
        writer.write([sent])
        writer.write([sent], interface=whole)
    cut, full = read(path).packets
    assert (cut.data, cut.length, cut.interface) == (sent[:65], 1000, 0)
    assert (full.data, full.length, full.interface) == (sent, 1000, whole)


def test_a_file_of_the_caller(path: Path) -> None:
    with path.open("wb") as file:
        file.write(b"before")  # still in Python's buffer
        with Writer(file) as writer:
            writer.write([packet()])
        assert not file.closed
        file.seek(0, io.SEEK_END)
        file.write(b"behind")
    data = path.read_bytes()
    assert data[:6] == b"before"
    assert data[-6:] == b"behind"
    assert parse(data[6:-6]).data == [packet()]


def test_the_file_may_be_closed_before(path: Path) -> None:
    file = path.open("wb")
    writer = Writer(file)
    file.close()
    other = path.with_name("other").open("wb")  # has its number now
    writer.write([packet()])
    writer.close()
    other.close()
    assert path.with_name("other").read_bytes() == b""
    assert read(path).data == [packet()]


def test_an_existing_file(path: Path) -> None:
    path.write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        Writer(path)
    assert path.read_bytes() == b"precious"
    with Writer(str(path), overwrite=True):
        pass
    assert read(path).packets == []


# ---- Sessions


def test_a_session(pair: Pair, path: Path) -> None:
    left, right = pair
    sent = [packet(100, number=number) for number in range(100)]
    answers = [packet(50, number=number) for number in range(10)]
    left.send(sent[:1])
    before = time.time_ns()
    with Writer(path) as writer:
        with left.capture(writer):
            left.send(sent[:70])
            left.send_packed(b"".join(sent[70:90]), [100] * 20)
            with left.reserve([100] * 10) as slots:
                for slot, data in zip(slots, sent[90:], strict=True):
                    slot[:] = data
            with right.receive() as batch:
                assert batch.tobytes() == sent[:1] + sent
            right.send(answers)
            with left.receive() as batch:
                left.send(batch)
        left.send(sent)
        right.send(answers)
        left.receive().release()
        assert writer.packets == 120
    after = time.time_ns()
    written = read(path).packets
    assert [each.data for each in written] == [*sent, *answers, *answers]
    assert [each.direction for each in written] == ["out"] * 100 + ["in"] * 10 + ["out"] * 10
    times = [each.time for each in written]
    assert before <= times[0] <= times[-1] <= after
    assert times == sorted(times)


def test_what_was_not_sent_is_not_written(pair: Pair, path: Path) -> None:
    left, right = pair
    sent = [packet(60000, number=number) for number in range(20)]
    with Writer(path) as writer, left.capture(writer):
        done = left.send(sent, on_full="partial")
        assert 0 < done < 20
        with pytest.raises(ZeroDivisionError), left.reserve([20]):
            _ = 1 / 0
        right.receive().release()
        libraries.settle(left.adapter.library)
        assert left.send(sent[done:], on_full="drop") > 0
        total = left.stats().sent_packets
    assert read(path).data == sent[:total]


def test_a_send_that_waits_for_room(pair: Pair, path: Path) -> None:
    left, right = pair
    sent = [packet(10000, number=number) for number in range(100)]
    received = []
    with Writer(path) as writer, left.capture(writer), Threads() as threads:
        threads.start(left.send, sent)
        while len(received) < 100:
            with right.receive(8) as batch:
                received += batch.tobytes()
    assert received == read(path).data == sent


def test_a_session_in_an_event_loop(pair: Pair, path: Path) -> None:
    left, right = pair
    sent = [packet(100, number=number) for number in range(20)]

    async def exchange() -> None:
        receiving = asyncio.ensure_future(left.receive_async())
        await asyncio.sleep(0)
        await right.send_async(sent[:10])
        with await receiving as batch:
            await left.send_async(batch)
        await left.send_packed_async(b"".join(sent[10:]), [100] * 10)

    with Writer(path) as writer, left.capture(writer):
        asyncio.run(exchange())
    written = read(path).packets
    assert [each.data for each in written] == [*sent[:10], *sent]
    assert [each.direction for each in written] == ["in"] * 10 + ["out"] * 20


def test_one_direction(pair: Pair, path: Path) -> None:
    left, right = pair
    with Writer(path) as writer:
        for received, sent in ((True, False), (False, True), (False, False)):
            with left.capture(writer, received=received, sent=sent):
                left.send([packet(21)])
                right.send([packet(22)])
                left.receive().release()
    assert [(each.direction, len(each.data)) for each in read(path).packets] == [("in", 22), ("out", 21)]


def test_two_sessions(pair: Pair, path: Path) -> None:
    left, right = pair
    with (
        Writer(path, name="left") as writer,
        left.capture(writer),
        right.capture(writer, interface=writer.add_interface("right")),
    ):
        left.send([packet()])
        right.receive().release()
    written = read(path)
    seen = [(written.interfaces[each.interface].name, each.direction) for each in written.packets]
    assert seen == [("left", "out"), ("right", "in")]


def test_a_second_capture(pair: Pair, path: Path) -> None:
    left, _ = pair
    with Writer(path) as writer:
        first = left.capture(writer)
        with pytest.raises(RuntimeError, match="is captured already"):
            left.capture(writer)
        first.close()
        with left.capture(writer):
            first.close()  # is over, and ends no other
            left.send([packet()])
        assert writer.packets == 1


def test_close_of_the_session_ends_its_capture(pair: Pair, path: Path) -> None:
    left, right = pair
    with Writer(path) as writer:
        with left.capture(writer):
            left.send([packet()])
            left.close()
        with pytest.raises(tunring.SessionClosed):
            left.capture(writer)
        right.send([packet()])
    assert len(read(path).packets) == 1


def test_a_writer_that_is_closed_or_dropped_under_a_capture(pair: Pair, path: Path) -> None:
    left, right = pair
    writer = Writer(path)
    recording = left.capture(writer)
    left.send([packet()])
    writer.close()
    assert left.send([packet()]) == 1
    assert writer.dropped == 1
    recording.close()
    writer = Writer(path, overwrite=True)
    left.capture(writer)
    with pytest.warns(ResourceWarning, match=r"unclosed <tunring\.pcapng\.Writer of .*test\.pcapng, open>"):
        del writer
        gc.collect()
    left.send([packet()] * 2)
    assert len(right.receive()) == 4
    left.close()
    # With its last user the file is closed, in the background.
    assert eventually(lambda: len(read_so_far(path)) == 2)


def test_threads(pair: Pair, path: Path) -> None:
    """Several threads write, start captures and end them; every block is whole, and no packet is missing."""
    left, right = pair
    rounds = 30

    def write(writer: Writer, number: int) -> None:
        for _ in range(rounds):
            writer.write([packet(100, number=number)] * 20)

    def pump() -> int:
        return sum(left.send([packet(80, number=9)] * 10) for _ in range(rounds))

    def toggle(writer: Writer) -> None:
        for _ in range(rounds):
            with right.capture(writer, interface=1):
                time.sleep(0.0001)

    with Writer(path) as writer, left.capture(writer):
        writer.add_interface("right")
        with Threads() as threads:
            for number in range(2):
                threads.start(write, writer, number)
            threads.start(pump)
            threads.start(toggle, writer)
            for _ in range(rounds):
                with right.receive(timeout=0.01):
                    pass
        total = writer.packets
    written = read(path)
    assert len(written.packets) == total
    own = [each for each in written.packets if each.interface == 0]
    assert len(own) == 2 * rounds * 20 + rounds * 10
    assert {each.direction for each in written.packets if each.interface == 1} <= {"in"}


# ---- Refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": ""}, "name must have 1 to 1024 bytes"),
        ({"name": "a\0b"}, "no NUL"),
        ({"name": "x" * 1025}, "1 to 1024 bytes"),
        ({"description": "x" * 1001}, "description must have at most 1000 bytes"),
        ({"description": "a\0b"}, "no NUL"),
        ({"mtu": 0}, "mtu must be 1 to 65535 bytes, not 0"),
        ({"mtu": 65536}, "mtu must be 1 to 65535 bytes"),
        ({"snaplen": 0}, "snaplen must be 1 to 65535 bytes, not 0"),
        ({"snaplen": 1 << 16}, "snaplen must be 1 to 65535"),
    ],
)
def test_bad_interfaces(path: Path, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Writer(path, **arguments)  # type: ignore[arg-type]
    assert not path.exists()


def test_bad_files(path: Path) -> None:
    for wrong in (io.BytesIO(), 1, None, path.open):
        with pytest.raises(TypeError, match="file must be a path or a binary file with a descriptor"):
            Writer(wrong)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        Writer(path / "there" / "is" / "none")
    with pytest.raises(TypeError, match="name must be a str, not int"):
        Writer(path, name=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="description must be a str, not bytes"):
        Writer(path, description=b"x")  # type: ignore[arg-type]


def test_bad_arguments(pair: Pair, path: Path) -> None:
    left, _ = pair
    with Writer(path) as writer:
        with pytest.raises(ValueError, match='direction must be "in", "out" or None, not \'up\''):
            writer.write([packet()], "up")  # type: ignore[arg-type]
        for wrong in (1.5, "1", b"1"):
            with pytest.raises(TypeError, match="timestamps must be an integer, in nanoseconds"):
                writer.write([packet()], timestamps=wrong)  # type: ignore[arg-type]
        for number in (-1, 1 << 64):
            with pytest.raises(ValueError, match="timestamps must be 0 or more"):
                writer.write([packet()], timestamps=number)
        with pytest.raises(ValueError, match=r"timestamps\[1\] must be 0 or more"):
            writer.write([packet()] * 2, timestamps=[1, -1])
        with pytest.raises(TypeError, match=r"timestamps\[0\] must be an integer"):
            writer.write([packet()], timestamps=[1.0])  # type: ignore[list-item]
        with pytest.raises(ValueError, match="packet 1 is not an IP packet"):
            writer.write([packet(), b"no"])
        with pytest.raises(TypeError, match="iterable of packets"):
            writer.write(packet())  # type: ignore[arg-type]
        for number in (1, 1 << 31):
            with pytest.raises(ValueError, match=f"no interface {number}, only 1"):
                writer.write([packet()], interface=number)
            with pytest.raises(ValueError, match=f"no interface {number}, only 1"):
                left.capture(writer, interface=number)
        for number in (-1, 1 << 32):
            with pytest.raises(ValueError, match="add_interface"):
                writer.write([packet()], interface=number)
        with pytest.raises(TypeError, match=r"writer must be a tunring\.pcapng\.Writer, not 3"):
            left.capture(3)  # type: ignore[arg-type]
        for number in range(1, 64):
            assert writer.add_interface(f"{number}") == number
        with pytest.raises(ValueError, match="at most 64 interfaces"):
            writer.add_interface("65th")
        with pytest.raises(TypeError, match="copied or pickled"):
            pickle.dumps(writer._file)
        assert writer.packets == 0
    assert len(read(path).interfaces) == 64


def test_a_closed_writer(pair: Pair, path: Path) -> None:
    writer = Writer(path)
    assert not writer.closed
    writer.close()
    writer.close()
    assert writer.closed
    assert "closed" in repr(writer)
    for use in (
        lambda: writer.write([packet()]),
        lambda: writer.add_interface("a"),
        writer.flush,
        lambda: pair[0].capture(writer),
    ):
        with pytest.raises(ValueError, match="closed"):
            use()
    assert (writer.packets, writer.dropped) == (0, 0)


def test_references(pair: Pair, path: Path) -> None:
    """A capture neither keeps nor leaks the packets that it writes."""
    data = packet(64)
    before = sys.getrefcount(data)
    with Writer(path) as writer, pair[0].capture(writer):
        for _ in range(50):
            writer.write([data] * 3)
            with pytest.raises(ValueError):
                writer.write([data, b"no"])
            with pytest.raises(ValueError):
                writer.write([data], timestamps=[1, 2])
            pair[0].send([data])
            pair[1].receive().release()
    assert sys.getrefcount(data) == before


@pytest.mark.parametrize("extra", [2**32, -(2**32), 2**64])
def test_a_descriptor_that_is_out_of_range(path: Path, extra: int) -> None:
    class Far:
        def __init__(self, file: io.FileIO) -> None:
            self.file = file

        def fileno(self) -> int:
            return self.file.fileno() + extra

    expected = r"fileno\(\) must return a descriptor, 0 to 2147483647, not"
    with io.FileIO(path, "w") as file, pytest.raises(ValueError, match=expected):
        Writer(Far(file))
    assert path.read_bytes() == b""
