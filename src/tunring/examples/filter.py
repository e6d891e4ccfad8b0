"""Let packets pass between two interfaces, except those that rules drop.

With numpy, which it requires (``pip install numpy``)::

    python -m tunring.examples.filter tun0 tun1 --drop udp:53 --drop tcp:25 --drop icmp

The headers of a batch are one array, its rules one expression, and what may pass is a batch again: no Python object per
packet. Give each interface to the host on that side of it, for example a network namespace::

    ip link set tun1 netns inside

A port is that of the destination. Later fragments have none, nor has what comes behind IPv6's extension headers: rules
with a port let them pass.
"""

from __future__ import annotations

import argparse
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import tunring
from tunring.examples._program import import_failure, run

try:
    import numpy as np
except ImportError as error:
    raise import_failure(error, "numpy", __name__) from error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    #: A protocol's number, and a port or None.
    Rule = tuple[int, int | None]

#: The longest header of IPv4, with the ports behind it. Shorter packets are looked at as if zeros followed.
HEADERS = 60 + 4

PROTOCOLS = {
    "icmp": socket.IPPROTO_ICMP,
    "icmp6": socket.IPPROTO_ICMPV6,
    "tcp": socket.IPPROTO_TCP,
    "udp": socket.IPPROTO_UDP,
}


def dropped(batch: tunring.Batch, rules: Sequence[Rule]) -> NDArray[np.bool_]:
    """A mask of the packets of a batch that some rule drops."""
    headers = np.asarray(batch.headers(HEADERS))
    rows = np.arange(len(headers))
    is_ipv6 = headers[:, 0] >> 4 == 6
    protocols = np.where(is_ipv6, headers[:, 6], headers[:, 9])
    # Where the ports are; and what is not a packet's first fragment has none.
    at = np.where(is_ipv6, 40, (headers[:, 0] & 15) * 4)
    ports = headers[rows, at + 2].astype(np.uint16) << 8 | headers[rows, at + 3]
    has_ports = is_ipv6 | ((headers[:, 6] & 0x1F == 0) & (headers[:, 7] == 0))
    result = np.zeros(len(headers), np.bool_)
    for protocol, port in rules:
        matches = protocols == protocol
        result |= matches if port is None else matches & has_ports & (ports == port)
    return result


class Direction:
    """Packets from one session to another.

    Attributes
    ----------
    passed, dropped : int
        How many so far.
    """

    def __init__(self, source: tunring.Session, target: tunring.Session, rules: Sequence[Rule]) -> None:
        self.source = source
        self.target = target
        self.rules = rules
        self.passed = self.dropped = 0

    def run(self) -> None:
        """Move packets until one of the sessions is over; then both are."""
        with self.source, self.target, suppress(tunring.SessionClosed):
            for batch in self.source.batches():
                drop = dropped(batch, self.rules)
                passing = batch.select(~drop) if drop.any() else batch
                self.passed += len(passing)
                self.dropped += len(batch) - len(passing)
                self.target.send(passing)


def rule(text: str) -> Rule:
    """PROTOCOL or PROTOCOL:PORT."""
    name, colon, port = text.partition(":")
    number = int(port) if colon and port.isascii() and port.isdigit() else None
    if name not in PROTOCOLS or (colon and (number is None or number > 65535 or name.startswith("icmp"))):
        names = ", ".join(PROTOCOLS)
        raise argparse.ArgumentTypeError(f"must be one of {names}, or tcp:PORT or udp:PORT, not {text!r}")
    return PROTOCOLS[name], number


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program."""
    parser = argparse.ArgumentParser(description="Pass packets between two interfaces, except those that rules drop.")
    parser.add_argument("name", help="name of an interface to create")
    parser.add_argument("other", help="name of the other interface to create")
    parser.add_argument("--drop", type=rule, action="append", default=[], metavar="PROTOCOL[:PORT]")
    options = parser.parse_args(argv)
    with (
        tunring.Adapter.create(options.name) as one,
        tunring.Adapter.create(options.other) as other,
        one.start_session() as here,
        other.start_session() as there,
    ):
        directions = [Direction(here, there, options.drop), Direction(there, here, options.drop)]
        back = threading.Thread(target=directions[1].run)
        back.start()
        print("ready; Ctrl-C ends", flush=True)
        with suppress(KeyboardInterrupt):
            directions[0].run()
        back.join()
    passed, lost = (sum(getattr(each, name) for each in directions) for name in ("passed", "dropped"))
    print(f"{passed:,} packets passed, {lost:,} dropped")
    return 0


if __name__ == "__main__":
    run(main)
