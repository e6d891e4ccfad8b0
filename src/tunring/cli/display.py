"""Live figures of packets that flow: a line that changes on a terminal, elsewhere a line a second; or by rich."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TextIO

from tunring._extras import import_advice

if TYPE_CHECKING:
    from collections.abc import Sequence

_BAR = 20


@dataclass
class Flow:
    """Packets of one direction, counted by the thread that moves them.

    Attributes
    ----------
    label : str
        Such as "A > B".
    capacity : int
        Bytes of the ring that they come from.
    packets, bytes, batches : int
        What was moved so far.
    peak : int
        Bytes of the largest batch since somebody looked: what the ring was filled with.
    """

    label: str
    capacity: int
    packets: int = 0
    bytes: int = 0
    batches: int = 0
    peak: int = 0

    def count(self, packets: int, size: int) -> None:
        """Count one batch."""
        self.packets += packets
        self.bytes += size
        self.batches += 1
        self.peak = max(self.peak, size)


@dataclass
class Rates:
    """One flow's rates since the last look."""

    flow: Flow
    packets: float = 0.0  # a second
    megabits: float = 0.0  # a second
    batch: float = 0.0  # packets
    fill: float = 0.0  # share of the ring
    _before: tuple[int, int, int] = (0, 0, 0)
    _last: float = field(default_factory=time.monotonic)

    def look(self, now: float) -> None:
        """Take the figures anew."""
        flow = self.flow
        figures = (flow.packets, flow.bytes, flow.batches)
        packets, size, batches = (after - before for after, before in zip(figures, self._before, strict=True))
        elapsed = max(now - self._last, 1e-9)
        self.packets, self.megabits = packets / elapsed, size * 8e-6 / elapsed
        self.batch = packets / max(1, batches)
        self.fill, flow.peak = flow.peak / flow.capacity, 0
        self._before, self._last = figures, now


@dataclass
class Limit:
    """When a command ends by itself: after so many packets, or so many seconds."""

    packets: int | None = None
    seconds: float | None = None

    def progress(self, flows: Sequence[Flow], elapsed: float) -> float | None:
        """How much of it is done, 0 to 1; None without an end."""
        shares = []
        if self.packets is not None:
            shares.append(sum(flow.packets for flow in flows) / self.packets)
        if self.seconds is not None:
            shares.append(elapsed / self.seconds)
        return min(1.0, max(shares)) if shares else None

    def reached(self, flows: Sequence[Flow], elapsed: float) -> str | None:
        """Which end has come, "count" or "duration"; or None."""
        if self.packets is not None and sum(flow.packets for flow in flows) >= self.packets:
            return "count"
        return "duration" if self.seconds is not None and elapsed >= self.seconds else None


class Display(Protocol):
    """What shows flows while they last."""

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
        line = f"{elapsed:6.1f} s"
        progress = self._limit.progress(self._flows, elapsed)
        if progress is not None:
            line += f"  [{'#' * int(progress * _BAR):{_BAR}}] {progress:4.0%}"
        for rates in self._rates:
            line += (
                f"   {rates.flow.label} {rates.packets:,.0f} packets/s {rates.megabits:,.1f} Mbit/s"
                f" {rates.batch:.1f} a batch, ring {rates.fill:.0%}"
            )
        if self._terminal:
            width = shutil.get_terminal_size().columns - 1
            line = f"\r{line[:width]:{width}}"
        print(line, file=self._stream, end="" if self._terminal else "\n", flush=True)

    def end(self) -> None:
        """Leave what is shown as it is."""
        if self._terminal:
            print(file=self._stream, flush=True)


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
        rich is asked for and not installed; the message says how to get it.
    """
    if kind == "none":
        return NoDisplay()
    if kind == "rich" or (kind == "auto" and stream.isatty()):
        try:
            from tunring.cli.display_rich import RichDisplay

            return RichDisplay(flows, limit, stream)
        except ImportError as error:
            if kind == "rich":
                raise ImportError(f"the live display {import_advice(error, 'rich', 'tunring[cli]')}") from error
    return PlainDisplay(flows, limit, stream)
