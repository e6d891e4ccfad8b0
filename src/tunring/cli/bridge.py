"""``tunring bridge``: forwards packets between two adapters by whole batches, and captures them."""

from __future__ import annotations

import signal
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from tunring import SessionClosed
from tunring.cli.adapters import create_or_open
from tunring.cli.arguments import JSON_HELP, count, mtu, seconds
from tunring.cli.capture import Capture
from tunring.cli.display import KINDS, CountedFlow, Display, Limit, make_display
from tunring.cli.report import FAILED, describe, describe_json, lost_packets, say, say_json
from tunring.pcapng import MAX_SNAPLEN

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from tunring import Adapter, Session

#: Packets of a batch at most.
_BATCH = 256

#: Seconds between two looks at what goes on.
_LOOK = 0.1

#: Seconds that a batch which is being sent may take when the bridge ends.
_LAST_BATCH = 2.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    for name in ("A", "B"):
        text = "an interface: a new one, or a persistent TUN interface"
        parser.add_argument(f"name_{name.lower()}", metavar=name, help=text)
    parser.add_argument(
        "-w", "--write", metavar="FILE", help='capture to a pcapng file, as seen on A; "-" is standard output'
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
    text = "maximum bytes to capture of each packet (default: %(default)s)"
    parser.add_argument("--snaplen", type=count, metavar="N", default=MAX_SNAPLEN, help=text)
    parser.add_argument("--count", type=count, metavar="N", help="end after the batch that contains packet N")
    parser.add_argument("--duration", type=seconds, metavar="S", help="end after this many seconds")
    parser.add_argument("--mtu", type=mtu, metavar="M", help="largest packet of both interfaces in bytes")
    parser.add_argument(
        "--display",
        choices=KINDS,
        default="auto",
        help="live figures by rich, as plain text, or none (default: by rich on a terminal, if it is installed)",
    )
    parser.add_argument("--json", action="store_true", help=JSON_HELP)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    if arguments.name_a == arguments.name_b:
        arguments.error(f"A and B must be two interfaces, not both {arguments.name_a}")
    if arguments.snaplen > MAX_SNAPLEN:
        arguments.error(f"argument --snaplen: must be at most {MAX_SNAPLEN}, not {arguments.snaplen}")
    if arguments.json and arguments.write == "-":
        arguments.error("standard output can't take both --json and -w -")
    end = _End()
    # Before the first interface is made, so that Ctrl-C never leaves one behind.
    with _signals(end), ExitStack() as stack:
        return _Bridge(arguments, end, stack).run()


class _End:
    """The end of a run, and why: the first reason counts."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self.interrupted = False
        self.reason = ""
        self.failure: BaseException | None = None

    def now(self, reason: str, failure: BaseException | None = None) -> None:
        """End the run."""
        with self._lock:
            if not self.reason:
                self.reason, self.failure = reason, failure
        self._event.set()

    def __bool__(self) -> bool:
        return self._event.is_set()

    def wait(self, timeout: float) -> bool:
        """Wait for it, also for a signal that came already; whether it has come."""
        if self.interrupted:
            self.now("interrupt")
        return self._event.wait(timeout)


@contextmanager
def _signals(end: _End) -> Iterator[None]:
    """Let Ctrl-C and a friendly kill end the run in good order."""

    def interrupt(*_: object) -> None:
        # No more than that: the thread that it interrupts may hold any lock.
        end.interrupted = True

    # SIGINT as well: a program that a shell puts in the background begins with that one ignored.
    handlers = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@dataclass(frozen=True)
class _Side:
    """One of the two interfaces."""

    name: str
    is_new: bool
    adapter: Adapter
    session: Session


def _open_side(name: str, mtu: int | None, stack: ExitStack) -> _Side:
    adapter, is_new = create_or_open(name)
    stack.enter_context(adapter)
    # One that the administrator has set up needs no more, and its user may not be allowed more.
    if is_new or mtu:
        adapter.configure((), mtu)
    return _Side(adapter.name, is_new, adapter, stack.enter_context(adapter.start_session()))


class _Bridge:
    """One run. The stack closes everything that the run opens, in the reverse order."""

    def __init__(self, arguments: argparse.Namespace, end: _End, stack: ExitStack) -> None:
        self._json: bool = arguments.json
        self._stream: TextIO = sys.stderr if arguments.json or arguments.write == "-" else sys.stdout
        self._end = end
        self._limit = Limit(arguments.count, arguments.duration)
        self._sides = [_open_side(name, arguments.mtu, stack) for name in (arguments.name_a, arguments.name_b)]
        self._sessions = [side.session for side in self._sides]
        self._flows = [
            CountedFlow(f"{near.name} > {far.name}", near.session.capacity)
            for near, far in (self._sides, self._sides[::-1])
        ]
        self._capture: Capture | None = None
        if arguments.write is not None:
            snaplen, overwrite = arguments.snaplen, arguments.overwrite
            self._capture = Capture(arguments.write, *self._sessions, snaplen=snaplen, overwrite=overwrite)
            stack.callback(self._capture.close)
        kind = "none" if self._json else arguments.display
        self._display: Display = make_display(kind, self._flows, self._limit, self._stream)
        stack.callback(self._display.end)

    def run(self) -> int:
        names = " and ".join(f"{side.name} ({'new' if side.is_new else 'existing'})" for side in self._sides)
        say(describe(self._sides[0].adapter.library), self._stream)
        say(f"bridge between {names}; Ctrl-C ends", self._stream)
        near, far = self._sides
        threads = [
            threading.Thread(target=self._forward, args=(near, far, self._flows[0])),
            threading.Thread(target=self._forward, args=(far, near, self._flows[1])),
        ]
        started = time.monotonic()
        for thread in threads:
            thread.start()
        try:
            self._watch(started)
        finally:
            self._end.now("failure")
            self._join(threads)
        elapsed = time.monotonic() - started
        self._display.end()
        if self._capture:
            self._capture.close()
        if self._end.failure:
            raise self._end.failure
        return self._sum_up(elapsed)

    def _forward(self, source: _Side, target: _Side, flow: CountedFlow) -> None:
        """Pass on what comes. At the end nothing that was received is left behind, so the figures agree."""
        here = source
        try:
            while not self._end:
                here = source
                with source.session.receive(_BATCH, _LOOK) as batch:
                    if batch:
                        here = target
                        target.session.send(batch)
                        flow.count(len(batch), batch.nbytes)
                if self._limit.packets is not None and self._limit.reached(self._flows, 0.0):
                    self._end.now("count")
        except SessionClosed:
            self._end.now(f"removal of the interface {here.name}")
        except BaseException as error:
            self._end.now("failure", error)

    def _watch(self, started: float) -> None:
        """Show what goes on, until it is over."""
        while not self._end.wait(_LOOK):
            self._display.update()
            if self._capture:
                self._capture.look()
            if reason := self._limit.reached(self._flows, time.monotonic() - started):
                self._end.now(reason)

    def _join(self, threads: list[threading.Thread]) -> None:
        until = time.monotonic() + _LAST_BATCH
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        if any(thread.is_alive() for thread in threads):
            # One waits for room in a ring that nobody empties.
            for session in self._sessions:
                session.close()
            for thread in threads:
                thread.join()

    def _sum_up(self, elapsed: float) -> int:
        removed = self._end.reason.startswith("removal")
        capture = self._capture.as_dict() if self._capture else None
        ok = not removed and not (capture and capture["error"])
        stats = [session.stats() for session in self._sessions]
        packets = sum(flow.packets for flow in self._flows)
        result: dict[str, Any] = {
            "ok": ok,
            **describe_json(self._sides[0].adapter.library),
            "seconds": round(elapsed, 3),
            "ended_by": self._end.reason,
            "packets": packets,
            "bytes": sum(flow.bytes for flow in self._flows),
            "packets_per_second": round(packets / elapsed),
            "lost": sum(map(lost_packets, stats)),
            "adapters": [
                {
                    "name": side.name,
                    "created": side.is_new,
                    "received": figures.received_packets,
                    "received_bytes": figures.received_bytes,
                    "sent": figures.sent_packets,
                    "sent_bytes": figures.sent_bytes,
                    "batches": figures.received_batches,
                    "ring_full": figures.ring_full,
                    "lost": lost_packets(figures),
                }
                for side, figures in zip(self._sides, stats, strict=True)
            ],
            "capture": capture,
        }
        if self._json:
            say_json(result)
        else:
            self._say_summary(result)
        if removed:
            say(f"tunring: ended by {self._end.reason}", sys.stderr)
        return 0 if ok else FAILED

    def _say_summary(self, result: dict[str, Any]) -> None:
        for flow in self._flows:
            batch = flow.packets / max(1, flow.batches)
            say(f"{flow.label}: {flow.packets:,} packets, {flow.bytes:,} bytes, {batch:.1f} per batch", self._stream)
        say(
            f"{result['packets_per_second']:,} packets/s over {result['seconds']} s; {result['lost']:,} lost;"
            f" ended by {result['ended_by']}",
            self._stream,
        )
        if capture := result["capture"]:
            say(f"captured {capture['packets']:,} packets, {capture['dropped']:,} dropped", self._stream)
