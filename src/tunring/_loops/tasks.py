"""Tasks of an event loop that use a session or socket, whatever the loop is; :mod:`tunring._loops.aio` is for asyncio.

The extension can look for packets, send as many as fit, and wait in a thread. This module decides which tasks wait, in
which order and for how long. Nothing takes packets for another task: one that was woken looks for itself, so that one
which is cancelled loses none. A :class:`Watch` is armed for each wait and fires once; where nobody waits, nothing is
armed.
"""

from __future__ import annotations

import contextlib
import math
import operator
import sys
import threading
import weakref
from collections import deque
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from tunring._core import Notifier, Turn

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import SupportsIndex, TypeAlias

    from tunring._core import Batch, Cancel, Outgoing, Session, UdpSocket

    #: Objects that tasks receive from and send by.
    Source: TypeAlias = Session | UdpSocket

#: Times that a task which waits for room in a ring lets the loop run before it sleeps.
_ROUNDS = 8

#: Seconds of a sleep while the ring is full: at first, and at most.
_SHORTEST = 0.001
_LONGEST = 0.016


def _deadline(timeout: float | None) -> float:
    return math.inf if timeout is None else monotonic() + timeout


class Event(Protocol):
    """An event that a task waits for: an ``asyncio.Event`` or an ``anyio.Event``."""

    def set(self) -> object:
        """Let the task go on."""

    async def wait(self) -> object:
        """Wait until somebody calls :meth:`set`."""


class Watch(Protocol):
    """Calls a function in the loop's thread once packets, or room, are there, or the source is over."""

    def arm(self) -> None:
        """Watch until it fires. It isn't armed before."""

    def disarm(self) -> bool:
        """Stop watching. False if it can't, and will fire yet."""

    def close(self) -> None:
        """Stop watching for good."""


class ThreadWatch:
    """A thread that waits for an event of a source, for loops that can't.

    Parameters
    ----------
    source : Session or UdpSocket
        The source. The thread doesn't keep it, and ends with it.
    tasks : Tasks
        The tasks to wake.
    room : bool
        True: wait for room, rather than for packets.
    """

    def __init__(self, source: Source, tasks: Tasks, room: bool = False) -> None:
        self._notifier = Notifier(source, room)
        # A daemon, since a source may be open when the program ends.
        arguments = (self._notifier, weakref.ref(tasks), Tasks.room_came if room else Tasks.fired)
        threading.Thread(target=_watch, args=arguments, name="tunring-notifier", daemon=True).start()

    def arm(self) -> None:
        """Let the thread wait."""
        self._notifier.arm()

    def disarm(self) -> bool:
        """It can't: the thread is in its wait."""
        return False

    def close(self) -> None:
        """End the thread."""
        self._notifier.end()


def _watch(notifier: Notifier, reference: weakref.ref[Tasks], fired: Callable[[Tasks], None]) -> None:
    while notifier.wait():
        tasks = reference()
        if tasks is None:
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody will arm the notifier any more
            tasks.soon(partial(fired, tasks))
        del tasks


class _Waiter:
    """A task in the line for packets."""

    __slots__ = ("event",)

    def __init__(self, event: Event) -> None:
        self.event = event  # a new one for each wait: anyio's can't be cleared


class Tasks(Turn):
    """The tasks of one event loop that use one source. All methods but two are for the loop's thread."""

    def __init__(self) -> None:
        self._waiting: deque[_Waiter] = deque()  # for packets, in order
        self._watch: Watch | None = None
        self._armed = False
        self._senders: deque[Event] = deque()  # tasks in line behind the one that waits for room
        self._pausing: set[Event] = set()  # its sleep
        self._room_watch: Watch | None = None
        self._room_armed = False
        self._ended = False

    # ---- What differs from loop to loop.

    def soon(self, function: Callable[[], None]) -> object:
        """Call a function in the loop's thread, from any thread. RuntimeError once the loop is closed."""
        raise NotImplementedError

    def finished(self) -> bool:
        """True if the loop is closed."""
        raise NotImplementedError

    def make_event(self) -> Event:
        """An event of the loop's."""
        raise NotImplementedError

    def make_watch(self, source: Source, room: bool) -> Watch:
        """Return a watch that calls :meth:`fired` once packets are there, or :meth:`room_came` once there is room."""
        return ThreadWatch(source, self, room)

    async def wait(self, event: Event, seconds: float) -> None:
        """Wait for an event, but no longer than that."""
        raise NotImplementedError

    def yield_turn(self) -> Awaitable[None]:
        """Let the loop run once, whose other tasks may take a while, and begin_turn().

        That begins also when the task is cancelled here: one that is cancelled here each time would never get on.
        """
        raise NotImplementedError

    # ---- Packets

    async def receive_in_line(
        self,
        source: Source,
        max_packets: SupportsIndex,
        timeout: float | None,
        cancel: Cancel | None,
        min_packets: int = 1,
        linger: float = 0,
    ) -> Batch:
        """Line up for packets and take them. Empty when the time is up, or once ``cancel`` is set."""
        deadline = _deadline(timeout)
        waiter = _Waiter(self.make_event())
        self._waiting.append(waiter)
        try:
            while True:
                self._arm(source)
                await self._wait_until(waiter.event, deadline)
                in_time = monotonic() < deadline
                if min_packets > 1 and in_time and self.woken:
                    await self._linger(waiter, source, max_packets, min_packets, monotonic() + linger)
                self.begin_turn()
                batch = source._poll(max_packets)  # noqa: SLF001
                if batch or not in_time or (cancel is not None and cancel.called):
                    return batch
                # Another thread took them. The task keeps its place in the line.
                if self._waiting[0] is waiter:
                    self.woken = False
                waiter.event = self.make_event()
        finally:
            # Not before the poll: a thread would find the same packets again, and wake the next task for nothing.
            self._leave(waiter, source)

    async def _linger(
        self, waiter: _Waiter, source: Source, max_packets: SupportsIndex, min_packets: int, until: float
    ) -> None:
        """Wait until there are enough packets, or the time is up.

        The source keeps them: what the task had taken itself would be lost if it is cancelled.
        """
        enough = min(min_packets, operator.index(max_packets))
        try:
            while not self._ended and source._gather(max_packets) < enough and monotonic() < until:  # noqa: SLF001
                waiter.event = self.make_event()
                self._arm_watch(source)
                await self._wait_until(waiter.event, until)
        except BaseException:
            source._gather_end()  # noqa: SLF001
            raise

    def _leave(self, waiter: _Waiter, source: Source) -> None:
        if self._waiting[0] is waiter:
            self.woken = False
        self._waiting.remove(waiter)
        # A task that leaves, woken or not, makes sure that another one will be woken.
        if self._waiting:
            self._arm(source)
        else:
            self._disarm()

    def _arm(self, source: Source) -> None:
        if not self.woken:
            self._arm_watch(source)

    def _arm_watch(self, source: Source) -> None:
        # A source that is closed meanwhile wakes everybody.
        if self._armed or self._ended or self.finished():
            return
        if self._watch is None:
            self._watch = self.make_watch(source, False)
        self._watch.arm()
        self._armed = True

    def _disarm(self) -> None:
        if self._armed and self._watch is not None and not (self._ended or self.finished()):
            self._armed = not self._watch.disarm()

    def fired(self) -> None:
        """Wake the task that has waited longest. It keeps its place until it has looked."""
        self._armed = False
        if self._waiting:
            self.woken = True
            self._waiting[0].event.set()

    # ---- Room

    async def send_in_line(self, outgoing: Outgoing, timeout: float | None) -> None:
        """Wait for room and send the rest, or until timeout as many as fit."""
        deadline = _deadline(timeout)
        if not await self._line_up(deadline):
            return
        try:
            rounds, before, began = 0, outgoing.sent, monotonic()
            while not outgoing.proceed():
                now = monotonic()
                if now >= deadline:
                    return
                if await self._wait_for_room(outgoing.source, deadline):
                    continue
                if outgoing.sent != before:
                    rounds, before, began = 0, outgoing.sent, now
                await self._pause(rounds, now - began, deadline - now)
                rounds += 1
        finally:
            self._pass_on()

    async def _wait_for_room(self, source: Source, deadline: float) -> bool:
        """Wait for the event of room. False where there is none."""
        if source._room_event is None:  # noqa: SLF001
            return False
        event = self.make_event()
        self._pausing.add(event)
        try:
            self._arm_room(source)
            await self._wait_until(event, deadline)
        finally:
            self._pausing.discard(event)
            if self._room_armed and self._room_watch is not None and not (self._ended or self.finished()):
                self._room_armed = not self._room_watch.disarm()
        self.begin_turn()
        return True

    def _arm_room(self, source: Source) -> None:
        # A source that is closed meanwhile wakes everybody.
        if self._room_armed or self._ended or self.finished():
            return
        if self._room_watch is None:
            self._room_watch = self.make_watch(source, True)
        self._room_watch.arm()
        self._room_armed = True

    def room_came(self) -> None:
        """Wake the task that waits for room."""
        self._room_armed = False
        for event in self._pausing:
            event.set()

    async def _line_up(self, deadline: float) -> bool:
        """Wait until no other task waits for room. False when the time is up before."""
        if not self.sending:
            self.sending = True
            return True
        event = self.make_event()
        self._senders.append(event)
        try:
            await self._wait_until(event, deadline)
        except BaseException:
            if not self._leave_line(event):
                self._pass_on()
            raise
        return not self._leave_line(event)

    def _leave_line(self, event: Event) -> bool:
        """False if it was this one's turn already."""
        if event not in self._senders:
            return False
        self._senders.remove(event)
        return True

    def _pass_on(self) -> None:
        if self._senders and not self.finished():
            self._senders.popleft().set()
        else:
            self.sending = False

    async def _pause(self, rounds: int, waited: float, left: float) -> None:
        """Wait a little for room, which nothing announces: longer, the longer it has taken."""
        if rounds < _ROUNDS:
            await self.yield_turn()
            return
        event = self.make_event()
        self._pausing.add(event)
        try:
            await self.wait(event, min(max(waited / 4, _SHORTEST), _LONGEST, left))
        finally:
            self._pausing.discard(event)

    async def _wait_until(self, event: Event, deadline: float) -> None:
        if deadline == math.inf:
            await event.wait()
        else:
            await self.wait(event, max(0.0, deadline - monotonic()))

    # ---- The end

    def look_again(self) -> None:
        """Wake everybody, to see what has changed. From any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self.soon(self._wake_all)

    def session_closed(self, *, finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        """Wake all tasks: the source is closed. Idempotent; may be called from any thread."""
        if finalizing():  # no loop runs any more, and modules may be empty already
            return
        try:
            self.soon(self.end)
        except RuntimeError:
            self.end()

    def end(self) -> None:
        """Wake everybody, and stop watching for good."""
        self._ended = True
        for watch in (self._watch, self._room_watch):
            if watch is not None:
                watch.close()
        self._watch = self._room_watch = None
        if not self.finished():
            self._wake_all()

    def _wake_all(self) -> None:
        for event in (*(waiter.event for waiter in self._waiting), *self._pausing):
            event.set()
