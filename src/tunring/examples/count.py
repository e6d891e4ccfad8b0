"""Count packets by protocol with numpy: ``python -m tunring.examples.count tun0``, then ``ping 10.7.0.2``.

A batch is packed into one array, and all its headers are looked at at once: no Python object per packet. Packets that
are sent to the interface are counted and dropped; Ctrl-C prints the table. It requires numpy: ``pip install numpy``.
"""

from __future__ import annotations

import argparse
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import tunring
from tunring.examples._program import ADDRESS, import_failure, run

try:
    import numpy as np
except ImportError as error:
    raise import_failure(error, "numpy", __name__) from error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

#: The minimum of an IP packet. IPv6 has its protocol in byte 6, IPv4 in byte 9.
HEADER = 20


class Counter:
    """Packets and bytes by protocol."""

    def __init__(self) -> None:
        self.packets = np.zeros(256, np.int64)
        self.bytes = np.zeros(256, np.int64)
        self._room: NDArray[np.uint8] = np.empty(1 << 20, np.uint8)

    def add(self, batch: tunring.Batch) -> None:
        """Count a batch."""
        if batch.nbytes > self._room.size:
            self._room = np.empty(batch.nbytes, np.uint8)
        batch.pack_into(self._room)
        lengths = np.asarray(batch.lengths)
        headers = self._room[np.asarray(batch.offsets)[:, None] + np.arange(HEADER)]  # a row each
        protocols = np.where(headers[:, 0] >> 4 == 6, headers[:, 6], headers[:, 9])
        self.packets += np.bincount(protocols, minlength=256)
        self.bytes += np.bincount(protocols, lengths, minlength=256).astype(np.int64)

    def __str__(self) -> str:
        names = {
            value: name.removeprefix("IPPROTO_").lower()
            for name, value in vars(socket).items()
            if name.startswith("IPPROTO_")
        }
        seen = np.flatnonzero(self.packets)
        lines = [f"{'protocol':>10} {'packets':>10} {'bytes':>14}"]
        for protocol in seen[np.argsort(-self.bytes[seen], kind="stable")].tolist():
            name = names.get(protocol, str(protocol))
            lines.append(f"{name:>10} {self.packets[protocol]:>10,} {self.bytes[protocol]:>14,}")
        return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program."""
    parser = argparse.ArgumentParser(description="Count packets by protocol.")
    parser.add_argument(
        "name", nargs="?", default="tun0", help="name of the interface to create (default: %(default)s)"
    )
    parser.add_argument("--address", action="append", help=f"address of the interface (default: {ADDRESS})")
    options = parser.parse_args(argv)
    counter = Counter()
    with tunring.Adapter.create(options.name) as adapter:
        adapter.configure(options.address or [ADDRESS])
        with adapter.start_session() as session, suppress(KeyboardInterrupt):
            print("ready; Ctrl-C ends", flush=True)
            for batch in session.batches(max_packets=1024):
                counter.add(batch)
    print(counter)
    return 0


if __name__ == "__main__":
    run(main)
