"""Tools of asyncio's tests for tasks and sessions."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import libraries
from packets import number_of, packet

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    import tunring
    from tunring._loops.tasks import Tasks


def numbered(first: int, count: int, size: int = 20) -> list[bytes]:
    """Makes `count` packets, numbered on from `first`."""
    return [packet(size, number=number) for number in range(first, first + count)]


def rest(session: tunring.Session) -> list[int]:
    """The numbers of the packets that are there."""
    found: list[int] = []
    library = session.adapter.library
    libraries.settle(library)
    while batch := session.receive(timeout=0):
        with batch:
            found += [number_of(view) for view in batch]
        libraries.settle(library)
    return found


def tasks_here(session: tunring.Session) -> Tasks:
    """The tasks of the running loop."""
    return session._tasks[asyncio.get_running_loop()]


async def turns(count: int = 10) -> None:
    """Lets the loop run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def waiting(session: tunring.Session, count: int = 1) -> None:
    """Returns once this many tasks wait for packets."""
    loop = asyncio.get_running_loop()
    while loop not in session._tasks or len(tasks_here(session)._waiting) != count:
        await asyncio.sleep(0)


async def served_in_turn(
    left: tunring.Session,
    right: tunring.Session,
    receive: Callable[[], Coroutine[Any, Any, tunring.Batch]],
    sleep: Callable[[float], Coroutine[Any, Any, None]],
    start: Callable[[Callable[[], Coroutine[Any, Any, None]]], object],
) -> list[int]:
    """Eight tasks wait in `right`, and eight packets come one after the other: the tasks in order of their packets."""
    order: list[int] = []

    def take(index: int) -> Callable[[], Coroutine[Any, Any, None]]:
        async def take_one() -> None:
            with await receive() as batch:
                assert len(batch) == 1
                order.append(index)

        return take_one

    for index in range(8):
        start(take(index))
        while sum(len(tasks._waiting) for tasks in right._tasks.values()) != index + 1:
            await sleep(0)
    for number in range(8):
        left.send([packet(number=number)])
        while len(order) <= number:
            await sleep(0.001)
        await sleep(0.005)  # lets a task that is woken for nothing run
    return order


async def cancel_everywhere(
    make: Callable[[], Coroutine[Any, Any, Any]], check: Callable[[int, Any], None], step: Callable[[int], None]
) -> int:
    """Runs a coroutine again and again, and cancels it one turn of the loop later each time, until it ends by itself.

    `step` is called before each turn with its number, and `check` after each run with its turns and what it returned,
    or None. Returns how many were cancelled.
    """
    for last in range(200):
        task = asyncio.create_task(make())
        for turn in range(last):
            step(turn)
            # Later turns take time, so that what waits by the clock ends however fast the loop turns.
            await asyncio.sleep(0 if turn < 60 else 0.001)
        done = task.done()
        task.cancel()
        await asyncio.wait([task])
        result = None if task.cancelled() else task.result()
        del task  # and with it the exception, which holds what the coroutine had
        check(last, result)
        if done:
            return last
        del result
    raise AssertionError("it never ended")
