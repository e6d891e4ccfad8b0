r"""A server for many tunnels: its clients run ``tunring.examples.tunnel``, each with a key of its own.

Make a key per client, and tell the server which addresses belong to it::

    python -m tunring.examples.tunnel --make-key alice.key
    python -m tunring.examples.tunnel_server tun0 --address 10.8.0.1/24 --listen 0.0.0.0:5555 \
        --client alice.key=10.8.0.2 --client bob.key=10.8.0.3,fd00::/64

A batch of packets for the clients costs one lookup of all their destinations, one split, and one send. A batch of
datagrams is split by the names of their keys. A client's packets are taken only if they come from its own addresses.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import tunring
from tunring.examples._program import run
from tunring.examples.tunnel import BATCH, CIPHERS, MTU, NAME, Protocol, address, read_key, run_both, sendable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tunring.aead import Algorithm


class Client:
    """The server's record of a client.

    Attributes
    ----------
    endpoint : tunring.Endpoint or None
        The address of its last authentic datagram.
    """

    def __init__(self, number: int, key: bytes, cipher: Algorithm) -> None:
        self.number = number
        self.protocol = Protocol(key, calls=False, cipher=cipher)
        self.endpoint: tunring.Endpoint | None = None


class Server:
    """Moves packets between a session and the clients' datagrams.

    Parameters
    ----------
    session : tunring.Session
        Where packets come from and go to.
    udp : tunring.UdpSocket
        The socket of all datagrams.
    clients : iterable of (bytes, list of str)
        Each client's key, and its networks or addresses.
    cipher : str
        One of ``tunnel.CIPHERS``, the same for all.
    """

    def __init__(
        self,
        session: tunring.Session,
        udp: tunring.UdpSocket,
        clients: Iterable[tuple[bytes, Sequence[str]]],
        *,
        cipher: Algorithm = "aes-256-gcm",
    ) -> None:
        self.session = session
        self.udp = udp
        self.clients: list[Client] = []
        routes: dict[str, int] = {}
        # By the name of the key, as a number: that is how batches are split fastest.
        self.by_name: dict[int, Client] = {}
        for number, (key, networks) in enumerate(clients):
            client = Client(number, key, cipher)
            name = int.from_bytes(client.protocol.name, sys.byteorder)
            if name in self.by_name:
                raise ValueError(f"clients {self.by_name[name].number} and {number} have the same key")
            self.clients.append(client)
            self.by_name[name] = client
            for network in networks:
                if network in routes:
                    raise ValueError(f"clients {routes[network]} and {number} both have {network}")
                routes[network] = number
        self.routes = tunring.RouteTable(routes.items())
        self.received = self.strange = 0

    def run(self) -> None:
        """Move packets in both directions until the session or the socket is closed; then both are."""
        run_both(self.send_packets, self.receive_datagrams)

    def send_packets(self) -> None:
        """From the ring into datagrams: what is nobody's, or a client's that was never heard, is dropped."""
        with self.session, self.udp, suppress(tunring.SessionClosed):
            for batch in self.session.batches(BATCH):
                with ExitStack() as stack:
                    sealed = [
                        (endpoint, stack.enter_context(client.protocol.sealer.seal(packets)))
                        for client, endpoint, packets in self.by_client(batch)
                    ]
                    try:
                        self.udp.send_many(sealed)
                    except ValueError:
                        self.udp.send_many([(endpoint, sendable(datagrams)) for endpoint, datagrams in sealed])

    def by_client(self, batch: tunring.Batch) -> Iterator[tuple[Client, tunring.Endpoint, tunring.Batch]]:
        """Divide a batch by its packets' clients."""
        for number, packets in batch.split(self.routes.lookup(batch)):
            if number >= 0 and (endpoint := self.clients[number].endpoint):
                yield self.clients[number], endpoint, packets

    def receive_datagrams(self) -> None:
        """From datagrams into the ring."""
        with self.session, self.udp, suppress(tunring.SessionClosed):
            for datagrams in self.udp.batches(BATCH):
                names = datagrams.headers(NAME).cast("B").cast("I")
                for name, part in datagrams.split(names):
                    if client := self.by_name.get(name):
                        for packets in client.protocol.open(part):
                            client.endpoint = packets[-1:].sources[0]
                            self.deliver(packets, client)

    def deliver(self, packets: tunring.Batch, client: Client) -> None:
        """Take what comes from the client's own addresses."""
        for number, part in packets.split(self.routes.lookup_sources(packets)):
            if number == client.number:
                self.received += len(part)
                self.session.send(part)
            else:
                self.strange += len(part)

    @property
    def sent(self) -> int:
        """Packets encrypted so far."""
        return sum(client.protocol.sealer.counter for client in self.clients)


def _client(text: str) -> tuple[bytes, list[str]]:
    file, _, networks = text.rpartition("=")
    try:
        return read_key(file), networks.split(",")
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"must be FILE=ADDRESS,..., not {text!r}: {error}") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program."""
    parser = argparse.ArgumentParser(description="A server for many encrypted tunnels.")
    parser.add_argument(
        "name", nargs="?", default="tun0", help="name of the interface to create (default: %(default)s)"
    )
    parser.add_argument("--address", action="append", default=[], help="address of the interface, such as 10.8.0.1/24")
    parser.add_argument("--listen", type=address, required=True, metavar="HOST:PORT", help="own address and port")
    parser.add_argument("--client", type=_client, action="append", required=True, metavar="FILE=ADDRESS,...")
    parser.add_argument(
        "--cipher", choices=CIPHERS, default=CIPHERS[0], help="cipher of all hosts (default: %(default)s)"
    )
    options = parser.parse_args(argv)
    with tunring.UdpSocket.bind(options.listen) as udp, tunring.Adapter.create(options.name) as adapter:
        adapter.configure(options.address, mtu=MTU)
        with adapter.start_session() as session:
            server = Server(session, udp, options.client, cipher=options.cipher)
            print("ready; Ctrl-C ends", flush=True)
            with suppress(KeyboardInterrupt):
                server.run()
    print(f"{server.sent:,} packets sent, {server.received:,} received, {server.strange:,} from foreign addresses")
    return 0


if __name__ == "__main__":
    run(main)
