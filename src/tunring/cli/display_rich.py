"""Live figures as a table with bars, by rich. It comes with the extra "cli"."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tunring.cli.display import Rates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tunring.cli.display import Flow, Limit

_INTERVAL = 0.25


class RichDisplay:
    """A table, a row for each flow, that stays in its place."""

    def __init__(self, flows: Sequence[Flow], limit: Limit, stream: TextIO) -> None:
        self._flows, self._limit = flows, limit
        self._started = self._last = time.monotonic()
        self._rates = [Rates(flow) for flow in flows]
        self._live = Live(self._table(0.0), console=Console(file=stream), auto_refresh=False)
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

    def _table(self, elapsed: float) -> Group:
        table = Table(box=None, pad_edge=False)
        table.add_column(f"{elapsed:.1f} s")
        for title in ("packets/s", "Mbit/s", "a batch", "packets"):
            table.add_column(title, justify="right", min_width=9)
        table.add_column("ring")
        for rates in self._rates:
            table.add_row(
                rates.flow.label,
                f"{rates.packets:,.0f}",
                f"{rates.megabits:,.1f}",
                f"{rates.batch:.1f}",
                f"{rates.flow.packets:,}",
                ProgressBar(total=1.0, completed=rates.fill, width=16),
            )
        progress = self._limit.progress(self._flows, elapsed)
        if progress is None:
            return Group(table)
        bar = Table.grid(padding=(0, 1))
        bar.add_row(Text(f"{progress:4.0%}"), ProgressBar(total=1.0, completed=progress, width=40))
        return Group(table, bar)
