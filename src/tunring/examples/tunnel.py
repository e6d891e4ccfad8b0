"""A tunnel between two hosts, encrypted, over UDP: the skeleton of a VPN. It requires ``pip install cryptography``.

Make a key, and give both hosts the file::

    python -m tunring.examples.tunnel --make-key tunnel.key

Then on one host, which anybody may reach at port 5555, and on the other::

    python -m tunring.examples.tunnel tun0 --address 10.8.0.1/24 --key tunnel.key --listen 0.0.0.0:5555
    python -m tunring.examples.tunnel tun0 --address 10.8.0.2/24 --key tunnel.key --peer 192.0.2.1:5555

Packets are encrypted from the ring into the datagram, and decrypted from the datagram into the ring: no copy besides.
Each run of a program has a key of its own, made of the hosts' key and a random salt, so that no nonce is ever used
twice. There is no handshake: no forward secrecy, and an eavesdropper may send a recorded datagram once more. What is
to be safe against that needs a protocol such as WireGuard's or Noise.
"""

from __future__ import annotations

import argparse
import os
import secrets
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import tunring
from tunring.examples._program import import_failure, run

try:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF
except ImportError as error:
    raise import_failure(error, "cryptography", __name__) from error

if TYPE_CHECKING:
    from collections.abc import Sequence

    Address = tuple[str, int]

#: Bytes of the hosts' key.
KEY = 32

#: A datagram is the sender's salt, the number of its packet, and the packet encrypted, with a tag at the end.
SALT, NUMBER, TAG = 16, 8, 16
HEADER = SALT + NUMBER
OVERHEAD = HEADER + TAG

#: So that a datagram with its own headers fits into the 1500 bytes of an Ethernet.
MTU = 1500 - 40 - 8 - OVERHEAD


def _cipher(key: bytes, salt: bytes) -> AESGCM:
    """Make the cipher of one run of one host."""
    return AESGCM(HKDF(SHA256(), length=32, salt=salt, info=b"tunring.examples.tunnel").derive(key))


def _nonce(number: bytes | memoryview) -> bytes:
    return bytes(4) + number


class Tunnel:
    """Moves packets between a session and a UDP socket.

    Parameters
    ----------
    session : tunring.Session
        Where packets come from and go to.
    udp : socket.socket
        It is given a timeout, after which it is seen whether the session is closed, and room for bursts.
    key : bytes
        What both hosts know: :data:`KEY` bytes.
    peer : tuple of str and int, optional
        Where to send; without it, to whom the first good datagram came from. A peer that has moved is followed.
    """

    def __init__(self, session: tunring.Session, udp: socket.socket, key: bytes, peer: Address | None = None) -> None:
        self.session = session
        self.udp = udp
        self.key = key
        self.peer = peer
        self.sent = self.received = self.rejected = 0  # packets, and datagrams
        self.sending = threading.Thread(target=self.send_packets)
        udp.settimeout(0.2)
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)  # or what the system allows of it

    def run(self) -> None:
        """Move packets in both directions until the session is over."""
        self.sending.start()
        try:
            self.receive_datagrams()
        finally:
            self.session.close()  # ends the other thread as well
            self.sending.join()

    def send_packets(self) -> None:
        """From the ring into datagrams."""
        salt = secrets.token_bytes(SALT)
        cipher = _cipher(self.key, salt)
        datagram = memoryview(bytearray(salt + bytes(NUMBER + 65535 + TAG)))
        header = datagram[:HEADER]
        number = 0
        for batch in self.session.batches():
            for packet in batch:
                if self.peer is None:
                    continue
                self.sent = number = number + 1
                header[SALT:] = number.to_bytes(NUMBER, "big")
                end = OVERHEAD + len(packet)
                cipher.encrypt_into(_nonce(header[SALT:]), packet, header, datagram[HEADER:end])
                with suppress(OSError):  # as lost on the way: too large, say, or the network is away for a moment
                    self.udp.sendto(datagram[:end], self.peer)

    def receive_datagrams(self) -> None:
        """From datagrams into the ring."""
        datagram = memoryview(bytearray(65535))
        salt, cipher = b"", None
        while self.sending.is_alive():  # until the session is over
            try:
                size, sender = self.udp.recvfrom_into(datagram)
            except OSError:
                continue  # the time was up, or word of a datagram that didn't arrive
            header, body = datagram[:HEADER], datagram[HEADER:size]
            if cipher is None or header[:SALT] != salt:
                # Who sends this has just started, or is somebody else.
                salt, cipher = bytes(header[:SALT]), _cipher(self.key, bytes(header[:SALT]))
            try:
                with self.session.reserve([len(body) - TAG], on_full="wait") as [slot]:
                    cipher.decrypt_into(_nonce(header[SALT:]), body, header, slot)
                    self.peer = sender  # before the system can answer
                self.received += 1
            except (InvalidTag, ValueError):  # which gives the slot back; a ValueError is for what is no packet at all
                self.rejected += 1
            except tunring.SessionClosed:
                return


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    try:
        return socket.gethostbyname(host), int(port)
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"must be HOST:PORT, not {text!r}: {error}") from error


def _read_key(file: str) -> bytes:
    with suppress(ValueError):
        key = bytes.fromhex(Path(file).read_text("ascii"))
        if len(key) == KEY:
            return key
    raise ValueError(f"{file} holds no key, which is {2 * KEY} hexadecimal digits; --make-key makes one")


def _make_key(file: str) -> None:
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise FileExistsError(error.errno, "is there already; a key is never overwritten", file) from error
    with open(descriptor, "w", encoding="ascii") as target:
        target.write(secrets.token_hex(KEY))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program."""
    parser = argparse.ArgumentParser(description="An encrypted tunnel between two hosts.")
    parser.add_argument("name", nargs="?", default="tun0", help="of the interface to create (default: %(default)s)")
    parser.add_argument("--make-key", metavar="FILE", help="make a key, and nothing else")
    parser.add_argument("--key", metavar="FILE", help="the key of both hosts")
    parser.add_argument("--address", action="append", default=[], help="of the interface, as 10.8.0.1/24")
    parser.add_argument("--listen", type=_address, default=("0.0.0.0", 0), metavar="HOST:PORT")
    parser.add_argument("--peer", type=_address, metavar="HOST:PORT", help="without it, whoever has the key and calls")
    options = parser.parse_args(argv)
    if options.make_key:
        _make_key(options.make_key)
        return 0
    if not options.key:
        parser.error("--key is missing; --make-key makes one")
    key = _read_key(options.key)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(options.listen)
        with tunring.Adapter.create(options.name) as adapter:
            adapter.configure(options.address, mtu=MTU)
            with adapter.start_session() as session:
                tunnel = Tunnel(session, udp, key, options.peer)
                print("ready; Ctrl-C ends", flush=True)
                with suppress(KeyboardInterrupt):
                    tunnel.run()
    print(f"{tunnel.sent:,} packets sent, {tunnel.received:,} received, {tunnel.rejected:,} datagrams rejected")
    return 0


if __name__ == "__main__":
    run(main)
