"""The cookbook's programs, each started as its docstring shows, on real interfaces."""

from __future__ import annotations

import hashlib
import re
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest
from tshark import fields

from running import Threads

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from netns import Namespace

pytestmark = pytest.mark.root


@contextmanager
def program(
    namespace: Namespace, example: str, *arguments: str, number: signal.Signals = signal.SIGINT
) -> Iterator[list[str]]:
    """An example that runs in a namespace, and ends by Ctrl-C or another signal. The list has its output then."""
    command = [sys.executable, "-W", "error", "-m", f"tunring.examples.{example}", *arguments]
    with namespace.entered():
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    output: list[str] = []
    with process:
        try:
            assert process.stdout
            first = process.stdout.readline()
            assert first.startswith("ready"), process.communicate(timeout=20)
            yield output
            process.send_signal(number)
            rest, errors = process.communicate(timeout=20)
            assert (process.returncode, errors) == (0, "")
            output += rest.splitlines()
        finally:
            process.kill()
    assert "tun0" not in namespace.interfaces()


both_ends = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


@both_ends
def test_icmp_echo(namespace: Namespace, number: signal.Signals) -> None:
    with program(namespace, "icmp_echo", "tun0", "--address", "10.9.0.1/24", number=number) as output:
        namespace.ping("10.9.0.2")
    assert not namespace.damage()
    assert re.fullmatch(r"3 pings answered; \d+ packets received", output[-1])


def test_icmp_echo_has_an_address_to_ping(namespace: Namespace) -> None:
    with program(namespace, "icmp_echo") as output:
        namespace.ping("10.7.0.2")
    assert output[-1].startswith("3 pings answered; ")


@both_ends
def test_count(namespace: Namespace, number: signal.Signals) -> None:
    with program(namespace, "count", "tun0", "--address", "10.7.0.1/24", number=number) as output:
        with namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            for _ in range(100):
                udp.sendto(bytes(472), ("10.7.0.2", 9))
        with pytest.raises(AssertionError, match=r"\b0 received"):
            namespace.run("env", "-u", "LD_PRELOAD", "ping", "-c", "2", "-i", "0.2", "-W", "0.3", "10.7.0.2")
    rows = {row[0]: row[1:] for row in map(str.split, output)}
    assert rows["udp"] == ["100", "50,000"]
    assert rows["icmp"] == ["2", "168"]


@both_ends
def test_capture(namespace: Namespace, tmp_path: Path, number: signal.Signals) -> None:
    path = tmp_path / "pings.pcapng"
    arguments = ("tun0", str(path), "--address", "10.7.0.1/24")
    with program(namespace, "capture", *arguments, number=number) as output:
        namespace.ping("10.7.0.2")
    assert f"in {path}" in output[-1]
    assert [kind for (kind,) in fields(path, "icmp.type") if kind] == ["8", "0"] * 3
    # An existing file is not replaced.
    assert fails(namespace, "capture", *arguments) == f"tunring: {path}: File exists\n"


def fails(namespace: Namespace, example: str, *arguments: str, code: int = 1) -> str:
    """Return the one sentence that an example prints when it can't begin."""
    command = [sys.executable, "-W", "error", "-m", f"tunring.examples.{example}", *arguments]
    with namespace.entered():
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (code, "")
    assert len(done.stderr.splitlines()) == 1
    assert "tun0" not in namespace.interfaces()
    return done.stderr


def test_what_cannot_begin_says_so_in_a_sentence(namespace: Namespace) -> None:
    for example in ("icmp_echo", "count"):
        assert "10.0.0.1/33" in fails(namespace, example, "tun0", "--address", "10.0.0.1/33")
        assert "is taken" in fails(namespace, example, "lo")


def test_filter(namespaces: tuple[Namespace, Namespace]) -> None:
    here, there = namespaces
    with ExitStack() as stack:
        output = stack.enter_context(program(here, "filter", "tun0", "tun1", "--drop", "udp:53"))
        descriptor = there.fileno()
        with here.entered():
            command = ["env", "-u", "LD_PRELOAD", "ip", "link", "set", "tun1", "netns", f"/proc/self/fd/{descriptor}"]
            subprocess.run(command, check=True, pass_fds=[descriptor])
        here.set_up("tun0", "10.9.0.1/24")
        there.set_up("tun1", "10.9.0.2/24")
        here.ping("10.9.0.2")
        with here.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender, ExitStack() as sockets:
            receivers = {}
            for port in (53, 54):
                receivers[port] = sockets.enter_context(there.socket(socket.AF_INET, socket.SOCK_DGRAM))
                receivers[port].bind(("10.9.0.2", port))
                for number in range(50):
                    sender.sendto(bytes([number]), ("10.9.0.2", port))
            assert [receivers[54].recv(10) for _ in range(50)] == [bytes([number]) for number in range(50)]
            receivers[53].setblocking(False)
            with pytest.raises(BlockingIOError):
                receivers[53].recv(10)
    # Pings of both ways, and datagrams.
    assert output[-1] == "56 packets passed, 50 dropped"


@pytest.fixture(params=["tunnel", "tunnel_asyncio"])
def hosts(
    cable: tuple[Namespace, Namespace], tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[tuple[Namespace, Namespace]]:
    """Two namespaces with a cable between them, 192.0.2.1 and .2, and a tunnel over it, 10.8.0.1 and .2."""
    here, there = cable
    with ExitStack() as stack:
        key = make_key(tmp_path / "tunnel.key")
        common = (request.param, "tun0", "--key", key, "--address")
        called = program(here, *common, "10.8.0.1/24", "--listen", "0.0.0.0:5555", number=signal.SIGTERM)
        caller = program(there, *common, "10.8.0.2/24", "--peer", "192.0.2.1:5555")
        outputs = [stack.enter_context(host) for host in (called, caller)]
        yield here, there
    for output in outputs:
        assert re.fullmatch(r"[\d,]+ packets sent, [\d,]+ received, 0 datagrams rejected", output[-1])


@pytest.fixture
def cable(namespaces: tuple[Namespace, Namespace]) -> tuple[Namespace, Namespace]:
    """Two namespaces with a cable between them, 192.0.2.1 and .2."""
    here, there = namespaces
    descriptor = there.fileno()
    peer = ["peer", "name", "veth0", "netns", f"/proc/self/fd/{descriptor}"]
    with here.entered():
        command = ["env", "-u", "LD_PRELOAD", "ip", "link", "add", "veth0", "type", "veth", *peer]
        subprocess.run(command, check=True, pass_fds=[descriptor])
    for number, host in enumerate(namespaces, 1):
        host.set_up("veth0", f"192.0.2.{number}/24")
    return namespaces


def make_key(file: Path) -> str:
    subprocess.run([sys.executable, "-m", "tunring.examples.tunnel", "--make-key", file], check=True)
    return str(file)


def test_tunnel_server(cable: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    here, there = cable
    keys = [make_key(tmp_path / name) for name in ("alice.key", "bob.key")]
    clients = [f"{keys[0]}=10.8.0.2,fd00::2", f"{keys[1]}=10.8.0.3"]
    arguments = ("tunnel_server", "tun0", "--listen", "192.0.2.1:5555", "--address", "10.8.0.1/24")
    listed = [word for client in clients for word in ("--client", client)]
    with program(here, *arguments, *listed) as output:
        for key, address in zip(keys, ("10.8.0.2", "10.8.0.3"), strict=True):
            called = ("tunnel", "tun0", "--key", key, "--peer", "192.0.2.1:5555", "--address", f"{address}/24")
            with program(there, *called):
                there.ping("10.8.0.1")
                here.ping(address)
    assert output[-1].startswith("12 packets sent, 12 received, ")


def test_tunnel_between_two_hosts(hosts: tuple[Namespace, Namespace]) -> None:
    here, there = hosts
    # The called host learns from the first datagram where the other one is.
    there.ping("10.8.0.1")
    here.ping("10.8.0.2", "-s", "1352")

    data = bytes(range(256)) * 16384  # 4 MiB
    received = hashlib.sha256()

    def serve(listener: socket.socket) -> int:
        connection, _ = listener.accept()
        size = 0
        with connection:
            connection.settimeout(20)
            while part := connection.recv(1 << 16):
                received.update(part)
                size += len(part)
        return size

    with here.socket(socket.AF_INET, socket.SOCK_STREAM) as listener, Threads() as threads:
        listener.bind(("10.8.0.1", 7777))
        listener.listen()
        threads.start(serve, listener)
        with there.socket(socket.AF_INET, socket.SOCK_STREAM) as connection:
            connection.settimeout(20)
            connection.connect(("10.8.0.1", 7777))
            connection.sendall(data)
    assert threads.results == [len(data)]
    assert received.digest() == hashlib.sha256(data).digest()
    # It went over the wire as datagrams, larger than what they carry.
    statistics = there.ip("-s link show dev veth0")
    sent = [int(number) for number in re.findall(r"^\s+(\d+)\s+\d+\s+", statistics, re.MULTILINE)]
    assert max(sent) > len(data)
    for host in hosts:
        counters = host.counters()
        damage = host.damage()
        # Bursts that found no room, as with every program over UDP: TCP has sent them again.
        assert damage.pop("UdpInErrors", 0) == counters["UdpRcvbufErrors"]
        assert not damage
