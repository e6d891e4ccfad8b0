"""tunring's WireGuard beside wireguard-go, between two network namespaces that a veth joins, on one machine.

    python bench/wireguard.py [tcp|ping ...] [--turns N] [--sides NAME ...] [--seconds S]

prints tables for each; without a word, for both. It needs the same and takes turns as bench/tunnel.py does. A side
is one implementation at both ends, or two with an arrow: that which sends the data, and that which receives it.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from contextlib import ExitStack
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING

import tunnel
from programs import Missing, wireguard_program
from tunnel import INNER, LIBRARIES, MTU, OTHER, OUTER, PORT, Tunnel, wait_until
from turns import Turns

from tunring.aead import providers

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence

    from netns import Namespace

PROGRAM = Path(__file__).with_name("peers") / "wireguard_end.py"
ARROW = " > "
SIDES = (
    OTHER,
    *(f"tunring {library}" for library in LIBRARIES),
    f"tunring {LIBRARIES[0]}{ARROW}{OTHER}",
    f"{OTHER}{ARROW}tunring {LIBRARIES[0]}",
)

#: Round trips of a turn, and the seconds between them: the tunnel is idle.
PINGS, PING_SECONDS = 200, 0.01


class WireGuard(Tunnel):
    """Two namespaces and a WireGuard tunnel between them, each end by the implementation that the side names."""

    def __init__(self, stack: ExitStack, side: str) -> None:
        # Of unlike names: wireguard-go's have their sockets in one folder.
        self._names = [f"twb{os.getpid() % 10**6}{SIDES.index(side)}{letter}" for letter in "ab"]
        self._ready = 0  # ends of ours that have started
        super().__init__(stack, side)

    def _start_wireguard(self) -> list[subprocess.Popen[bytes]]:
        return self._start_ours()

    def _start_ours(self, *_: str) -> list[subprocess.Popen[bytes]]:
        keys = [self._wireguard_key(name) for name in self._names]
        kinds = self.side.split(ARROW) if ARROW in self.side else [self.side] * 2
        started = [self._start_end(number, kind, keys[1 - number]) for number, kind in enumerate(kinds)]
        for number, end in enumerate(self.ends):
            end.set_up(self._names[number], f"{INNER[number]}/24", mtu=MTU)
            # Where the kernel has WireGuard, that is not what is measured.
            described = end.ip(f"-d link show dev {self._names[number]}")
            if "tun type tun" not in described:
                raise RuntimeError(f"{self._names[number]} is not a TUN device: {described}")
        return started

    def _start_end(self, number: int, kind: str, public: str) -> subprocess.Popen[bytes]:
        name, end, other = self._names[number], self.ends[number], OUTER[1 - number]
        key = str(self._folder / name)
        if kind == OTHER:
            return self._start_go(name, end, key, ["peer", public, "endpoint", f"{other}:{PORT}"])
        self._ready += 1
        command = [sys.executable, str(PROGRAM), name, key, public, str(PORT), other]
        process = self._start(command, end, {"TUNRING_AEAD": kind.split()[1]})
        wait_until(lambda: self.output().count("ready") == self._ready, f"{kind} did not start: {self.output()}")
        return process

    def _start_go(self, name: str, end: Namespace, key: str, peer: list[str]) -> subprocess.Popen[bytes]:
        path = Path(f"/var/run/wireguard/{name}.sock")
        self._stack.callback(path.unlink, missing_ok=True)
        process = self._start([wireguard_program(), "-f", name], end, {"LOG_LEVEL": "error"})
        wait_until(path.exists, f"wireguard-go did not start: {self.output()}")
        end.run("wg", "set", name, "listen-port", str(PORT), "private-key", key, *peer, "allowed-ips", "10.8.0.0/24")
        return process

    def ping(self) -> list[float]:
        """Round trips through the idle tunnel, in microseconds."""
        said = self.ends[0].run("ping", "-c", str(PINGS), "-i", str(PING_SECONDS), INNER[1])
        return [float(time) * 1000 for time in re.findall(r"time=([\d.]+) ms", said)]


def available(sides: Sequence[str] = SIDES) -> tuple[list[str], dict[str, str]]:
    """The sides that can be had here, and why others can't."""
    found, missing = [], {}
    before = os.environ.get(variable := "TUNRING_AEAD")
    for side in sides:
        try:
            if OTHER in side:
                wireguard_program()
            for library in LIBRARIES:
                os.environ[variable] = library
                if library in side and (provider := providers()["chacha20-poly1305"]).name is None:
                    raise Missing("; ".join(provider.others))
        except Missing as reason:
            missing[side] = str(reason)
        else:
            found.append(side)
    os.environ.pop(variable, None)
    if before is not None:
        os.environ[variable] = before
    return found, missing


def tcp(sides: Sequence[str], *, turns: int, seconds: float = 3) -> dict[str, Turns]:
    """Gigabits a second, and the processes' nanoseconds per packet."""
    rate, cpu = (Turns({side: [] for side in sides}) for _ in range(2))
    with ExitStack() as stack:
        tunnels = [WireGuard(stack, side) for side in sides]
        for one in tunnels:
            one.tcp(1)
        for turn in range(turns):
            for one in tunnels if turn % 2 == 0 else reversed(tunnels):
                taken = one.tcp(seconds)
                rate.taken[one.side].append(taken.gigabits)
                cpu.taken[one.side].append(taken.nanoseconds)
    return {"tcp": rate, "cpu": cpu}


def ping(sides: Sequence[str], *, turns: int) -> dict[str, Turns]:
    """Microseconds of a round trip through the idle tunnel: the median, and the 99th percentile."""
    middle, high = (Turns({side: [] for side in sides}) for _ in range(2))
    with ExitStack() as stack:
        tunnels = [WireGuard(stack, side) for side in sides]
        for one in tunnels:
            one.ping()
        for turn in range(turns):
            for one in tunnels if turn % 2 == 0 else reversed(tunnels):
                times = one.ping()
                middle.taken[one.side].append(median(times))
                high.taken[one.side].append(quantiles(times, n=100)[98])
    return {"p50": middle, "p99": high}


UNITS = {
    "tcp": "TCP, Gbit/s",
    "cpu": "TCP, ns of both processes per packet",
    "p50": "ping, microseconds: median",
    "p99": "ping, microseconds: 99th percentile",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", help="tcp, ping")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    arguments = parser.parse_args()
    sides, missing = available(arguments.sides)
    for side, reason in missing.items():
        print(f"without {side}: {reason}")
    print(tunnel.versions())
    found: dict[str, Turns] = {}
    if not arguments.what or "tcp" in arguments.what:
        found |= tcp(sides, turns=arguments.turns, seconds=arguments.seconds)
    if not arguments.what or "ping" in arguments.what:
        found |= ping(sides, turns=arguments.turns)
    for what, turns in found.items():
        print(f"\n{UNITS[what]}")
        print("\n".join("  " + line for line in turns.lines(OTHER if OTHER in sides else sides[0], "")))


if __name__ == "__main__":
    main()
