"""`tunring wireguard --status` on a device's answers; and a peer's description."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from tunring import Endpoint
from tunring.cli.wireguard_status import Rates, age_of, amount
from tunring.wireguard import Key
from tunring.wireguard.peer import describe
from wireguard_ends import End

if TYPE_CHECKING:
    from contextlib import ExitStack


def status(received: int, sent: int, handshake: int = 0) -> dict[str, Any]:
    peer = {"public_key": "key", "rx_bytes": received, "tx_bytes": sent, "last_handshake_time_sec": handshake}
    return {"listen_port": 1, "peers": [peer]}


def test_rates_are_those_since_the_last_look() -> None:
    rates = Rates()
    assert rates.rows(status(0, 100), 10.0, 0) == [("key", "unknown", "never", "0 B", "100 B", "0.0", "0.0")]
    [row] = rates.rows(status(5_000_000, 100, 990), 12.0, 1000.0)
    assert row == ("key", "unknown", "10 s ago", "4.8 MiB", "100 B", "20.0", "0.0")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s ago"), (119, "119 s ago"), (120, "2 min ago"), (-5, "0 s ago"), (7200, "120 min ago")],
)
def test_ages(seconds: int, text: str) -> None:
    assert age_of(1000, 1000 + seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1 << 40, "1.0 TiB"), (3 << 30, "3.0 GiB")]
)
def test_amounts(count: int, text: str) -> None:
    assert amount(count) == text


@pytest.mark.parametrize(
    ("number", "zone"),
    [(1, "%lo" if sys.platform == "linux" else "%1"), (0xFFFFFF, "%16777215")],
    ids=["a name", "a number"],
)
def test_a_link_local_endpoint_has_its_zone(stack: ExitStack, number: int, zone: str) -> None:
    device = End(stack).device
    peer = device.add_peer(Key.generate().public, allowed_ips=[], endpoint=Endpoint("fe80::99", 9, interface=number))
    assert describe(peer)["endpoint"] == [f"fe80::99{zone}", 9]
    peer.endpoint = Endpoint("2001:db8::99", 9)
    assert describe(peer)["endpoint"] == ["2001:db8::99", 9]
