"""Live figures of packets that flow: a line that changes on a terminal, elsewhere a line per second; or by rich."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, TextIO

from tunring._extras import import_advice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tunring import Session

_BAR = 20

#: For Rates.text().
_ALL_DETAILS = 3

#: Columns that stay free at a line's end: a terminal shows "^C" there, and some break a line that is full.
FREE_COLUMNS = 3


class Flow(Protocol):
    """Packets of one direction."""

    @property
    def label(self) -> str:
        """Such as "A > B"."""

    def totals(self) -> tuple[int, int, int]:
        """Packets, bytes and batches so far."""

    def fill(self) -> float | None:
        """The largest share of the ring that a batch took up since the last call; None if nobody knows."""


@dataclass
class CountedFlow:
    """Packets counted by the thread that moves them.

    Attributes
    ----------
    label : str
        Such as "A > B".
    capacity : int
        Bytes of the ring that they come from.
    packets, bytes, batches : int
        The totals moved so far.
    """

    label: str
    capacity: int
    packets: int = 0
    bytes: int = 0
    batches: int = 0
    _peak: int = 0

    def count(self, packets: int, size: int) -> None:
        """Count one batch."""
        self.packets += packets
        self.bytes += size
        self.batches += 1
        self._peak = max(self._peak, size)

    def totals(self) -> tuple[int, int, int]:
        """Packets, bytes and batches so far."""
        return self.packets, self.bytes, self.batches

    def fill(self) -> float | None:
        """The largest share of the ring that a batch took up since the last call."""
        peak, self._peak = self._peak, 0
        return peak / self.capacity


@dataclass
class SessionFlow:
    """The packets that a session has received or sent, as it counts them itself."""

    session: Session
    label: Literal["received", "sent"]

    def totals(self) -> tuple[int, int, int]:
        """Packets, bytes and batches so far."""
        stats = self.session.stats()
        if self.label == "received":
            return stats.received_packets, stats.received_bytes, stats.received_batches
        return stats.sent_packets, stats.sent_bytes, stats.sent_batches

    def fill(self) -> float | None:
        """None: a session does not report it."""
        return None


@dataclass
class Rates:
    """One flow's rates since the last look."""

    flow: Flow
    packets: float = 0.0  # per second
    megabits: float = 0.0  # per second
    batch: float = 0.0  # packets
    fill: float | None = None  # share of the ring
    _before: tuple[int, int, int] = (0, 0, 0)
    _last: float = field(default_factory=time.monotonic)

    def look(self, now: float) -> None:
        """Take the figures anew."""
        figures = self.flow.totals()
        packets, size, batches = (after - before for after, before in zip(figures, self._before, strict=True))
        elapsed = max(now - self._last, 1e-9)
        self.packets, self.megabits = packets / elapsed, size * 8e-6 / elapsed
        self.batch = packets / max(1, batches)
        self.fill = self.flow.fill()
        self._before, self._last = figures, now

    def text(self, details: int) -> str:
        """The figures, of a width that does not change: the fewer details, the narrower."""
        parts = [f"{self.flow.label} {self.packets:9,.0f} packets/s"]
        if details > 0:
            parts.append(f"{self.megabits:8,.1f} Mbit/s")
        if details > 1:
            parts.append(f"{self.batch:5.1f} per batch")
        if details > 2 and self.fill is not None:
            parts.append(f"ring {self.fill:4.0%}")
        return " ".join(parts)


@dataclass
class Limit:
    """The end of a command by itself: after a number of packets or of seconds."""

    packets: int | None = None
    seconds: float | None = None

    def progress(self, flows: Sequence[Flow], elapsed: float) -> float | None:
        """How much of it is done, 0 to 1; None without an end."""
        shares = []
        if self.packets is not None:
            shares.append(sum(flow.totals()[0] for flow in flows) / self.packets)
        if self.seconds is not None:
            shares.append(elapsed / self.seconds)
        return min(1.0, max(shares)) if shares else None

    def reached(self, flows: Sequence[Flow], elapsed: float) -> str | None:
        """Which end has come, "count" or "duration"; or None."""
        if self.packets is not None and sum(flow.totals()[0] for flow in flows) >= self.packets:
            return "count"
        return "duration" if self.seconds is not None and elapsed >= self.seconds else None


class Display(Protocol):
    """A display of flows while they last."""

    def update(self) -> None:
        """Show them, if it is time to."""

    def end(self) -> None:
        """Leave what is shown as it is."""


class PlainDisplay:
    """Lines of text."""

    def __init__(self, flows: Sequence[Flow], limit: Limit, stream: TextIO) -> None:
        self._flows, self._limit, self._stream = flows, limit, stream
        self._terminal = stream.isatty()
        self._interval = 0.25 if self._terminal else 1.0
        self._started = self._last = time.monotonic()
        self._rates = [Rates(flow) for flow in flows]
        self._shown = ""

    def update(self) -> None:
        """Show them, if it is time to."""
        now = time.monotonic()
        if now - self._last < self._interval:
            return
        self._last = now
        for rates in self._rates:
            rates.look(now)
        if self._terminal or any(rates.packets for rates in self._rates):
            self._show(now - self._started)

    def _show(self, elapsed: float) -> None:
        if not self._terminal:
            print(self._line(elapsed, _ALL_DETAILS, with_bar=True), file=self._stream, flush=True)
            return
        self._shown = self._fitting_line(elapsed, _columns(self._stream) - FREE_COLUMNS)
        # Blanks first, over what was there before; then the cursor stays where the text ends.
        print(f"\r{self._blanks()}\r{self._shown}", end="", file=self._stream, flush=True)

    def _line(self, elapsed: float, details: int, *, with_bar: bool) -> str:
        line = f"{elapsed:6.1f} s"
        progress = self._limit.progress(self._flows, elapsed)
        if progress is not None:
            line += f"  [{'#' * int(progress * _BAR):{_BAR}}]" if with_bar else " "
            line += f" {progress:4.0%}"
        return "   ".join([line, *(rates.text(details) for rates in self._rates)])

    def _fitting_line(self, elapsed: float, columns: int) -> str:
        """The line with as many details as there are columns for."""
        for details in range(_ALL_DETAILS, -1, -1):
            for with_bar in (True, False):
                line = self._line(elapsed, details, with_bar=with_bar)
                if len(line) <= columns:
                    return line
        line = line.replace(" packets/s", "/s")
        return line if len(line) <= columns else " ".join(line.split())[:columns]

    def _blanks(self) -> str:
        return " " * (_columns(self._stream) - 1)

    def end(self) -> None:
        """Leave what is shown as it is."""
        if self._terminal:
            # Once more, since a terminal shows "^C" at its end.
            print(f"\r{self._blanks()}\r{self._shown}", file=self._stream, flush=True)


def _columns(stream: TextIO) -> int:
    """The terminal's width. The variable goes before, as everywhere."""
    try:
        return int(os.environ.get("COLUMNS", "")) or 80
    except ValueError:
        pass
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except OSError:
        return 80


class NoDisplay:
    """Shows nothing."""

    def update(self) -> None:
        """Show them, if it is time to."""

    def end(self) -> None:
        """Leave what is shown as it is."""


#: For make_display().
KINDS = ("auto", "rich", "plain", "none")


def make_display(kind: str, flows: Sequence[Flow], limit: Limit, stream: TextIO) -> Display:
    """Make the display of a kind: "rich", "plain", "none", or "auto": rich on a terminal where it is installed.

    Raises
    ------
    ImportError
        rich is asked for and not installed; the message has the command that installs it.
    """
    if kind == "none":
        return NoDisplay()
    if kind == "rich" or (kind == "auto" and stream.isatty()):
        try:
            from tunring.cli.display_rich import RichDisplay

            return RichDisplay(flows, limit, stream)
        except ImportError as error:
            if kind == "rich":
                raise ImportError(f"the live display {import_advice(error, 'rich')}") from error
    return PlainDisplay(flows, limit, stream)
