"""Peers on real TUN interfaces, each in network namespaces of its own, on the same traffic in turns.

    python bench/tun.py [receive|send|tcp|echo ...] [--turns N] [--peers NAME ...]

prints a table for each; without a word, all of them. It needs root and the right to make network namespaces.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / part) for part in ("tests/support", "tests/linux")]

from datagrams import checksum, udp4  # noqa: E402
from netns import Namespace  # noqa: E402
from programs import NAMES, available, c_program, command  # noqa: E402
from turns import Turns, take_turns  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

HERE, THERE, PORT = "10.9.0.1", "10.9.0.2", 9

#: Queue of an interface, and what is in it when a round of a drained queue begins: packets as the peer reads them.
QUEUE, WAITING = 1000, 800

#: Peers that read superpackets; for the others the kernel cuts them before they are queued.
WITH_OFFLOADS = {"tunring", "tunring-views", "go", "rust"}

#: Seconds after which a program that doesn't answer has failed.
PATIENCE = 30

#: Nanoseconds that a round is to take at least.
LONG_ENOUGH = 10_000_000

ROUNDS = 3


@contextmanager
def on_cpu(cpu: int | None) -> Iterator[None]:
    """Everything that is started in the block runs on one processor."""
    before = os.sched_getaffinity(0)
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpus() -> tuple[int | None, int | None]:
    """One for who sends and one for who receives, if there are two."""
    usable = sorted(os.sched_getaffinity(0))
    return (usable[0], usable[-1]) if len(usable) > 1 else (None, None)


class Program:
    """A process that prints "ready", then answers each line with a line."""

    def __init__(
        self,
        arguments: Sequence[str],
        namespace: Namespace,
        *,
        cpu: int | None = None,
        environment: dict[str, str] | None = None,
        descriptors: Sequence[int] = (),
    ) -> None:
        with namespace.entered(), on_cpu(cpu):
            self._process = subprocess.Popen(
                arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                env=environment,
                pass_fds=descriptors,
            )
        self._name = " ".join(arguments)
        self._expect("ready")
        self.stopped = False

    def _line(self) -> str:
        assert self._process.stdout
        if not select.select([self._process.stdout], [], [], PATIENCE)[0]:
            raise RuntimeError(f"{self._name} does not answer")
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._name} ended with {self._process.wait()}")
        return line.decode().strip()

    def _expect(self, word: str) -> None:
        line = self._line()
        while line != word:  # a library may print something of its own
            line = self._line()

    def ask(self, question: object) -> str:
        assert self._process.stdin
        self._process.stdin.write(f"{question}\n".encode())
        return self._line()

    def pause(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def traffic(namespace: Namespace, *arguments: object, cpu: int | None = None) -> Program:
    return Program([c_program("peers/traffic.c"), *map(str, arguments)], namespace, cpu=cpu)


class Peer:
    """A peer that serves "tun0" in a namespace of its own."""

    def __init__(self, stack: ExitStack, name: str, *arguments: str, cpu: int | None = None) -> None:
        self.namespace = Namespace()
        stack.callback(self.namespace.close)
        words, environment = command(name)
        self.program = Program([*words, *arguments], self.namespace, cpu=cpu, environment=environment)
        stack.callback(self.program.close)
        set_up(self.namespace, HERE)

    def take(self, packets: int) -> float:
        """Nanoseconds per packet."""
        return float(self.program.ask(packets)) / packets

    def long_enough(self, packets: int) -> int:
        """So many packets, or more, that a round of them takes long enough."""
        while self.take(packets) * packets < LONG_ENOUGH:
            packets *= 2
        return packets


def set_up(namespace: Namespace, address: str) -> None:
    namespace.ip(f"link set tun0 txqueuelen {QUEUE}")
    namespace.set_up("tun0", f"{address}/24")


# ---- Receive ----


def segments(size: int) -> int:
    """Datagrams of a superpacket: what the kernel lets one send have."""
    return min(64, 65507 // (size - 28))


def live_side(stack: ExitStack, name: str, size: int, count: int) -> Callable[[], list[float]]:
    source_cpu, cpu = cpus()
    peer = Peer(stack, name, "receive", cpu=cpu)
    flood = traffic(peer.namespace, "flood", size, count, cpu=source_cpu)
    stack.callback(flood.close)
    packets = peer.long_enough(8192)
    flood.pause()

    def measure() -> list[float]:
        flood.resume()
        peer.take(packets)  # past what waited in the queue
        taken = [peer.take(packets) for _ in range(ROUNDS)]
        flood.pause()
        return taken

    return measure


def drained_side(stack: ExitStack, name: str, size: int, count: int, waiting: int) -> Callable[[], list[float]]:
    _, cpu = cpus()
    peer = Peer(stack, name, "receive", cpu=cpu)
    source = traffic(peer.namespace, "fill", size, count, cpu=cpu)
    stack.callback(source.close)
    sends = waiting if name in WITH_OFFLOADS else WAITING // count

    def measure() -> list[float]:
        taken = []
        for _ in range(3 * ROUNDS):
            source.ask(sends)
            taken.append(peer.take(sends * count))
        return taken

    return measure


def receive(names: Sequence[str], size: int, *, gso: bool, live: bool, turns: int, waiting: int = WAITING) -> Turns:
    """Nanoseconds per packet: of a queue that was filled before, or that another processor fills meanwhile.

    Who takes superpackets finds that many `waiting`: few take so short a time that a busy machine leaves it in peace.
    """
    side = live_side if live else partial(drained_side, waiting=waiting)
    with ExitStack() as stack:
        sides = {name: side(stack, name, size, segments(size) if gso else 1) for name in names}
        return take_turns(sides, turns)


# ---- Send ----


def datagram(size: int) -> bytes:
    """One that may not be fragmented, so that its identification doesn't matter."""
    packet = bytearray(udp4((THERE, 5), (HERE, PORT), bytes(size - 28)))
    struct.pack_into("!H", packet, 6, 0x4000)
    struct.pack_into("!H", packet, 10, 0)
    struct.pack_into("!H", packet, 10, checksum(bytes(packet[:20])))
    return bytes(packet)


DROP = 'add table netdev t; add chain netdev t c { type filter hook ingress device "tun0" priority 0; policy drop; }'


def send_side(stack: ExitStack, name: str, size: int, into: str) -> Callable[[], list[float]]:
    _, cpu = cpus()
    peer = Peer(stack, name, "send", datagram(size).hex(), cpu=cpu)
    if into == "nft":
        peer.namespace.run("nft", DROP)
    else:
        sink = stack.enter_context(peer.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sink.bind((HERE, PORT))
    packets = peer.long_enough(4096)
    if into == "udp":
        before = peer.namespace.counters()
        peer.take(packets)
        after = peer.namespace.counters()
        assert after["UdpRcvbufErrors"] - before["UdpRcvbufErrors"] == packets, name
        assert after["UdpInCsumErrors"] == 0, name
    return lambda: [peer.take(packets) for _ in range(ROUNDS)]


def send(names: Sequence[str], size: int, *, into: str, turns: int) -> Turns:
    """Nanoseconds per packet, into a full UDP socket ("udp") or dropped at the interface ("nft")."""
    with ExitStack() as stack:
        return take_turns({name: send_side(stack, name, size, into) for name in names}, turns)


# ---- TCP ----


class Link:
    """Two namespaces, and a peer that forwards between them."""

    def __init__(self, stack: ExitStack, name: str) -> None:
        self._name = name
        self.ends = [Namespace(), Namespace()]
        for end in self.ends:
            stack.callback(end.close)
        words, environment = command(name)
        descriptors = [end.fileno() for end in self.ends]
        arguments = [*words, "forward", *map(str, descriptors)]
        program = Program(arguments, self.ends[0], environment=environment, descriptors=descriptors)
        stack.callback(program.close)
        for end, address in zip(self.ends, (HERE, THERE), strict=True):
            set_up(end, address)
        with self.ends[1].entered():
            server = subprocess.Popen(["iperf3", "-s"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        stack.callback(server.wait)
        stack.callback(server.kill)
        self._wait_for_server()

    def _wait_for_server(self) -> None:
        deadline = time.monotonic() + 10
        while "State" not in (listening := self.ends[1].run("ss", "-ltn")) or ":5201" not in listening:
            if time.monotonic() > deadline:
                raise RuntimeError("iperf3 does not listen")
            time.sleep(0.05)

    def gigabits(self, seconds: float) -> float:
        """A second's worth of what one TCP connection gets through."""
        for _ in range(3):  # a connection may break where a forwarder loses much
            out = json.loads(self.ends[0].run("iperf3", "-c", THERE, "-t", str(seconds), "-J"))
            if "sum_received" in out["end"]:
                return float(out["end"]["sum_received"]["bits_per_second"]) / 1e9
        raise RuntimeError(f"iperf3 through {self._name}: {out.get('error', out)}")


def tcp(names: Sequence[str], *, turns: int, seconds: float = 2) -> Turns:
    """Gigabits per second: more is better."""
    with ExitStack() as stack:
        links = {name: Link(stack, name) for name in names}
        sides = {name: lambda link=link: [link.gigabits(seconds)] for name, link in links.items()}
        return take_turns(sides, turns)


# ---- Echo ----

TRIPS = 3000


def echo(names: Sequence[str], *, turns: int, size: int = 64) -> dict[str, Turns]:
    """Microseconds of a round trip: p50, p99 and p99.9. Each end has a processor, for luck would decide otherwise."""
    client_cpu, cpu = cpus()
    kinds = ("p50", "p99", "p99.9")
    result = {kind: Turns({name: [] for name in names}) for kind in kinds}
    with ExitStack() as stack:
        clients = {}
        for name in names:
            peer = Peer(stack, name, "echo", cpu=cpu)
            clients[name] = traffic(peer.namespace, "echo", size, cpu=client_cpu)
            stack.callback(clients[name].close)
            clients[name].ask(TRIPS)
        for turn in range(turns):
            for name in names if turn % 2 == 0 else reversed(names):
                for kind, figure in zip(kinds, clients[name].ask(TRIPS).split(), strict=True):
                    result[kind].taken[name].append(int(figure) / 1000)
    return result


# ---- By hand ----


def show(title: str, turns: Turns, base: str, unit: str) -> None:
    print(f"\n{title}")
    for line in turns.lines(base if base in turns.taken else next(iter(turns.taken)), unit):
        print("  " + line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", help="receive, send, tcp, echo")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--peers", nargs="+", choices=NAMES)
    arguments = parser.parse_args()
    found, missing = available()
    for peer, reason in missing.items():
        print(f"without {NAMES[peer]}: {reason}")
    names = [name for name in arguments.peers or found if name in found]
    whats = arguments.what or ["receive", "send", "tcp", "echo"]
    single = [name for name in names if name not in ("tunring-views", "tunring-plain")]
    for size in (64, 1400):
        for gso in (False, True) if "receive" in whats else ():
            for live in (False, True):
                title = f"receive {size} B, {'GSO' if gso else 'datagrams'}, {'live' if live else 'drained'}"
                show(title, receive(names, size, gso=gso, live=live, turns=arguments.turns), "os", "ns")
        for into in ("udp", "nft") if "send" in whats else ():
            show(f"send {size} B into {into}", send(single, size, into=into, turns=arguments.turns), "os", "ns")
    if "tcp" in whats:
        show("TCP through a forwarder", tcp(single, turns=arguments.turns), "c", "Gb/s")
    if "echo" in whats:
        for kind, turns in echo(single, turns=arguments.turns).items():
            show(f"echo, {kind}", turns, "c", "us")


if __name__ == "__main__":
    main()
