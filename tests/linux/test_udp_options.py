"""Options whose effect needs privileges to see: marks, by rules of policy routing, and sockets of one interface."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

import tunring
from kernel_sockets import made_socket

if TYPE_CHECKING:
    from netns import Namespace

pytestmark = pytest.mark.root

SO_BINDTODEVICE = 25


@pytest.mark.parametrize("mark", [None, 0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_mark_is_set(mark: int | None, host: str) -> None:
    with tunring.UdpSocket.bind((host, 0), mark=mark) as udp, made_socket(udp) as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) & 0xFFFFFFFF == (mark or 0)


@pytest.mark.parametrize("mark", [77, 0xFFFFFFFF])
def test_rules_see_the_mark(namespace: Namespace, mark: int) -> None:
    """What bears it is refused by a rule, and nothing else is."""
    namespace.ip(f"rule add preference 100 fwmark {mark:#x} prohibit")
    namespace.ip("rule add preference 32000 lookup local")
    namespace.ip("rule del preference 0")  # it would be asked first
    with namespace.entered():
        marked, plain = tunring.UdpSocket.bind(("0.0.0.0", 0), mark=mark), tunring.UdpSocket.bind(("0.0.0.0", 0))
    with marked, plain:
        to = ("127.0.0.1", plain.address[1])
        for udp, refused in ((marked, 3), (plain, 0)):
            assert udp.send([b"x"] * 3, to) == 3
            assert (udp.stats().refused_unreachable, udp.stats().sent_packets) == (refused, 3 - refused)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_one_interface_serves_a_socket(namespace: Namespace, host: str) -> None:
    namespace.ip("link add two type veth peer name far-two")
    namespace.ip("link set two up")
    with namespace.entered():
        served = tunring.UdpSocket.bind((host, 0), interface="lo")
        other = tunring.UdpSocket.bind((host, 0), interface="two")
        plain = tunring.UdpSocket.bind((host, 0))
        with pytest.raises(OSError, match="No such device"):
            tunring.UdpSocket.bind((host, 0), interface="three")
    with served, other, plain:
        for udp, name in ((served, b"lo"), (other, b"two"), (plain, b"")):
            with made_socket(udp) as sock:
                assert sock.getsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, 16).rstrip(b"\0") == name
        here = "::1" if ":" in host else "127.0.0.1"
        assert plain.send([b"to lo"], (here, served.address[1])) == 1
        assert plain.send([b"to two"], (here, other.address[1])) == 1
        with served.receive(timeout=10) as batch:
            assert batch.tobytes() == [b"to lo"]
        assert not other.receive(timeout=0.05)
