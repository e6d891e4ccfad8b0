"""A device on a real interface and on real networks: its MTU, its mark, and a system without IPv6."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from wireguard_hosts import join

from running import eventually
from tunring.wireguard import Device, Key, _handshake
from wireguard_ends import End, ipv4

if TYPE_CHECKING:
    from collections.abc import Iterator

    from netns import Namespace

    import tunring

pytestmark = pytest.mark.root

V4 = ("10.0.0.1", "10.0.0.2")

#: Bytes of a data message beyond the padded packet.
DATA = 32


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


class Responder:
    """A far end that completes one handshake, and then looks at the size of what comes."""

    def __init__(self, stack: ExitStack, namespace: Namespace, key: Key, initiator: Key) -> None:
        self._identity = _handshake.Identity(key)
        self._remote = _handshake.Remote(self._identity, initiator.public.raw)
        self._socket = stack.enter_context(namespace.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._socket.bind(("127.0.0.1", 0))
        self.address = self._socket.getsockname()

    def respond(self) -> None:
        message, source = self._socket.recvfrom(2048)
        opened = _handshake.open_initiation(self._identity, message)
        opened.verify(self._remote)
        response, _ = opened.respond(7)
        self._socket.sendto(_handshake.add_macs(response, self._remote.mac1_key, None), source)

    def size(self) -> int:
        """Bytes of the next data message that has a packet in it."""
        while True:
            message = self._socket.recv(2048)
            if message[0] == 4 and len(message) > DATA:
                return len(message)


def test_padding_follows_the_mtu(stack: ExitStack, namespace: Namespace, adapter: tunring.Adapter) -> None:
    """Another program changes it while the tunnel runs."""
    ours, theirs = Key.generate(), Key.generate()
    far = Responder(stack, namespace, theirs, ours)
    namespace.set_up("tun0", "10.9.0.1/24", mtu=1420)
    with namespace.entered():
        device = stack.enter_context(Device(adapter, private_key=ours))
    device.add_peer(theirs.public, allowed_ips=["10.9.0.2"], endpoint=far.address)
    sender = stack.enter_context(namespace.socket(socket.AF_INET, socket.SOCK_DGRAM))

    def padded() -> int:
        """A packet of 1300 bytes, which no multiple of 16 is."""
        sender.sendto(bytes(1300 - 28), ("10.9.0.2", 9))
        return far.size()

    sender.sendto(b"", ("10.9.0.2", 9))
    far.respond()
    assert far.size() == 32 + DATA
    assert padded() == 1312 + DATA
    namespace.ip("link set tun0 mtu 1300")
    assert eventually(lambda: padded() == 1300 + DATA, 5)
    namespace.ip("link set tun0 mtu 1305")
    assert eventually(lambda: padded() == 1305 + DATA, 5)
    namespace.ip("link set tun0 mtu 1420")
    assert eventually(lambda: padded() == 1312 + DATA, 5)


def make_ends(stack: ExitStack, namespaces: tuple[Namespace, Namespace]) -> tuple[End, End]:
    """An end in each namespace; they are joined by a cable, and know each other."""
    join(*namespaces)
    ends = []
    for namespace in namespaces:
        with namespace.entered():
            ends.append(End(stack))
    a, b = ends
    a.device.add_peer(b.key.public, allowed_ips=[V4[1]], endpoint=("192.0.2.2", b.device.listen_port))
    b.device.add_peer(a.key.public, allowed_ips=[V4[0]])
    return a, b


def test_the_mark_changes_while_data_flows(stack: ExitStack, namespaces: tuple[Namespace, Namespace]) -> None:
    """The system sends nothing that has mark 7."""
    a, b = make_ends(stack, namespaces)
    namespaces[0].ip("rule add pref 100 fwmark 7 blackhole")
    stop = threading.Event()

    def flow() -> None:
        while not stop.wait(0.005):
            a.host.send([ipv4(*V4)] * 8)

    def comes(seconds: float) -> bool:
        """Return whether anything comes, after what is on its way."""
        time.sleep(0.1)
        while b.received(0):
            pass
        return bool(b.received(seconds))

    thread = threading.Thread(target=flow)
    thread.start()
    try:
        assert b.received()
        for _ in range(3):
            a.device.mark = 7
            assert not comes(0.3)
            a.device.mark = 8
            assert comes(5)
            a.device.mark = 7
            assert not comes(0.3)
            a.device.mark = None
            assert comes(5)
    finally:
        stop.set()
        thread.join()


@pytest.fixture(params=["refused", "disabled"])
def without_ipv6(
    request: pytest.FixtureRequest, namespaces: tuple[Namespace, Namespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Turn IPv6 off: as by the kernel's parameter ipv6.disable, or on each interface."""
    if request.param == "disabled":
        for namespace in namespaces:
            for scope in ("all", "default"):
                namespace.write_sysctl(f"net/ipv6/conf/{scope}/disable_ipv6", "1")
        return

    class OnlyIPv4(socket.socket):
        def __init__(self, family: int = -1, *arguments: int, **options: int) -> None:
            if family == socket.AF_INET6:
                raise OSError(97, "Address family not supported by protocol")
            super().__init__(family, *arguments, **options)

    monkeypatch.setattr(socket, "socket", OnlyIPv4)


@pytest.mark.usefixtures("without_ipv6")
def test_ipv4_alone_where_ipv6_is_off(stack: ExitStack, namespace: Namespace) -> None:
    with namespace.entered():
        a, b = End(stack), End(stack)
    a.add(b, V4[1])
    b.add(a, V4[0], with_endpoint=False)
    there, back = ipv4(*V4), ipv4(*V4[::-1])
    a.host.send([there])
    assert b.received() == [there]
    b.host.send([back])
    assert a.received() == [back]
    # The port can be changed, too.
    a.device.listen_port = 0
    b.device.listen_port = 0
