"""The cookbook's server over cables: fifty clients, each of which gets its own packets."""

from __future__ import annotations

import struct
import time
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

import tunring
import tunring.testing
from running import NEVER, Threads, eventually
from tunring.examples import tunnel, tunnel_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CLIENTS = 50


def key_of(number: int) -> bytes:
    return bytes([number]) * tunnel.KEY


def address_of(number: int, version: int = 4) -> str:
    return f"10.8.0.{number + 2}" if version == 4 else f"fd00::{number + 2:x}"


def packet(source: str, target: str, content: bytes = b"") -> bytes:
    """An IP packet of either version."""
    addresses = ip_address(source).packed + ip_address(target).packed
    if len(addresses) == 8:
        return struct.pack("!BBHIBBH", 0x45, 0, 20 + len(content), 0, 64, 253, 0) + addresses + content
    return struct.pack("!IHBB", 6 << 28, len(content), 253, 64) + addresses + content


class Cable:
    """A session that something serves, and its system's end of the cable."""

    def __init__(self, stack: ExitStack) -> None:
        self.system, self.session = tunring.testing.pair()
        stack.enter_context(self.system)
        stack.callback(self.session.close)
        self.udp = tunring.UdpSocket.bind(("127.0.0.1", 0))
        stack.callback(self.udp.close)

    def take(self, number: int) -> list[bytes]:
        """Return `count` packets that the system gets."""
        taken: list[bytes] = []
        while len(taken) < number:
            with self.system.receive(number - len(taken), timeout=NEVER) as batch:
                assert batch, f"only {len(taken)} of {number} packets came"
                taken += batch.tobytes()
        return taken


class Scene:
    """A server and clients that have all called it once."""

    def __init__(self, stack: ExitStack, threads: Threads, clients: int) -> None:
        self.cable = Cable(stack)
        known = [(key_of(n), [address_of(n), address_of(n, 6)]) for n in range(clients)]
        self.server = tunnel_server.Server(self.cable.session, self.cable.udp, known)
        threads.start(self.server.run)
        self.clients = [Cable(stack) for _ in range(clients)]
        self.tunnels = []
        for number, client in enumerate(self.clients):
            self.tunnels.append(tunnel.Tunnel(client.session, client.udp, key_of(number), self.cable.udp.address))
            threads.start(self.tunnels[-1].run)

    def call(self) -> None:
        """Let each client send a packet."""
        for number, client in enumerate(self.clients):
            sent = packet(address_of(number), "10.8.0.1", b"hello")
            client.system.send([sent])
            assert self.cable.take(1) == [sent]


@contextmanager
def scene(clients: int) -> Iterator[Scene]:
    with Threads() as threads, ExitStack() as stack:
        made = Scene(stack, threads, clients)
        made.call()
        yield made


def test_fifty_clients_get_what_is_theirs_in_order() -> None:
    with scene(CLIENTS) as here:
        sent = [
            packet("10.8.0.1" if version == 4 else "fd00::1", address_of(number, version), bytes([burst, number]))
            for burst in range(4)
            for number in range(CLIENTS)
            for version in (4, 6)
        ]
        here.cable.system.send(sent)
        for number, client in enumerate(here.clients):
            expected = [each for each in sent if each[-1] == number]
            assert client.take(len(expected)) == expected
            assert not client.system.receive(timeout=0)
        assert here.server.sent == len(sent)


def test_all_of_them_are_heard_at_once() -> None:
    with scene(CLIENTS) as here:
        sent = []
        for number, client in enumerate(here.clients):
            own = [packet(address_of(number), "10.8.0.1", bytes([number, n])) for n in range(20)]
            client.system.send(own)
            sent += own
        came = here.cable.take(len(sent))
        assert sorted(came) == sorted(sent)
        for number in range(CLIENTS):
            of_one = [each[-1] for each in came if each[-2] == number and len(each) == 22]
            assert of_one == list(range(20)), "each client's are in order"
        assert here.server.received == len(sent) + CLIENTS
        assert here.server.strange == 0


def test_what_is_for_nobody_is_dropped() -> None:
    with scene(2) as here:
        for_one = packet("10.8.0.1", address_of(1), b"1")
        here.cable.system.send([packet("10.8.0.1", "10.9.0.1"), for_one, packet("fd00::1", "fd01::1")])
        assert here.clients[1].take(1) == [for_one]
        assert not here.clients[0].system.receive(timeout=0)
        assert here.server.sent == 1


def test_a_client_that_was_never_heard_gets_nothing() -> None:
    with Threads() as threads, ExitStack() as stack:
        here = Scene(stack, threads, 2)
        first = packet(address_of(0), "10.8.0.1")
        here.clients[0].system.send([first])
        assert here.cable.take(1) == [first]
        answers = [packet("10.8.0.1", address_of(number), b"answer") for number in (1, 0)]
        here.cable.system.send(answers)
        assert here.clients[0].take(1) == [answers[1]]
        assert here.server.sent == 1


def test_a_client_speaks_for_itself_only() -> None:
    with scene(3) as here:
        own = packet(address_of(1), "10.8.0.1", b"own")
        strange = [packet(source, "10.8.0.1") for source in (address_of(0), "10.9.9.9")]
        strange.append(packet(address_of(0, 6), "fd00::1"))
        here.clients[1].system.send([*strange, own])
        assert here.cable.take(1) == [own]
        assert here.server.strange == len(strange)
        # It did not take the other client's place.
        answer = packet("10.8.0.1", address_of(0), b"answer")
        here.cable.system.send([answer])
        assert here.clients[0].take(1) == [answer]


def test_a_client_that_moves_is_followed() -> None:
    with scene(2) as here, Threads() as threads, ExitStack() as stack:
        here.clients[0].session.close()
        again = Cable(stack)
        time.sleep(3 / tunnel.TRIES)  # so that a new run is tried, however late the one before was seen
        threads.start(tunnel.Tunnel(again.session, again.udp, key_of(0), here.cable.udp.address).run)
        sent = packet(address_of(0), "10.8.0.1", b"again")
        again.system.send([sent])
        assert here.cable.take(1) == [sent]
        answer = packet("10.8.0.1", address_of(0), b"answer")
        here.cable.system.send([answer])
        assert again.take(1) == [answer]


def test_too_large_packets_are_left_out() -> None:
    with scene(2) as here:
        large = packet("10.8.0.1", address_of(0), bytes(65000))
        here.cable.system.send([packet("10.8.0.1", address_of(0), bytes(65515)), packet("10.8.0.1", address_of(1))])
        here.cable.system.send([large])
        assert here.clients[1].take(1) == [packet("10.8.0.1", address_of(1))]
        assert here.clients[0].take(1) == [large]


def test_datagrams_of_strangers_are_dropped() -> None:
    with scene(2) as here, ExitStack() as stack:
        stranger = Cable(stack)
        datagrams = [b"", b"x", bytes(60), here.server.clients[0].protocol.name + bytes(60)]
        stranger.udp.send(datagrams, here.cable.udp.address)
        assert eventually(lambda: here.cable.udp.stats().received_packets == 2 + len(datagrams))
        here.call()
        assert here.server.received == 4


def test_clients_must_differ() -> None:
    with ExitStack() as stack:
        cable = Cable(stack)
        with pytest.raises(ValueError, match="clients 0 and 1 have the same key"):
            tunnel_server.Server(cable.session, cable.udp, [(key_of(1), ["10.8.0.2"]), (key_of(1), ["10.8.0.3"])])
        with pytest.raises(ValueError, match=r"clients 0 and 1 both have 10\.8\.0\.2"):
            tunnel_server.Server(cable.session, cable.udp, [(key_of(1), ["10.8.0.2"]), (key_of(2), ["10.8.0.2"])])


def test_mistakes_get_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("nothing", f"{tmp_path / 'missing'}=10.8.0.2"):
        with pytest.raises(SystemExit):
            tunnel_server.main(["--listen", "127.0.0.1:0", "--client", text])
        assert f"must be FILE=ADDRESS,..., not {text!r}" in capsys.readouterr().err.splitlines()[-1]
