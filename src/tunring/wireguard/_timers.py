"""When a peer is to be sent something: handshakes, their retries, keepalives, and the end of its keys.

A state machine without a clock: :meth:`Timers.look` gets the time and what C has stamped, and returns what is due. All
times are nanoseconds of CLOCK_BOOTTIME, which goes on while the system sleeps; 0 is never.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

SECOND = 1_000_000_000

#: A time that never comes.
NEVER = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Limits:
    """The protocol's times in nanoseconds. Only tests have others. C has those of keys and of rekeying."""

    #: Between two initiations to a peer at least, and what chance adds to a retry.
    retry: int = 5 * SECOND
    jitter: int = SECOND // 3
    #: How long it is tried.
    attempt: int = 90 * SECOND
    #: After data that nobody acknowledges by an answer of any kind.
    keepalive: int = 10 * SECOND
    #: After data that nobody answered.
    unanswered: int = 15 * SECOND
    #: After the last handshake.
    wipe: int = 540 * SECOND
    #: Between two initiations of a peer that are answered.
    flood: int = SECOND // 50


class Stamps(Protocol):
    """C's record of a peer."""

    @property
    def unanswered_since(self) -> int:
        """The first data sent since anything authenticated came."""

    @property
    def unacknowledged_since(self) -> int:
        """The first data received since anything was sent."""

    @property
    def last_data_sent(self) -> int:
        """The last data sent."""

    @property
    def last_sent(self) -> int:
        """The last message sent, of any kind."""

    @property
    def last_received(self) -> int:
        """The last authenticated message received, of any kind."""

    @property
    def newest_born(self) -> int:
        """When the newest keys were made."""


@dataclass(frozen=True, slots=True)
class Due:
    """The result of a look: the actions that are due, and when to look again."""

    wipe: bool = False
    give_up: bool = False
    initiate: bool = False
    #: Something before this initiation was not answered.
    unanswered: bool = False
    keepalive: bool = False
    next: int = NEVER


class Timers:
    """The timers of one peer.

    Parameters
    ----------
    limits : Limits, optional
        The protocol's times.
    jitter : callable, optional
        A random number from 0 to its argument.
    """

    def __init__(
        self, limits: Limits | None = None, jitter: Callable[[int], int] = lambda maximum: random.randint(0, maximum)
    ) -> None:
        self._limits = limits or Limits()
        self._jitter = jitter
        #: Seconds between persistent keepalives, 0 without.
        self.persistent_keepalive = 0
        self._last_initiation = 0
        self._initiate_at = NEVER
        self._attempt_until = 0
        self._tries = 0
        # Initiations of this attempt that did not leave.
        self._unsent = 0
        # The time stamp whose lack of an answer caused a handshake, and when it did.
        self._seen_unanswered = 0
        self._seen_at = 0
        # The handshake that is wanted is one for such a lack.
        self._suspicious = False
        self._wiped = 0
        self._tried_keepalive = 0

    @property
    def attempting(self) -> bool:
        """True while a handshake is wanted or under way."""
        return self._initiate_at != NEVER

    @property
    def retrying(self) -> bool:
        """True while an initiation that was sent has no answer yet."""
        return self._tries > 0

    def want(self, now: int) -> None:
        """A handshake is wanted: now, or as soon as the last initiation is old enough."""
        self._attempt_until = now + self._limits.attempt
        if not self.attempting:
            self._tries = self._unsent = 0
            self._initiate_at = self._earliest(now)

    def _earliest(self, now: int) -> int:
        return max(now, self._last_initiation + self._limits.retry) if self._last_initiation else now

    def initiated(self, now: int) -> None:
        """An initiation is about to be sent: it counts, unless :meth:`unsent` is called."""
        self._last_initiation = now
        self._tries += 1
        self._initiate_at = now + self._limits.retry + self._jitter(self._limits.jitter)

    def unsent(self, now: int) -> None:
        """The initiation did not leave, for lack of room or of a route: the next follows soon, then less soon."""
        self._last_initiation = 0
        self._initiate_at = now + min(self._limits.retry, (self._limits.retry // 5) << self._unsent)
        self._unsent = min(self._unsent + 1, 3)

    def unable(self, now: int) -> None:
        """Nothing could be sent, for lack of an endpoint or of a private key that goes with the peer's key."""
        self._initiate_at = now + self._limits.retry

    def hurry(self, now: int) -> None:
        """The endpoint or the identity has changed: what is wanted is tried as soon as the last initiation allows."""
        self._tries = 0
        if self.attempting:
            self._initiate_at = self._earliest(now)

    def responded(self, now: int) -> None:
        """A response was sent, which an initiation of ours must not cross."""
        self._last_initiation = now
        if self.attempting:
            self._initiate_at = max(self._initiate_at, now + self._limits.retry + self._jitter(self._limits.jitter))

    def completed(self) -> None:
        """A handshake is complete, and both sides know."""
        self._initiate_at = NEVER
        self._tries = 0
        self._suspicious = False

    def look(self, now: int, stamps: Stamps, *, reachable: bool = True) -> Due:
        """Find what is due.

        Parameters
        ----------
        now : int
            The time.
        stamps : Stamps
            C's time stamps.
        reachable : bool, default True
            True if the peer's endpoint is known; persistent keepalives wait until it is.
        """
        wipe, wipe_at = self._wipe(now, stamps)
        unanswered_at = self._unanswered(now, stamps)
        give_up = initiate = False
        unanswered = self._tries > 0 or self._suspicious
        if self._initiate_at <= now:
            if now >= self._attempt_until:
                self.completed()
                give_up = True
            else:
                initiate = True
        keepalive_at = self._keepalive(now, stamps, reachable)
        # An initiation takes its place: the caller sends it, reports that, and looks again.
        keepalive = keepalive_at <= now and not initiate
        if keepalive:
            self._tried_keepalive = now
        return Due(
            wipe=wipe,
            give_up=give_up,
            initiate=initiate,
            unanswered=initiate and unanswered,
            keepalive=keepalive,
            next=now if initiate or keepalive else min(wipe_at, unanswered_at, keepalive_at, self._initiate_at),
        )

    def _wipe(self, now: int, stamps: Stamps) -> tuple[bool, int]:
        born = stamps.newest_born
        if not born or born == self._wiped:
            return False, NEVER
        if now < born + self._limits.wipe:
            return False, born + self._limits.wipe
        self._wiped = born
        return True, NEVER

    def _unanswered(self, now: int, stamps: Stamps) -> int:
        since = stamps.unanswered_since
        if not since:
            return NEVER
        if since == self._seen_unanswered:
            # It has caused a handshake already: only data sent after that causes another.
            due = self._seen_at + self._limits.unanswered
            if now < due:
                return due
            if self.attempting or stamps.last_data_sent <= self._seen_at:
                # C wakes nobody for it, so look again; without keys it is C that asks for a handshake.
                return now + self._limits.keepalive if stamps.newest_born else NEVER
        elif now < since + self._limits.unanswered:
            return since + self._limits.unanswered
        self._seen_unanswered, self._seen_at = since, now
        self._suspicious = True
        self.want(now)
        return now + self._limits.unanswered

    def _keepalive(self, now: int, stamps: Stamps, reachable: bool) -> int:
        # One that could not be sent is tried again, but not at once.
        due = NEVER
        if stamps.unacknowledged_since:
            due = max(stamps.unacknowledged_since, self._tried_keepalive) + self._limits.keepalive
        # While a handshake is tried, nothing can be sent, or what is sent changes nothing.
        if self.persistent_keepalive and reachable and not self.attempting:
            last = max(stamps.last_sent, stamps.last_received, self._tried_keepalive)
            due = min(due, last + self.persistent_keepalive * SECOND if last else now)
        return due
