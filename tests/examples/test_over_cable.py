"""The cookbook's parts, over the cable: what they are run for is tested on real interfaces, as root."""

from __future__ import annotations

import pkgutil
import re
import socket
import struct
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP
from scapy.utils import rdpcap

import tunring
import tunring.testing
from packets import packet
from running import NEVER, Threads, eventually, run_script
from tunring import examples
from tunring.examples import capture, count, icmp_echo, tunnel
from tunring.pcapng import Writer
from tunring.testing.checksum import checksum
from tunring.testing.responder import Responder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    Pair = tuple[tunring.Session, tunring.Session]

KEY = bytes(range(32))


@pytest.fixture
def other_pair() -> Iterator[Pair]:
    left, right = tunring.testing.pair(tunring.MIN_CAPACITY)
    with left, right:
        yield left, right


# ---- icmp_echo


@given(st.integers(0, 65535), st.integers(0, 65535), st.binary(max_size=60), st.integers(0, 3))
def test_a_ping_becomes_its_answer(identifier: int, number: int, payload: bytes, words: int) -> None:
    options = b"\1\1\1\1" * words
    ping = bytes(IP(src="10.7.0.1", dst="10.7.0.2", options=options) / ICMP(id=identifier, seq=number) / payload)
    ours, theirs = bytearray(ping), bytearray(ping)
    assert icmp_echo.answer(memoryview(ours))
    assert Responder().respond(memoryview(theirs))
    # Zero has two forms in ones' complement, and which of them is there says nothing.
    at = 20 + 4 * words
    assert ours[:at] == theirs[:at]
    assert ours[at : at + 2] + ours[at + 4 :] == theirs[at : at + 2] + theirs[at + 4 :]
    assert checksum(ours[at:]) in (0, 0xFFFF)


@given(st.one_of(st.binary(min_size=20, max_size=80), st.binary(min_size=8, max_size=40).map(lambda x: b"E" + x * 3)))
def test_whatever_else_comes_is_left_alone(data: bytes) -> None:
    changed = bytearray(data)
    if not icmp_echo.answer(memoryview(changed)):
        assert changed == data


@pytest.mark.parametrize("changes", [{0: 0x65}, {0: 0x46}, {0: 0x44}, {6: 0x01}, {7: 1}, {9: 6}, {20: 0}, {20: 13}])
def test_what_is_no_ping_is_left_alone(changes: dict[int, int]) -> None:
    data = bytearray(bytes(IP(dst="10.7.0.2") / ICMP()))
    for at, value in changes.items():
        data[at] = value
    before = bytes(data)
    assert not icmp_echo.answer(memoryview(data))
    assert data == before


def test_pings_are_served(pair: Pair) -> None:
    with Threads() as threads:
        threads.start(icmp_echo.serve, pair[1])
        pair[0].send([bytes(IP(src="10.7.0.1", dst="10.7.0.2") / ICMP(seq=number)) for number in range(300)])
        answered: list[int] = []
        while len(answered) < 300:
            with pair[0].receive(timeout=NEVER) as batch:
                answered += [struct.unpack_from("!H", view, 26)[0] for view in batch]
        pair[1].close()
    assert answered == list(range(300))
    assert threads.results == [300]


# ---- count

PROTOCOLS = st.tuples(st.sampled_from([4, 6]), st.integers(0, 255), st.integers(40, 200))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PROTOCOLS, min_size=1, max_size=300))
def test_counts_are_those_of_each_packet(pair: Pair, kinds: list[tuple[int, int, int]]) -> None:
    packets: dict[int, int] = {}
    sizes: dict[int, int] = {}
    sent = []
    for version, protocol, size in kinds:
        data = bytearray(packet(size, version=version))
        data[9 if version == 4 else 6] = protocol
        sent.append(data)
        packets[protocol] = packets.get(protocol, 0) + 1
        sizes[protocol] = sizes.get(protocol, 0) + size
    pair[0].send(sent)
    counter = count.Counter()
    while counter.packets.sum() < len(sent):
        with pair[1].receive(100, timeout=NEVER) as batch:
            counter.add(batch)
    assert {protocol: n for protocol, n in enumerate(counter.packets.tolist()) if n} == packets
    assert {protocol: n for protocol, n in enumerate(counter.bytes.tolist()) if n} == sizes


def test_the_table_has_names_and_the_most_first(pair: Pair) -> None:
    counter = count.Counter()
    for protocol, size in ((17, 40), (6, 1000), (1, 500), (253, 20)):
        data = bytearray(packet(size))
        data[9] = protocol
        pair[0].send([data])
        with pair[1].receive(timeout=NEVER) as batch:
            counter.add(batch)
    rows = [line.split() for line in str(counter).splitlines()]
    assert rows[1:] == [["tcp", "1", "1,000"], ["icmp", "1", "500"], ["udp", "1", "40"], ["253", "1", "20"]]


def test_a_batch_that_is_larger_than_the_room(pair: Pair) -> None:
    counter = count.Counter()
    counter._room = counter._room[:30]
    pair[0].send([packet(100)] * 3)
    with pair[1].receive(timeout=NEVER) as batch:
        counter.add(batch)
    assert (counter.packets.sum(), counter.bytes.sum()) == (3, 300)


# ---- capture


def test_both_directions_are_captured(pair: Pair, tmp_path: Path) -> None:
    path = tmp_path / "pings.pcapng"
    with Threads() as threads, Writer(path) as writer:
        threads.start(capture.capture, pair[1], writer)
        pair[0].send([bytes(IP(src="10.7.0.1", dst="10.7.0.2") / ICMP(seq=number)) for number in range(5)])
        assert eventually(lambda: writer.packets == 10)
        pair[1].close()
        threads.join()
    found = rdpcap(str(path))
    assert sorted((each[ICMP].seq, each[ICMP].type) for each in found) == sorted(
        (number, kind) for number in range(5) for kind in (0, 8)
    )


# ---- tunnel


@pytest.fixture
def sockets() -> Iterator[list[socket.socket]]:
    """Three UDP sockets on loopback addresses."""
    made = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(3)]
    for each in made:
        each.bind(("127.0.0.1", 0))
        each.settimeout(NEVER)
    yield made
    for each in made:
        each.close()


def take(session: tunring.Session, number: int) -> list[bytes]:
    """So many packets."""
    taken: list[bytes] = []
    while len(taken) < number:
        with session.receive(number - len(taken), timeout=NEVER) as batch:
            assert batch, f"only {len(taken)} of {number} packets came"
            taken += batch.tobytes()
    return taken


def test_packets_go_through_the_tunnel_and_back(pair: Pair, other_pair: Pair, sockets: list[socket.socket]) -> None:
    (here, near), (there, far) = pair, other_pair
    caller = tunnel.Tunnel(near, sockets[0], KEY, sockets[1].getsockname())
    called = tunnel.Tunnel(far, sockets[1], KEY)
    with Threads() as threads:
        threads.start(caller.run)
        threads.start(called.run)
        for start in range(0, 200, 8):
            sent = [packet(20 + 7 * number, number=number) for number in range(start, start + 8)]
            here.send(sent)
            assert take(there, 8) == sent
            there.send(sent[::-1])
            assert take(here, 8) == sent[::-1]
        largest = packet(65507 - tunnel.OVERHEAD)
        here.send([largest])
        assert take(there, 1) == [largest]
        near.close()
        far.close()
    assert called.peer == sockets[0].getsockname()
    assert (caller.rejected, called.rejected) == (0, 0)


def test_a_packet_too_large_for_a_datagram_is_lost_and_nothing_else(
    pair: Pair, other_pair: Pair, sockets: list[socket.socket]
) -> None:
    (here, near), (there, far) = pair, other_pair
    with Threads() as threads:
        threads.start(tunnel.Tunnel(near, sockets[0], KEY, sockets[1].getsockname()).run)
        threads.start(tunnel.Tunnel(far, sockets[1], KEY).run)
        here.send([packet(65535), packet(30, number=3)])
        assert take(there, 1) == [packet(30, number=3)]
        near.close()
        far.close()


def test_what_is_not_the_peers_is_rejected(pair: Pair, other_pair: Pair, sockets: list[socket.socket]) -> None:
    (here, near), (there, far) = pair, other_pair
    wire, target = sockets[2], sockets[1].getsockname()
    secret = packet(200, number=0x5EC4E7)
    called = tunnel.Tunnel(far, sockets[1], KEY)
    with Threads() as threads:
        # This one's peer is the test, which sees what goes over the wire.
        threads.start(tunnel.Tunnel(near, sockets[0], KEY, wire.getsockname()).run)
        threads.start(called.run)
        here.send([secret, secret])
        datagram, again = wire.recv(2000), wire.recv(2000)
        assert len(datagram) == len(secret) + tunnel.OVERHEAD
        assert secret[8:40] not in datagram
        assert datagram[tunnel.HEADER :] != again[tunnel.HEADER :], "a nonce was used twice"

        forged = [b"", b"x", datagram[: tunnel.HEADER], datagram[: tunnel.OVERHEAD], datagram[:-1], datagram + b"x"]
        flipped = (0, tunnel.SALT, tunnel.SALT + 7, tunnel.HEADER, len(datagram) - 1)
        forged += [datagram[:at] + bytes([datagram[at] ^ 1]) + datagram[at + 1 :] for at in flipped]
        for number, data in enumerate(forged, 1):
            wire.sendto(data, target)
            assert eventually(lambda number=number: called.rejected == number), data
        assert called.peer is None

        wire.sendto(datagram, target)
        assert take(there, 1) == [secret]
        assert called.peer == wire.getsockname()
        assert called.rejected == len(forged)
        near.close()
        far.close()


def test_another_key_does_not_fit(pair: Pair, other_pair: Pair, sockets: list[socket.socket]) -> None:
    called = tunnel.Tunnel(other_pair[1], sockets[1], KEY[::-1])
    with Threads() as threads:
        threads.start(tunnel.Tunnel(pair[1], sockets[0], KEY, sockets[1].getsockname()).run)
        threads.start(called.run)
        pair[0].send([packet()] * 3)
        assert eventually(lambda: called.rejected == 3)
        pair[1].close()
        other_pair[1].close()
    assert not other_pair[0].receive(timeout=0)


def test_a_key_file_is_made_once_and_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "tunnel.key"
    tunnel.main(["--make-key", str(path)])
    key = path.read_text()
    assert len(bytes.fromhex(key)) == 32
    if sys.platform != "win32":
        assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        tunnel.main(["--make-key", str(path)])
    assert path.read_text() == key


# ---- What is missing, wrong or in the way


@pytest.mark.parametrize(("example", "package"), [("count", "numpy"), ("tunnel", "cryptography")])
def test_without_a_package_the_error_says_what_to_install(example: str, package: str) -> None:
    done = run_script(f"import sys; sys.modules[{package!r}] = None\nimport tunring.examples.{example}")
    assert done.returncode == 1
    reason = f"this example needs {package}: pip install {package}"
    assert done.stderr.splitlines()[-1] == f"ImportError: {reason}"
    # As a program.
    run = f"import runpy; runpy.run_module('tunring.examples.{example}', run_name='__main__')"
    done = run_script(f"import sys; sys.modules[{package!r}] = None\n{run}")
    assert (done.returncode, done.stderr) == (1, f"tunring: {reason}\n")


def program(example: str, *arguments: str) -> tuple[int, str, str]:
    command = [sys.executable, "-W", "error", "-m", f"tunring.examples{example}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


def test_the_programs_are_listed() -> None:
    code, out, err = program("")
    assert (code, err) == (0, "")
    modules = {module.name for module in pkgutil.iter_modules(examples.__path__)}
    programs = {name for name in modules if not name.startswith("_")}
    assert examples.PROGRAMS.keys() == programs
    for name in programs:
        assert re.search(rf"^  python -m tunring\.examples\.{name}  +\w", out, re.MULTILINE)
        assert f"``{name}``" in (examples.__doc__ or "")


def test_mistakes_with_the_key_get_a_sentence(tmp_path: Path) -> None:
    missing, bad, short, key = (tmp_path / name for name in ("missing", "bad", "short", "key"))
    bad.write_text("no key")
    short.write_text("00" * 31)
    key.write_text("00" * 32)
    for file, reason in ((bad, "holds no key"), (short, "holds no key"), (missing, "No such file or directory")):
        code, out, err = program(".tunnel", "--key", str(file))
        assert (code, out) == (1, "")
        assert err.startswith(f"tunring: {file}")
        assert reason in err
        assert len(err.splitlines()) == 1
    code, out, err = program(".tunnel", "--make-key", str(key))
    assert (code, out) == (1, "")
    assert err == f"tunring: {key}: is there already; a key is never overwritten\n"


@pytest.mark.parametrize("address", ["here", "127.0.0.1:port", "no such host.invalid:1"])
def test_a_bad_endpoint_is_wrong_usage(address: str) -> None:
    code, out, err = program(".tunnel", "--key", "key", "--peer", address)
    assert (code, out) == (2, "")
    assert f"argument --peer: must be HOST:PORT, not {address!r}" in err.splitlines()[-1]
