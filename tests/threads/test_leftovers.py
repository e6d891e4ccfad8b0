"""max_packets=1 on a burst: no waiter sleeps beside packets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bursts import by_receive, check_bursts

if TYPE_CHECKING:
    import tunring

    Pair = tuple[tunring.Session, tunring.Session]


def test_all_of_a_burst_are_taken(pair: Pair) -> None:
    check_bursts(*pair, [by_receive] * 3)
