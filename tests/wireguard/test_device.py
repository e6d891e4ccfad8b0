"""Two devices, each between a cable in memory and a UDP socket on this machine."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

import tunring
from running import eventually
from tunring.errors import SessionClosed
from tunring.wireguard import Device, Key, Peer, PublicKey
from tunring.wireguard._engine import Engine
from tunring.wireguard._socket import TunnelSocket
from tunring.wireguard._timers import SECOND, Limits
from tunring.wireguard.device import _open_devices
from wireguard_ends import End, ipv4

if TYPE_CHECKING:
    from tunring.wireguard._peer_state import PeerState

if sys.platform == "linux":
    from tunring._system import namespace_linux

V4 = ("10.0.0.1", "10.0.0.2")


@pytest.fixture
def ends(stack: ExitStack) -> tuple[End, End]:
    return End(stack), End(stack)


def join(a: End, b: End, **options: Any) -> tuple[Peer, Peer]:
    return a.add(b, V4[1], **options), b.add(a, V4[0], with_endpoint=False, **options)


@pytest.mark.parametrize("preshared", [None, Key.generate()])
def test_packets_pass_both_ways(ends: tuple[End, End], preshared: Key | None) -> None:
    a, b = ends
    at_a, at_b = join(a, b, preshared_key=preshared)
    there, back = ipv4(*V4), ipv4(*V4[::-1], 1400)
    assert (at_a.latest_handshake, at_b.endpoint) == (None, None)
    a.host.send([there])
    assert b.received() == [there]
    b.host.send([back])
    assert a.received() == [back]
    assert eventually(lambda: at_a.latest_handshake and at_b.latest_handshake)
    for peer in (at_a, at_b):
        assert time.time() - 20 < (peer.latest_handshake or 0) <= time.time()
        assert peer.sent_bytes > 0
        assert peer.received_bytes > 0
    assert at_b.endpoint == tunring.Endpoint("127.0.0.1", a.device.listen_port)


def test_the_handshake_thread_sleeps_while_data_flows(ends: tuple[End, End], monkeypatch: pytest.MonkeyPatch) -> None:
    """A conversation begins two timers at each turn, but the thread looks only when one may be due."""
    a, b = ends
    at_a, at_b = join(a, b)

    def talk(times: int) -> None:
        for _ in range(times):
            a.host.send([ipv4(*V4)])
            b.received()
            b.host.send([ipv4(*V4[::-1])])
            a.received()

    talk(1)
    assert eventually(lambda: at_a.latest_handshake and at_b.latest_handshake)
    talk(5)
    looks: list[PeerState] = []
    look = Engine._look
    monkeypatch.setattr(Engine, "_look", lambda engine, peer: (looks.append(peer), look(engine, peer)))
    talk(100)
    assert len(looks) <= 4


def test_another_preshared_key(ends: tuple[End, End]) -> None:
    a, b = ends
    at_a, at_b = a.add(b, V4[1], preshared_key=Key.generate()), b.add(a, V4[0])
    a.host.send([ipv4(*V4)])
    for end in (a, b):
        with end.host.receive(timeout=0.5) as batch:
            assert len(batch) == 0
    assert (at_a.latest_handshake, at_b.latest_handshake) == (None, None)
    # The next handshake uses what is set.
    at_a.preshared_key = None
    at_a.handshake()
    assert eventually(lambda: at_a.latest_handshake)


def test_both_begin_at_once(ends: tuple[End, End]) -> None:
    a, b = ends
    at_a, at_b = a.add(b, V4[1]), b.add(a, V4[0])
    for _ in range(5):
        a.host.send([ipv4(*V4)])
        b.host.send([ipv4(*V4[::-1])])
    assert b.received()
    assert a.received()
    assert eventually(lambda: at_a.latest_handshake and at_b.latest_handshake)
    packet = ipv4(*V4)
    a.host.send([packet])
    assert eventually(lambda: packet in b.received(1))


def test_packets_wait_for_an_endpoint(ends: tuple[End, End]) -> None:
    a, b = ends
    at_a = a.add(b, V4[1], with_endpoint=False)
    b.add(a, V4[0], with_endpoint=False)
    packet = ipv4(*V4)
    a.host.send([packet])
    assert eventually(lambda: at_a._state.timers.attempting)
    time.sleep(0.2)  # the attempt is made
    at_a.endpoint = tunring.Endpoint("127.0.0.1", b.device.listen_port)
    assert b.received(timeout=3) == [packet]


def test_packets_wait_for_a_private_key(ends: tuple[End, End]) -> None:
    a, b = ends
    at_a, _ = join(a, b)
    a.device.private_key = None
    packet = ipv4(*V4)
    a.host.send([packet])
    assert eventually(lambda: at_a._state.timers.attempting)
    time.sleep(0.2)
    a.device.private_key = a.key
    assert b.received(timeout=3) == [packet]


def test_packets_do_not_wait_without_end_for_a_private_key(stack: ExitStack) -> None:
    limits = Limits(retry=SECOND // 10, attempt=SECOND // 2)
    a, b = End(stack, _limits=limits), End(stack)
    at_a, _ = join(a, b)
    a.device.private_key = None
    a.host.send([ipv4(*V4)])
    assert eventually(lambda: at_a._state.timers.attempting)
    assert eventually(lambda: at_a._state.core.staged == 0)


def test_hooks(stack: ExitStack, ends: tuple[End, End]) -> None:
    a, b = ends
    heard: list[tuple[str, object]] = []
    b.device.on_handshake = lambda peer: heard.append(("handshake", peer.public_key))
    b.device.on_endpoint_change = lambda peer, endpoint: heard.append(("endpoint", endpoint))

    def admit(key: PublicKey, endpoint: tunring.Endpoint) -> None:
        heard.append(("stranger", key))
        b.device.add_peer(key, allowed_ips=[V4[0]])

    b.device.on_unknown_peer = admit
    a.add(b, V4[1])
    packet = ipv4(*V4)
    a.host.send([packet])
    assert b.received() == [packet]
    where = tunring.Endpoint("127.0.0.1", a.device.listen_port)
    expected = [("stranger", a.key.public), ("endpoint", where), ("handshake", a.key.public)]
    assert eventually(lambda: heard == expected), heard


def test_a_hook_that_fails_is_logged(ends: tuple[End, End], caplog: pytest.LogCaptureFixture) -> None:
    a, b = ends
    at_a, _ = join(a, b)

    def fail(peer: Peer) -> None:
        raise RuntimeError("the hook's own")

    a.device.on_handshake = fail
    at_a.handshake()
    assert eventually(lambda: "the hook's own" in caplog.text)
    packet = ipv4(*V4)
    a.host.send([packet])
    assert b.received() == [packet]
    for key in (a.key, b.key):
        assert key.base64 not in caplog.text


def test_strangers_are_ignored(ends: tuple[End, End]) -> None:
    a, b = ends
    at_a = a.add(b, V4[1])
    at_a.handshake()
    assert not eventually(lambda: at_a.latest_handshake, 0.5)
    assert b.device.peers == {}


def test_the_port_changes_while_data_flows(ends: tuple[End, End]) -> None:
    a, b = ends
    _, at_b = join(a, b)
    a.host.send([ipv4(*V4)])
    assert b.received()
    a.device.listen_port = a.device.listen_port
    with tunring.UdpSocket.bind(("0.0.0.0", 0)) as taken:
        with pytest.raises(OSError, match=f"can't listen on UDP port {taken.address[1]}"):
            a.device.listen_port = taken.address[1]
        free = taken.address[1]
    a.device.listen_port = free
    packet = ipv4(*V4)
    a.host.send([packet])
    assert b.received() == [packet]
    assert eventually(lambda: at_b.endpoint == tunring.Endpoint("127.0.0.1", free))


def test_another_private_key(ends: tuple[End, End]) -> None:
    a, b = ends
    join(a, b)
    a.host.send([ipv4(*V4)])
    assert b.received()
    with pytest.raises(ValueError, match="its own peer"):
        a.device.private_key = b.key
    with pytest.raises(ValueError, match="its own peer"):
        b.device.add_peer(b.key.public, allowed_ips=[])
    a.key = Key.generate()
    a.device.private_key = a.key
    assert a.device.public_key == a.key.public
    a.host.send([ipv4(*V4)])
    with b.host.receive(timeout=0.5) as batch:
        assert len(batch) == 0
    b.add(a, V4[0])
    packet = ipv4(*V4)
    b.host.send([ipv4(*V4[::-1])])
    a.host.send([packet])
    found: list[bytes] = []
    assert eventually(lambda: found.extend(b.received(1)) or packet in found)
    a.device.private_key = None
    assert a.device.public_key is None
    assert "without a key" in repr(a.device)


def test_peers(ends: tuple[End, End]) -> None:
    a, b = ends
    first = a.add(b, "10.1.0.0/16")
    other = a.device.add_peer(Key.generate().public, allowed_ips=["10.2.0.0/16", "fd00::/64"], persistent_keepalive=5)
    assert a.device.peers == {first.public_key: first, other.public_key: other}
    with pytest.raises(ValueError, match="already"):
        a.add(b, "10.3.0.0/16")
    first.allowed_ips = ["10.2.0.0/16", "10.4.0.7"]
    assert [str(network) for network in first.allowed_ips] == ["10.2.0.0/16", "10.4.0.7/32"]
    assert [str(network) for network in other.allowed_ips] == ["fd00::/64"]
    other.add_allowed_ip("10.4.0.7")
    assert {str(network) for network in other.allowed_ips} == {"10.4.0.7/32", "fd00::/64"}
    assert other.persistent_keepalive == 5
    other.persistent_keepalive = None
    assert other.persistent_keepalive is None
    a.device.remove_peer(other)
    a.device.remove_peer(b.key.public.base64)
    assert a.device.peers == {}
    with pytest.raises(KeyError, match="has no peer"):
        a.device.remove_peer(b.key.public)
    with pytest.raises(SessionClosed):
        other.allowed_ips = []


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"allowed_ips": ["10.0.0.0/33"]}, ValueError, "allowed_ips must be networks"),
        ({"allowed_ips": "10.0.0.0/8"}, TypeError, "a list of networks"),
        ({"allowed_ips": [5]}, TypeError, "allowed_ips must be networks"),
        ({"endpoint": ("example.org", 1)}, ValueError, "host must be an address"),
        ({"endpoint": ("127.0.0.1", 0)}, ValueError, "port must be 1 to 65535"),
        ({"endpoint": "127.0.0.1:1"}, TypeError, "endpoint must be a tunring.Endpoint"),
        ({"preshared_key": "x"}, ValueError, "44 characters"),
        ({"persistent_keepalive": 65536}, ValueError, "persistent_keepalive must be"),
        ({"public_key": "x"}, ValueError, "44 characters"),
    ],
)
def test_mistakes_change_nothing(
    ends: tuple[End, End], change: dict[str, Any], error: type[Exception], words: str
) -> None:
    a, b = ends
    options: dict[str, Any] = {"public_key": b.key.public, "allowed_ips": []} | change
    with pytest.raises(error, match=words):
        a.device.add_peer(**options)
    assert a.device.peers == {}


def test_mistakes_at_the_beginning(session: tunring.Session) -> None:
    for options, error in (
        ({"private_key": "x"}, ValueError),
        ({"private_key": None, "listen_port": 65536}, ValueError),
        ({"private_key": None, "mark": -1}, ValueError),
        ({"private_key": None, "socket": 5}, TypeError),
    ):
        with pytest.raises(error):
            Device(session, **options)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"a tunring.Session or a tunring.Adapter"):
        Device("wg0", private_key=None)  # type: ignore[arg-type]


def test_a_given_socket(stack: ExitStack, session: tunring.Session) -> None:
    socket = stack.enter_context(tunring.UdpSocket.bind(("127.0.0.1", 0)))
    with Device(session, private_key=Key.generate(), socket=socket) as device:
        assert device.listen_port == socket.address[1]
        with pytest.raises(ValueError, match="the socket was given"):
            device.listen_port = 5
        with pytest.raises(ValueError, match="the socket was given"):
            device.mark = None
    assert not socket.closed
    with pytest.raises(ValueError, match="not for one that is given"):
        Device(session, private_key=None, socket=socket, listen_port=1)


def test_close_from_another_thread_ends_run(session: tunring.Session) -> None:
    device = Device(session, private_key=Key.generate())
    timer = threading.Timer(0.2, device.close)
    timer.start()
    device.run()
    assert device.closed
    device.close()
    with pytest.raises(SessionClosed):
        device.start()
    with pytest.raises(SessionClosed):
        device.add_peer(Key.generate().public, allowed_ips=[])
    with pytest.raises(SessionClosed):
        device.mark = None
    with pytest.raises(SessionClosed):
        device.listen_port = 0
    assert device.listen_port > 0
    timer.join()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("tunring-wireguard")]


def test_a_failure_of_close_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: TunnelSocket) -> None:
        raise OSError("not closed")

    with tunring.Adapter.create("failing", library=tunring.load("loopback")) as adapter:
        device = Device(adapter, private_key=Key.generate())
        own_session, closed = device._own_session, []
        assert own_session
        monkeypatch.setattr(device._mtu, "close", lambda: closed.append("mtu"))
        with monkeypatch.context() as broken:
            broken.setattr(TunnelSocket, "close", fail)
            with pytest.raises(OSError, match="not closed"):
                device.close()
        assert own_session.closed
        assert closed == ["mtu"]
        assert device not in _open_devices
        device.close()


def test_close_while_another_thread_changes_the_port(session: tunring.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """The descriptor of its network is not closed under the one that uses it."""
    device = Device(session, private_key=Key.generate())
    is_here = namespace_linux._is_here

    def closed_meanwhile(descriptor: int) -> bool:
        device.close()
        return is_here(descriptor)

    monkeypatch.setattr(namespace_linux, "_is_here", closed_meanwhile)
    with pytest.raises(SessionClosed):
        device.listen_port = 0


def test_the_end_of_the_session_ends_run(session: tunring.Session) -> None:
    device = Device(session, private_key=Key.generate())
    timer = threading.Timer(0.2, session.close)
    timer.start()
    with pytest.raises(SessionClosed):
        device.run()
    assert device.closed
    timer.join()


def test_a_hook_may_close_the_device(ends: tuple[End, End]) -> None:
    a, b = ends
    at_a, _ = join(a, b)
    a.device.on_handshake = lambda _: a.device.close()
    at_a.handshake()
    assert eventually(lambda: a.device.closed)


def test_async_with(session: tunring.Session) -> None:
    async def main() -> None:
        async with Device(session, private_key=Key.generate()) as device:
            assert "running" in repr(device)
        assert device.closed

    asyncio.run(main())


def test_async_with_cancelled_at_its_beginning(session: tunring.Session) -> None:
    async def main() -> None:
        device = Device(session, private_key=Key.generate())
        with device._engine.lock:  # which its start waits for
            task = asyncio.ensure_future(device.__aenter__())
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert device.closed
        await asyncio.sleep(0.3)
        assert not device._working

    asyncio.run(main())
