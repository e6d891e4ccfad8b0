"""Captures on their bad days: a full disk, slow and vanished readers, Ctrl-C, a fork."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import tunring
from packets import packet
from pcapng_reader import parse, read
from running import NEVER, Threads, eventually
from tunring.pcapng import Writer

Pair = tuple[tunring.Session, tunring.Session]

#: Enough to fill a pipe and the writer's buffer.
FLOOD = [packet(60000, number=number) for number in range(30)]


class Reader:
    """Takes everything out of a pipe, once it is told to."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.data = bytearray()

    def run(self) -> None:
        while piece := os.read(self._descriptor, 1 << 16):
            self.data += piece


@pytest.fixture
def pipe() -> tuple[int, object]:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb", buffering=0) as source, os.fdopen(writer, "wb", buffering=0) as target:
        yield source.fileno(), target


LIMITED = """
import errno, resource, sys
import tunring.testing
from tunring.pcapng import Writer

limit, path, captured = int(sys.argv[1]), sys.argv[2], sys.argv[3] == "captured"
packets = [bytes([0x45, number]) + bytes(100) for number in range(50)]
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
left, right = tunring.testing.pair()
with left, right:
    writer = Writer(path)
    recording = left.capture(writer)
    if captured:
        for _ in range(4):
            assert left.send(packets) == 50
    else:
        try:
            for _ in range(4):
                writer.write(packets)
        except OSError as error:
            assert (error.errno, error.filename) == (errno.EFBIG, path), error
        else:
            raise AssertionError("it was all written")
    # The session goes on.
    assert left.send(packets) == 50
    assert len(right.receive()) == (250 if captured else 50)
    assert recording.failure.errno == writer.failure.errno == errno.EFBIG
    assert writer.dropped == (250 - writer.packets if captured else 50 + -writer.packets % 50), writer.dropped
    for last in (lambda: writer.write(packets), writer.flush, recording.close, writer.close):
        try:
            last()
        except OSError as error:
            assert (error.errno, error.filename) == (errno.EFBIG, path)
        else:
            raise AssertionError(last)
    recording.close()
    writer.close()
    print(writer.packets)
"""


@pytest.mark.parametrize("how", ["captured", "written"])
@pytest.mark.parametrize("limit", [3000, 3001, 3071, 10000, 20000])
def test_a_file_that_can_grow_no_more(tmp_path: Path, limit: int, how: str) -> None:
    path = tmp_path / "test.pcapng"
    command = [sys.executable, "-W", "error", "-c", LIMITED, str(limit), str(path), how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    written = read(path)
    assert len(written.packets) == int(done.stdout) > 0
    assert [data[1] for data in written.data] == [number % 50 for number in range(len(written.packets))]
    # As much as there was room for: a packet's block has 148 bytes.
    assert limit - 148 < path.stat().st_size <= limit


def test_no_room_for_the_header() -> None:
    if not Path("/dev/full").exists():
        return  # that device is Linux's
    with Path("/dev/full").open("wb") as opened:
        for file in (Path("/dev/full"), opened):
            with pytest.raises(OSError, match="/dev/full") as caught:
                Writer(file, overwrite=True)
            assert caught.value.errno == errno.ENOSPC
    assert Path("/dev/full").exists()


def test_a_file_without_the_right_to_write(tmp_path: Path) -> None:
    path = tmp_path / "test"
    path.write_bytes(b"")
    with path.open("rb") as file, pytest.raises(OSError) as caught:
        Writer(file)
    assert caught.value.errno == errno.EBADF


def test_a_pipe(pipe: tuple[int, object], pair: Pair) -> None:
    left, _ = pair
    reader = Reader(pipe[0])
    with Threads() as threads:
        threads.start(reader.run)
        with Writer(pipe[1]) as writer, left.capture(writer):
            writer.write(FLOOD, timestamps=3)
            left.send([packet()])
            assert (writer.packets, writer.dropped) == (31, 0)
        pipe[1].close()
    written = parse(bytes(reader.data))
    assert written.data == [*FLOOD, packet()]


def test_a_socket(pair: Pair) -> None:
    near, far = socket.socketpair()
    reader = Reader(far.fileno())
    with near, far, Threads() as threads:
        threads.start(reader.run)
        with Writer(near) as writer:
            writer.write(FLOOD)
        near.shutdown(socket.SHUT_WR)
    assert parse(bytes(reader.data)).data == FLOOD


def test_a_captured_session_never_waits_for_a_reader(pipe: tuple[int, object], pair: Pair) -> None:
    left, right = pair
    reader = Reader(pipe[0])
    writer = Writer(pipe[1])
    with left.capture(writer):
        for _ in range(3):
            for data in FLOOD:
                assert left.send([data]) == 1
                right.receive().release()
    assert writer.packets + writer.dropped == 90
    assert 15 <= writer.packets < 30
    assert writer.failure is None
    assert writer.flush(timeout=0) is writer.flush(timeout=0.01) is False
    with Threads() as threads:
        threads.start(reader.run)
        assert writer.flush()
        with left.capture(writer):
            left.send(FLOOD[:1])
        writer.close()
        pipe[1].close()
    written = parse(bytes(reader.data))
    kept = writer.packets - 1
    assert written.data == [*FLOOD, *FLOOD, *FLOOD][:kept] + FLOOD[:1]


def test_a_writer_waits_for_its_reader(pipe: tuple[int, object]) -> None:
    reader = Reader(pipe[0])
    writer = Writer(pipe[1])
    with Threads() as reading:
        with Threads() as writing:
            writing.start(writer.write, FLOOD)
            assert eventually(lambda: writer.packets >= 15)
            time.sleep(0.05)
            assert writer.packets < 30
            reading.start(reader.run)
        assert writing.results == [30]
        writer.close()
        pipe[1].close()
    assert parse(bytes(reader.data)).data == FLOOD


def test_close_while_another_thread_waits_for_the_reader(pipe: tuple[int, object]) -> None:
    writer = Writer(pipe[1])
    with Threads() as threads:

        def write() -> None:
            with pytest.raises(ValueError, match="the capture is closed"):
                writer.write(FLOOD)

        threads.start(write)
        assert eventually(lambda: writer.packets >= 15)
        with pytest.raises(TimeoutError, match="has not taken the end"):
            writer.close(timeout=0.01)
    writer.close()
    assert writer.closed
    assert writer.packets + writer.dropped <= 30


def test_a_signal_while_it_waits(pipe: tuple[int, object]) -> None:
    writer = Writer(pipe[1])
    main = threading.get_ident()

    def interrupt() -> None:
        assert eventually(lambda: writer.packets >= 15)
        signal.pthread_kill(main, signal.SIGINT)

    with Threads() as threads:
        threads.start(interrupt)
        with pytest.raises(KeyboardInterrupt):
            writer.write(FLOOD)
    with pytest.raises(TimeoutError):
        writer.close(timeout=0)


def test_signals_while_it_looks_for_room(pipe: tuple[int, object], pair: Pair) -> None:
    # One that ends the look itself, poll(), must not pass for room: the write after it would wait for ever.
    left, right = pair
    writer = Writer(pipe[1])
    with left.capture(writer):
        for data in FLOOD:
            left.send([data])
            right.receive().release()
    main = threading.get_ident()
    handled: list[int] = []
    previous = signal.signal(signal.SIGUSR1, lambda number, _: handled.append(number))

    def interrupt() -> None:
        for count in range(2000):
            signal.pthread_kill(main, signal.SIGUSR1)
            if not eventually(lambda count=count: len(handled) > count, 5):
                signal.pthread_kill(main, signal.SIGUSR1)  # frees the test
                pytest.fail("it waits")

    try:
        with Threads() as threads:
            threads.start(interrupt)
            while threads.threads[0].is_alive():
                assert not writer.flush(timeout=0)
    finally:
        signal.signal(signal.SIGUSR1, previous)
    with pytest.raises(TimeoutError):
        writer.close(timeout=0)


def test_a_reader_that_went_away(pair: Pair) -> None:
    left, right = pair
    source, target = os.pipe()
    with os.fdopen(target, "wb", buffering=0) as file:
        writer = Writer(file)
        recording = left.capture(writer)
        left.send([packet()])
        os.close(source)
        assert left.send([packet()]) == 1
        assert len(right.receive()) == 2
        assert isinstance(recording.failure, BrokenPipeError)
        with pytest.raises(BrokenPipeError):
            recording.close()
        with pytest.raises(BrokenPipeError):
            writer.close()
    assert (writer.packets, writer.dropped) == (1, 1)


def test_an_error_in_the_block_is_not_hidden(tmp_path: Path, pair: Pair) -> None:
    source, target = os.pipe()
    os.close(source)
    with os.fdopen(target, "wb", buffering=0) as file, pytest.raises(BrokenPipeError):
        Writer(file)
    source, target = os.pipe()
    with (
        os.fdopen(target, "wb", buffering=0) as file,
        pytest.raises(ZeroDivisionError),
        Writer(file) as writer,
        pair[0].capture(writer),
    ):
        os.close(source)
        pair[0].send([packet()])
        _ = 1 / 0
    assert writer.closed


def test_a_forked_child(tmp_path: Path, pair: Pair) -> None:
    left, _ = pair
    path = tmp_path / "test.pcapng"
    with Writer(path) as writer, left.capture(writer) as recording:
        left.send([packet()])
        child = os.fork()
        if child == 0:
            code = 1
            try:
                with pytest.raises(ValueError, match="forked"):
                    writer.write([packet()])
                with pytest.raises(ValueError, match="forked"):
                    writer.flush()
                recording.close()
                with pytest.raises(ValueError, match="forked"):
                    writer.close()
                code = 0
            finally:
                os._exit(code)
        deadline = time.monotonic() + NEVER
        while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert ended[1] == 0
        left.send([packet()])
    assert len(read(path).packets) == 2
