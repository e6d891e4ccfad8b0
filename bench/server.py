"""A server's way down, from a ring into datagrams for fifty clients: ``python bench/server.py [--turns N]``.

Packets come in bursts of 32. It prints the processor time per packet of ``lookup``, ``split`` and ``send_many``, beside
what Python programs do without: a dict of addresses, and a ``sendto`` for each packet. Nothing is encrypted. The
clients' sockets are on the loopback interface, and nobody reads them.
"""

from __future__ import annotations

import argparse
import os
import socket
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from turns import Turns, take_turns

import tunring
import tunring.testing

if TYPE_CHECKING:
    from collections.abc import Callable

CLIENTS, BURST, BATCH, ROUNDS = 50, 32, 256, 40
SIZES = (64, 1400)


def packet(client: int, size: int) -> bytes:
    """An IPv4 packet for a client."""
    header = bytes([0x45, 0, *size.to_bytes(2), 0, 0, 0, 0, 64, 253, 0, 0]) + bytes([10, 8, 0, 1, 10, 8, 1, client])
    return header + os.urandom(size - len(header))


def server(size: int, *, turns: int) -> Turns:
    """Nanoseconds of the processor per packet."""
    with ExitStack() as stack:
        system, session = tunring.testing.pair()
        stack.enter_context(system)
        stack.enter_context(session)
        clients = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(CLIENTS)]
        for client in clients:
            client.bind(("127.0.0.1", 0))
        endpoints = [tunring.Endpoint(*client.getsockname()) for client in clients]
        routes = tunring.RouteTable((f"10.8.1.{number}/32", number) for number in range(CLIENTS))
        udp = stack.enter_context(tunring.UdpSocket.bind(("127.0.0.1", 0)))
        addresses = {bytes([10, 8, 1, number]): client.getsockname() for number, client in enumerate(clients)}
        plain = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        bursts = [[packet(number, size)] * BURST for number in range(CLIENTS)]

        def by_batches(batch: tunring.Batch) -> None:
            udp.send_many(
                [(endpoints[number], part) for number, part in batch.split(routes.lookup(batch)) if number >= 0]
            )

        def by_packets(batch: tunring.Batch) -> None:
            for view in batch:
                address = addresses.get(bytes(view[16:20]))
                if address:
                    plain.sendto(view, address)

        def rounds(serve: Callable[[tunring.Batch], None]) -> list[float]:
            taken = []
            for number in range(ROUNDS):
                first = number * (BATCH // BURST)
                for burst in range(first, first + BATCH // BURST):
                    system.send(bursts[burst % CLIENTS])
                began = time.process_time_ns()
                with session.receive(BATCH, timeout=5) as batch:
                    assert len(batch) == BATCH
                    serve(batch)
                taken.append((time.process_time_ns() - began) / BATCH)
            return taken

        sides = {"batches": lambda: rounds(by_batches), "sendto": lambda: rounds(by_packets)}
        result = take_turns(sides, turns)
        assert udp.stats().refused_other == udp.stats().refused_unreachable == 0
        return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=7)
    turns = parser.parse_args().turns
    for size in SIZES:
        print(f"\n{CLIENTS} clients, bursts of {BURST}, {size} B: processor time per packet")
        print("\n".join("  " + line for line in server(size, turns=turns).lines("sendto", "ns")))


if __name__ == "__main__":
    main()
