"""Options of sockets on Linux: what is set on them, read back from the kernel, and put back at the end."""

from __future__ import annotations

import fcntl
import gc
import os
import select
import socket
from typing import TYPE_CHECKING

import pytest

import tunring
from kernel_sockets import made_socket
from tunring import _udp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

UDP_GRO = 104
#: All that a socket which takes another over sets, for IPv4 and for IPv6.
SET = {
    socket.AF_INET: [(socket.IPPROTO_UDP, UDP_GRO), (socket.IPPROTO_IP, 8), (socket.IPPROTO_IP, 13)],
    socket.AF_INET6: [
        *((socket.IPPROTO_UDP, UDP_GRO), (socket.IPPROTO_IP, 8), (socket.IPPROTO_IP, 13)),
        *((socket.IPPROTO_IPV6, 49), (socket.IPPROTO_IPV6, 66)),
    ],
}


@pytest.fixture(params=["127.0.0.1", "::1"])
def sock(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET6 if ":" in request.param else socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.bind((request.param, 0))
        yield made


def read_options(sock: socket.socket) -> list[int]:
    return [sock.getsockopt(*option) for option in SET[sock.family]]


def blocks(sock: socket.socket) -> bool:
    """True if the kernel has the descriptor block, whatever Python thinks of it."""
    return not fcntl.fcntl(sock, fcntl.F_GETFL) & os.O_NONBLOCK


@pytest.mark.parametrize("blocking", [True, False])
def test_a_takeover_leaves_blocking_alone(sock: socket.socket, blocking: bool) -> None:
    sock.setblocking(blocking)
    assert blocks(sock) is blocking
    with tunring.UdpSocket.from_socket(sock) as udp:
        assert blocks(sock) is blocking
        assert not udp.receive(timeout=0)  # it doesn't wait in the kernel, either
        udp.send([b"x"] * 3, udp.address)
        with udp.receive(timeout=10, min_packets=3, linger=10) as batch:
            assert batch.tobytes() == [b"x"] * 3
        assert blocks(sock) is blocking
    assert blocks(sock) is blocking


def kept(sock: socket.socket) -> socket.socket:
    return sock.dup()


def detached(sock: socket.socket) -> socket.socket:
    return socket.socket(fileno=sock.detach())


def closed(sock: socket.socket) -> socket.socket:
    heir = sock.dup()
    sock.close()
    return heir


@pytest.mark.parametrize("bequeath", [kept, detached, closed])
@pytest.mark.parametrize("value", [0, 1])
def test_options_are_put_back_whatever_the_owner_did(
    sock: socket.socket, bequeath: Callable[[socket.socket], socket.socket], value: int
) -> None:
    for option in SET[sock.family]:
        sock.setsockopt(*option, value)
    before = read_options(sock)
    udp = tunring.UdpSocket.from_socket(sock)
    with bequeath(sock) as heir:
        assert read_options(heir) == [1] * len(before)
        udp.close()
        assert read_options(heir) == before == [value] * len(before)
        udp.close()


def test_options_are_put_back_although_the_object_goes(sock: socket.socket) -> None:
    before = read_options(sock)
    with pytest.warns(ResourceWarning, match="unclosed"):
        tunring.UdpSocket.from_socket(sock)
        gc.collect()
    assert read_options(sock) == before


def test_a_number_that_another_socket_has_by_then_is_left_alone(sock: socket.socket) -> None:
    udp = tunring.UdpSocket.from_socket(sock)
    number = sock.fileno()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        sock.close()
        os.dup2(other.fileno(), number)
        try:
            other.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
            udp.close()
            assert other.getsockopt(socket.IPPROTO_UDP, UDP_GRO) == 1
        finally:
            os.close(number)


def test_a_child_that_closes_it_leaves_the_options_to_its_parent(sock: socket.socket) -> None:
    with tunring.UdpSocket.from_socket(sock) as udp:
        during = read_options(sock)
        child = os.fork()
        if child == 0:
            udp.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert read_options(sock) == during


def test_options_are_put_back_if_a_takeover_fails(sock: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read_options(sock)
    monkeypatch.setattr(_udp, "_own_address", lambda sock: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tunring.UdpSocket.from_socket(sock)
    assert read_options(sock) == before


def test_a_queue_of_errors_is_not_used(sock: socket.socket) -> None:
    """Nobody would read it, and it would keep the socket ready."""
    queues = _udp._ERROR_QUEUES[: 2 if sock.family == socket.AF_INET6 else 1]
    for queue in queues:
        sock.setsockopt(*queue, 1)
    with socket.socket(sock.family, socket.SOCK_DGRAM) as gone:
        gone.bind((sock.getsockname()[0], 0))
        sock.connect(gone.getsockname())
    sock.send(b"nobody listens there any more")
    with tunring.UdpSocket.from_socket(sock) as udp:
        udp.send([b"nor now"], sock.getpeername())
        assert not udp.receive(timeout=0.2)
        assert select.select([udp.fileno()], [], [], 0)[0] == []
        assert udp.stats().icmp_errors > 0
    assert [sock.getsockopt(*queue) for queue in queues] == [1] * len(queues)


def test_a_takeover_leaves_the_buffers_to_the_owner(sock: socket.socket) -> None:
    sizes = (socket.SO_RCVBUF, 40000), (socket.SO_SNDBUF, 50000)
    for option, size in sizes:
        sock.setsockopt(socket.SOL_SOCKET, option, size)
    before = [sock.getsockopt(socket.SOL_SOCKET, option) for option, _ in sizes]
    with tunring.UdpSocket.from_socket(sock) as udp:
        assert (udp.stats().receive_buffer, udp.stats().send_buffer) == (40000, 50000)
        assert [sock.getsockopt(socket.SOL_SOCKET, option) for option, _ in sizes] == before
    assert [sock.getsockopt(socket.SOL_SOCKET, option) for option, _ in sizes] == before


def test_sockets_share_a_port() -> None:
    with tunring.UdpSocket.bind(("127.0.0.1", 0), reuse_port=True) as first:
        with tunring.UdpSocket.bind(first.address, reuse_port=True) as second:
            assert second.address == first.address
        with made_socket(first) as sock:
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) == 1
        with pytest.raises(OSError, match="in use"):
            tunring.UdpSocket.bind(first.address)
    with tunring.UdpSocket.bind(("127.0.0.1", 0)) as udp, made_socket(udp) as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) == 0


@pytest.mark.parametrize("ipv6_only", [True, False])
def test_whether_a_socket_is_of_ipv6_only(ipv6_only: bool) -> None:
    with tunring.UdpSocket.bind(("::", 0), ipv6_only=ipv6_only) as udp, made_socket(udp) as sock:
        assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == ipv6_only


@pytest.mark.parametrize(
    ("release", "mangles"),
    [
        *(
            (release, True)
            for release in ("7.0", "7.0.0", "7.0-rc1", "7.0.5-200.fc44.x86_64", "7.1.4", "7.1.4-arch1-1")
        ),
        *((release, True) for release in ("7.0.5+deb14-amd64", "7.1.2+deb13-cloud-amd64", "7.1.0+", "7.1.4_1", "7.1+")),
        *((release, False) for release in ("6.1.0-49-amd64", "6.19.14+deb14-amd64", "6.99", "7.1.5", "7.1.10+", "7.2")),
        *((release, False) for release in ("7.1.40_1", "7.10.1", "8.0.0", "70.1", "17.0.1", "", "unknown", "7")),
    ],
)
def test_kernels_that_mangle_runs_get_none(monkeypatch: pytest.MonkeyPatch, release: str, mangles: bool) -> None:
    monkeypatch.setattr(_udp.platform, "release", lambda: release)
    monkeypatch.setattr(_udp, "_supports", lambda sock, option: True)
    monkeypatch.delenv("TUNRING_UDP_OFFLOADS", raising=False)
    with tunring.UdpSocket.bind(("127.0.0.1", 0)) as udp:
        assert udp.stats().segment is not mangles
    with tunring.UdpSocket.bind(("127.0.0.1", 0), segment=True) as udp:
        assert udp.stats().segment  # whoever asks gets them
