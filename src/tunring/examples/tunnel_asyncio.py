"""The tunnel of ``tunring.examples.tunnel`` as two tasks of asyncio, beside the other tasks of a program.

It takes the same arguments, and either program serves at the other end::

    python -m tunring.examples.tunnel_asyncio tun0 --address 10.8.0.2/24 --key tunnel.key --peer 192.0.2.1:5555

The loop is woken once per burst. Encryption runs in the loop's thread: threads are the better choice for a program
that is nothing but a tunnel.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import tunring
from tunring.examples import tunnel
from tunring.examples._program import run

if TYPE_CHECKING:
    from collections.abc import Sequence


class Tunnel(tunnel.Tunnel):
    """Moves packets between a session and a UDP socket, in tasks."""

    def run(self) -> None:
        """Move packets in both directions until the session or the socket is closed; then both are."""
        asyncio.run(self.serve())

    async def serve(self) -> None:
        """Do so in the running loop."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.send_packets_async())
            tasks.create_task(self.receive_datagrams_async())

    async def send_packets_async(self) -> None:
        """From the ring into datagrams."""
        with self.session, self.udp, suppress(tunring.SessionClosed):
            async for packets in self.session.batches_async(tunnel.BATCH):
                if self.peer is not None:
                    with self.protocol.sealer.seal(packets) as datagrams:
                        try:
                            await self.udp.send_async(datagrams, self.peer)
                        except ValueError:
                            await self.udp.send_async(tunnel.sendable(datagrams), self.peer)

    async def receive_datagrams_async(self) -> None:
        """From datagrams into the ring."""
        with self.session, self.udp, suppress(tunring.SessionClosed):
            async for datagrams in self.udp.batches_async(tunnel.BATCH):
                for packets in self.protocol.open(datagrams):
                    self.heard(packets)
                    await self.session.send_async(packets)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program."""
    return tunnel.main(argv, Tunnel)


if __name__ == "__main__":
    run(main)
