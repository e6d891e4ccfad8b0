"""Sessions and UDP sockets in anyio tasks, under trio as well as asyncio: ``pip install anyio``.

Each function is a checkpoint: before it takes or sends anything it lets other tasks run, and raises if its task is
cancelled. Under asyncio they wait in the same queues as :meth:`Session.receive_async` and its kin.

Examples
--------
>>> import anyio, tunring.testing
>>> from tunring.contrib import anyio as tunring_anyio
>>> async def main():
...     left, right = tunring.testing.pair()
...     with left, right:
...         async with anyio.create_task_group() as tasks:
...             tasks.start_soon(tunring_anyio.send, left, [bytes([0x45]) + bytes(19)])
...             with await tunring_anyio.receive(right) as batch:
...                 return len(batch)
>>> anyio.run(main), anyio.run(main, backend="trio")
(1, 1)
"""

from __future__ import annotations

import asyncio
from functools import cache
from typing import TYPE_CHECKING, overload

from tunring._core import UdpSocket, check_timeout, receive_in_task, send_in_task
from tunring._extras import import_advice
from tunring._loops import aio
from tunring._loops.tasks import Tasks
from tunring.errors import SessionClosed

try:
    import anyio
except ImportError as error:
    reason = import_advice(error, "anyio")
    raise ImportError(f"tunring.contrib.anyio {reason}", name="anyio") from error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence
    from types import ModuleType
    from typing import Literal, SupportsIndex, TypeAlias

    import trio.lowlevel

    from tunring._buffers import Buffer
    from tunring._core import Batch, Endpoint, Outgoing, Session
    from tunring._loops.tasks import Event, Source

    OnFull = Literal["wait", "partial", "drop", "raise"]
    Destination: TypeAlias = Endpoint | tuple[str, int] | tuple[str, int, int, int]
    Destinations: TypeAlias = (
        Destination | list[Endpoint] | list[tuple[str, int]] | list[tuple[str, int, int, int]] | list[Destination]
    )
    Integers: TypeAlias = Buffer | Sequence[SupportsIndex]


def _nothing() -> None:
    pass


class _TrioTasks(Tasks):
    """The tasks of a run of trio that use a source. They call trio itself: anyio's calls take twice as long."""

    def __init__(self, token: trio.lowlevel.TrioToken) -> None:
        super().__init__()
        self._token = token

    def soon(self, function: Callable[[], None]) -> None:
        self._token.run_sync_soon(function)

    def finished(self) -> bool:
        try:
            if _trio().current_trio_token() is self._token:
                return False
        except RuntimeError:
            pass  # this is another thread
        try:
            self.soon(_nothing)
        except RuntimeError:
            return True
        return False

    def make_event(self) -> Event:
        return anyio.Event()

    async def wait(self, event: Event, seconds: float) -> None:
        with anyio.move_on_after(seconds):
            await event.wait()

    async def yield_turn(self) -> None:
        try:
            await _trio().checkpoint()
        finally:
            self.begin_turn()


@cache
def _trio() -> ModuleType:
    import trio.lowlevel

    return trio.lowlevel


def _tasks(source: Source) -> Tasks:
    """Those of the source and the loop that runs.

    Before anything is taken, each function lets other tasks run by their yield_turn(), and raises if its own is
    cancelled. After that, a shielded checkpoint would do under trio, but the shield doesn't keep asyncio's own
    Task.cancel() off, and what was taken would be lost.
    """
    # In trio's guest mode asyncio's loop runs as well, but none of its tasks does.
    loop = asyncio._get_running_loop()  # noqa: SLF001
    if loop is not None and asyncio.current_task(loop) is not None:
        return aio.make_tasks(source, loop)
    return aio.tasks_of(source, _trio().current_trio_token(), _TrioTasks)


async def receive(
    source: Source,
    max_packets: SupportsIndex = 256,
    timeout: float | None = None,
    *,
    min_packets: SupportsIndex = 1,
    linger: float = 0,
) -> Batch:
    """Take the packets that are there, waiting for the first one.

    A task that is cancelled has taken nothing. Parameters, result and errors are those of
    :meth:`Session.receive_async`; ``source`` is a Session or a UdpSocket.
    """
    timeout = check_timeout(timeout)
    tasks = _tasks(source)
    await tasks.yield_turn()
    return await receive_in_task(source, tasks, max_packets, timeout, None, None, min_packets, linger)


async def batches(
    source: Source,
    max_packets: SupportsIndex = 256,
    *,
    timeout: float | None = None,
    min_packets: SupportsIndex = 1,
    linger: float = 0,
) -> AsyncIterator[Batch]:
    """Iterate over batches as they come, releasing each when the next is asked for.

    Ends silently when the source is over. Parameters are those of :meth:`Session.batches_async`.
    """
    while True:
        try:
            batch = await receive(source, max_packets, timeout, min_packets=min_packets, linger=linger)
        except SessionClosed:
            return
        with batch:
            yield batch


@overload
async def send(
    source: Session,
    packets: Iterable[Buffer] | Batch,
    *,
    on_full: OnFull = ...,
    timeout: float | None = ...,
    checksums: Literal["fill"] | None = ...,
) -> int: ...
@overload
async def send(
    source: UdpSocket,
    packets: Iterable[Buffer] | Batch,
    to: Destinations,
    *,
    index: Integers | None = ...,
    ecn: int | Integers = ...,
    on_full: OnFull = ...,
    timeout: float | None = ...,
) -> int: ...
async def send(
    source: Source,
    packets: Iterable[Buffer] | Batch,
    to: Destinations | None = None,
    *,
    index: Integers | None = None,
    ecn: int | Integers = 0,
    on_full: OnFull = "wait",
    timeout: float | None = None,
    checksums: Literal["fill"] | None = None,
) -> int:
    """Send packets, in order, waiting for room; a UdpSocket's take their destination.

    A task that is cancelled may have sent some. Parameters, result and errors are those of :meth:`Session.send` or
    :meth:`UdpSocket.send`.
    """
    return await _send(_outgoing(source, packets, None, on_full, to, index, ecn, checksums), timeout)


@overload
async def send_packed(
    source: Session,
    buffer: Buffer,
    lengths: Integers,
    *,
    on_full: OnFull = ...,
    timeout: float | None = ...,
    checksums: Literal["fill"] | None = ...,
) -> int: ...
@overload
async def send_packed(
    source: UdpSocket,
    buffer: Buffer,
    lengths: Integers,
    to: Destinations,
    *,
    index: Integers | None = ...,
    ecn: int | Integers = ...,
    on_full: OnFull = ...,
    timeout: float | None = ...,
) -> int: ...
async def send_packed(
    source: Source,
    buffer: Buffer,
    lengths: Integers,
    to: Destinations | None = None,
    *,
    index: Integers | None = None,
    ecn: int | Integers = 0,
    on_full: OnFull = "wait",
    timeout: float | None = None,
    checksums: Literal["fill"] | None = None,
) -> int:
    """Send packets that lie back to back in one buffer, as :meth:`Session.send_packed` does, waiting for room."""
    return await _send(_outgoing(source, buffer, lengths, on_full, to, index, ecn, checksums), timeout)


def _outgoing(
    source: Source,
    packets: Iterable[Buffer] | Batch | Buffer,
    lengths: Integers | None,
    on_full: OnFull,
    to: Destinations | None,
    index: Integers | None,
    ecn: int | Integers,
    checksums: Literal["fill"] | None,
) -> Outgoing:
    if isinstance(source, UdpSocket):
        if to is None:
            raise TypeError("a UdpSocket sends to a destination: to must be given")
        if checksums is not None:
            raise TypeError("a UdpSocket takes no checksums: the system makes those of its datagrams")
        return source._outgoing(packets, lengths, on_full, to, index, ecn)  # noqa: SLF001
    if to is not None or index is not None or ecn != 0:
        raise TypeError("a Session takes no to, index or ecn: its packets have their destinations in them")
    return source._outgoing(packets, lengths, on_full, checksums)  # noqa: SLF001


async def _send(outgoing: Outgoing, timeout: float | None) -> int:
    try:
        timeout = check_timeout(timeout)
        tasks = _tasks(outgoing.source)
        await tasks.yield_turn()
        return await send_in_task(outgoing, tasks, timeout)
    finally:
        outgoing.let_go()
