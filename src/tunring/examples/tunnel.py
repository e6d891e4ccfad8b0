"""A tunnel between two hosts, encrypted, over UDP: the skeleton of a VPN.

Make a key, and give both hosts the file::

    python -m tunring.examples.tunnel --make-key tunnel.key

Then on one host, which anybody may reach at port 5555, and on the other, which calls it::

    python -m tunring.examples.tunnel tun0 --address 10.8.0.1/24 --key tunnel.key --listen 0.0.0.0:5555
    python -m tunring.examples.tunnel tun0 --address 10.8.0.2/24 --key tunnel.key --peer 192.0.2.1:5555

Each direction is a thread that passes on whole batches: from the ring into datagrams, which leave by one system call,
and from datagrams, opened where they were received, into the ring.

Each run of a program has a key of its own, made of the hosts' key, the direction and a salt, so that no nonce is ever
used twice and nobody can send a host its own datagrams. The salt begins with the time at which the program started. A
run is accepted once one of its datagrams is authentic, if it started later than every run before it; from then on each
of its datagrams is accepted once, and none of an older run. Replies go to the address from which authentic datagrams
come.

Without a handshake, it lacks what a protocol such as WireGuard's or Noise provides:

- Anonymity: every datagram begins with a name made of the key, by which a server finds the key and anybody can tell
  hosts apart.
- Forward secrecy: anybody who learns the key can read everything, even what was recorded before.
- Freshness: a program that has just started knows of no run, and can't refuse a recorded one. It accepts each of its
  datagrams once, and sends to their sender, until it hears from the peer's present run. From then on it refuses them.
- Independence of clocks: a peer that is restarted after its clock was set back is not heard until the clock has passed
  the start of the run before, or until this program is restarted as well.
"""

from __future__ import annotations

import argparse
import hmac
import os
import secrets
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tunring
from tunring.aead import Opener, Sealer
from tunring.examples._program import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tunring.aead import Algorithm

    Address = tuple[Any, ...]

#: Bytes of the hosts' key.
KEY = 32

#: A datagram is the key's name, the salt of the sender's run, the packet's number, the packet encrypted, and a tag.
NAME, SALT, NUMBER, TAG = 4, 16, 8, 16
OVERHEAD = NAME + SALT + NUMBER + TAG

#: Bytes of the salt that are the time at which the run started, in nanoseconds.
TIME = 8

#: So that a datagram with its own headers fits into the 1500 bytes of an Ethernet.
MTU = 1500 - 40 - 8 - OVERHEAD

#: The maximum that UDP carries.
LARGEST_DATAGRAM = 65507

#: Salts of unknown runs that are tried per second: anybody can make some up, and each costs a key and a cipher.
TRIES = 16

#: Maximum number of packets handled at once. Larger batches make fuller superpackets, hence fewer system calls and
#: acknowledgements.
BATCH = 512

CIPHERS: tuple[Algorithm, ...] = ("aes-256-gcm", "chacha20-poly1305")


def derive(key: bytes, salt: bytes, purpose: str) -> bytes:
    """Derive a key from the hosts' key by HKDF with SHA-256 (RFC 5869)."""
    extracted = hmac.digest(salt, key, "sha256")
    return hmac.digest(extracted, b"tunring.examples.tunnel " + purpose.encode() + b"\1", "sha256")


class Protocol:
    """Makes datagrams of packets, and packets of the peer's datagrams: what is on the wire, without what moves it.

    Parameters
    ----------
    key : bytes
        The secret of both hosts: :data:`KEY` bytes.
    calls : bool
        One of the two hosts calls the other.
    cipher : str
        One of :data:`CIPHERS`, the same on both hosts.
    """

    def __init__(self, key: bytes, *, calls: bool, cipher: Algorithm = "aes-256-gcm") -> None:
        self.key = key
        self.cipher = cipher
        self.name = derive(key, b"", "name")[:NAME]
        ours, self.theirs = ("caller", "called") if calls else ("called", "caller")
        salt = time.time_ns().to_bytes(TIME) + secrets.token_bytes(SALT - TIME)
        # Headers need not be authenticated: another salt means another key, and another number another nonce.
        self.sealer = Sealer(
            cipher, derive(key, salt, f"{cipher} {ours}"), header=self.name + salt, authenticate_header=False
        )
        # The peer's run: of the year 1970, until it is heard of.
        self.salt = bytes(SALT)
        self.opener = self.opener_of(self.salt)
        self.next_try = 0.0

    def opener_of(self, salt: bytes) -> Opener:
        """Make what opens one run of the peer's. Its window begins anew: a run gets one that counts, and no more."""
        key = derive(self.key, salt, f"{self.cipher} {self.theirs}")
        return Opener(self.cipher, key, header=self.name + salt, authenticate_header=False)

    def open(self, datagrams: tunring.Batch) -> Iterator[tunring.Batch]:
        """Yield packets of the peer's present run: one batch, or several where a new run begins."""
        foreign = self.opener.foreign
        with self.opener.open(datagrams) as packets:
            if packets:
                yield packets
        if self.opener.foreign != foreign and time.monotonic() >= self.next_try:
            yield from self.open_new_run(datagrams)

    def open_new_run(self, datagrams: tunring.Batch) -> Iterator[tunring.Batch]:
        """Believe in a run that is later than the one known, if a datagram proves it."""
        now = time.monotonic()
        for index in range(len(datagrams)):
            datagram = datagrams[index : index + 1]
            try:
                salt = datagram.headers(NAME + SALT).tobytes()[NAME:]
            except ValueError:  # it has been opened
                continue
            if salt[:TIME] > self.salt[:TIME] and now >= self.next_try:
                self.next_try = now + 1 / TRIES
                if self.opener_of(salt).open(datagram.tobytes()):  # a copy; it is opened once more to be delivered
                    self.salt, self.opener = salt, self.opener_of(salt)
            if salt == self.salt:
                with self.opener.open(datagram) as packets:
                    if packets:
                        yield packets


class Tunnel:
    """Moves packets between a session and a UDP socket.

    Parameters
    ----------
    session : tunring.Session
        Where packets come from and go to.
    udp : tunring.UdpSocket
        The socket of all datagrams.
    key : bytes
        The secret of both hosts: :data:`KEY` bytes.
    peer : tuple, optional
        The other host's address, in the form of the socket module. The host that is called has none.
    cipher : str
        One of :data:`CIPHERS`, the same on both hosts.
    """

    def __init__(
        self,
        session: tunring.Session,
        udp: tunring.UdpSocket,
        key: bytes,
        peer: Address | None = None,
        *,
        cipher: Algorithm = "aes-256-gcm",
    ) -> None:
        self.session = session
        self.udp = udp
        self.peer: Address | tunring.Endpoint | None = peer
        self.protocol = Protocol(key, calls=peer is not None, cipher=cipher)
        self.received = 0

    def run(self) -> None:
        """Move packets in both directions until the session or the socket is closed; then both are."""
        run_both(self.send_packets, self.receive_datagrams)

    def send_packets(self) -> None:
        """From the ring into datagrams."""
        with self.session, self.udp, suppress(tunring.SessionClosed):
            for packets in self.session.batches(BATCH):
                if self.peer is not None:
                    with self.protocol.sealer.seal(packets) as datagrams:
                        try:
                            self.udp.send(datagrams, self.peer)
                        except ValueError:
                            self.udp.send(sendable(datagrams), self.peer)

    def receive_datagrams(self) -> None:
        """From datagrams into the ring."""
        with self.session, self.udp, suppress(tunring.SessionClosed):
            for datagrams in self.udp.batches(BATCH):
                for packets in self.protocol.open(datagrams):
                    self.heard(packets)
                    self.session.send(packets)

    def heard(self, packets: tunring.Batch) -> None:
        """Follow the peer to where it was heard last, before the system can answer."""
        self.peer = packets[-1:].sources[0]
        self.received += len(packets)

    @property
    def sent(self) -> int:
        """Packets encrypted so far."""
        return self.protocol.sealer.counter

    @property
    def rejected(self) -> int:
        """Datagrams that were forged, replayed, or of another tunnel."""
        return self.udp.stats().received_packets - self.received


def run_both(send: Callable[[], None], receive: Callable[[], None]) -> None:
    """Run a direction in a thread of its own and the other one here, until both are over."""
    sending = threading.Thread(target=send)
    sending.start()
    try:
        receive()
    finally:
        sending.join()


def sendable(datagrams: tunring.Batch) -> tunring.Batch:
    """Leave out what is too large for UDP. There is nothing as long as the interface has an MTU of :data:`MTU`."""
    return datagrams.select([size <= LARGEST_DATAGRAM for size in datagrams.lengths])


def address(text: str) -> Address:
    """HOST:PORT, as the socket module has addresses."""
    host, _, port = text.rpartition(":")
    try:
        return socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)[0][4]
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"must be HOST:PORT, not {text!r}: {error}") from error


def read_key(file: str) -> bytes:
    """Read a file that --make-key made."""
    with suppress(ValueError):
        key = bytes.fromhex(Path(file).read_text("ascii"))
        if len(key) == KEY:
            return key
    raise ValueError(f"{file} holds no key, which is {2 * KEY} hexadecimal digits; --make-key makes one")


def _make_key(file: str) -> None:
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise FileExistsError(error.errno, "exists already; a key is never overwritten", file) from error
    with open(descriptor, "w", encoding="ascii") as target:
        target.write(secrets.token_hex(KEY))


def main(argv: Sequence[str] | None = None, kind: type[Tunnel] = Tunnel) -> int:
    """Run the program."""
    parser = argparse.ArgumentParser(description="An encrypted tunnel between two hosts.")
    parser.add_argument(
        "name", nargs="?", default="tun0", help="name of the interface to create (default: %(default)s)"
    )
    parser.add_argument("--make-key", metavar="FILE", help="write a new key to the file, and exit")
    parser.add_argument("--key", metavar="FILE", help="the file with the key of both hosts")
    parser.add_argument("--address", action="append", default=[], help="address of the interface, such as 10.8.0.1/24")
    parser.add_argument("--listen", type=address, metavar="HOST:PORT", help="own address and port (default: any)")
    text = "the other host's address and port; only on the host that calls"
    parser.add_argument("--peer", type=address, metavar="HOST:PORT", help=text)
    parser.add_argument(
        "--cipher", choices=CIPHERS, default=CIPHERS[0], help="cipher of both hosts (default: %(default)s)"
    )
    options = parser.parse_args(argv)
    if options.make_key:
        _make_key(options.make_key)
        return 0
    if not options.key:
        parser.error("--key is missing; --make-key makes one")
    key = read_key(options.key)
    anywhere = "::" if options.peer and ":" in options.peer[0] else "0.0.0.0"
    with (
        tunring.UdpSocket.bind(options.listen or (anywhere, 0)) as udp,
        tunring.Adapter.create(options.name) as adapter,
    ):
        adapter.configure(options.address, mtu=MTU)
        with adapter.start_session() as session:
            tunnel = kind(session, udp, key, options.peer, cipher=options.cipher)
            print("ready; Ctrl-C ends", flush=True)
            with suppress(KeyboardInterrupt):
                tunnel.run()
    print(f"{tunnel.sent:,} packets sent, {tunnel.received:,} received, {tunnel.rejected:,} datagrams rejected")
    return 0


if __name__ == "__main__":
    run(main)
