"""Operations on captures: started and ended by any thread, to files, pipes and readers that are slow or gone."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import operation
from ledger import Wrong
from traffic import offer, receive

import pcapng_reader
import tunring
import tunring.pcapng
import tunring.testing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from world import Actor, End


@contextlib.contextmanager
def _reader(actor: Actor) -> Iterator[Any]:
    """The writing end of a pipe whose reader is fast, slow, or goes away."""
    end_of_reader, end_of_writer = os.pipe()
    kind = actor.random.choice(["fast", "slow", "goes", "never reads"])
    actor.note(kind)
    stop = threading.Event()

    def read() -> None:
        while kind != "never reads" and os.read(end_of_reader, 65536):
            if kind == "goes":
                break
            if kind == "slow":
                time.sleep(0.002)
        if kind == "never reads":
            stop.wait()
        os.close(end_of_reader)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        with open(end_of_writer, "wb", buffering=0) as file:
            yield file
    finally:
        stop.set()
        thread.join(10)


def _use(actor: Actor, end: End) -> None:
    for _ in range(actor.random.randint(1, 6)):
        if actor.chance(0.5):
            with offer(actor, end) as offered:
                offered.accept(end.session.send(offered.packets, timeout=0.05))
        else:
            receive(actor, end).release()


@operation(tunring.SessionClosed, weight=8)
def capture_to_a_file(actor: Actor) -> None:
    path = actor.world.path(".pcapng")
    with actor.world.use(actor) as end:
        try:
            with tunring.pcapng.Writer(path) as writer:
                number = writer.add_interface("second", snaplen=actor.random.choice([1, 64, 65535]))
                try:
                    recording = end.session.capture(writer, interface=number, sent=actor.chance(0.8))
                except RuntimeError:  # another thread captures the session
                    actor.note("captured already")
                else:
                    with recording:
                        _use(actor, end)
                writer.write([b"\x45" + bytes(19)] * 3, "in")
                packets, dropped = writer.packets, writer.dropped
            found = pcapng_reader.parse(Path(path).read_bytes()).packets
            if dropped or not packets <= len(found):
                raise Wrong(f"{len(found)} packets are in the file, {packets} were written, {dropped} dropped")
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)


@operation(tunring.SessionClosed, weight=6)
def capture_to_a_pipe(actor: Actor) -> None:
    """The session goes on as if it were not captured, whatever happens to the reader."""
    with actor.world.use(actor) as end, _reader(actor) as file:
        try:
            writer = tunring.pcapng.Writer(file)
        except BrokenPipeError:
            return
        try:
            with end.session.capture(writer):
                began = time.monotonic()
                _use(actor, end)
                if time.monotonic() - began > 10:
                    raise Wrong("a capture holds its session up")
        except (RuntimeError, BrokenPipeError) as error:
            actor.note(type(error).__name__)
        finally:
            with contextlib.suppress(TimeoutError, BrokenPipeError):
                writer.close(timeout=0.01)


def _give_up(writer: tunring.pcapng.Writer) -> None:
    with contextlib.suppress(TimeoutError):
        writer.close(timeout=0.01)


def _send_more_than_a_capture_holds(pair: tuple[tunring.Session, tunring.Session]) -> None:
    sender, receiver = pair
    burst = [b"\x45" + bytes(65534)] * 32  # 2 MiB; the capture's buffer has 16, a pipe 64 KiB
    for _ in range(10):
        sender.send(burst, timeout=5)
        while len(receiver.receive(64, timeout=0)):
            pass


@operation(weight=2)
def capture_sessions_to_one_pipe(actor: Actor) -> None:
    """Two threads fill a pipe that nobody reads: neither sessions nor their ends wait for it."""
    end_of_reader, end_of_writer = os.pipe()
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, end_of_reader)
        file = stack.enter_context(open(end_of_writer, "wb", buffering=0))
        writer = tunring.pcapng.Writer(file)
        stack.callback(_give_up, writer)
        with contextlib.ExitStack() as sessions:
            threads = []
            for _ in range(2):
                pair = tunring.testing.pair()
                sessions.callback(pair[0].close)
                sessions.callback(pair[1].close)
                pair[0].capture(writer, received=False)
                threads.append(threading.Thread(target=_send_more_than_a_capture_holds, args=(pair,)))
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        if not writer.dropped:
            raise Wrong(f"nothing was dropped of {writer.packets} packets that nobody reads")
    if time.monotonic() - began > 15:
        raise Wrong("a capture holds its sessions up")


@operation(tunring.SessionClosed, weight=12)
def start_and_end_captures_under_others(actor: Actor) -> None:
    """Threads start and end captures of the same sessions, to one writer that several threads share."""
    world = actor.world
    with world.use(actor) as end:
        writer = world.writer
        if writer is None or writer.closed:
            writer = world.writer = tunring.pcapng.Writer(world.path(".pcapng"))
        try:
            recording = end.session.capture(writer, received=actor.chance(0.8))
        except RuntimeError:
            actor.note("captured already")
            if (other := world.recording) is not None:
                other.close()  # any thread's
            return
        except ValueError as error:
            if not writer.closed:
                raise
            actor.note(error)
            return
        world.recording = recording
        if actor.chance(0.5):
            _use(actor, end)
        if actor.chance(0.9):
            recording.close()
        if actor.chance(0.1):
            writer.close()
            with contextlib.suppress(OSError):
                os.unlink(str(writer._file_name))
