"""One TCP connection through tunring's WireGuard, in turns with one through wireguard-go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from netns import may_make_namespaces

import wireguard

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

pytestmark = pytest.mark.skipif(
    not may_make_namespaces(), reason="needs root, and the right to make network namespaces"
)


def test_tcp(benchmark: BenchmarkFixture, turns: int) -> None:
    # Building boringtun takes too long for this.
    found, missing = wireguard.available([side for side in wireguard.SIDES if side != wireguard.BORINGTUN])
    if wireguard.OTHER in missing:
        pytest.skip(missing[wireguard.OTHER])
    rows = benchmark.pedantic(wireguard.tcp, args=[found], kwargs={"turns": turns, "seconds": 1}, rounds=1)
    for what, unit in (("tcp", "Gbit/s"), ("cpu", "ns of processors per packet")):
        for side in found:
            benchmark.extra_info[f"{side}, {unit}"] = rows[what].spread(side).median
            benchmark.extra_info[f"{side}, {unit}, ratio to {wireguard.OTHER}"] = (
                rows[what].ratio(side, wireguard.OTHER).median
            )
