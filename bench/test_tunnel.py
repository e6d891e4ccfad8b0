"""One TCP connection through the cookbook's tunnel, in turns with one through wireguard-go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import tunnel
from netns import may_make_namespaces

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

pytestmark = pytest.mark.skipif(
    not may_make_namespaces(), reason="needs root, and the right to make network namespaces"
)


@pytest.mark.parametrize("cipher", tunnel.CIPHERS)
def test_tcp(benchmark: BenchmarkFixture, turns: int, cipher: str) -> None:
    found, missing = tunnel.available([tunnel.OTHER, *(side for side in tunnel.SIDES if side.startswith(cipher))])
    if tunnel.OTHER in missing:
        pytest.skip(missing[tunnel.OTHER])
    rows = benchmark.pedantic(tunnel.tcp, args=[found], kwargs={"turns": turns, "seconds": 1}, rounds=1)
    for what, unit in (("tcp", "Gbit/s"), ("cpu", "ns of processors per packet")):
        for side in found:
            benchmark.extra_info[f"{side}, {unit}"] = rows[what].spread(side).median
            benchmark.extra_info[f"{side}, {unit}, ratio to {tunnel.OTHER}"] = (
                rows[what].ratio(side, tunnel.OTHER).median
            )
