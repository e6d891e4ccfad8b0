"""Benchmarks are ratios: what Python does is measured in turns with something else that does the same."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Helpers are modules beside this one, and the tests have network namespaces.
sys.path.insert(0, str(ROOT / "tests" / "linux"))
sys.path.insert(0, str(ROOT / "bench"))

#: Rounds of either side, and how many before it is the other's turn: each finds the caches as the one before left them.
ALL_ROUNDS, TURN = 150, 10

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_benchmark.fixture import BenchmarkFixture

_rows: list[tuple[str, float, str, float]] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _rows:
        return
    terminalreporter.section("ns per packet: medians of rounds that took turns")
    terminalreporter.write_line(f"{'':38}{'Python':>8}  {'beside':>21}   ratio")
    for what, ours, other, theirs in _rows:
        terminalreporter.write_line(f"{what:38}{ours:8.1f}  {other:>12} {theirs:8.1f}   {ours / theirs:5.2f}")


@pytest.fixture(params=[64, 1400], ids=lambda size: f"{size}B")
def size(request: pytest.FixtureRequest) -> int:
    """Bytes per packet."""
    return int(request.param)


@pytest.fixture
def turns(request: pytest.FixtureRequest) -> int:
    """How often sides of a comparison of minutes take turns: once if short runs are asked for."""
    return 1 if float(request.config.getoption("benchmark_max_time")) < 1 else 3


@pytest.fixture
def compare(benchmark: BenchmarkFixture) -> Callable[..., None]:
    """Measures rounds of ours in turns with rounds of others, which get their number and give nanoseconds of each."""

    def run(
        what: str,
        ours: Callable[[], object],
        prepare: Callable[[], object],
        others: dict[str, Callable[[int], list[float]]],
        *,
        packets: int,
    ) -> None:
        turns = itertools.count()
        taken: dict[str, list[float]] = {name: [] for name in others}

        def setup() -> None:
            if next(turns) % TURN == 0:
                for name, measure in others.items():
                    taken[name] += measure(TURN)
            prepare()

        benchmark.pedantic(ours, setup=setup, rounds=ALL_ROUNDS, warmup_rounds=5)
        if benchmark.stats is None:
            return  # switched off
        nanoseconds = benchmark.stats.stats.median * 1e9 / packets
        benchmark.extra_info["ns per packet"] = nanoseconds
        for name, values in taken.items():
            theirs = median(values) / packets
            benchmark.extra_info[f"{name}, ns per packet"] = theirs
            benchmark.extra_info[f"ratio to {name}"] = nanoseconds / theirs
            _rows.append((what, nanoseconds, name, theirs))

    return run
