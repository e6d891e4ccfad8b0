"""``tunring wireguard NAME --status``: a device's peers, their rates and handshakes, of any implementation."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from tunring.cli.report import say, say_json
from tunring.wireguard._control_client import ask
from tunring.wireguard._control_place import path_of

if TYPE_CHECKING:
    from tunring.wireguard._control_place import Place

#: Seconds between two looks.
_INTERVAL = 1.0

_COLUMNS = ("peer", "endpoint", "handshake", "received", "sent", "Mbit/s in", "Mbit/s out")


def show(name: str, *, as_json: bool) -> int:
    """Show it until Ctrl-C, or once as JSON. Returns the exit code."""
    place = path_of(name)
    if as_json:
        say_json({"ok": True, "interface": name, **ask(place)})
        return 0
    try:
        if sys.stdout.isatty():
            _draw(name, place)
        else:
            _print(place)
    except KeyboardInterrupt:
        return 0
    return 0


class Rates:
    """The growth of each peer's counters since the last look."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[float, int, int]] = {}

    def rows(self, status: dict[str, Any], now: float, clock: float) -> list[tuple[str, ...]]:
        """A row of text for each peer.

        Parameters
        ----------
        status : dict
            The return value of :func:`ask`.
        now : float
            Seconds of any clock, for the rates.
        clock : float
            Seconds since 1970, for the age of handshakes.
        """
        rows = []
        for peer in status["peers"]:
            key, received, sent = peer["public_key"], peer["rx_bytes"], peer["tx_bytes"]
            before, *counts = self._last.get(key, (now, received, sent))
            self._last[key] = now, received, sent
            seconds = max(now - before, 1e-9)
            rates = [8e-6 * (new - old) / seconds for new, old in zip((received, sent), counts, strict=True)]
            rows.append(
                (
                    key,
                    peer.get("endpoint", "unknown"),
                    age_of(peer["last_handshake_time_sec"], clock),
                    amount(received),
                    amount(sent),
                    *(f"{rate:,.1f}" for rate in rates),
                )
            )
        return rows


def age_of(handshake: int, clock: float) -> str:
    """How long ago a handshake was, in words."""
    if not handshake:
        return "never"
    seconds = max(0, int(clock - handshake))
    return f"{seconds} s ago" if seconds < 120 else f"{seconds // 60} min ago"


def amount(count: int) -> str:
    """A number of bytes, in the unit that suits it."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def _print(place: Place) -> None:
    rates = Rates()
    while True:
        for row in rates.rows(ask(place), time.monotonic(), time.time()):
            say("  ".join(row))
        time.sleep(_INTERVAL)


def _draw(name: str, place: Place) -> None:
    try:
        from rich.console import Console
        from rich.live import Live
        from rich.table import Table
    except ImportError:
        # It reads as well as plain text.
        _print(place)
        return
    rates = Rates()

    def table() -> Table:
        status = ask(place)
        title = f"{name}  {status.get('public_key', 'without a key')}  port {status['listen_port']}"
        made = Table(*_COLUMNS, title=title, box=None)
        for row in rates.rows(status, time.monotonic(), time.time()):
            made.add_row(f"{row[0][:12]}...", *row[1:])
        return made

    with Live(table(), console=Console(), auto_refresh=False) as live:
        while True:
            time.sleep(_INTERVAL)
            live.update(table(), refresh=True)
