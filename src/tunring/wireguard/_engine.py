"""The thread that takes handshake messages and C's events, and does what is due."""

from __future__ import annotations

import heapq
import itertools
import logging
import time
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tunring._core import Endpoint, _WireGuardDevice, _WireGuardLock, wireguard_now
from tunring.errors import NotFound, SessionClosed
from tunring.wireguard import _handshake, _noise
from tunring.wireguard._cookies import cookie_key
from tunring.wireguard._exchange import Refused
from tunring.wireguard._messages import COOKIE_REPLY, INITIATION, RESPONSE, MessageError
from tunring.wireguard._peer_state import PeerState
from tunring.wireguard._tai64n import STAMPS
from tunring.wireguard._timers import NEVER, SECOND, Limits
from tunring.wireguard.keys import PublicKey
from tunring.wireguard.peer import Peer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tunring._core import _WireGuardPeer
    from tunring.wireguard._handshake import Identity, Opened, Remote, SessionKeys

log = logging.getLogger("tunring.wireguard")

#: Maximum number of strangers per second that the hook hears of.
_STRANGERS_PER_SECOND = 20

#: Peers in line that are looked at before messages are taken again: some 1 ms if each is sent an initiation.
_TURN = 4

#: Nanoseconds until the next look at a peer after something of it has failed, for lack of memory for example.
_AGAIN = SECOND


class Hooks:
    """Functions that users want to be called, each or None. They run in the engine's thread, without a lock."""

    def __init__(self) -> None:
        self.on_handshake: Callable[[Peer], object] | None = None
        self.on_endpoint_change: Callable[[Peer, Endpoint | None], object] | None = None
        self.on_unknown_peer: Callable[[PublicKey, Endpoint], object] | None = None


class Engine:
    """Peers, their handshakes and their timers.

    Parameters
    ----------
    core : _WireGuardDevice
        The part in C.
    hooks : Hooks
        The functions to call.
    limits : Limits
        The protocol's times.
    """

    def __init__(self, core: _WireGuardDevice, hooks: Hooks, limits: Limits) -> None:
        self.core = core
        self.hooks = hooks
        self.identity: Identity | None = None
        self.peers: dict[PublicKey, PeerState] = {}
        self._limits = limits
        self._wiped = False
        #: On peers and identity.
        self.lock = _WireGuardLock(core)
        self._heap: list[tuple[int, int, PeerState]] = []
        self._numbers = itertools.count()
        self._pokes: deque[PeerState] = deque()
        # Peers that may not answer: thousands of them must not hold up those that do.
        self._line: deque[PeerState] = deque()
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._chores: list[tuple[Callable[[], None], float, float]] = []
        self._stranger_times: deque[float] = deque(maxlen=_STRANGERS_PER_SECOND)

    # ---- For other threads

    def poke(self, peer: PeerState) -> None:
        """Let the thread look at a peer.

        It waits for the lock, so whoever has that pokes before a change: Ctrl-C can't come in between then.
        """
        self._pokes.append(peer)
        self.core.wake()

    def want(self, peer: PeerState) -> None:
        """A handshake with a peer is wanted."""
        with self.lock:
            self.poke(peer)
            peer.timers.want(wireguard_now())

    def make_peer(self, public_key: PublicKey) -> PeerState:
        """Make a peer, without anything yet. The caller has the lock."""
        peer = PeerState(public_key, self.core.add_peer(), self._limits)
        peer.face = Peer(self, peer)
        return peer

    def add(self, peer: PeerState) -> None:
        """Add a peer that has all but its allowed IPs. The caller has the lock."""
        self.poke(peer)
        self.peers[peer.public_key] = peer
        if self._wiped:  # by another thread, which may not have found it
            peer.wipe()

    def remove(self, peer: PeerState) -> None:
        """Remove a peer. The caller has the lock."""
        if self.peers.get(peer.public_key) is peer:
            del self.peers[peer.public_key]
        peer.removed = True
        peer.due = NEVER
        peer.wipe()
        peer.core.remove()

    def set_identity(self, identity: Identity | None) -> None:
        """Change the device's identity: all sessions end. The caller has the lock.

        Where Ctrl-C comes in the middle of it, the device has no identity.
        """
        if self.core.closed:
            self.core.set_identity(None, None)  # which raises SessionClosed
        old, self.identity = self.identity, None
        if old:
            # A handshake that has come as far as its private key, without the lock, raises SessionClosed.
            old.wipe()
        self.core.set_identity(None, None)
        now = wireguard_now()
        for peer in self.peers.values():
            self._forget_initiation(peer)
            peer.forget_identity()
            peer.timers.hurry(now)
            peer.core.wipe_keys()
            self.poke(peer)
        if identity:
            self.core.set_identity(identity.mac1_key, cookie_key(identity.public))
        self.identity = identity

    def wipe(self) -> None:
        """Wipe all secrets, for good: the device is closed.

        From any thread, and without the lock: in a signal handler, too, that has interrupted whoever holds it.
        """
        self._wiped = True
        identity = self.identity
        if identity:
            identity.wipe()
        for peer in list(self.peers.values()):
            peer.wipe()

    def every(self, seconds: float, chore: Callable[[], None]) -> None:
        """Have the thread call a function regularly. Must be called before it starts."""
        self._chores.append((chore, seconds, 0.0))

    # ---- The thread

    def run(self) -> None:
        """Work until the device is closed. Raises SessionClosed if its session ended before."""
        while True:
            messages, events = self.core.take(self._timeout())
            if self.core.closed:
                return
            for data, source, peer in messages:
                self._guarded(self._message, data, source, peer)
            for core, flags in events:
                self._guarded(self._event, core, flags)
            while self._pokes:
                self._guarded(self._serve, self._pokes.popleft())
            self._serve_due()
            for _ in range(min(_TURN, len(self._line))):
                waiting = self._line.popleft()
                waiting.in_line = False
                self._guarded(self._look, waiting)
            self._tell()
            self._do_chores()

    def _serve_due(self) -> None:
        now = wireguard_now()
        while self._heap and self._heap[0][0] <= now:
            due, _, peer = heapq.heappop(self._heap)
            if peer.due == due:
                self._guarded(self._serve, peer)

    def _serve(self, peer: PeerState) -> None:
        """Look at a peer: at once if it has answered before, and does; else it stands in line."""
        if peer.handshake_time and not peer.timers.retrying:
            self._look(peer)
        elif not peer.in_line:
            peer.in_line = True
            self._line.append(peer)

    def _timeout(self) -> float | None:
        if self._line:
            return 0.0
        times = [(self._heap[0][0] - wireguard_now()) / SECOND] if self._heap else []
        times += [due - time.monotonic() for _, _, due in self._chores]
        return max(0.0, min(times)) if times else None

    def _do_chores(self) -> None:
        now = time.monotonic()
        for position, (chore, seconds, due) in enumerate(self._chores):
            if now >= due:
                self._chores[position] = (chore, seconds, now + seconds)
                self._guarded(chore)

    def _guarded(self, function: Callable[..., None], *arguments: Any) -> None:
        """One message or peer must not end the thread."""
        try:
            function(*arguments)
        except SessionClosed:
            # A peer that was removed meanwhile, unless it is the device: then take() raises it, too.
            log.debug("a peer was removed, or the device closed")
        except (MessageError, _noise.AuthenticationError, Refused) as error:
            log.debug("dropped a message: %s", error)
        except Exception:
            log.exception("unexpected")

    def _tell(self) -> None:
        while self._calls:
            hook, arguments = self._calls.popleft()
            try:
                hook(*arguments)
            except Exception:
                log.exception("the hook %r failed", hook)

    # ---- Messages

    def _message(self, data: bytes, source: Endpoint, core: _WireGuardPeer | None) -> None:
        if data[0] == INITIATION:
            self._initiation(data, source)
        elif core is not None and isinstance(peer := core.tag, PeerState):
            if data[0] == RESPONSE:
                self._response(peer, data, source)
            elif data[0] == COOKIE_REPLY:
                with self.lock:
                    peer.exchange.cookies.take(data, wireguard_now())
                    if peer.wiped:  # the message had been taken before
                        peer.wipe()

    def _initiation(self, data: bytes, source: Endpoint) -> None:
        identity = self.identity
        if identity is None:
            return
        opened = _handshake.open_initiation(identity, data)
        key = PublicKey(opened.static)
        if key not in self.peers:
            self._stranger(key, source)
        with self.lock:
            peer = self.peers.get(key)
            remote = peer.remote_for(identity) if peer else None
            if peer is None or remote is None or identity is not self.identity:
                return
            peer.exchange.accept(opened, remote, wireguard_now())
            with self._changing(peer):
                self._heard(peer, data, source)
                self._respond(peer, opened, remote)
        self._look(peer)

    def _respond(self, peer: PeerState, opened: Opened, remote: Remote) -> None:
        now = wireguard_now()
        with self._index_kept(self.core.new_index(peer.core)) as index:
            message, keys = peer.exchange.respond(opened, remote, index, now)
            # Before the response leaves: what the peer sends on these keys may come at once.
            self._install(peer, keys)
        peer.timers.responded(now)
        peer.core.send_handshake(message)

    def _response(self, peer: PeerState, data: bytes, source: Endpoint) -> None:
        with self.lock:
            keys = peer.exchange.finish(data)
            with self._changing(peer), self._index_kept(keys.local_index):
                self._heard(peer, data, source)
                self._install(peer, keys)
                # Not before: without the keys the handshake is still wanted.
                peer.timers.completed()
                self._completed(peer)
        self._look(peer)

    def _heard(self, peer: PeerState, data: bytes, source: Endpoint) -> None:
        peer.core.heard(len(data), source)
        self._endpoint_changed(peer)

    def _install(self, peer: PeerState, keys: SessionKeys) -> None:
        try:
            peer.core.install(keys.local_index, keys.remote_index, keys.send, keys.receive, initiator=keys.is_initiator)
        except NotFound:
            raise Refused("the handshake was given up meanwhile") from None

    def _stranger(self, key: PublicKey, source: Endpoint) -> None:
        hook = self.hooks.on_unknown_peer
        now = time.monotonic()
        times = self._stranger_times
        if hook is None or (len(times) == times.maxlen and now < times[0] + 1):
            return
        times.append(now)
        self._calls.append((hook, (key, source)))
        self._tell()

    # ---- Events and timers

    def _event(self, core: _WireGuardPeer, flags: int) -> None:
        peer = core.tag
        if not isinstance(peer, PeerState):
            return
        with self.lock, self._changing(peer):
            attempting = peer.timers.attempting
            if flags & _WireGuardDevice.WANT_HANDSHAKE:
                peer.timers.want(wireguard_now())
            if flags & _WireGuardDevice.CONFIRMED:
                peer.timers.completed()
                self._forget_initiation(peer)
                self._completed(peer)
            if flags & _WireGuardDevice.ENDPOINT:
                self._endpoint_changed(peer)
        # More data for a peer that doesn't answer does not change the time of the next try.
        if not (attempting and flags == _WireGuardDevice.WANT_HANDSHAKE):
            self._serve(peer)

    def _completed(self, peer: PeerState) -> None:
        peer.handshake_time = time.time_ns()
        if self.hooks.on_handshake:
            self._calls.append((self.hooks.on_handshake, (peer.face,)))

    def _endpoint_changed(self, peer: PeerState) -> None:
        endpoint = peer.core.endpoint
        if endpoint == peer.shown_endpoint:
            return
        peer.shown_endpoint = endpoint
        if self.hooks.on_endpoint_change:
            self._calls.append((self.hooks.on_endpoint_change, (peer.face, endpoint)))

    def _forget_initiation(self, peer: PeerState) -> None:
        index = peer.exchange.index
        if index is not None:
            self.core.free_index(index)
            peer.exchange.forget()

    def _look(self, peer: PeerState) -> None:
        """Do what is due of one peer, and note when to look again."""
        with self.lock, self._changing(peer):
            while not peer.removed:
                now = wireguard_now()
                reachable = self.identity is not None and peer.core.endpoint is not None
                due = peer.timers.look(now, peer.core.state(), reachable=reachable)
                if due.wipe:
                    peer.core.wipe_keys()
                    self._forget_initiation(peer)
                if due.give_up:
                    peer.core.drop_staged()
                    self._forget_initiation(peer)
                if due.initiate:
                    self._initiate(peer, due.unanswered)
                elif due.keepalive:
                    if not peer.core.send_keepalive():
                        peer.timers.want(now)
                else:
                    break
            else:
                return
            self._schedule(peer, due.next)
            peer.watch_until(due.next)

    def _schedule(self, peer: PeerState, due: int) -> None:
        if due != peer.due:
            if due != NEVER:
                heapq.heappush(self._heap, (due, next(self._numbers), peer))
            peer.due = due

    @contextmanager
    def _changing(self, peer: PeerState) -> Iterator[None]:
        """Look at a peer again soon if this fails midway. The caller has the lock.

        What is due stays due, but nobody else may ever look: more data for a peer that is tried already does not.
        """
        try:
            yield
        except BaseException:
            now = wireguard_now()
            # A time that has come is not in the heap any more.
            if not (peer.removed or now < peer.due <= now + _AGAIN):
                self._schedule(peer, now + _AGAIN)
            raise

    @contextmanager
    def _index_kept(self, index: int) -> Iterator[int]:
        """Give up a handshake's index if this fails. One that is a keypair's by then stays."""
        try:
            yield index
        except BaseException:
            self.core.free_index(index)
            raise

    def _initiate(self, peer: PeerState, unanswered: bool) -> None:
        remote = peer.remote_for(self.identity) if self.identity else None
        endpoint = peer.core.endpoint
        now = wireguard_now()
        if self.identity is None or remote is None or endpoint is None:
            peer.timers.unable(now)
            return
        # Also if it fails from here on: it is tried again as if it had not been answered.
        peer.timers.initiated(now)
        if unanswered and endpoint.local:
            # Perhaps it is our address that nobody answers to any more.
            peer.core.endpoint = Endpoint(endpoint.host, endpoint.port, interface=endpoint.interface)
        self._forget_initiation(peer)
        with self._index_kept(self.core.new_index(peer.core)) as index:
            stamp = STAMPS.next(peer.public_key.raw)
            message = peer.exchange.initiate(self.identity, remote, index, stamp, now)
        if not peer.core.send_handshake(message):
            peer.timers.unsent(now)
