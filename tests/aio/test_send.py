"""Sending in a task: waiting for room, order, cancelling."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

import tunring
from packets import number_of, packet
from tasks import cancel_everywhere, numbered, rest, tasks_here, turns

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    Pair = tuple[tunring.Session, tunring.Session]
    Run = Callable[[Coroutine[Any, Any, Any]], Any]

#: More than both rings of the cable hold, in packets of SIZE bytes.
MANY = 1000
SIZE = 1000


async def take(session: tunring.Session, count: int) -> list[int]:
    found: list[int] = []
    async for batch in session.batches_async():
        found += [number_of(view) for view in batch]
        if len(found) >= count:
            break
    return found


def test_sends_what_fits(pair: Pair, run: Run) -> None:
    left, right = pair

    async def main() -> None:
        assert await left.send_async(numbered(0, 5)) == 5
        packed = b"".join(numbered(5, 5))
        assert await left.send_packed_async(packed, [20] * 5) == 5
        assert await left.send_async([]) == 0
        with await right.receive_async() as batch:
            assert await right.send_async(batch) == 10
        assert rest(left) == list(range(10))

    run(main())


def test_waits_for_room_and_the_loop_goes_on(pair: Pair, run: Run) -> None:
    left, right = pair

    async def main() -> None:
        sending = asyncio.create_task(left.send_async(numbered(0, MANY, SIZE)))
        ticks = 0
        while ticks < 20:
            await asyncio.sleep(0.001)
            ticks += 1
        assert not sending.done()
        assert await take(right, MANY) == list(range(MANY))
        assert await sending == MANY

    run(main())


def test_a_full_ring_is_asked_seldom(pair: Pair, run: Run) -> None:
    left, _ = pair

    async def main() -> None:
        assert await left.send_async(numbered(0, MANY, SIZE), timeout=0.5) < MANY

    run(main())
    # Eight turns of the loop, then a quarter of the time waited so far, from 1 to 16 ms.
    assert left.stats().ring_full < 150


def test_tells_how_many_went_out_in_time(pair: Pair, run: Run) -> None:
    left, right = pair

    async def main() -> None:
        sent = await left.send_async(numbered(0, MANY, SIZE), timeout=0.01)
        assert 0 < sent < MANY
        assert await left.send_async(numbered(0, MANY, SIZE), timeout=0) == 0
        assert await left.send_async(numbered(0, MANY, SIZE), on_full="partial") == 0
        assert await left.send_async(numbered(0, MANY, SIZE), on_full="drop") == 0
        assert left.stats().dropped == MANY
        with pytest.raises(tunring.RingFull):
            await left.send_async(numbered(0, MANY, SIZE), on_full="raise")
        assert rest(right) == list(range(sent))

    run(main())


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda left: left.send_async([packet(), b"no packet"]), "packet 1"),
        (lambda left: left.send_async([packet()], on_full="later"), "on_full"),
        (lambda left: left.send_async([packet()], timeout=-1), "timeout"),
        (lambda left: left.send_packed_async(packet(), [21]), "21"),
        (lambda left: left.send_packed_async(packet(), None), "lengths"),
    ],
)
def test_refuses_bad_arguments_at_once(pair: Pair, call: Callable[[tunring.Session], Any], error: str) -> None:
    left, right = pair
    with pytest.raises((ValueError, TypeError), match=error):
        call(left)
    assert rest(right) == []


def test_an_open_reservation_of_this_thread_is_in_the_way(pair: Pair, run: Run) -> None:
    left, _ = pair

    async def main() -> None:
        with left.reserve([20]) as views:
            with pytest.raises(RuntimeError, match="reservation"):
                await left.send_async([packet()])
            views[0][:] = packet()
            del views

    run(main())


def test_tasks_that_wait_for_room_keep_their_order(pair: Pair, run: Run) -> None:
    left, right = pair

    async def main() -> None:
        tasks = [asyncio.create_task(left.send_async(numbered(task * MANY, MANY, SIZE))) for task in range(4)]
        found = await take(right, 4 * MANY)
        # The first task may have let the others go before it asked.
        assert sorted(found) == list(range(4 * MANY))
        for first in found[::MANY]:
            assert found[found.index(first) : found.index(first) + MANY] == list(range(first, first + MANY))
        assert await asyncio.gather(*tasks) == [MANY] * 4

    run(main())


def test_cancelled_at_every_turn_it_sends_a_beginning_and_holds_nothing(pair: Pair, run: Run) -> None:
    left, right = pair
    seen: list[int] = []
    data = bytearray(b"".join(numbered(0, MANY, SIZE)))

    def check(_: int, sent: int | None) -> None:
        found = seen + rest(right)
        while more := rest(right):
            found += more
        seen.clear()
        assert found == list(range(len(found)))
        assert sent is None or len(found) == sent == MANY
        assert asyncio.get_running_loop() not in left._tasks or not tasks_here(left).sending
        data.append(0)  # a BufferError, were it still held
        data.pop()

    def step(turn: int) -> None:
        if turn > 15:
            seen.extend(rest(right))

    async def main() -> None:
        lengths = [SIZE] * MANY
        assert await cancel_everywhere(lambda: left.send_packed_async(data, lengths), check, step) > 10

    run(main())


def test_the_next_in_line_goes_on_after_a_cancelled_one(pair: Pair, run: Run) -> None:
    left, right = pair

    async def main() -> None:
        tasks = [asyncio.create_task(left.send_async(numbered(task * MANY, MANY, SIZE))) for task in range(4)]
        await turns()
        tasks[2].cancel()
        await turns()
        tasks[0].cancel()
        found = await take(right, 2 * MANY)
        assert [number for number in found if number >= MANY] == [*range(MANY, 2 * MANY), *range(3 * MANY, 4 * MANY)][
            : len([number for number in found if number >= MANY])
        ]
        right_rest = asyncio.create_task(take(right, 1))
        assert await tasks[1] == MANY
        while not tasks[3].done():
            rest(right)
            await asyncio.sleep(0.001)
        right_rest.cancel()
        assert [task.cancelled() for task in tasks] == [True, False, True, False]

    run(main())


def test_a_batch_stays_until_it_is_sent(pair: Pair, run: Run) -> None:
    left, right = pair
    numbers = list(range(60))

    async def main() -> None:
        right.send([packet(1000)] * MANY, on_full="partial")  # no room to the left
        left.send(numbered(0, 60, 1000))
        batch = right.receive(timeout=1)
        sending = asyncio.create_task(right.send_async(batch))
        await turns()
        batch.release()
        assert right.stats().pinned_packets == 60
        found: list[int] = []
        while not sending.done():
            found += rest(left)
            await asyncio.sleep(0)
        assert await sending == 60
        assert (found + rest(left))[-60:] == numbers

    run(main())
    assert right.stats().pinned_packets == 0
