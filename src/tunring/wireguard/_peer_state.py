"""A device's record of a peer. The engine's lock guards all of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
        self.preshared_key: Key | None = None
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
        self._limits = limits
        self._remote: Remote | None = None
        self._identity: Identity | None = None
        core.tag = self

    def set_preshared_key(self, key: Key | None) -> None:
        """Take another one for the handshakes to come."""
        self.preshared_key = key
        self._remote = None

    def remote_for(self, identity: Identity) -> Remote | None:
        """The values derived from both sides' keys; None if the peer's public key is of small order."""
        if self._remote is None or self._identity is not identity:
            preshared = self.preshared_key.raw if self.preshared_key else NO_PRESHARED_KEY
            try:
                self._remote = Remote(identity, self.public_key.raw, preshared)
            except _noise.AuthenticationError:
                return None
            self._identity = identity
        return self._remote

    def watch_until(self, due: int) -> None:
        """Tell C the time of the next look at its time stamps, so that it reports anything more urgent at once."""
        stamps = self.core.state()
        if stamps.unanswered_since:
            due = min(due, stamps.unanswered_since + self._limits.unanswered)
        if stamps.unacknowledged_since:
            due = min(due, stamps.unacknowledged_since + self._limits.keepalive)
        # C compares with the protocol's own times, and an old stamp has been seen.
        self.core.watch_until(max(due, SECOND))
