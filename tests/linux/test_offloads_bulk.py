"""TCP in bulk, with superpackets and without."""

from __future__ import annotations

import os
import socket
import sys
from statistics import median
from typing import TYPE_CHECKING

import pytest
from forwarding import HERE, families, transfer_in_turns

if TYPE_CHECKING:
    from netns import Namespace

pytestmark = pytest.mark.root

_FORWARDER = f"""
import runpy, sys, tunring
tunring.load("tun_linux", offloads=sys.argv.pop(1) == "on")
runpy.run_path({str(HERE / "forwarder.py")!r}, run_name="__main__")
"""


@families
def test_bulk_tcp_is_twice_as_fast(
    iperf3: str,
    plain: list[str],
    namespaces: tuple[Namespace, Namespace],
    family: socket.AddressFamily,
    there: str,
) -> None:
    """The same forwarder with offloads and without, and plain C for the retransmissions, in turns."""
    python = [sys.executable, "-W", "error", "-c", _FORWARDER]
    commands = {"with": [*python, "on"], "without": [*python, "off"], "plain C": plain}
    transfers = transfer_in_turns(commands, iperf3, namespaces, there)
    rates = {what: median(transfer.rate for transfer in results) for what, results in transfers.items()}
    again = {what: median(transfer.retransmits for transfer in results) for what, results in transfers.items()}
    if not os.environ.get("TUNRING_SANITIZE"):  # checked memory has speeds of its own
        assert rates["with"] >= 2 * rates["without"]
    # One segment in 10,000 more is the machine's doing.
    chance = min(transfer.segments for transfer in transfers["with"]) // 10000
    assert again["with"] <= again["plain C"] + chance
