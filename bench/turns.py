"""Sides that take turns: in each turn every side is measured, and ratios are those within a turn.

The machine may be busy, and busier in one second than in the next: what was measured side by side suffers alike.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True)
class Spread:
    """The median of some turns, and the lowest and highest of them."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        return cls(median(values), min(values), max(values))

    def text(self, digits: int = 2) -> str:
        """All three, with that many decimals."""
        return f"{self.median:.{digits}f} ({self.low:.{digits}f}-{self.high:.{digits}f})"

    def __str__(self) -> str:
        return self.text()


@dataclass
class Turns:
    """The time of each side, one figure per turn."""

    taken: dict[str, list[float]] = field(default_factory=dict)

    def spread(self, side: str) -> Spread:
        return Spread.of(self.taken[side])

    def ratio(self, side: str, other: str) -> Spread:
        """The first's time as a share of the other's."""
        return Spread.of([a / b for a, b in zip(self.taken[side], self.taken[other], strict=True)])

    def lines(self, base: str, unit: str) -> list[str]:
        """All sides, each beside one of them."""
        return [
            f"{side:24}{self.spread(side).median:10.1f} {unit}   {self.ratio(side, base)} of {base}"
            for side in self.taken
        ]


def take_turns(sides: Mapping[str, Callable[[], list[float]]], turns: int) -> Turns:
    """Measure each side once per turn: it returns its rounds, of which the median counts. The order turns round too."""
    result = Turns({name: [] for name in sides})
    names = list(sides)
    for turn in range(turns):
        for name in names if turn % 2 == 0 else reversed(names):
            result.taken[name].append(median(sides[name]()))
    return result
