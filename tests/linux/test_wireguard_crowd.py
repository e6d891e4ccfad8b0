"""A hundred peers: a hub of tunring's among processes of wireguard-go, and one of wireguard-go's among devices."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from needed_programs import need_programs
from wireguard_hosts import PORT, SOCKETS, Host, join, listens, tunring_command, wireguard_go_in

from running import eventually
from tunring.wireguard import Key
from wireguard_ends import End, ipv4

if TYPE_CHECKING:
    from netns import Namespace

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

PEERS = 100

#: From there on, the ports of those that have one for each: below those that the kernel chooses from, of which each
#: process of wireguard-go has one until it is told its own.
FIRST_PORT = 20000


@pytest.fixture(scope="session")
def wireguard_go(tmp_path_factory: pytest.TempPathFactory) -> str:
    need_programs("wg")
    return wireguard_go_in(tmp_path_factory.mktemp("go"))


def address(number: int) -> str:
    return f"10.7.0.{number + 1}"


class Crowd:
    """Processes of wireguard-go in one namespace, each with an interface whose answers leave by it."""

    def __init__(self, stack: ExitStack, namespace: Namespace, program: str) -> None:
        self.namespace = namespace
        self.keys = [Key.generate() for _ in range(PEERS)]
        self.names = [f"gc{os.getpid() % 100000}x{number}" for number in range(PEERS)]
        # One after the other: each process hears of all interfaces, and wireguard-go ends when it can't keep up.
        for number, name in enumerate(self.names):
            with namespace.entered():
                process = subprocess.Popen([program, "-f", name], stderr=subprocess.DEVNULL)
            stack.callback(_end, process, name)
            assert eventually(lambda name=name: name in namespace.interfaces() and listens(name))
            commands = [
                f"link set {name} mtu 1420 up",
                f"address add {address(number)}/32 dev {name}",
                f"route add default dev {name} table {1000 + number}",
                f"rule add from {address(number)} table {1000 + number}",
            ]
            with namespace.entered():
                subprocess.run(["ip", "-batch", "-"], input="\n".join(commands), text=True, check=True)

    def set_up(self, number: int, hub: Host, *, endpoint: bool) -> None:
        """Tell one who the hub is, and perhaps where."""
        arguments = ["set", self.names[number], "private-key", "/dev/stdin", "listen-port", str(FIRST_PORT + number)]
        arguments += ["peer", hub.key.public.base64, "allowed-ips", "10.8.0.1/32"]
        arguments += ["endpoint", f"192.0.2.1:{PORT}"] if endpoint else []
        with self.namespace.entered():
            subprocess.run(["wg", *arguments], input=self.keys[number].base64, text=True, check=True)


def _end(process: subprocess.Popen[bytes], name: str) -> None:
    process.send_signal(signal.SIGTERM)
    process.wait(20)
    (SOCKETS / f"{name}.sock").unlink(missing_ok=True)


def test_a_hub_among_processes_of_wireguard_go(namespaces: tuple[Namespace, Namespace], wireguard_go: str) -> None:
    """The hub begins with the even ones, the odd ones begin with it."""
    here, there = namespaces
    join(here, there)
    with ExitStack() as stack:
        hub = Host(here, 1, "tunring", tunring_command())
        stack.callback(hub.stop)
        hub.start()
        crowd = Crowd(stack, there, wireguard_go)
        arguments = ["set", hub.name]
        for number, key in enumerate(crowd.keys):
            crowd.set_up(number, hub, endpoint=number % 2 == 1)
            arguments += ["peer", key.public.base64, "allowed-ips", f"{address(number)}/32"]
            arguments += [] if number % 2 else ["endpoint", f"192.0.2.2:{FIRST_PORT + number}"]
        hub.wg(*arguments)
        here.ip(f"route add 10.7.0.0/16 dev {hub.name}")
        for number in range(PEERS):
            if number % 2:
                there.run("ping", "-c", "1", "-W", "10", "-I", address(number), "10.8.0.1")
            else:
                here.run("ping", "-c", "1", "-W", "10", address(number))
        # And each the other way round, by the keys that are there.
        before = hub.wg("show", hub.name, "latest-handshakes")
        assert "\t0\n" not in before + "\n"
        for number in range(PEERS):
            if number % 2:
                here.run("ping", "-c", "1", "-W", "10", address(number))
            else:
                there.run("ping", "-c", "1", "-W", "10", "-I", address(number), "10.8.0.1")
        assert len(hub.wg("show", hub.name, "peers").split()) == PEERS


@pytest.mark.parametrize("hub_begins", [False, True], ids=["they begin", "the hub begins"])
def test_a_hub_of_wireguard_go_among_devices(
    namespaces: tuple[Namespace, Namespace], wireguard_go: str, hub_begins: bool
) -> None:
    here, there = namespaces
    join(here, there)
    with ExitStack() as stack:
        hub = Host(there, 2, "go", [wireguard_go, "-f"])
        stack.callback(hub.stop)
        hub.start()
        there.ip(f"route add 10.7.0.0/16 dev {hub.name}")
        arguments = ["set", hub.name]
        ends = []
        with here.entered():
            for number in range(PEERS):
                end = End(stack)
                where = None if hub_begins else ("192.0.2.2", PORT)
                end.device.add_peer(hub.key.public, allowed_ips=["10.8.0.2"], endpoint=where)
                arguments += ["peer", end.key.public.base64, "allowed-ips", f"{address(number)}/32"]
                arguments += ["endpoint", f"192.0.2.1:{end.device.listen_port}"] if hub_begins else []
                ends.append(end)
        hub.wg(*arguments)
        if not hub_begins:
            for number, end in enumerate(ends):
                end.host.send([ipv4(address(number), "10.8.0.2")])
            assert eventually(lambda: "\t0\n" not in hub.wg("show", hub.name, "latest-handshakes"), 60)
        with there.socket(2, 2) as sender:
            for number in range(PEERS):
                sender.sendto(b"to number %d" % number, (address(number), 9))
        for number, end in enumerate(ends):
            # The kernel's refusals of what was sent are among them.
            found: list[bytes] = []
            wanted = b"to number %d" % number
            assert eventually(
                lambda end=end, found=found, wanted=wanted: (
                    found.extend(end.received(1)) or any(packet.endswith(wanted) for packet in found)
                ),
                60,
            ), number
        assert "\t0\n" not in hub.wg("show", hub.name, "latest-handshakes")
