"""tunring's WireGuard beside wireguard-go, between two network namespaces that a veth joins, on one machine.

    python bench/wireguard.py [tcp|ping|bursts|handshakes ...] [--turns N] [--sides NAME ...] [--seconds S]

prints tables for each; without a word, for all. The requirements are those of bench/tunnel.py, and cargo for
boringtun's command. A side is one implementation at both ends, or two with an arrow: the sender of the data, and its
receiver.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING

import tunnel
from programs import boringtun_program, wireguard_program
from tun import Program
from tunnel import INNER, LIBRARIES, MTU, OTHER, OUTER, PORT, Tunnel, by_turns, require_library, wait_until
from turns import Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


PEERS = Path(__file__).with_name("peers")
SERVICE = [sys.executable, "-m", "tunring.cli.wireguard_service", "-f"]
SOCKETS = Path("/var/run/wireguard")
ARROW = " > "
BORINGTUN = "boringtun"
#: With wireguard-go at the other end: the library that everybody has, and the fastest without AVX-512.
FACING = ("libcrypto", "boringssl")
SIDES = (
    OTHER,
    *(f"tunring {library}" for library in LIBRARIES),
    *(ends for library in FACING for ends in (f"tunring {library}{ARROW}{OTHER}", f"{OTHER}{ARROW}tunring {library}")),
    BORINGTUN,
)

#: Round trips of a turn, and the seconds between them: the tunnel is idle.
PINGS, PING_SECONDS = 200, 0.01

#: Peers of a hub, packets per burst to one of them, packets per second, and seconds of a turn.
CROWD, BURST, BURST_RATE, BURST_SECONDS = 100, 32, 20_000, 2.0
#: Of the datagrams inside: with headers, they are as long as the interface's MTU.
PAYLOAD = MTU - 28
#: How a hub's packets are spread.
SPREADS = ("one peer", f"{CROWD} peers", f"{CROWD} peers, singly")

_UDP_SEGMENT = 103
_numbers = itertools.count()


def _require(side: str) -> None:
    if OTHER in side:
        wireguard_program()
    if side == BORINGTUN:
        boringtun_program()
    for library in LIBRARIES:
        if library in side:
            require_library(library, "chacha20-poly1305")


def available(sides: Sequence[str] = SIDES) -> tuple[list[str], dict[str, str]]:
    """The sides that can be had here, and why others can't."""
    return tunnel.available(sides, _require)


class WireGuard(Tunnel):
    """Two namespaces and a WireGuard tunnel between them, each end by the implementation that the side names."""

    def __init__(self, stack: ExitStack, side: str) -> None:
        # Names differ: others have their sockets in one folder.
        self._names = [f"twb{os.getpid() % 10**6}x{next(_numbers)}" for _ in range(2)]
        super().__init__(stack, side)

    def _start_wireguard(self) -> list[subprocess.Popen[bytes]]:
        return self._start_ours()

    def _start_ours(self, *_: str) -> list[subprocess.Popen[bytes]]:
        keys = [self._wireguard_key(name) for name in self._names]
        kinds = self.side.split(ARROW) if ARROW in self.side else [self.side] * 2
        started = []
        for number, kind in enumerate(kinds):
            peer = ["peer", keys[1 - number], "endpoint", f"{OUTER[1 - number]}:{PORT}", "allowed-ips", "10.8.0.0/24"]
            started.append(self._start_end(number, kind, peer))
            self.ends[number].set_up(self._names[number], f"{INNER[number]}/24", mtu=MTU)
        return started

    def _start_end(self, number: int, kind: str, peers: list[str]) -> subprocess.Popen[bytes]:
        """Start one end, without addresses."""
        name, end = self._names[number], self.ends[number]
        path = SOCKETS / f"{name}.sock"
        self._stack.callback(path.unlink, missing_ok=True)
        command, environment = _service(kind)
        process = self._start([*command, name], end, environment)
        wait_until(lambda: path.exists() and name in end.interfaces(), f"{kind} did not start: {self.output()}")
        key = str(self._folder / name)
        end.run("wg", "set", name, "listen-port", str(PORT), "private-key", key, *peers)
        # Where the kernel has WireGuard, that is not what is measured.
        described = end.ip(f"-d link show dev {name}")
        if "tun type tun" not in described:
            raise RuntimeError(f"{name} is not a TUN device: {described}")
        return process

    def ping(self) -> list[float]:
        """Round trips through the idle tunnel, in microseconds."""
        said = self.ends[0].run("ping", "-c", str(PINGS), "-i", str(PING_SECONDS), INNER[1])
        return [float(time) * 1000 for time in re.findall(r"time=([\d.]+) ms", said)]


def _service(kind: str) -> tuple[list[str], dict[str, str]]:
    """The command that serves an interface in the foreground, less the name, and its environment."""
    if kind == OTHER:
        return [wireguard_program(), "-f"], {"LOG_LEVEL": "error"}
    if kind == BORINGTUN:
        return [boringtun_program(), "--foreground", "--disable-drop-privileges", "--verbosity", "error"], {}
    return SERVICE, {"TUNRING_AEAD": kind.split()[1]}


class Hub(WireGuard):
    """One end is a hub with a hundred peers, which are devices of tunring's in one process at the other end."""

    def _start_ours(self, *_: str) -> list[subprocess.Popen[bytes]]:
        public = self._wireguard_key(self._names[0])
        self.crowd = Program(
            [sys.executable, str(PEERS / "wireguard_crowd.py"), str(CROWD), public, f"{OUTER[0]}:{PORT}"], self.ends[1]
        )
        self._stack.callback(self.crowd.close)
        peers = []
        for number, (key, port) in enumerate(json.loads(self.crowd.ask("peers"))):
            peers += ["peer", key, "endpoint", f"{OUTER[1]}:{port}", "allowed-ips", f"{_address(number)}/32"]
        process = self._start_end(0, self.side, peers)
        self.ends[0].set_up(self._names[0], f"{_address(255)}/16", mtu=MTU)
        return [process]

    def _get_ready(self) -> None:
        self._socket = self.ends[0].socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._stack.callback(self._socket.close)
        for number in range(CROWD):
            self._socket.sendto(bytes(PAYLOAD), (_address(number), 9))
        wait_until(lambda: int(self.crowd.ask("count")) >= CROWD, "not every peer has received something")

    def cost(self, spread: str) -> float:
        """Nanoseconds of the hub's processor time per packet that has arrived."""
        count = int(self.crowd.ask("count"))
        [process] = self._processes
        before = _scheduled(process.pid)
        self._send(spread)
        time.sleep(0.2)
        arrived = int(self.crowd.ask("count")) - count
        if arrived < 0.5 * BURST_RATE * BURST_SECONDS:
            raise RuntimeError(f"{self.side}: only {arrived} packets arrived")
        return (_scheduled(process.pid) - before) / arrived

    def _send(self, spread: str) -> None:
        singly, many = "singly" in spread, spread != SPREADS[0]
        self._socket.setsockopt(socket.SOL_UDP, _UDP_SEGMENT, 0 if singly else PAYLOAD)
        began = time.monotonic()
        data = bytes(PAYLOAD if singly else PAYLOAD * BURST)
        peers = itertools.cycle(range(CROWD if many else 1))
        for turn in range(int(BURST_RATE * BURST_SECONDS / BURST)):
            for _ in range(BURST if singly else 1):
                self._socket.sendto(data, (_address(next(peers)), 9))
            time.sleep(max(0.0, began + turn * BURST / BURST_RATE - time.monotonic()))


def _address(number: int) -> str:
    return f"10.8.1.{number}"


def _scheduled(pid: int) -> int:
    """Nanoseconds of processors that a process's threads have had."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


def tcp(sides: Sequence[str], *, turns: int, seconds: float = 3) -> dict[str, Turns]:
    """Gigabits per second, and the processes' nanoseconds per packet."""
    return tunnel.tcp(sides, turns=turns, seconds=seconds, make=WireGuard)


def ping(sides: Sequence[str], *, turns: int) -> dict[str, Turns]:
    """Microseconds of a round trip through the idle tunnel: the median, and the 99th percentile."""

    def measure(one: WireGuard) -> tuple[float, float]:
        times = one.ping()
        return median(times), quantiles(times, n=100)[98]

    return by_turns(sides, turns, ("p50", "p99"), WireGuard, measure)


def bursts(sides: Sequence[str], *, turns: int) -> dict[str, Turns]:
    """Nanoseconds of a hub's processors per packet, by how its packets are spread over peers: a table of each side."""
    found = {side: Turns({spread: [] for spread in SPREADS}) for side in sides if ARROW not in side}
    with ExitStack() as stack:
        hubs = {side: Hub(stack, side) for side in found}
        for turn in range(turns):
            for side, spread in _there_and_back(itertools.product(found, SPREADS), turn):
                found[side].taken[spread].append(hubs[side].cost(spread))
    return {f"bursts {side}": taken for side, taken in found.items()}


def _there_and_back(pairs: Iterator[tuple[str, str]], turn: int) -> list[tuple[str, str]]:
    return list(pairs)[:: -1 if turn % 2 else 1]


def handshakes(*, turns: int) -> dict[str, Turns]:
    """Handshakes of two devices in one process: milliseconds of one by itself, and how many per second at once."""
    single, rate = [], []
    command = [sys.executable, str(PEERS / "wireguard_handshakes.py"), str(CROWD)]
    for _ in range(turns):
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        single.append(float(said[0]))
        rate.append(float(said[1]))
    return {"handshake": Turns({"both ends": single}), "handshakes": Turns({"both ends": rate})}


UNITS = {
    "tcp": "TCP, Gbit/s",
    "cpu": "TCP, ns of both processes per packet",
    "p50": "ping, microseconds: median",
    "p99": "ping, microseconds: 99th percentile",
    "handshake": "a handshake by itself, ms of both ends",
    "handshakes": "handshakes per second, both ends",
}


def main() -> None:
    parts: dict[str, Callable[[], dict[str, Turns]]] = {
        "tcp": lambda: tcp(sides, turns=arguments.turns, seconds=arguments.seconds),
        "ping": lambda: ping(sides, turns=arguments.turns),
        "bursts": lambda: bursts(sides, turns=arguments.turns),
        "handshakes": lambda: handshakes(turns=arguments.turns),
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", help=", ".join(parts))
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    arguments = parser.parse_args()
    sides, missing = available(arguments.sides)
    for side, reason in missing.items():
        print(f"without {side}: {reason}")
    print(tunnel.versions())
    for part in arguments.what or parts:
        for what, turns in parts[part]().items():
            print(f"\n{UNITS.get(what, f'{what}: ns of the hub per packet')}")
            base = next((side for side in (OTHER, SPREADS[0]) if side in turns.taken), next(iter(turns.taken)))
            print("\n".join("  " + line for line in turns.lines(base, "")))


if __name__ == "__main__":
    main()
