"""Receiving in a task: waking, timeouts, cancelling."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

import tunring
from packets import number_of, packet
from tasks import cancel_everywhere, numbered, rest, served_in_turn, tasks_here, turns, waiting
from tunring._loops.tasks import Tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    Pair = tuple[tunring.Session, tunring.Session]
    Run = Callable[[Coroutine[Any, Any, Any]], Any]


def test_takes_what_is_there(pair: Pair, run: Run) -> None:
    left, right = pair
    left.send(numbered(0, 300))

    async def main() -> list[int]:
        return [len(await right.receive_async()), len(await right.receive_async(10)), len(await right.receive_async())]

    assert run(main()) == [256, 10, 34]


def test_waits_for_packets(pair: Pair, run: Run) -> None:
    left, right = pair

    async def main() -> None:
        for number in range(20):
            task = asyncio.create_task(right.receive_async())
            await waiting(right)
            left.send(numbered(number, 5))
            with await task as batch:
                assert [number_of(view) for view in batch] == list(range(number, number + 5))

    run(main())


def test_waits_for_a_thread_that_sends(pair: Pair, run: Run) -> None:
    left, right = pair
    total = 20000

    def send() -> None:
        for first in range(0, total, 50):
            assert left.send(numbered(first, 50), timeout=20) == 50

    async def main() -> list[int]:
        sender = threading.Thread(target=send)
        sender.start()
        found: list[int] = []
        async for batch in right.batches_async(64):
            found += [number_of(view) for view in batch]
            if len(found) == total:
                break
        sender.join()
        return found

    assert run(main()) == list(range(total))


def test_times_out(pair: Pair, run: Run) -> None:
    _, right = pair

    async def main() -> None:
        assert not await right.receive_async(timeout=0)
        began = asyncio.get_running_loop().time()
        assert not await right.receive_async(timeout=0.05)
        assert asyncio.get_running_loop().time() - began > 0.04
        assert not tasks_here(right)._waiting

    run(main())


@pytest.mark.parametrize("arguments", [{"max_packets": 0}, {"max_packets": 65537}, {"timeout": -1}, {"timeout": "1"}])
def test_refuses_bad_arguments(pair: Pair, run: Run, arguments: dict[str, Any]) -> None:
    left, right = pair
    left.send([packet()])

    async def main() -> None:
        with pytest.raises((ValueError, TypeError), match=next(iter(arguments))):
            await right.receive_async(**arguments)

    run(main())
    assert rest(right) == [0]


@pytest.fixture
def fires(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One item for each time that a loop was notified of packets."""
    found: list[None] = []
    original = Tasks.fired

    def fired(self: Tasks) -> None:
        found.append(None)
        original(self)

    monkeypatch.setattr(Tasks, "fired", fired)
    return found


def test_the_loop_is_woken_once_a_burst(pair: Pair, run: Run, fires: list[None]) -> None:
    left, right = pair

    async def main() -> None:
        for _ in range(20):
            task = asyncio.create_task(right.receive_async())
            await waiting(right)
            left.send(numbered(0, 100))
            assert len(await task) == 100
            await turns()

    run(main())
    assert len(fires) == 20


def test_tasks_that_wait_are_served_in_order(pair: Pair, run: Run, fires: list[None]) -> None:
    left, right = pair

    async def main() -> list[int]:
        async with asyncio.TaskGroup() as tasks:
            return await served_in_turn(
                left, right, right.receive_async, asyncio.sleep, lambda take: tasks.create_task(take())
            )

    assert run(main()) == list(range(8))
    # The official DLL's event may be set for packets that a task has just taken, which costs a wake-up each.
    assert len(fires) == 8 or (right.adapter.library.official and len(fires) < 17)


def test_a_task_that_comes_takes_nothing_from_one_that_was_woken(pair: Pair, run: Run, fires: list[None]) -> None:
    left, right = pair

    async def main() -> None:
        first = asyncio.create_task(right.receive_async())
        await waiting(right)
        left.send(numbered(0, 1))
        while not fires:
            await asyncio.sleep(0)
        assert not await right.receive_async(timeout=0.05)
        with await first as batch:
            assert len(batch) == 1

    run(main())


def test_nobody_is_told_when_nobody_waits(pair: Pair, run: Run, fires: list[None]) -> None:
    left, right = pair

    async def main() -> None:
        assert not await right.receive_async(timeout=0.001)
        await turns()
        fires.clear()
        left.send(numbered(0, 10))
        await asyncio.sleep(0.02)
        assert len(fires) <= 1, "a thread may still be in the wait that ended by the timeout"
        assert len(await right.receive_async()) == 10

    run(main())


def test_two_tasks_share_what_comes(pair: Pair, run: Run) -> None:
    left, right = pair
    found: list[list[int]] = [[], []]

    async def take(mine: list[int]) -> None:
        async for batch in right.batches_async(3):
            mine += [number_of(view) for view in batch]
            await asyncio.sleep(0)

    async def main() -> None:
        tasks = [asyncio.create_task(take(mine)) for mine in found]
        for first in range(0, 3000, 100):
            await left.send_async(numbered(first, 100))
            await asyncio.sleep(0.001)
        while len(found[0]) + len(found[1]) < 3000:
            await asyncio.sleep(0.001)
        right.close()
        await asyncio.gather(*tasks)

    run(main())
    assert sorted(found[0] + found[1]) == list(range(3000))
    assert all(len(mine) > 300 and mine == sorted(mine) for mine in found)


def test_a_burst_for_several_tasks_wakes_them_all(pair: Pair, run: Run) -> None:
    left, right = pair

    async def main() -> None:
        tasks = [asyncio.create_task(right.receive_async(1)) for _ in range(8)]
        await waiting(right, 8)
        left.send(numbered(0, 8))
        batches = await asyncio.gather(*tasks)
        assert sorted(number_of(batch[0]) for batch in batches) == list(range(8))
        for batch in batches:
            batch.release()

    run(main())


def test_cancelled_at_every_turn_it_loses_nothing(pair: Pair, run: Run) -> None:
    left, right = pair
    sent = 0

    def send(turn: int) -> None:
        nonlocal sent
        if turn == 3:
            sent += left.send(numbered(sent, 5))

    seen: list[int] = []

    def check(_: int, batch: tunring.Batch | None) -> None:
        if batch is not None:
            with batch:
                seen.extend(number_of(view) for view in batch)
        seen.extend(rest(right))
        assert seen == list(range(sent))
        loop = asyncio.get_running_loop()
        assert loop not in right._tasks or not tasks_here(right)._waiting

    async def main() -> None:
        assert await cancel_everywhere(right.receive_async, check, send) >= 3
        assert await cancel_everywhere(lambda: right.receive_async(timeout=10), check, send) >= 3
        # The packet for which a cancelled waiter was woken goes to the next.
        first, second = (asyncio.create_task(right.receive_async()) for _ in range(2))
        await waiting(right, 2)
        left.send(numbered(sent, 5))
        while not tasks_here(right).woken:
            await asyncio.sleep(0)
        first.cancel()
        assert len(await second) == 5
        assert first.cancelled()

    run(main())


def test_an_iteration_that_is_cancelled_loses_nothing(pair: Pair, run: Run) -> None:
    left, right = pair
    seen: list[int] = []

    async def take() -> None:
        async for batch in right.batches_async(7):
            seen.extend(number_of(view) for view in batch)

    async def main() -> None:
        sent = 0
        for turn in range(60):
            task = asyncio.create_task(take())
            await turns(turn % 5)
            sent += left.send(numbered(sent, 20))
            await turns(turn % 7)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        seen.extend(rest(right))
        assert seen == list(range(sent))

    run(main())


def test_timeouts_around_it_lose_nothing(pair: Pair, run: Run) -> None:
    left, right = pair
    total = 2000
    seen: list[int] = []

    def send() -> None:
        for number in range(total):
            left.send([packet(number=number)])

    async def main() -> None:
        sender = threading.Thread(target=send)
        sender.start()
        while len(seen) < total:
            try:
                async with asyncio.timeout(0.0003):
                    with await right.receive_async(3) as batch:
                        seen.extend(number_of(view) for view in batch)
            except TimeoutError:
                continue
        sender.join()

    run(main())
    assert seen == list(range(total))


def test_each_batch_of_an_iteration_is_released_by_the_next(pair: Pair, run: Run) -> None:
    left, right = pair
    left.send(numbered(0, 3))

    async def main() -> None:
        before = None
        async for batch in right.batches_async(1):
            assert before is None or before.released
            before = batch
            if number_of(batch[0]) == 2:
                break
        del before, batch

    run(main())
    assert right.stats().pinned_packets == 0


def test_one_step_of_an_iteration(pair: Pair, run: Run) -> None:
    left, right = pair
    left.send(numbered(0, 3))

    async def main() -> int:
        return len(await anext(right.batches_async()))

    assert run(main()) == 3


def test_a_slow_consumer_loses_nothing(pair: Pair, run: Run) -> None:
    left, right = pair
    total = 2000

    async def main() -> list[int]:
        sender = asyncio.create_task(left.send_async(numbered(0, total, 1000)))
        found: list[int] = []
        held: list[tunring.Batch] = []
        while len(found) < total:
            held.append(await right.receive_async(16))
            found += [number_of(view) for view in held[-1]]
            await asyncio.sleep(0.0005)
            if len(held) == 4:
                held.pop(0).release()
        for batch in held:
            batch.release()
        assert await sender == total
        return found

    assert run(main()) == list(range(total))
