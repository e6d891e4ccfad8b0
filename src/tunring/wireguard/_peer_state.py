"""A device's record of a peer. The engine's lock guards all of it, but wiping takes none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunring._core import Secret
from tunring.wireguard import _noise
from tunring.wireguard._exchange import Exchange
from tunring.wireguard._handshake import NO_PRESHARED_KEY, Remote
from tunring.wireguard._timers import NEVER, SECOND, Timers

if TYPE_CHECKING:
    from tunring._core import Endpoint, _WireGuardPeer
    from tunring.wireguard._handshake import Identity
    from tunring.wireguard._timers import Limits
    from tunring.wireguard.keys import Key, PublicKey
    from tunring.wireguard.peer import Peer


class PeerState:
    """One peer.

    Parameters
    ----------
    public_key : PublicKey
        Its public key.
    core : _WireGuardPeer
        Its part in C: keys, staged packets, endpoint, allowed IPs, time stamps.
    limits : Limits
        The protocol's times.
    """

    def __init__(self, public_key: PublicKey, core: _WireGuardPeer, limits: Limits) -> None:
        self.public_key = public_key
        self.core = core
        self.preshared_key: Secret | None = None
        self.exchange = Exchange(public_key.raw, limits.flood)
        self.timers = Timers(limits)
        #: Nanoseconds since 1970 of the last handshake.
        self.handshake_time = 0
        #: The endpoint that was last reported.
        self.shown_endpoint: Endpoint | None = None
        #: When it is to be looked at.
        self.due = NEVER
        #: It is in the engine's line.
        self.in_line = False
        #: The peer as users have it.
        self.face: Peer
        self.removed = False
        self.wiped = False
        self._limits = limits
        self._remote: Remote | None = None
        self._identity: Identity | None = None
        core.tag = self

    def set_preshared_key(self, key: Key | None) -> None:
        """Take another one for the handshakes to come. Raises SessionClosed once the peer is removed."""
        self.core.endpoint  # noqa: B018 - which raises that
        new = Secret(key.raw) if key else None
        # First what was made with the old one: interrupted anywhere by Ctrl-C, the key that is shown is used.
        self.forget_identity()
        old, self.preshared_key = self.preshared_key, new
        # An initiation that waits for its response keeps the old one, which is wiped when that is dropped.
        if old is not None and self.exchange.index is None:
            old.wipe()
        if self.wiped:
            self.wipe()

    def remote_for(self, identity: Identity) -> Remote | None:
        """The values derived from both sides' keys; None if the peer's public key is of small order."""
        if self._remote is None or self._identity is not identity:
            try:
                self._remote = Remote(identity, self.public_key.raw, self._preshared())
            except _noise.AuthenticationError:
                return None
            self._identity = identity
            if self.wiped:
                self.wipe()
        return self._remote

    def forget_identity(self) -> None:
        """Wipe what was derived from the device's private key; it is derived again when it is needed."""
        remote, self._remote, self._identity = self._remote, None, None
        if remote:
            remote.wipe()

    def wipe(self) -> None:
        """Wipe all secrets, for good: the peer is removed, or the device closed. From any thread.

        Whoever stores a secret meanwhile sees that by ``wiped``, and wipes again.
        """
        self.wiped = True
        self.exchange.wipe()
        remote, preshared = self._remote, self.preshared_key
        if remote:
            remote.wipe()
        if preshared is not None:
            preshared.wipe()

    def _preshared(self) -> Secret | bytes:
        return NO_PRESHARED_KEY if self.preshared_key is None else self.preshared_key

    def watch_until(self, due: int) -> None:
        """Tell C the time of the next look at its time stamps, so that it reports anything more urgent at once."""
        stamps = self.core.state()
        if stamps.unanswered_since:
            due = min(due, stamps.unanswered_since + self._limits.unanswered)
        if stamps.unacknowledged_since:
            due = min(due, stamps.unacknowledged_since + self._limits.keepalive)
        # C compares with the protocol's own times, and an old stamp has been seen.
        self.core.watch_until(max(due, SECOND))
