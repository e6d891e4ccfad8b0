"""Live figures as a table with bars, by rich. It comes with the extra "cli"."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple, TextIO

from rich.console import Console, Group, RenderableType
from rich.constrain import Constrain
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tunring.cli.display import FREE_COLUMNS, Rates

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tunring.cli.display import Flow, Limit

_INTERVAL = 0.25


class _Column(NamedTuple):
    """A column of figures, and how many columns the terminal has for it to be shown."""

    title: str
    from_width: int
    cell: Callable[[Rates], RenderableType]


_COLUMNS = (
    _Column("packets/s", 0, lambda rates: f"{rates.packets:,.0f}"),
    _Column("Mbit/s", 40, lambda rates: f"{rates.megabits:,.1f}"),
    _Column("per batch", 60, lambda rates: f"{rates.batch:.1f}"),
    _Column("packets", 55, lambda rates: f"{rates.flow.totals()[0]:,}"),
    _Column("ring", 75, lambda rates: ProgressBar(total=1.0, completed=rates.fill or 0.0, width=16)),
)


class RichDisplay:
    """A table, a row for each flow, that stays in its place."""

    def __init__(self, flows: Sequence[Flow], limit: Limit, stream: TextIO) -> None:
        self._flows, self._limit = flows, limit
        self._started = self._last = time.monotonic()
        self._rates = [Rates(flow) for flow in flows]
        self._console = Console(file=stream)
        self._live = Live(self._table(0.0), console=self._console, auto_refresh=False)
        self._live.start()

    def update(self) -> None:
        """Show them, if it is time to."""
        now = time.monotonic()
        if now - self._last < _INTERVAL:
            return
        self._last = now
        for rates in self._rates:
            rates.look(now)
        self._live.update(self._table(now - self._started), refresh=True)

    def end(self) -> None:
        """Leave what is shown as it is."""
        self._live.stop()

    def _table(self, elapsed: float) -> Constrain:
        columns = self._console.width - FREE_COLUMNS
        shown = [column for column in _COLUMNS if columns >= column.from_width]
        table = Table(box=None, pad_edge=False)
        table.add_column(f"{elapsed:.1f} s", no_wrap=True)
        for column in shown:
            table.add_column(column.title, justify="right", min_width=9, no_wrap=True)
        for rates in self._rates:
            table.add_row(rates.flow.label, *(column.cell(rates) for column in shown))
        parts: list[RenderableType] = [table]
        progress = self._limit.progress(self._flows, elapsed)
        if progress is not None:
            bar = Table.grid(padding=(0, 1))
            bar.add_row(
                Text(f"{progress:4.0%}"), ProgressBar(total=1.0, completed=progress, width=min(40, columns - 6))
            )
            parts.append(bar)
        return Constrain(Group(*parts), columns)
