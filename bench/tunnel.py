"""The cookbook's tunnel beside wireguard-go, between two network namespaces that a veth joins, on one machine.

    python bench/tunnel.py [tcp|udp ...] [--turns N] [--sides NAME ...] [--seconds S]

prints tables for each; without a word, for both. It needs root, the right to make network namespaces, Go, ``wg`` and
``iperf3``. All tunnels are there at once and take turns: in each turn each carries one TCP connection, or one stream of
datagrams, for some seconds. Their interfaces have an MTU of 1400 bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, TypeVar

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / part) for part in ("tests/support", "tests/linux")]

from netns import Namespace  # noqa: E402
from programs import Missing, c_program, wireguard_program  # noqa: E402
from tun import Program  # noqa: E402
from turns import Turns  # noqa: E402

from tunring.aead import providers  # noqa: E402
from tunring.examples.tunnel import CIPHERS, KEY  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")

#: Bytes of the packets inside, and the payload of those of TCP: headers of IPv4 and TCP, with time stamps.
MTU, TCP_HEADERS = 1400, 52

#: Bytes of the packets inside of the UDP part, and of the headers among them.
UDP_SIZES, UDP_HEADERS = (64, 1400), 28

OUTER, INNER = ("192.0.2.1", "192.0.2.2"), ("10.8.0.1", "10.8.0.2")
PORT, STREAM_PORT = 5555, 6000

#: Seconds after which a program that doesn't get ready has failed.
PATIENCE = 30

#: Where datagrams count as not lost, in per cent of all; from what rate on none is looked for, and how closely.
LOSS, HIGHEST_RATE, STEPS = 0.1, 1e6, 7

OTHER = "wireguard-go"
LIBRARIES = ("libcrypto", "ipsec-mb", "boringssl")
SIDES = (OTHER, *(f"{cipher} {library}" for cipher in CIPHERS for library in LIBRARIES))


@dataclass
class Taken:
    """One TCP connection: what arrived, and what the tunnel's two processes spent."""

    gigabits: float
    nanoseconds: float  # of processors, per packet of MTU bytes


def cpu_seconds(pid: int) -> float:
    """Seconds of processors that a process has had, all its threads together."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} after {PATIENCE} s")
        time.sleep(0.05)


class Tunnel:
    """Two namespaces and a tunnel between them. Everything of it ends with the stack."""

    def __init__(self, stack: ExitStack, side: str) -> None:
        self.side = side
        self.ends = [Namespace(), Namespace()]
        for end in self.ends:
            stack.callback(end.close)
        self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self._stack = stack
        self._join()
        self._processes = self._start_wireguard() if side == OTHER else self._start_ours(*side.split())
        self._get_ready()

    def _get_ready(self) -> None:
        # Both have then heard of each other.
        self.ends[1].ping(INNER[0])

    def _start(
        self, command: Sequence[str], end: Namespace, environment: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        output = (self._folder / "output").open("ab")
        with end.entered(), output:
            process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **(environment or {})}
            )
        self._stack.callback(_end, process)
        return process

    def output(self) -> str:
        return (self._folder / "output").read_text()

    def _join(self) -> None:
        here, there = self.ends
        descriptor = there.fileno()
        command = "link add veth0 type veth peer name veth0 netns".split()
        with here.entered():
            subprocess.run(["ip", *command, f"/proc/self/fd/{descriptor}"], check=True, pass_fds=[descriptor])
        for end, address in zip(self.ends, OUTER, strict=True):
            end.set_up("veth0", f"{address}/24")

    def _start_ours(self, cipher: str, library: str) -> list[subprocess.Popen[bytes]]:
        key = self._folder / "key"
        key.write_text(secrets.token_hex(KEY))
        command = [sys.executable, "-m", "tunring.examples.tunnel", "tun0", "--key", str(key), "--cipher", cipher]
        there = (["--listen", f"{OUTER[0]}:{PORT}"], ["--peer", f"{OUTER[0]}:{PORT}"])
        processes = []
        for end, address, more in zip(self.ends, INNER, there, strict=True):
            arguments = [*command, "--address", f"{address}/24", *more]
            processes.append(self._start(arguments, end, {"TUNRING_AEAD": library}))
        wait_until(lambda: self.output().count("ready") == 2, f"the tunnel did not start: {self.output()}")
        for end in self.ends:
            end.ip(f"link set tun0 mtu {MTU}")
        return processes

    def _start_wireguard(self) -> list[subprocess.Popen[bytes]]:
        # Of unlike names: both have their sockets in one folder.
        names = [f"twg{os.getpid() % 10**8}{letter}" for letter in "ab"]
        sockets = [Path(f"/var/run/wireguard/{name}.sock") for name in names]
        environment = {"WG_PROCESS_FOREGROUND": "1", "LOG_LEVEL": "error"}
        processes = []
        for end, name, path in zip(self.ends, names, sockets, strict=True):
            self._stack.callback(path.unlink, missing_ok=True)
            processes.append(self._start([wireguard_program(), "-f", name], end, environment))
        wait_until(lambda: all(path.exists() for path in sockets), f"wireguard-go did not start: {self.output()}")
        keys = [self._wireguard_key(name) for name in names]
        for number, (end, name) in enumerate(zip(self.ends, names, strict=True)):
            other = 1 - number
            peer = ["peer", keys[other], "endpoint", f"{OUTER[other]}:{PORT}", "allowed-ips", "10.8.0.0/24"]
            end.run("wg", "set", name, "listen-port", str(PORT), "private-key", str(self._folder / name), *peer)
            end.set_up(name, f"{INNER[number]}/24", mtu=MTU)
            # Where the kernel has WireGuard, that is not what is measured.
            kind = end.ip(f"-d link show dev {name}")
            if "tun type tun" not in kind:
                raise RuntimeError(f"{name} is not a TUN device: {kind}")
        return processes

    def _wireguard_key(self, name: str) -> str:
        """Make a private key in a file; returns the public one."""
        private = subprocess.run(["wg", "genkey"], check=True, capture_output=True, text=True).stdout
        (self._folder / name).write_text(private)
        done = subprocess.run(["wg", "pubkey"], input=private, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def _spent(self) -> float:
        for process in self._processes:
            if process.poll() is not None:
                raise RuntimeError(f"{self.side} ended with {process.returncode}: {self.output()}")
        return sum(cpu_seconds(process.pid) for process in self._processes)

    def tcp(self, seconds: float) -> Taken:
        """One TCP connection."""
        # A server of its own each time: one that goes on turns away who comes while it is busy with the turn before.
        with self.ends[1].entered():
            server = subprocess.Popen(["iperf3", "-s", "-1"], stdout=subprocess.DEVNULL)
        try:
            wait_until(lambda: ":5201" in self.ends[1].run("ss", "-Hltn"), "iperf3 did not listen")
            before = self._spent()
            out = json.loads(self.ends[0].run("iperf3", "-c", INNER[1], "-J", "-t", str(seconds)))
            spent = self._spent() - before
        finally:
            server.kill()
            server.wait()
        found = out.get("end", {}).get("sum_received")
        if not found:
            raise RuntimeError(f"iperf3 through {self.side}: {out.get('error', out)}")
        return Taken(found["bits_per_second"] / 1e9, spent * 1e9 * (MTU - TCP_HEADERS) / found["bytes"])

    def streams(self) -> None:
        """Let :meth:`udp` be called."""
        ports = {size: STREAM_PORT + size for size in UDP_SIZES}
        program = c_program("peers/stream.c")
        self._sinks, self._sources = {}, {}
        for size, port in ports.items():
            where = [INNER[1], str(port)]
            self._sinks[size] = Program([program, "sink", *where], self.ends[1])
            self._stack.callback(self._sinks[size].close)
            self._sources[size] = Program([program, "source", *where, str(size - UDP_HEADERS)], self.ends[0])
            self._stack.callback(self._sources[size].close)

    def udp(self, size: int, rate: float, seconds: float) -> float:
        """Datagrams at a rate, that many packets of this size per second. Returns how many got lost, in per cent."""
        self._sinks[size].ask("")
        sent = int(self._sources[size].ask(f"{rate:.0f} {seconds * 1000:.0f}"))
        came, more = 0, 1
        while more:  # what is on its way
            time.sleep(0.05)
            more = int(self._sinks[size].ask(""))
            came += more
        return 100 * (1 - came / sent)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def require_library(library: str, cipher: str) -> None:
    """Raise Missing if a library that computes a cipher is not there. It stays chosen in this process."""
    os.environ["TUNRING_AEAD"] = library
    provider = providers()[cipher]  # type: ignore[index]
    if provider.name is None:
        raise Missing("; ".join(provider.others))


def require(side: str) -> None:
    """Raise Missing if a side can't be had here."""
    if side == OTHER:
        wireguard_program()
    else:
        cipher, library = side.split()
        require_library(library, cipher)


def available(
    sides: Sequence[str] = SIDES, require: Callable[[str], None] = require
) -> tuple[list[str], dict[str, str]]:
    """The sides that can be had here, and why others can't."""
    found, missing = [], {}
    before = os.environ.get("TUNRING_AEAD")
    for side in sides:
        try:
            require(side)
        except Missing as reason:
            missing[side] = str(reason)
        else:
            found.append(side)
    os.environ.pop("TUNRING_AEAD", None)
    if before is not None:
        os.environ["TUNRING_AEAD"] = before
    return found, missing


def by_turns(
    sides: Sequence[str],
    turns: int,
    figures: Sequence[str],
    make: Callable[[ExitStack, str], T],
    measure: Callable[[T], Sequence[float]],
) -> dict[str, Turns]:
    """Make all tunnels, measure each once for nothing and then once in each turn: figures of these names."""
    found = {figure: Turns({side: [] for side in sides}) for figure in figures}
    with ExitStack() as stack:
        tunnels = {side: make(stack, side) for side in sides}
        for tunnel in tunnels.values():
            measure(tunnel)
        for turn in range(turns):
            for side in sides if turn % 2 == 0 else reversed(sides):
                for figure, value in zip(figures, measure(tunnels[side]), strict=True):
                    found[figure].taken[side].append(value)
    return found


def tcp(
    sides: Sequence[str], *, turns: int, seconds: float = 3, make: Callable[[ExitStack, str], Tunnel] = Tunnel
) -> dict[str, Turns]:
    """Gigabits per second, and the processes' nanoseconds per packet."""

    def measure(one: Tunnel) -> tuple[float, float]:
        taken = one.tcp(seconds)
        return taken.gigabits, taken.nanoseconds

    return by_turns(sides, turns, ("tcp", "cpu"), make, measure)


def highest_rate(tunnel: Tunnel, size: int, seconds: float) -> float:
    """Packets per second, by bisection, of which hardly any are lost: the best of three tries of each rate."""
    low, high = 0.0, HIGHEST_RATE
    for _ in range(STEPS):
        rate = (low + high) / 2
        if any(tunnel.udp(size, rate, seconds) < LOSS for _ in range(3)):
            low = rate
        else:
            high = rate
    return low or high


def udp(sides: Sequence[str], size: int, *, turns: int, seconds: float = 1) -> tuple[float, Turns]:
    """The highest rate at which wireguard-go loses hardly anything, and each side's loss at that, in per cent."""
    result = Turns({side: [] for side in sides})
    with ExitStack() as stack:
        tunnels = [Tunnel(stack, side) for side in sides]
        for tunnel in tunnels:
            tunnel.streams()
            tunnel.udp(size, 10_000, 0.5)
        rate = highest_rate(tunnels[sides.index(OTHER)], size, seconds)
        for turn in range(turns):
            for tunnel in tunnels if turn % 2 == 0 else reversed(tunnels):
                result.taken[tunnel.side].append(tunnel.udp(size, rate, seconds))
    return rate, result


def versions() -> str:
    """The libraries that compute the ciphers."""
    before = os.environ.get("TUNRING_AEAD")
    found = []
    for library in LIBRARIES:
        os.environ["TUNRING_AEAD"] = library
        found.append(providers()["aes-256-gcm"].version or f"no {library}")
    os.environ.pop("TUNRING_AEAD", None)
    if before is not None:
        os.environ["TUNRING_AEAD"] = before
    return ", ".join(re.sub(r"\s+\d+ \w+ \d+.*", "", version) for version in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", help="tcp, udp")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    arguments = parser.parse_args()
    sides, missing = available(arguments.sides)
    for side, reason in missing.items():
        print(f"without {side}: {reason}")
    print(versions())
    if not arguments.what or "tcp" in arguments.what:
        for what, turns in tcp(sides, turns=arguments.turns, seconds=arguments.seconds).items():
            print(f"\nTCP, {'Gbit/s' if what == 'tcp' else 'ns of both processes per packet'}")
            print("\n".join("  " + line for line in turns.lines(OTHER if OTHER in sides else sides[0], "")))
    for size in UDP_SIZES if not arguments.what or "udp" in arguments.what else ():
        rate, turns = udp(sides, size, turns=arguments.turns)
        print(f"\nUDP, {size} B, {rate:,.0f} packets per second: per cent lost")
        for side, lost in turns.taken.items():
            print(f"  {side:30} {median(lost):6.3f} ({min(lost):.3f}-{max(lost):.3f})")


if __name__ == "__main__":
    main()
