"""Sessions and sockets in asyncio: what :meth:`Session.receive_async` and its like do when they have to wait.

On POSIX the loop watches a copy of a descriptor of theirs, and on Windows, whose default loop can't, a thread does.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sys
import types
from typing import TYPE_CHECKING, TypeVar

from tunring import _core
from tunring._loops.tasks import Tasks, ThreadWatch
from tunring._win32 import Win32
from tunring.errors import SessionClosed

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from tunring._loops.tasks import Event, Source, Watch

Key = TypeVar("Key")

#: True if a thread waits for packets rather than the loop itself.
use_threads = os.name == "nt"


def _copy(descriptor: int) -> int:
    """Copy a descriptor. The copy is at least 3: a program may redirect its standard streams at any time."""
    if sys.platform != "win32":
        import fcntl

        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    raise NotImplementedError


class DescriptorWatch:
    """The loop's own watch over a copy of a source's descriptor.

    The source may be closed by another thread, and its number then belong to another file: a copy stays valid. It
    doesn't keep the device.
    """

    def __init__(
        self, source: Source, loop: asyncio.AbstractEventLoop, fired: Callable[[], None], room: bool = False
    ) -> None:
        self._loop = loop
        self._fired = fired
        self._descriptor = -1
        self._ours: list[int] = []  # the descriptor until it is closed: of several threads, one gets to close it
        try:
            descriptor = source._room_event if room else source.fileno()  # noqa: SLF001
            assert descriptor is not None
            self._descriptor = _copy(descriptor)
            self._ours.append(self._descriptor)
        except OSError as error:
            if error.errno != errno.EBADF or not source.closed:
                raise
        if source.closed:  # in between, so that the copy may be of something else
            self.close()
            raise SessionClosed(Win32.HANDLE_EOF, "the socket was closed" if room else "the session was closed")

    def arm(self) -> None:
        """Watch the descriptor."""
        self._loop.add_reader(self._descriptor, self._fire)

    def _fire(self) -> None:
        # It would fire again before the task that it wakes could look.
        self._loop.remove_reader(self._descriptor)
        self._fired()

    def disarm(self) -> bool:
        """Stop watching."""
        self._loop.remove_reader(self._descriptor)
        return True

    def close(self) -> None:
        """Stop watching, and close the copy."""
        try:
            descriptor = self._ours.pop()
        except IndexError:
            return
        self._descriptor = -1
        if not self._loop.is_closed():
            self._loop.remove_reader(descriptor)
        os.close(descriptor)

    def __del__(self, *, close: Callable[[int], None] = os.close) -> None:  # at exit, modules may be empty already
        for descriptor in getattr(self, "_ours", ()):
            close(descriptor)


class LoopTasks(Tasks):
    """The tasks of an asyncio loop that use a source."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop

    def soon(self, function: Callable[[], None]) -> object:
        """Call it by ``call_soon_threadsafe``."""
        return self._loop.call_soon_threadsafe(function)

    def finished(self) -> bool:
        """True if the loop is closed."""
        return self._loop.is_closed()

    def make_event(self) -> Event:
        """An ``asyncio.Event``."""
        return asyncio.Event()

    def make_watch(self, source: Source, room: bool) -> Watch:
        """The loop's own, where it has one."""
        if use_threads:
            return ThreadWatch(source, self, room)
        return DescriptorWatch(source, self._loop, self.room_came if room else self.fired, room)

    async def wait(self, event: Event, seconds: float) -> None:
        """Wait by the loop's clock."""
        timer = self._loop.call_later(seconds, event.set)
        try:
            await event.wait()
        finally:
            timer.cancel()

    async def yield_turn(self) -> None:
        try:
            await _turn()
        finally:
            self.begin_turn()


@types.coroutine
def _turn() -> Generator[None, None, None]:
    """Let the loop run once: as ``asyncio.sleep(0)``, which goes through more frames each time.

    A coroutine of Python's awaits it: in the stable ABI, the extension can't await a generator.
    """
    yield


def tasks_of(source: Source, key: Key, make: Callable[[Key], Tasks]) -> Tasks:
    """Those of the source and the loop that ``key`` stands for. Those of loops that are closed are forgotten."""
    tasks = source._tasks.get(key)  # noqa: SLF001
    if tasks is None:
        for other, its in list(source._tasks.items()):  # noqa: SLF001
            if its.finished():
                its.end()
                source._tasks.pop(other, None)  # noqa: SLF001
        tasks = source._tasks.setdefault(key, make(key))  # noqa: SLF001
    return tasks


def make_tasks(source: Source, loop: asyncio.AbstractEventLoop) -> Tasks:
    """Make those of the source and an asyncio loop, unless they are there."""
    return tasks_of(source, loop, LoopTasks)


_core.use_loops(asyncio.get_running_loop, make_tasks)
