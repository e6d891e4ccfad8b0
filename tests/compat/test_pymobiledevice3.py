"""pymobiledevice3's own tunnel, both ends of it, over the drop-in device: its loops read and write, both ways."""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import TYPE_CHECKING, Any

import pytest
from pymobiledevice3.remote import tunnel_service

from tunring.compat import TunTapDevice

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from netns import Namespace

    Ends = tuple[tunnel_service.RemotePairingTcpTunnel, tunnel_service.RemotePairingTcpTunnel]

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="its ends are in network namespaces"),
    # Of its imports, and of what it leaves to the garbage collector.
    pytest.mark.filterwarnings("default"),
]

ADDRESSES = "fd00::1", "fd00::2"
MTU = 1400


async def start(namespace: Namespace, link: socket.socket, address: str) -> tunnel_service.RemotePairingTcpTunnel:
    reader, writer = await asyncio.open_connection(sock=link)
    tunnel = tunnel_service.RemotePairingTcpTunnel(reader, writer)
    with namespace.entered():
        await tunnel.start_tunnel(address, MTU)
    namespace.settle(f"{address}/64")
    return tunnel


@pytest.fixture
def run(
    namespaces: tuple[Namespace, Namespace], monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[Ends], Coroutine[Any, Any, Any]]], Any]:
    """Runs an async function between start and stop of a tunnel whose ends are the namespaces."""
    monkeypatch.setattr(tunnel_service, "TunTapDevice", TunTapDevice)

    async def main(function: Callable[[Ends], Coroutine[Any, Any, Any]]) -> Any:
        links = socket.socketpair()
        ends: Ends = tuple([await start(*end) for end in zip(namespaces, links, ADDRESSES, strict=True)])
        try:
            return await function(ends)
        finally:
            for end in ends:
                await end.stop_tunnel()

    return lambda function: asyncio.run(asyncio.wait_for(main(function), 60))


def test_datagrams_go_both_ways(namespaces: tuple[Namespace, Namespace], run: Any) -> None:
    sockets = [namespace.socket(socket.AF_INET6, socket.SOCK_DGRAM) for namespace in namespaces]

    def exchange() -> None:
        for sock, address in zip(sockets, ADDRESSES, strict=True):
            sock.bind((address, 5000))
        for number in range(200):
            for here, there in ((0, 1), (1, 0)):
                sockets[here].sendto(number.to_bytes(2, "big") * 300, (ADDRESSES[there], 5000))
                assert sockets[there].recvfrom(2000)[0] == number.to_bytes(2, "big") * 300

    async def main(ends: Ends) -> None:
        assert all(isinstance(end.tun, TunTapDevice) for end in ends)
        await asyncio.to_thread(exchange)

    run(main)
    for sock in sockets:
        sock.close()


@pytest.mark.parametrize("sender", [0, 1])
def test_a_stream_arrives_whole(namespaces: tuple[Namespace, Namespace], run: Any, sender: int) -> None:
    receiver = 1 - sender
    data = bytes(range(256)) * 8192  # 2 MiB

    def transfer() -> bytes:
        listening = namespaces[receiver].socket(socket.AF_INET6, socket.SOCK_STREAM)
        listening.bind((ADDRESSES[receiver], 5001))
        listening.listen()
        sending = namespaces[sender].socket(socket.AF_INET6, socket.SOCK_STREAM)
        sending.connect((ADDRESSES[receiver], 5001))
        accepted, _ = listening.accept()
        accepted.settimeout(20)
        found = bytearray()
        # In turns: neither side's buffer holds it all.
        for first in range(0, len(data), 16384):
            sending.sendall(data[first : first + 16384])
            while len(found) < first + 16384 - 65536:
                found += accepted.recv(65536)
        sending.shutdown(socket.SHUT_WR)
        while more := accepted.recv(65536):
            found += more
        for sock in (listening, sending, accepted):
            sock.close()
        return bytes(found)

    async def main(ends: Ends) -> bytes:
        return await asyncio.to_thread(transfer)

    assert run(main) == data


def test_nothing_is_left_after_a_stop(namespaces: tuple[Namespace, Namespace], run: Any) -> None:
    async def main(ends: Ends) -> None:
        assert [end.tun.name for end in ends] == ["tun0", "tun0"]
        assert [(end.tun.addr, end.tun.mtu) for end in ends] == [(address, MTU) for address in ADDRESSES]
        await asyncio.sleep(0.05)

    run(main)
    assert [namespace.interfaces() for namespace in namespaces] == [{"lo"}] * 2
