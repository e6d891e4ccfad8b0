"""A peer's handshakes, both ways at once: what of an initiation, a response or a cookie reply is accepted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunring.wireguard import _handshake, _noise
from tunring.wireguard._cookies import CookieJar

if TYPE_CHECKING:
    from collections.abc import Callable

    from tunring.wireguard._handshake import Identity, Initiator, Opened, Remote, SessionKeys


class Refused(ValueError):
    """An initiation is the peer's, but an old one, or comes too soon after the last."""


class Exchange:
    """The state of a peer's handshakes. Times are nanoseconds of any clock that does not go back.

    An initiation of ours and one of the peer's do not disturb each other: where both begin at once, both handshakes
    may complete, and each side then has the keys of both.

    Parameters
    ----------
    public : bytes
        The peer's public key.
    flood : int
        Nanoseconds in which a peer may begin one handshake only.
    random : callable, optional
        Returns that number of random bytes.
    """

    def __init__(self, public: bytes, flood: int, random: Callable[[int], bytes] = _noise.random_bytes) -> None:
        self.cookies = CookieJar(public)
        self._flood = flood
        self._random = random
        self._greatest = b""
        self._accepted_at: int | None = None
        self._initiator: Initiator | None = None

    @property
    def index(self) -> int | None:
        """The index of our initiation that waits for its response."""
        initiator = self._initiator
        return initiator.index if initiator else None

    def initiate(self, identity: Identity, remote: Remote, index: int, timestamp: bytes, now: int) -> bytes:
        """An initiation with its MACs. It takes the place of one that still waits, unless this raises an exception."""
        message, initiator = _handshake.initiate(identity, remote, index, timestamp, self._random)
        message = self._with_macs(message, remote, now)
        self.forget()
        self._initiator = initiator
        return message

    def forget(self) -> None:
        """Wait for no response any more. From any thread."""
        initiator, self._initiator = self._initiator, None
        if initiator:
            initiator.wipe()

    def wipe(self) -> None:
        """Wipe what is kept from one handshake to the next. From any thread."""
        self.forget()
        self.cookies.forget()

    def accept(self, opened: Opened, remote: Remote, now: int) -> None:
        """Believe an initiation.

        Raises
        ------
        AuthenticationError
            It is not the peer's.
        Refused
            It is not newer than the last one, or comes too soon after it.
        """
        timestamp = opened.verify(remote)
        if timestamp <= self._greatest:
            raise Refused("the initiation is not newer than the last one")
        if self._accepted_at is not None and now < self._accepted_at + self._flood:
            raise Refused("the initiation comes too soon after the last one")
        self._greatest, self._accepted_at = timestamp, now

    def respond(self, opened: Opened, remote: Remote, index: int, now: int) -> tuple[bytes, SessionKeys]:
        """A response with its MACs to an accepted initiation, and the keys."""
        message, keys = opened.respond(index, self._random)
        return self._with_macs(message, remote, now), keys

    def finish(self, message: bytes) -> SessionKeys:
        """Take the response to our initiation.

        Raises
        ------
        MessageError, AuthenticationError
            It is not that.
        """
        initiator = self._initiator
        if initiator is None:
            raise _noise.AuthenticationError("no initiation waits for a response")
        keys = initiator.finish(message)
        self.forget()
        return keys

    def _with_macs(self, message: bytes, remote: Remote, now: int) -> bytes:
        message = _handshake.add_macs(message, remote.mac1_key, self.cookies.current(now))
        self.cookies.sent(message)
        return message
