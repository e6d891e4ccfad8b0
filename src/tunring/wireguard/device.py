"""A WireGuard device: an interface or a session on one side, a UDP socket on the other, and peers."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import sys
import threading
import time
import weakref
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Self

import tunring.aead
from tunring import Adapter
from tunring._core import Session, UdpSocket, _WireGuardDevice, _WireGuardLock, open_file
from tunring._udp import check_mark
from tunring._win32 import Win32
from tunring.errors import SessionClosed
from tunring.wireguard._engine import Engine, Hooks
from tunring.wireguard._handshake import Identity
from tunring.wireguard._latch import Latch
from tunring.wireguard._mtu import interface_mtu
from tunring.wireguard._socket import TunnelSocket, check_port
from tunring.wireguard._timers import Limits
from tunring.wireguard.keys import Key, PublicKey
from tunring.wireguard.peer import check_endpoint, check_keepalive, check_networks, check_preshared, packed

if sys.platform == "linux":
    # The first device would import it: a child that is forked meanwhile would wait for the module without end.
    import tunring._system.namespace_linux  # noqa: F401

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from typing import TypeVar

    from tunring._core import Descriptor, Endpoint
    from tunring.wireguard._peer_state import PeerState
    from tunring.wireguard.peer import EndpointLike, Network, NetworkLike, Peer

    T = TypeVar("T")

log = logging.getLogger("tunring.wireguard")

#: Seconds between two looks at the interface's MTU.
_MTU_SECONDS = 1.0

#: Seconds that a thread of a closed device may take to end: a hook may be running in it.
_JOIN_SECONDS = 5.0

_open_devices: weakref.WeakSet[Device] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for device in list(_open_devices):
        device.close()


class Device:
    """A WireGuard device. It does nothing until :meth:`start`, ``with``, ``async with`` or :meth:`run`.

    A Python thread does handshakes and timers; packets move in two more threads, in C, without the GIL.

    Parameters
    ----------
    session : Session or Adapter
        Packets come from it and go to it. The device starts an adapter's session itself, and closes it at the end.
    private_key : Key or str or None
        Our private key; without one no handshake is possible.
    listen_port : int, default 0
        The UDP port, of IPv4 and IPv6; 0 takes any free port. Where IPv6 is off, it is that of IPv4 only.
    mark : int, optional
        The mark of the tunnel's own datagrams, for policy routing on Linux.
    socket : UdpSocket, optional
        A socket to use instead of one of the device's own. It stays open when the device is closed.

    Attributes
    ----------
    on_handshake : callable or None
        Called with a :class:`Peer` when a handshake with it is complete.
    on_endpoint_change : callable or None
        Called with a peer and its new :class:`tunring.Endpoint`.
    on_unknown_peer : callable or None
        Called with a :class:`PublicKey` and an endpoint when a stranger begins a handshake, at most 20 times per
        second. It may add the peer: the handshake then goes on. It is not proven yet that the stranger has the key's
        private half.

    Hooks run in the handshake thread, which waits for them; their exceptions are logged ("tunring.wireguard").

    Examples
    --------
    >>> from tunring import testing
    >>> from tunring.wireguard import Device, Key
    >>> ours, theirs = Key.generate(), Key.generate()
    >>> host, session = testing.pair()
    >>> with host, session, Device(session, private_key=ours) as device:
    ...     peer = device.add_peer(theirs.public, allowed_ips=["10.0.0.2/32"], endpoint=("127.0.0.1", 51820))
    ...     peer.latest_handshake, device.listen_port > 0, [str(network) for network in peer.allowed_ips]
    (None, True, ['10.0.0.2/32'])
    """

    def __init__(
        self,
        session: Session | Adapter,
        *,
        private_key: Key | str | None,
        listen_port: int = 0,
        mark: int | None = None,
        socket: UdpSocket | None = None,
        _limits: Limits | None = None,
    ) -> None:
        key = Key(private_key) if private_key is not None else None
        port, number = check_port(listen_port), check_mark(mark)
        if socket is not None and not isinstance(socket, UdpSocket):
            raise TypeError(f"socket must be a tunring.UdpSocket, not {socket!r}")
        if socket is not None and (port or number):
            raise ValueError("listen_port and mark are for a socket of the device's own, not for one that is given")
        if not isinstance(session, Session | Adapter):
            raise TypeError(f"a device needs a tunring.Session or a tunring.Adapter, not {session!r}")
        self._mark = 0
        self._given_socket = socket
        self._own_socket: TunnelSocket | None = None
        self._threads: list[threading.Thread] = []
        self._working: list[tuple[int, Latch]] = []  # the threads that have begun, each with its end
        self._ended = Latch()
        self._process = os.getpid()
        self._failure: BaseException | None = None
        self._network: _Network | None = None
        self._closed = False
        self._hooks = Hooks()
        with ExitStack() as stack:
            self._own_session = session.start_session() if isinstance(session, Adapter) else None
            self._session = self._own_session or session
            assert isinstance(self._session, Session)
            if self._own_session:
                stack.callback(self._own_session.close)
            self._core = _WireGuardDevice(self._session)
            stack.callback(self._core.close)
            # Held while a request of `wg` is carried out. close() does not take it, and ends every wait for it.
            self._requests = _WireGuardLock(self._core)
            self._engine = Engine(self._core, self._hooks, _limits or Limits())
            self._mtu = interface_mtu(self._session.adapter)
            stack.callback(self._mtu.close)
            self._network = _Network()
            self._engine.every(_MTU_SECONDS, self._follow_mtu)
            if socket is not None:
                self._core.set_socket(socket)
            else:
                self._mark = number
                self._own_socket = self._here(lambda: TunnelSocket(port, number))
                stack.callback(self._own_socket.close)
                self._core.set_socket(self._own_socket.udp)
            self._set_key(key)
            stack.pop_all()
        _open_devices.add(self)

    # ---- Peers

    def add_peer(
        self,
        public_key: PublicKey | Key | str,
        *,
        allowed_ips: Iterable[NetworkLike],
        endpoint: EndpointLike | None = None,
        preshared_key: Key | str | None = None,
        persistent_keepalive: int | None = None,
    ) -> Peer:
        """Add a peer.

        Parameters
        ----------
        public_key : PublicKey or str
            Its public key.
        allowed_ips : iterable
            Networks whose packets go to the peer and may come from it. Another peer that has one of them loses it.
        endpoint : Endpoint or (str, int), optional
            The peer's address and port. Without an endpoint, the peer has to begin.
        preshared_key : Key or str, optional
            An additional secret of both sides.
        persistent_keepalive : int, optional
            Maximum seconds between two datagrams, so that firewalls and NAT in between keep the path open.

        Raises
        ------
        ValueError, TypeError
            A value is wrong, the device has this peer, or it would be the device itself. Nothing was changed.
        SessionClosed
            The device is closed.
        """
        key = PublicKey(public_key)
        networks, where = check_networks(allowed_ips), check_endpoint(endpoint)
        secret, seconds = check_preshared(preshared_key), check_keepalive(persistent_keepalive)
        with self._engine.lock:
            if key in self._engine.peers:
                raise ValueError(f"the device has the peer {key} already")
            if self._engine.identity and self._engine.identity.public == key.raw:
                raise ValueError(f"a device can't be its own peer: {key} is its public key")
            peer = None
            try:
                peer = self._engine.make_peer(key)
                peer.set_preshared_key(secret)
                peer.timers.persistent_keepalive = seconds
                peer.core.endpoint = peer.shown_endpoint = where
                self._engine.add(peer)
                # Last of all: what other peers lose by it is not given back.
                if networks:
                    peer.core.set_allowed_ips(packed(networks))
            except BaseException:  # no memory, or Ctrl-C
                if peer and not self._is_whole(peer, networks):
                    self._engine.remove(peer)
                raise
        return peer.face

    def _is_whole(self, peer: PeerState, networks: Iterable[Network]) -> bool:
        return self._engine.peers.get(peer.public_key) is peer and set(peer.face.allowed_ips) == set(networks)

    def remove_peer(self, key: Peer | PublicKey | Key | str) -> None:
        """Remove a peer: its keys are wiped, its staged packets dropped. Raises KeyError for an unknown peer."""
        public = PublicKey(key.public_key if not isinstance(key, Key | str) else key)
        with self._engine.lock:
            if public not in self._engine.peers:
                raise KeyError(f"the device has no peer {public}")
            self._engine.remove(self._engine.peers[public])

    @property
    def peers(self) -> dict[PublicKey, Peer]:
        """The peers by their public keys: a copy."""
        with self._engine.lock:
            return {key: peer.face for key, peer in self._engine.peers.items()}

    def _peer(self, key: PublicKey) -> Peer | None:
        """One peer: `peers` hashes all the keys for each look."""
        with self._engine.lock:
            peer = self._engine.peers.get(key)
            return peer.face if peer else None

    # ---- Settings

    @property
    def private_key(self) -> Key | None:
        """Our private key. Setting it ends all sessions; new ones begin when there is data.

        Raises SessionClosed once the device is closed, which wipes the key, and in a forked child.
        """
        with self._engine.lock:
            identity = self._engine.identity
            return Key(bytes(identity.private.secret)) if identity else None

    @private_key.setter
    def private_key(self, key: Key | str | None) -> None:
        made = Key(key) if key is not None else None
        with self._engine.lock:
            identity = self._engine.identity
            if made is None or identity is None or not identity.has(made):
                self._set_key(made)

    def _set_key(self, key: Key | None) -> None:
        identity = Identity(key) if key else None
        public = PublicKey(identity.public) if identity else None
        try:
            if public in self._engine.peers:
                raise ValueError(f"a device can't be its own peer: the key's public half is {public}")
            self._engine.set_identity(identity)
        except BaseException:
            if identity and self._engine.identity is not identity:  # else Ctrl-C came at the end
                identity.wipe()
            raise
        if identity and self._closed:  # by another thread, which may have found the old one only
            identity.wipe()

    @property
    def public_key(self) -> PublicKey | None:
        """Our public key; None without a private one."""
        identity = self._engine.identity
        return PublicKey(identity.public) if identity else None

    @property
    def listen_port(self) -> int:
        """The UDP port. It can be set while data flows; 0 takes any free port.

        Raises OSError if the port is taken, and keeps the old one. It can't be set if the device was given a socket.
        """
        if self._own_socket:
            return self._own_socket.port
        assert self._given_socket
        return self._given_socket.address[1]

    @listen_port.setter
    def listen_port(self, port: int) -> None:
        check_port(port)
        with self._engine.lock:
            old = self._own()
            if port == old.port:
                return
            new = self._here(lambda: TunnelSocket(port, self._mark))
            self._own_socket, unused = new, old
            try:
                self._core.set_socket(new.udp)
            except BaseException:
                if self._core.socket is not new.udp:  # else Ctrl-C came after it
                    self._own_socket, unused = old, new
                raise
            finally:
                unused.close()
                if self._closed:  # by another thread, which may have found the other one only
                    self._own_socket.close()

    @property
    def mark(self) -> int | None:
        """The mark of the tunnel's own datagrams, or None. It can be set while data flows."""
        return self._mark or None

    @mark.setter
    def mark(self, mark: int | None) -> None:
        number = check_mark(mark)
        with self._engine.lock:
            own, before = self._own(), self._mark
            try:
                self._mark = number
                own.set_mark(number)
            except BaseException:
                if not own.has_mark(number):  # else Ctrl-C came after it
                    self._mark = before
                raise

    def _own(self) -> TunnelSocket:
        if self._own_socket is None:
            raise ValueError("listen_port and mark can't be set: the socket was given")
        return self._own_socket

    @property
    def on_handshake(self) -> Callable[[Peer], object] | None:
        """The hook that is called when a handshake is complete."""
        return self._hooks.on_handshake

    @on_handshake.setter
    def on_handshake(self, hook: Callable[[Peer], object] | None) -> None:
        self._hooks.on_handshake = hook

    @property
    def on_endpoint_change(self) -> Callable[[Peer, Endpoint | None], object] | None:
        """The hook that is called when a peer has moved."""
        return self._hooks.on_endpoint_change

    @on_endpoint_change.setter
    def on_endpoint_change(self, hook: Callable[[Peer, Endpoint | None], object] | None) -> None:
        self._hooks.on_endpoint_change = hook

    @property
    def on_unknown_peer(self) -> Callable[[PublicKey, Endpoint], object] | None:
        """The hook that is called when a stranger begins a handshake."""
        return self._hooks.on_unknown_peer

    @on_unknown_peer.setter
    def on_unknown_peer(self, hook: Callable[[PublicKey, Endpoint], object] | None) -> None:
        self._hooks.on_unknown_peer = hook

    def set_interface_mtu(self, mtu: int) -> None:
        """Set the interface's MTU in bytes. An interface that is down stays down. Raises OSError.

        Does nothing over ``loopback``, which has no interface.
        """
        self._mtu.set(mtu)
        self._follow_mtu()

    def stats(self) -> dict[str, int]:
        """Count what the device has dropped, and why."""
        return self._core.stats()

    # ---- Life

    def start(self) -> None:
        """Start the threads. Returns at once. Idempotent. Raises SessionClosed once closed."""
        with self._engine.lock:
            if self._core.closed or self._closed:
                raise SessionClosed(Win32.HANDLE_EOF, "the device is closed")
            if not self._threads:
                self._follow_mtu()
                parts = {"out": self._core.run_outgoing, "in": self._core.run_incoming, "handshakes": self._engine.run}
                # Daemons: a device that nobody closed is closed at exit, when all other threads have ended.
                self._threads = [
                    threading.Thread(target=self._run, args=(part,), name=f"tunring-wireguard-{name}", daemon=True)
                    for name, part in parts.items()
                ]
            for thread in self._threads:
                if thread.ident is None:  # Ctrl-C, or a lack of threads, may have ended an earlier start
                    thread.start()

    def _run(self, part: Callable[[], None]) -> None:
        end = Latch()
        self._working.append((threading.get_ident(), end))
        try:
            part()
        except SessionClosed as error:
            # The first one has the reason, the others follow it.
            self._failure = self._failure or error
        except BaseException as error:
            log.exception("a thread of the device ended")
            self._failure = self._failure or error
        self._ended.set()
        end.set()

    def run(self) -> None:
        """Start, and wait until the device is closed, from another thread or a signal handler.

        Raises
        ------
        SessionClosed
            The session ended meanwhile, for example because its interface was removed (``reason`` "removed"). The
            device is closed then.
        """
        try:
            self.start()
            self.wait()
        finally:
            self.close()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the device is closed. Returns False on timeout.

        Raises SessionClosed as :meth:`run` does, but does not close the device.
        """
        if not self._ended.wait(timeout):
            return False
        if self._failure is not None and not self._closed:
            raise self._failure
        return True

    @property
    def closed(self) -> bool:
        """True once the device is closed."""
        return self._closed

    def close(self) -> None:
        """End the threads, wipe all keys, and close the device's own session and socket.

        Of the keys that the caller has passed, only the device's copies are wiped. Idempotent. May be called from any
        thread.
        """
        self._closed = True
        steps: list[Callable[[], object]] = [
            self._core.close,
            self._ended.set,
            self._engine.wipe,
            self._await_threads,
            self._engine.wipe,  # what the threads have made meanwhile
            self._close_own,
            self._mtu.close,
        ]
        with ExitStack() as stack:  # each step, whatever one before it raises
            stack.callback(_open_devices.discard, self)
            for step in reversed(steps):
                stack.callback(step)

    def _close_own(self) -> None:
        """Let go of what the device has made for itself."""
        self._network = None
        with ExitStack() as stack:
            if self._own_session:
                stack.callback(self._own_session.close)
            if self._own_socket:
                stack.callback(self._own_socket.close)

    def _await_threads(self) -> None:
        """Wait until the threads are out of the device. One that has not begun finds it closed.

        Not by joining them: that is not possible in a signal handler that has interrupted their start, and waits for
        locks of :mod:`threading` that another start may have.
        """
        if self._process != os.getpid():
            return  # a forked child has none of them
        until = time.monotonic() + _JOIN_SECONDS
        for ident, end in list(self._working):
            if ident != threading.get_ident():
                end.wait(max(0.0, until - time.monotonic()))

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:  # Ctrl-C, for example, which nobody would close it after
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        try:
            await asyncio.to_thread(self.start)
        except BaseException:  # as in __enter__; a cancelled task's thread goes on, and finds it closed
            self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.close)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "running" if self._threads else "not started"
        return f"<tunring.wireguard.Device {self.public_key or 'without a key'}, {state}>"

    # ---- Parts

    def _follow_mtu(self) -> None:
        mtu = self._mtu.read()
        if mtu is not None:
            self._core.set_mtu(mtu)

    def _here(self, make: Callable[[], T]) -> T:
        """Make something in the network namespace in which the device was made."""
        network = self._network  # held meanwhile, whoever closes the device
        if network is None:
            raise SessionClosed(Win32.HANDLE_EOF, "the device is closed")
        return network.call(make)


class _Network:
    """The caller's network namespace. Its descriptor is open until nobody uses it any more."""

    def __init__(self) -> None:
        self._descriptor: Descriptor | None = None
        if sys.platform == "linux":
            with suppress(OSError):
                self._descriptor = open_file("/proc/thread-self/ns/net")

    def call(self, function: Callable[[], T]) -> T:
        """Call a function there."""
        if self._descriptor is None:
            return function()
        from tunring._system.namespace_linux import call_in_network

        return call_in_network(self._descriptor.fileno(), function)
