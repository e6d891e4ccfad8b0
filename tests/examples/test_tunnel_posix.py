"""The cookbook's tunnel over a cable: packets get through, and nobody but the peer's present run is heard."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

import tunring
import tunring.testing
from packets import number_of, packet
from running import NEVER, Threads, eventually
from tunring.aead import Sealer
from tunring.examples import tunnel, tunnel_asyncio

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = bytes(range(32))


#: The first bytes of every datagram under KEY.
NAME_OF_KEY = tunnel.derive(KEY, b"", "name")[: tunnel.NAME]

#: Where the salt begins and ends, and the packet's number.
AT_SALT, AT_NUMBER = tunnel.NAME, tunnel.NAME + tunnel.SALT

KINDS = pytest.mark.parametrize("kind", [tunnel.Tunnel, tunnel_asyncio.Tunnel])


def pause() -> None:
    """Wait until the salt of another unknown run is tried, however late the tunnel saw the one before."""
    time.sleep(3 / tunnel.TRIES)


class Host:
    """A host with a tunnel: its system's end of a cable, and the tunnel, which runs until the block's end."""

    def __init__(self, stack: ExitStack, threads: Threads, *arguments: Any, **options: Any) -> None:
        self.system, session = tunring.testing.pair()
        stack.enter_context(self.system)
        udp = tunring.UdpSocket.bind(("127.0.0.1", 0))
        self.address = udp.address
        kind = options.pop("kind", tunnel.Tunnel)
        self.tunnel = kind(session, udp, *(arguments or (KEY,)), **options)
        threads.start(self.tunnel.run)
        stack.callback(session.close)

    def take(self, number: int) -> list[bytes]:
        """Return `count` packets that the system gets."""
        taken: list[bytes] = []
        while len(taken) < number:
            with self.system.receive(number - len(taken), timeout=NEVER) as batch:
                assert batch, f"only {len(taken)} of {number} packets came"
                taken += batch.tobytes()
        return taken


def sealer_of_a_run(salt: bytes) -> Sealer:
    """The Sealer of a caller that speaks the protocol without the cookbook's help."""
    key = tunnel.derive(KEY, salt, "aes-256-gcm caller")
    return Sealer("aes-256-gcm", key, header=NAME_OF_KEY + salt, authenticate_header=False)


class Wire(socket.socket):
    """An attacker between the hosts, who sees everything that a caller sends and sends anything."""

    def __init__(self) -> None:
        super().__init__(socket.AF_INET, socket.SOCK_DGRAM)
        self.bind(("127.0.0.1", 0))
        self.settimeout(NEVER)

    def record(self, stack: ExitStack, threads: Threads, packets: list[bytes], key: bytes = KEY) -> list[bytes]:
        """Return the datagrams that a caller makes of packets. The caller ends at once."""
        caller = Host(stack, threads, key, self.getsockname())
        caller.system.send(packets)
        datagrams = [self.recv(65535) for _ in packets]
        caller.tunnel.session.close()
        return datagrams


class Scene:
    """A called host, a wire, and everything that a test adds: all ends with the block."""

    def __init__(self, stack: ExitStack, threads: Threads) -> None:
        self.stack = stack
        self.threads = threads
        self.called = Host(stack, threads)
        self.wires = [stack.enter_context(Wire()) for _ in range(2)]

    def record(self, packets: list[bytes], key: bytes = KEY) -> list[bytes]:
        return self.wires[0].record(self.stack, self.threads, packets, key)

    def inject(self, datagrams: list[bytes], wire: int = 0) -> None:
        for datagram in datagrams:
            self.wires[wire].sendto(datagram, self.called.address)

    def rejects(self, datagrams: list[bytes], wire: int = 0) -> None:
        """Check that the called host gets datagrams, and takes none."""
        rejected, received = self.called.tunnel.rejected, self.called.tunnel.received
        self.inject(datagrams, wire)
        assert eventually(lambda: self.called.tunnel.rejected >= rejected + len(datagrams))
        assert (self.called.tunnel.rejected, self.called.tunnel.received) == (rejected + len(datagrams), received)
        assert not self.called.system.receive(timeout=0)

    @property
    def peer(self) -> tuple[str, int] | None:
        peer = self.called.tunnel.peer
        return (peer.host, peer.port) if isinstance(peer, tunring.Endpoint) else None


@contextmanager
def hosts() -> Iterator[tuple[ExitStack, Threads]]:
    with Threads() as threads, ExitStack() as stack:
        yield stack, threads


@pytest.fixture
def scene() -> Iterator[Scene]:
    with hosts() as (stack, threads):
        yield Scene(stack, threads)


@KINDS
@pytest.mark.parametrize("cipher", tunnel.CIPHERS)
def test_packets_go_through_and_back(cipher: str, kind: type[tunnel.Tunnel]) -> None:
    with hosts() as (stack, threads):
        called = Host(stack, threads, cipher=cipher, kind=kind)
        caller = Host(stack, threads, KEY, called.address, cipher=cipher)
        for start in range(0, 200, 8):
            sent = [packet(20 + 7 * number, number=number) for number in range(start, start + 8)]
            caller.system.send(sent)
            assert called.take(8) == sent
            called.system.send(sent[::-1])
            assert caller.take(8) == sent[::-1]
        largest = packet(tunnel.LARGEST_DATAGRAM - tunnel.OVERHEAD)
        caller.system.send([largest])
        assert called.take(1) == [largest]
        assert called.tunnel.peer == tunring.Endpoint(*caller.address)
        assert (caller.tunnel.sent, caller.tunnel.received, caller.tunnel.rejected) == (201, 200, 0)
        assert (called.tunnel.sent, called.tunnel.received, called.tunnel.rejected) == (200, 201, 0)


@KINDS
def test_a_packet_too_large_for_a_datagram_is_lost_and_nothing_else(kind: type[tunnel.Tunnel]) -> None:
    with hosts() as (stack, threads):
        called = Host(stack, threads)
        caller = Host(stack, threads, KEY, called.address, kind=kind)
        caller.system.send([packet(30, number=1), packet(65535), packet(30, number=3)])
        assert called.take(2) == [packet(30, number=1), packet(30, number=3)]


@KINDS
@pytest.mark.parametrize("closed", ["session", "udp"])
def test_the_end_of_either_side_ends_both(closed: str, kind: type[tunnel.Tunnel]) -> None:
    with hosts() as (stack, threads):
        host = Host(stack, threads, kind=kind)
        getattr(host.tunnel, closed).close()
        threads.join()
        assert (host.tunnel.session.closed, host.tunnel.udp.closed) == (True, True)


def test_what_is_forged_is_rejected(scene: Scene) -> None:
    secret = packet(200, number=0x5EC4E7)
    datagram, again = scene.record([secret, secret])
    header = AT_NUMBER + tunnel.NUMBER
    assert len(datagram) == len(secret) + tunnel.OVERHEAD
    assert secret[8:40] not in datagram
    assert datagram[:AT_NUMBER] == again[:AT_NUMBER]
    assert datagram[header:] != again[header:], "a nonce was used twice"

    forged = [b"", b"x", datagram[:header], datagram[: tunnel.OVERHEAD], datagram[:-1], datagram + b"x"]
    flipped = (0, AT_SALT, AT_SALT + tunnel.TIME, AT_NUMBER, AT_NUMBER + 7, header, len(datagram) - 1)
    forged += [datagram[:at] + bytes([datagram[at] ^ 1]) + datagram[at + 1 :] for at in flipped]
    for data in forged:
        pause()
        scene.rejects([data])
    assert scene.called.tunnel.peer is None

    pause()
    scene.inject([datagram])
    assert scene.called.take(1) == [secret]
    scene.rejects(forged)  # nor beside authentic ones
    assert scene.peer == scene.wires[0].getsockname()


def test_another_key_does_not_fit(scene: Scene) -> None:
    scene.rejects(scene.record([packet()] * 3, KEY[::-1]))


def test_another_cipher_does_not_fit(scene: Scene) -> None:
    caller = Host(scene.stack, scene.threads, KEY, scene.called.address, cipher="chacha20-poly1305")
    caller.system.send([packet()])
    assert eventually(lambda: scene.called.tunnel.rejected == 1)
    assert scene.called.tunnel.received == 0


def test_a_run_that_is_replayed_is_refused(scene: Scene) -> None:
    datagrams = scene.record([packet(number=number) for number in range(20)])
    scene.inject(datagrams[:10])
    assert [number_of(data) for data in scene.called.take(10)] == list(range(10))
    scene.rejects(datagrams[:10] * 2, wire=1)
    assert scene.peer == scene.wires[0].getsockname(), "a replay does not move the peer"
    scene.inject(datagrams[::-1])  # what is new among it comes through, once
    assert [number_of(data) for data in scene.called.take(10)] == list(range(19, 9, -1))


def test_an_earlier_run_is_refused(scene: Scene) -> None:
    older, newer = ([packet(number=number) for number in range(start, start + 5)] for start in (0, 100))
    older, newer = scene.record(older), scene.record(newer)
    scene.inject(newer[:1])
    scene.called.take(1)
    for _ in range(3):
        pause()
        scene.rejects(older, wire=1)
    assert scene.peer == scene.wires[0].getsockname()
    scene.inject(newer[1:])
    assert [number_of(data) for data in scene.called.take(4)] == [101, 102, 103, 104]


def test_a_program_that_just_started_believes_an_earlier_run_until_the_present_one_is_heard(scene: Scene) -> None:
    older, newer = (scene.record([packet(number=number)] * 3) for number in (1, 2))
    scene.inject(older[:2])
    assert scene.called.take(2) == [packet(number=1)] * 2
    pause()
    scene.inject(newer[:1], wire=1)
    assert scene.called.take(1) == [packet(number=2)]
    pause()
    scene.rejects(older)
    assert scene.peer == scene.wires[1].getsockname()


def test_salts_that_alternate(scene: Scene) -> None:
    """Once a later run has replaced a run, its datagrams are rejected."""
    runs = [scene.record([packet(number=number) for number in range(start, start + 6)]) for start in (0, 100, 200)]
    for number in range(6):
        for run in runs:
            pause()
            scene.inject([run[number]])
    expected = [0, 100, 200, 201, 202, 203, 204, 205]
    assert [number_of(data) for data in scene.called.take(8)] == expected
    scene.rejects([run[number] for number in range(6) for run in runs])


def test_a_new_run_is_heard_with_all_that_comes_of_it(scene: Scene) -> None:
    for start in (0, 100, 200):
        pause()
        scene.inject(scene.record([packet(number=number) for number in range(start, start + 50)]))
        assert [number_of(data) for data in scene.called.take(50)] == list(range(start, start + 50))


def test_a_host_does_not_hear_itself(scene: Scene) -> None:
    """A host rejects its own datagrams, those of its present run and recorded ones."""
    datagrams = scene.record([packet()])
    scene.inject(datagrams)
    scene.called.take(1)
    scene.called.system.send([packet(number=7)] * 3)
    own = [scene.wires[0].recv(2000) for _ in range(3)]
    assert own[0][AT_SALT:AT_NUMBER] < datagrams[0][AT_SALT:AT_NUMBER]
    scene.rejects(own, wire=1)
    restarted = Host(scene.stack, scene.threads)
    for datagram in own:
        pause()
        scene.wires[0].sendto(datagram, restarted.address)
    assert eventually(lambda: restarted.tunnel.rejected == len(own))
    assert restarted.tunnel.received == 0


def test_the_peer_is_where_authentic_datagrams_come_from(scene: Scene) -> None:
    first, second = scene.wires
    datagrams = scene.record([packet(number=number) for number in range(4)])
    scene.inject(datagrams[:1])
    assert scene.called.take(1)
    # Forged, replayed and spoofed datagrams don't move it; one that is new and authentic does.
    spoofed = NAME_OF_KEY + (time.time_ns() + 10**9).to_bytes(tunnel.TIME) + bytes(60)
    scene.rejects([datagrams[1][:-1] + b"x", datagrams[0], spoofed], wire=1)
    scene.called.system.send([packet(number=8)])
    assert len(first.recv(2000)) == 20 + tunnel.OVERHEAD
    assert scene.peer == first.getsockname()
    scene.inject(datagrams[2:3], wire=1)
    assert scene.called.take(1) == [packet(number=2)]
    scene.called.system.send([packet(number=9)])
    assert len(second.recv(2000)) == 20 + tunnel.OVERHEAD
    assert scene.peer == second.getsockname()


def test_made_up_salts_cost_no_data_and_are_hardly_tried(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """10,000 made-up salts per second, each later than the peer's, cost no data."""
    tried = []
    make = tunnel.Protocol.opener_of
    monkeypatch.setattr(tunnel.Protocol, "opener_of", lambda self, salt: tried.append(salt) or make(self, salt))
    caller = Host(scene.stack, scene.threads, KEY, scene.called.address)
    caller.system.send([packet()])
    scene.called.take(1)
    tried.clear()
    spoofed, seconds = 20_000, 2.0
    began = time.monotonic()

    def spoof() -> int:
        sent = 0
        while sent < spoofed:
            due = min(spoofed, int((time.monotonic() - began) / seconds * spoofed))
            for number in range(sent, due):
                salt = (time.time_ns() + 10**12).to_bytes(tunnel.TIME) + number.to_bytes(8)
                scene.wires[1].sendto(NAME_OF_KEY + salt + bytes(200), scene.called.address)
            sent = due
            time.sleep(0.002)
        return sent

    with Threads() as threads:
        threads.start(spoof)
        rounds = 0
        while any(thread.is_alive() for thread in threads.threads):
            sent = [packet(1000, number=rounds * 32 + number) for number in range(32)]
            caller.system.send(sent)
            assert scene.called.take(32) == sent
            rounds += 1
    took = time.monotonic() - began
    assert threads.results == [spoofed]
    assert rounds > 20
    assert eventually(lambda: scene.called.tunnel.rejected + scene.called.tunnel.udp.stats().host_dropped >= spoofed)
    assert 1 <= len(tried) <= tunnel.TRIES * took + 1
    assert scene.called.tunnel.received == 32 * rounds + 1
    assert scene.called.tunnel.peer == tunring.Endpoint(*caller.address)
    # The peer's next run is heard, too.
    pause()
    scene.inject(scene.record([packet(number=3)]))
    assert scene.called.take(1) == [packet(number=3)]


def test_a_run_that_is_expected_in_the_midst_of_made_up_salts_is_heard(scene: Scene) -> None:
    """The answer competes with other datagrams: each try takes whichever comes first."""
    salt = time.time_ns().to_bytes(8) + bytes(8)
    sealer = sealer_of_a_run(salt)
    datagrams = sealer.seal([packet(number=number) for number in range(2000)]).tobytes()
    ended = threading.Event()

    def spoof() -> None:
        while not ended.is_set():
            salt = (time.time_ns() + 10**12).to_bytes(tunnel.TIME) + bytes(8)
            scene.wires[1].sendto(NAME_OF_KEY + salt + bytes(200), scene.called.address)
            time.sleep(0.001)

    with Threads() as threads:
        threads.start(spoof)
        for datagram in datagrams:
            scene.inject([datagram])
            if scene.called.tunnel.received:
                break
            time.sleep(0.002)
        ended.set()
    assert eventually(lambda: scene.called.tunnel.received > 0)


def test_run_keys_are_those_of_hkdf() -> None:
    """Keys are derived as in RFC 5869, checked with a library that has it."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    salt = bytes(range(16))
    expected = HKDF(SHA256(), length=32, salt=salt, info=b"tunring.examples.tunnel x").derive(KEY)
    assert tunnel.derive(KEY, salt, "x") == expected


def test_a_hand_made_run_is_understood(scene: Scene) -> None:
    """Datagrams have the format of the docstring."""
    salt = time.time_ns().to_bytes(8) + bytes(8)
    sealer = sealer_of_a_run(salt)
    scene.inject(sealer.seal([packet(40)]).tobytes())
    assert scene.called.take(1) == [packet(40)]


# ---- The program


def test_a_key_file_is_made_once_and_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "tunnel.key"
    tunnel.main(["--make-key", str(path)])
    key = path.read_text()
    assert len(bytes.fromhex(key)) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        tunnel.main(["--make-key", str(path)])
    assert path.read_text() == key


def program(*arguments: str) -> tuple[int, str, str]:
    command = [sys.executable, "-W", "error", "-m", "tunring.examples.tunnel", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


def test_mistakes_with_the_key_get_a_sentence(tmp_path: Path) -> None:
    missing, bad, short, key = (tmp_path / name for name in ("missing", "bad", "short", "key"))
    bad.write_text("no key")
    short.write_text("00" * 31)
    key.write_text("00" * 32)
    for file, reason in ((bad, "holds no key"), (short, "holds no key"), (missing, "No such file or directory")):
        code, out, err = program("--key", str(file))
        assert (code, out) == (1, "")
        assert err.startswith(f"tunring: {file}")
        assert reason in err
        assert len(err.splitlines()) == 1
    code, out, err = program("--make-key", str(key))
    assert (code, out) == (1, "")
    assert err == f"tunring: {key}: exists already; a key is never overwritten\n"


@pytest.mark.parametrize("address", ["here", "127.0.0.1:port", "no such host.invalid:1"])
def test_a_bad_endpoint_is_wrong_usage(address: str) -> None:
    code, out, err = program("--key", "key", "--peer", address)
    assert (code, out) == (2, "")
    assert f"argument --peer: must be HOST:PORT, not {address!r}" in err.splitlines()[-1]


def test_endpoints_of_either_family() -> None:
    assert tunnel.address("127.0.0.1:5555") == ("127.0.0.1", 5555)
    assert tunnel.address("[::1]:5555")[:2] == ("::1", 5555)


def test_an_unknown_cipher_is_wrong_usage() -> None:
    code, out, err = program("--key", "key", "--cipher", "rot13")
    assert (code, out) == (2, "")
    assert re.search(r"invalid choice: '?rot13'?", err)
