"""The end of a session, a loop or a program while tasks wait."""

from __future__ import annotations

import asyncio
import gc
import threading
import warnings
from typing import TYPE_CHECKING, Any

import pytest

import tunring
import tunring.testing
from packets import packet
from running import Threads, check_script, eventually
from tasks import numbered, rest, turns, waiting
from tunring._loops import aio

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    Pair = tuple[tunring.Session, tunring.Session]
    Run = Callable[[Coroutine[Any, Any, Any]], Any]


async def iterate(session: tunring.Session) -> str:
    async for _ in session.batches_async():
        pass
    return "over"


@pytest.mark.parametrize("where", ["loop", "thread", "callback"])
def test_close_ends_every_wait(pair: Pair, run: Run, where: str) -> None:
    _, right = pair

    async def main() -> None:
        loop = asyncio.get_running_loop()
        tasks = [
            *(asyncio.create_task(right.receive_async()) for _ in range(3)),
            asyncio.create_task(right.receive_async(timeout=1000)),
            asyncio.create_task(iterate(right)),
        ]
        await waiting(right, 5)
        senders = [asyncio.create_task(right.send_async([packet(1000)] * 1000)) for _ in range(2)]
        await turns()
        if where == "loop":
            right.close()
        elif where == "callback":
            loop.call_soon(right.close)
        else:
            await loop.run_in_executor(None, right.close)
        results = await asyncio.wait_for(asyncio.gather(*tasks, *senders, return_exceptions=True), 10)
        assert results.pop(4) == "over"
        assert all(isinstance(result, tunring.SessionClosed) and result.reason == "closed" for result in results)
        assert sorted([results[4].sent > 0, results[5].sent > 0]) == [False, True], "one waited in line"
        with pytest.raises(tunring.SessionClosed):
            await right.receive_async()

    run(main())


def test_the_adapter_goes(simulated: tunring.Session, simulator: tunring.testing.Simulator, run: Run) -> None:
    async def main() -> None:
        tasks = [asyncio.create_task(simulated.receive_async()), asyncio.create_task(iterate(simulated))]
        await waiting(simulated, 2)
        simulator.remove()
        results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
        assert isinstance(results[0], tunring.SessionClosed)
        assert results[0].reason == "removed"
        assert results[1] == "over"

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # rings that can't be freed belong to this test
        run(main())
        simulated.close()


def test_closing_from_threads_while_tasks_come_and_go(run: Run) -> None:
    async def main() -> None:
        for turn in range(40):
            left, right = tunring.testing.pair(tunring.MIN_CAPACITY)
            tasks = [asyncio.create_task(iterate(right)) for _ in range(3)]
            await turns(turn % 4)
            closers = [threading.Thread(target=right.close) for _ in range(2)]
            left.send(numbered(0, 3))
            for closer in closers:
                closer.start()
            assert await asyncio.wait_for(asyncio.gather(*tasks), 10) == ["over"] * 3
            for closer in closers:
                closer.join()
            left.close()

    run(main())


def test_a_loop_that_is_closed_while_a_task_waits(pair: Pair, make_loop: Callable[[], Any], run: Run) -> None:
    left, right = pair
    loop = make_loop()
    tasks = [loop.create_task(right.receive_async()) for _ in range(2)]
    tasks += [loop.create_task(right.send_async([packet(1000)] * 1000)) for _ in range(3)]
    for task in tasks:
        task._log_destroy_pending = False
    loop.run_until_complete(waiting(right, 2))
    loop.run_until_complete(turns())
    loop.close()
    left.send(numbered(0, 3))

    # The session is as good as before, in another loop and without one.
    async def main() -> int:
        with await right.receive_async() as batch:
            return len(batch)

    assert run(main()) == 3
    left.send(numbered(0, 2))
    assert rest(right) == [0, 1]
    del task, tasks
    gc.collect()
    right.close()


def test_one_session_in_loop_after_loop(pair: Pair, run: Run) -> None:
    left, right = pair

    async def main() -> None:
        receiving = asyncio.create_task(right.receive_async())
        await waiting(right)
        left.send([packet()])
        assert len(await receiving) == 1

    for _ in range(5):
        run(main())
    assert len(right._tasks) == 1, "those of closed loops are forgotten"


def test_a_session_that_is_dropped_takes_its_thread_along(run: Run) -> None:
    async def main() -> None:
        left, right = tunring.testing.pair(tunring.MIN_CAPACITY)
        assert not await right.receive_async(timeout=0.001)
        left.close()
        await asyncio.sleep(0)
        with pytest.warns(ResourceWarning, match="unclosed"):
            del right
            gc.collect()

    run(main())  # and nothing is left


BEGIN = """
import asyncio, gc
from tunring._loops import aio
aio.use_threads = {threads}
left, right = tunring.testing.pair(tunring.MIN_CAPACITY)
async def main():
    task = asyncio.create_task(right.receive_async())
    task.add_done_callback(lambda task: task.cancelled() or task.exception())
    task._log_destroy_pending = False
    await asyncio.sleep(0.01)
"""

SCENES = {
    "all is closed": "asyncio.run(main()); left.close(); right.close()",
    "a task waits": "loop = asyncio.new_event_loop(); loop.run_until_complete(main()); left.close(); right.close()",
    "closed at exit": "import atexit; asyncio.run(main()); atexit.register(lambda: (left.close(), right.close()))",
    "nothing is closed": "asyncio.run(main())",
    "a task waits and nothing is closed": "loop = asyncio.new_event_loop(); loop.run_until_complete(main())",
    "packets come and nothing is closed": "asyncio.run(main()); left.send([packet()])",
    "a daemon's loop": """
import threading, time
threading.Thread(target=lambda: asyncio.run(right.receive_async()), daemon=True).start()
time.sleep(0.05)
""",
}


@pytest.mark.parametrize("threads", [True] if aio.use_threads else [False, True])
@pytest.mark.parametrize("scene", SCENES)
def test_the_program_ends(scene: str, threads: bool) -> None:
    check_script(BEGIN.format(threads=threads) + SCENES[scene], "-W", "ignore")


def test_descriptors_and_threads_go_with_the_session(run: Run) -> None:
    async def main() -> None:
        for _ in range(50):
            left, right = tunring.testing.pair(tunring.MIN_CAPACITY)
            task = asyncio.create_task(right.receive_async())
            await waiting(right)
            left.send([packet()])
            await task
            left.close()
            right.close()
        del left, right, task

    run(main())
    gc.collect()
    assert eventually(lambda: not [t for t in threading.enumerate() if t.name == "tunring-notifier"])


def test_two_loops_in_two_threads(pair: Pair, make_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    left, right = pair
    total = 3000

    def take() -> int:
        async def main() -> int:
            found = 0
            async for batch in right.batches_async(8):
                found += len(batch)
                await asyncio.sleep(0)
            return found

        with asyncio.Runner(loop_factory=make_loop) as runner:
            return runner.run(main())

    with Threads() as threads:
        threads.start(take)
        threads.start(take)
        for first in range(0, total, 100):
            left.send(numbered(first, 100))
        assert eventually(lambda: right.stats().received_packets == total)
        right.close()
    assert sum(threads.results) == total


def test_tasks_and_threads_in_one_session(pair: Pair, run: Run) -> None:
    left, right = pair
    total = 4000

    def take() -> int:
        return sum(len(batch) for batch in right.batches(8))

    async def main() -> int:
        found = 0
        async for batch in right.batches_async(8):
            found += len(batch)
            await asyncio.sleep(0)
        return found

    with Threads() as threads:
        threads.start(take)
        threads.start(run, main())
        for first in range(0, total, 10):
            left.send(numbered(first, 10))
        assert eventually(lambda: right.stats().received_packets == total)
        right.close()
    assert sum(threads.results) == total
