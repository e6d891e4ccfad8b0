"""Captures on their bad days: a full disk, slow and vanished readers, terminals, Ctrl-C, a fork."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

import tunring
import tunring._core
import tunring.testing
from packets import packet
from pcapng_reader import parse, read
from running import NEVER, PROMPT, Threads, eventually
from tunring.pcapng import Writer

Pair = tuple[tunring.Session, tunring.Session]

#: A little, and more than a pipe and the writer's buffer of 16 MiB hold.
FEW = [packet(60000, number=number) for number in range(30)]
FLOOD = FEW * 20

#: How many of them a pipe and the buffer take: its last chunk of 1 MiB is not always to be had.
FIT = range(250, 290)


class Reader:
    """Takes everything out of a pipe, once the test allows it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.data = bytearray()

    def run(self) -> None:
        with contextlib.suppress(OSError):  # EIO is the end of a terminal
            while piece := os.read(self._descriptor, 1 << 16):
                self.data += piece


@pytest.fixture
def pipe() -> tuple[int, object]:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb", buffering=0) as source, os.fdopen(writer, "wb", buffering=0) as target:
        yield source.fileno(), target


@pytest.fixture
def terminal() -> Iterator[tuple[int, BinaryIO]]:
    """Both sides of a terminal that passes bytes on as they are: the one that reads, and the one to write to."""
    reader, writer = os.openpty()
    with os.fdopen(reader, "rb", buffering=0) as source, os.fdopen(writer, "wb", buffering=0) as target:
        tty.setraw(writer)
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
        for _ in range(4):
            assert writer.write(packets) == 50
    for last in (writer.flush, lambda: writer.write(packets)):
        try:
            last()
        except OSError as error:
            assert (error.errno, error.filename) == (errno.EFBIG, path), error
        else:
            raise AssertionError("it was all written")
    # The session goes on.
    assert left.send(packets) == 50
    assert len(right.receive()) == (250 if captured else 50)
    assert recording.failure.errno == writer.failure.errno == errno.EFBIG
    assert writer.packets + writer.dropped == 250
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
            assert (writer.packets, writer.dropped) == (601, 0)
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


def test_a_terminal(terminal: tuple[int, BinaryIO], pair: Pair) -> None:
    left, right = pair
    reader = Reader(terminal[0])
    with Threads() as threads:
        threads.start(reader.run)
        with Writer(terminal[1]) as writer, left.capture(writer):
            for data in FEW:
                assert left.send([data], timeout=1) == 1
                right.receive().release()
            assert writer.flush(timeout=NEVER)
        terminal[1].close()
    assert parse(bytes(reader.data)).data == FEW


def test_a_terminal_that_nobody_reads(terminal: tuple[int, BinaryIO], pair: Pair) -> None:
    """Neither a send nor a close of the captured session waits for it, and a writer's close no longer than it may."""
    left, right = pair
    writer = Writer(terminal[1])
    left.capture(writer)
    longest = 0.0
    for data in FLOOD:
        began = time.monotonic()
        assert left.send([data], timeout=1) == 1
        longest = max(longest, time.monotonic() - began)
        right.receive().release()
    assert writer.packets + writer.dropped == 600
    assert writer.dropped > 0
    began = time.monotonic()
    left.close()
    assert max(longest, time.monotonic() - began) < 10 * PROMPT
    with pytest.raises(TimeoutError, match=r"within 0\.05 s"):
        writer.close(timeout=0.05)
    assert writer.closed
    assert time.monotonic() - began < 10 * PROMPT


def test_a_captured_session_never_waits_for_a_reader(pipe: tuple[int, object], pair: Pair) -> None:
    left, right = pair
    reader = Reader(pipe[0])
    writer = Writer(pipe[1])
    with left.capture(writer):
        for data in FLOOD:
            assert left.send([data]) == 1
            right.receive().release()
    assert writer.packets + writer.dropped == 600
    assert (kept := writer.packets) in FIT
    assert writer.failure is None
    assert writer.flush(timeout=0) is writer.flush(timeout=0.01) is False
    with Threads() as threads:
        threads.start(reader.run)
        assert writer.flush()
        with left.capture(writer):
            left.send(FEW[:1])
        writer.close()
        pipe[1].close()
    written = parse(bytes(reader.data))
    assert written.data == FLOOD[:kept] + FEW[:1]


def test_two_captures_on_one_pipe(pipe: tuple[int, object]) -> None:
    """Two writers of one pipe take each other's room, and their threads wait in the kernel. No session does."""
    pairs = [tunring.testing.pair() for _ in range(2)]
    writers = [Writer(pipe[1]) for _ in pairs]
    for (left, _), writer in zip(pairs, writers, strict=True):
        left.capture(writer)
    longest: list[float] = []
    until = time.monotonic() + 1

    def pump(left: tunring.Session, right: tunring.Session) -> None:
        while (began := time.monotonic()) < until:
            assert left.send(FEW[:2], timeout=1) == 2
            right.receive(timeout=0).release()
            longest.append(time.monotonic() - began)

    with Threads() as threads:
        for pair in pairs:
            threads.start(pump, *pair)
        while time.monotonic() < until:
            os.read(pipe[0], 4096)
            time.sleep(0.002)
    assert max(longest) < 10 * PROMPT
    for left, right in pairs:
        began = time.monotonic()
        left.close()
        assert time.monotonic() - began < 10 * PROMPT
        right.close()
    for writer in writers:
        assert writer.dropped > 0
        with pytest.raises(TimeoutError, match=r"within 0\.05 s"):
            writer.close(timeout=0.05)
        writer.close()


def test_a_writer_waits_for_its_reader(pipe: tuple[int, object]) -> None:
    reader = Reader(pipe[0])
    writer = Writer(pipe[1])
    with Threads() as reading:
        with Threads() as writing:
            writing.start(writer.write, FLOOD)
            assert eventually(lambda: writer.packets >= FIT[0])
            time.sleep(0.05)
            assert writer.packets in FIT
            reading.start(reader.run)
        assert writing.results == [600]
        writer.close()
        pipe[1].close()
    assert parse(bytes(reader.data)).data == FLOOD


def test_interfaces_wait_for_room(pipe: tuple[int, object]) -> None:
    reader = Reader(pipe[0])
    writer = Writer(pipe[1])
    with Threads() as threads:
        threads.start(writer.write, FLOOD)
        assert eventually(lambda: writer.packets >= FIT[0])
        for _ in range(40):  # the rest of the last chunk
            threads.start(writer.add_interface, "x" * 1024)
        threads.start(reader.run)
        for thread in threads.threads[:-1]:
            thread.join(NEVER)
        writer.close()
        pipe[1].close()
    written = parse(bytes(reader.data))
    assert len(written.interfaces) == 41
    assert written.data == FLOOD


def test_close_while_another_thread_waits_for_the_reader(pipe: tuple[int, object]) -> None:
    writer = Writer(pipe[1])
    with Threads() as threads:

        def write() -> None:
            with pytest.raises(ValueError, match="the capture is closed"):
                writer.write(FLOOD)

        threads.start(write)
        assert eventually(lambda: writer.packets >= FIT[0])
        with pytest.raises(TimeoutError, match=r"has not taken the end of the capture within 0\.01 s"):
            writer.close(timeout=0.01)
    writer.close()
    assert writer.closed
    assert writer.packets <= 1
    assert writer.packets + writer.dropped in FIT


def test_a_signal_while_it_waits(pipe: tuple[int, object]) -> None:
    """Ctrl-C in a write, a flush and a close: each ends at once, and a closed writer stays closed."""
    writer = Writer(pipe[1])
    main = threading.get_ident()

    def interrupt(after: float) -> None:
        assert eventually(lambda: writer.packets >= FIT[0])
        time.sleep(after)
        signal.pthread_kill(main, signal.SIGINT)

    for call in (lambda: writer.write(FLOOD), writer.flush, lambda: writer.close(timeout=None)):
        with Threads() as threads:
            threads.start(interrupt, 0.05)
            with pytest.raises(KeyboardInterrupt):
                call()
            assert not writer.closed or writer.packets <= 1
            assert writer.closed == (call is not writer.flush and writer.packets <= 1)
        if writer.closed:
            break
    assert writer.closed
    writer.close()


def test_no_signal_is_delivered_to_the_thread(tmp_path: Path) -> None:
    """A signal interrupts only the system calls of the thread that gets it, which should be the main thread."""
    tasks = Path("/proc/self/task")
    if not tasks.exists():
        return  # that folder is Linux's
    others = set(tasks.iterdir())  # numpy's, for example
    with Writer(tmp_path / "test.pcapng"):
        masks = []
        for task in set(tasks.iterdir()) - others:
            (line,) = re.findall(r"^SigBlk:\s*(\w+)$", (task / "status").read_text(), re.MULTILINE)
            masks.append(int(line, 16))
    assert masks
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGPIPE, signal.SIGXFSZ):
        assert all(mask >> (number - 1) & 1 for mask in masks)
    assert not any(mask >> (signal.SIGSEGV - 1) & 1 for mask in masks), "faulthandler is to see a thread's own faults"


def test_a_reader_that_went_away(pair: Pair) -> None:
    left, right = pair
    source, target = os.pipe()
    with os.fdopen(target, "wb", buffering=0) as file:
        writer = Writer(file)
        recording = left.capture(writer)
        left.send([packet()])
        assert writer.flush()
        os.close(source)
        assert left.send([packet()]) == 1
        assert len(right.receive()) == 2
        with pytest.raises(BrokenPipeError):
            writer.flush()
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
    """A child has no part in the file, not even at its exit, and may make files of its own."""
    left, _ = pair
    path, own = tmp_path / "test.pcapng", tmp_path / "own.pcapng"
    with Writer(path) as writer, left.capture(writer) as recording:
        left.send([packet()])
        child = os.fork()
        if child == 0:
            code = 1
            try:
                for call in (
                    lambda: writer.write([packet()]),
                    writer.flush,
                    lambda: writer.add_interface("child"),
                    writer.close,
                    writer.close,
                ):
                    with pytest.raises(ValueError, match="forked"):
                        call()
                recording.close()
                began = time.monotonic()
                assert tunring._core.finish_pcapng_files(NEVER)
                assert time.monotonic() - began < PROMPT
                with pytest.raises(ValueError, match="exits"):
                    Writer(own)
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


FORKING = """
import os, sys, threading
import tunring.testing
from tunring.pcapng import Writer

path, own = sys.argv[1:]
packets = [bytes([0x45]) + bytes(999)] * 20
writer = Writer(path)
stop = threading.Event()

def write():
    while not stop.wait(0.001):
        writer.write(packets)

thread = threading.Thread(target=write)
thread.start()
for number in range(20):
    # Whatever the writer and its thread are about, and whatever they have locked.
    child = os.fork()
    if child == 0:
        # `stop` is left alone: the parent's other thread, which a child lacks, may have held its lock.
        mine = Writer(f"{own}-{number}")
        mine.write(packets)
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
stop.set()
thread.join()
writer.close()
print(writer.packets)
"""


def test_forks_under_a_writer(tmp_path: Path) -> None:
    """Each child writes a file of its own, which its exit finishes, and nothing to its parent's."""
    path, own = tmp_path / "parent", tmp_path / "child"
    command = [sys.executable, "-W", "ignore", "-c", FORKING, str(path), str(own)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(read(path).packets) == int(done.stdout)
    assert [len(read(f"{own}-{number}").packets) for number in range(20)] == [20] * 20


STALLED = """
import os, sys
from tunring.pcapng import Writer

source, target = os.pipe()
writer = Writer(os.fdopen(target, "wb", buffering=0, closefd=False))
writer.write([bytes([0x45]) + bytes(60000)] * 50)
"""


def test_exit_does_not_wait_long_for_a_reader() -> None:
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", STALLED], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert 5 <= time.monotonic() - began < 10 + PROMPT
