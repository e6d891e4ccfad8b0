"""Programs that forward between two namespaces, and bulk transfers through them."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from netns import Namespace

HERE = Path(__file__).parent

#: Bytes of one bulk transfer.
BULK = 200_000_000

#: Packets that may wait in an interface.
QUEUE = 10000

families = pytest.mark.parametrize(
    ("family", "there"),
    [pytest.param(socket.AF_INET, "10.9.0.2", id="v4"), pytest.param(socket.AF_INET6, "fd09::2", id="v6")],
)


class Forwarder:
    """A forwarder program that runs between the namespaces, and the interfaces at its ends."""

    def __init__(self, command: list[str], namespaces: tuple[Namespace, Namespace]) -> None:
        descriptors = [namespace.fileno() for namespace in namespaces]
        self.figures: list[dict[str, Any]] = []
        self.process = subprocess.Popen(
            [*command, *map(str, descriptors)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=descriptors,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"
        for number, namespace in enumerate(namespaces, 1):
            namespace.ip(f"link set tun0 txqueuelen {QUEUE}")
            namespace.set_up("tun0", f"10.9.0.{number}/24", f"fd09::{number}/64")

    def stop(self) -> None:
        said, _ = self.process.communicate("", timeout=10)
        assert self.process.returncode == 0
        self.figures = json.loads(said) if said else []


@contextmanager
def running(command: list[str], namespaces: tuple[Namespace, Namespace]) -> Iterator[Forwarder]:
    forwarder = Forwarder(command, namespaces)
    try:
        yield forwarder
        forwarder.stop()
    finally:
        forwarder.process.kill()
        forwarder.process.communicate()


PYTHON = [sys.executable, "-W", "error", str(HERE / "forwarder.py")]


def check_figures(figures: list[dict[str, Any]]) -> None:
    """Every packet that came in at one end went out at the other."""
    for one, other in (figures, figures[::-1]):
        assert one["sent_packets"] + one["skipped"] == other["received_packets"]
        assert one["sent_bytes"] == other["received_bytes"]
        assert (one["skipped"], one["write_errors"], one["dropped"], one["host_dropped"]) == (0, 0, 0, 0)


class Transfer:
    """One bulk transfer from the first namespace to the second: what iperf3 and the kernel say of it."""

    def __init__(self, iperf3: str, namespaces: tuple[Namespace, Namespace], there: str) -> None:
        near, far = namespaces
        before = near.counters()
        with far.entered():
            server = subprocess.Popen([iperf3, "-s", "-1", "--forceflush"], stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            while "listening" not in server.stdout.readline():
                assert server.poll() is None
            # Nobody reads what else it says, which is less than a pipe holds.
            result = json.loads(near.run(iperf3, "-c", there, "-n", str(BULK), "-J"))
            assert server.wait(10) == 0
        finally:
            server.kill()
            server.communicate()
        after = near.counters()
        self.sent: int = result["end"]["sum_sent"]["bytes"]
        self.rate: float = result["end"]["sum_received"]["bits_per_second"] / 1e9
        self.retransmits = after["TcpRetransSegs"] - before["TcpRetransSegs"]
        self.segments = after["TcpOutSegs"] - before["TcpOutSegs"]

    def __str__(self) -> str:
        return f"{self.rate:.2f} Gb/s, {self.retransmits} of {self.segments} segments again"


def transfer_in_turns(
    commands: dict[str, list[str]], iperf3: str, namespaces: tuple[Namespace, Namespace], there: str
) -> dict[str, list[Transfer]]:
    """Three transfers through each program, in turns: what else the machine does meanwhile is half of the result.

    Every program but "plain C" is ours and says what it forwarded.
    """
    transfers: dict[str, list[Transfer]] = {what: [] for what in commands}
    for _ in range(3):
        for what, command in commands.items():
            with running(command, namespaces) as forwarder:
                transfers[what].append(Transfer(iperf3, namespaces, there))
            if what != "plain C":
                check_figures(forwarder.figures)
    for what, results in transfers.items():
        print(f"{what}: " + "; ".join(map(str, results)))
    for namespace in namespaces:
        assert not namespace.damage()
    return transfers
