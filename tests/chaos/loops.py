"""Operations in event loops: tasks of asyncio, uvloop and trio that wait, send, and are cancelled at any time."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import sys
from typing import TYPE_CHECKING, Any

import anyio
from engine import operation
from traffic import how_full, how_patient, sizes

import tunring
from running import FREE_THREADED
from tunring.contrib import anyio as tunring_anyio

UVLOOP = sys.platform != "win32" and not (FREE_THREADED and not importlib.util.find_spec("uvloop"))
if UVLOOP:
    import uvloop  # here, since Python 3.11's locks of imports don't bear the signals

    # A process's first loop makes pipes for libuv, which aborts without a word where descriptors are scarce.
    uvloop.new_event_loop().close()

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from world import Actor, End

#: Seconds that a task runs.
SPELL = 0.15


def _new_loop(actor: Actor) -> asyncio.AbstractEventLoop:
    if sys.platform == "win32":
        return asyncio.SelectorEventLoop() if actor.chance(0.5) else asyncio.ProactorEventLoop()
    if UVLOOP and actor.chance(0.5):
        actor.note("uvloop")
        made: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        return made
    return asyncio.SelectorEventLoop()


def run_in_loop(actor: Actor, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine in a loop of its own; what nobody caught fails the run."""
    loop = _new_loop(actor)

    def uncaught(_: object, context: dict[str, Any]) -> None:
        actor.engine.fail(f"uncaught in a loop: {context['message']}", context.get("exception"))

    loop.set_exception_handler(uncaught)
    coroutine = main()
    try:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(coroutine)
    finally:
        coroutine.close()  # a runner that lacks descriptors never starts it


async def _receive(actor: Actor, end: End, name: object) -> None:
    """Receive packets, as one receiver."""
    batch = await end.session.receive_async(
        actor.random.choice([1, 16, 256]), actor.random.choice([0, 0.01, 0.1]), **how_patient(actor)
    )
    with batch:
        end.incoming.receive(name, batch.tobytes())


async def _iterate(actor: Actor, end: End, name: object) -> None:
    async for batch in end.session.batches_async(actor.random.choice([1, 64]), **how_patient(actor)):
        end.incoming.receive(name, batch.tobytes())
        if actor.chance(0.3):
            return


async def _send(actor: Actor, end: End, _: object) -> None:
    flow = end.outgoing.new_flow()
    with end.outgoing.offer(flow, sizes(actor), "an asyncio task") as offered:
        if not offered.packets:
            return
        try:
            if actor.chance(0.5):
                sent = await end.session.send_async(offered.packets, **how_full(actor))
            else:
                sent = await end.session.send_packed_async(b"".join(offered.packets), offered.sizes, **how_full(actor))
        except asyncio.CancelledError:
            offered.accept(None)  # as documented, some may have gone
            raise
        offered.accept(sent)


_JOBS = (_receive, _receive, _iterate, _send)


@contextlib.contextmanager
def _expected(end: End) -> Any:
    """Exceptions that a task may end with."""
    try:
        yield
    except tunring.SessionClosed:
        if end.link.proven:
            raise
    except (tunring.RingFull, asyncio.CancelledError):
        pass


@operation(tunring.SessionClosed, weight=15)
def let_tasks_share_a_session(actor: Actor) -> None:
    """Some are cancelled, some have timeouts, and all use one session."""
    with actor.world.use(actor) as end:

        async def job(number: int) -> None:
            loop = asyncio.get_running_loop()
            until = loop.time() + SPELL
            with _expected(end):
                while loop.time() < until:
                    await actor.random.choice(_JOBS)(actor, end, (actor.number, number, id(loop)))

        async def main() -> None:
            tasks = [asyncio.create_task(job(number)) for number in range(actor.random.randint(1, 6))]
            while not all(task.done() for task in tasks):
                await asyncio.sleep(actor.random.random() * 0.03)
                if actor.chance(0.5):
                    actor.random.choice(tasks).cancel()
                if actor.chance(0.1):
                    for task in tasks:
                        task.cancel()
            await asyncio.gather(*tasks)

        # A task that waits for packets without a timeout would wait until somebody sends any.
        async def limited() -> None:
            main_task = asyncio.create_task(main())
            done, _ = await asyncio.wait([main_task], timeout=5)
            if not done:
                main_task.cancel()
                actor.note("cancelled by the limit")
            with contextlib.suppress(asyncio.CancelledError):
                await main_task

        run_in_loop(actor, limited)


@operation(tunring.SessionClosed, weight=6)
def wait_in_a_loop_while_another_thread_closes(actor: Actor) -> None:
    """The session is a task's own: closing it wakes the task."""
    link = actor.world.new_link(proven=False)
    end = link.ends[0]

    async def wait() -> None:
        with contextlib.suppress(tunring.SessionClosed):
            if actor.chance(0.5):
                async for batch in end.session.batches_async():
                    end.incoming.receive(actor.number, batch.tobytes())
            else:
                (await end.session.receive_async()).release()

    async def main() -> None:
        tasks = [asyncio.create_task(wait()) for _ in range(actor.random.randint(1, 3))]
        await asyncio.sleep(actor.random.choice([0, 0, 0.005]))
        closing = asyncio.get_running_loop().run_in_executor(None, end.session.close)
        await asyncio.wait_for(asyncio.gather(*tasks, closing), 20)

    try:
        run_in_loop(actor, main)
    finally:
        link.shut()
        actor.world.close_link(link, actor)


@operation(tunring.SessionClosed, weight=8, systems=("linux", "darwin"))  # trio waits by what Wine refuses
def let_trio_tasks_share_a_session(actor: Actor) -> None:
    backend = actor.random.choice(["trio", "trio", "asyncio"])
    actor.note(backend)

    with actor.world.use(actor) as end:

        async def receive(name: object) -> None:
            with anyio.move_on_after(actor.random.choice([0.001, 0.02, 1])):
                with await tunring_anyio.receive(end.session, 64, 0.05, **how_patient(actor)) as batch:
                    end.incoming.receive(name, batch.tobytes())

        async def send(_: object) -> None:
            with end.outgoing.offer(end.outgoing.new_flow(), sizes(actor), "a trio task") as offered:
                if not offered.packets:
                    return
                offered.accept(None)
                with anyio.move_on_after(actor.random.choice([0.001, 1])):
                    offered.accept(await tunring_anyio.send(end.session, offered.packets, **how_full(actor)))

        async def job(number: int) -> None:
            until = anyio.current_time() + SPELL
            try:
                while anyio.current_time() < until:
                    kind: Callable[[object], Awaitable[None]] = actor.random.choice([receive, send])
                    await kind((actor.number, number, until))
            except tunring.SessionClosed:
                if end.link.proven:
                    raise
            except tunring.RingFull:
                pass

        async def main() -> None:
            async with anyio.create_task_group() as tasks:
                for number in range(actor.random.randint(1, 4)):
                    tasks.start_soon(job, number)
                if actor.chance(0.3):
                    await anyio.sleep(0.02)
                    tasks.cancel_scope.cancel()

        anyio.run(main, backend=backend)
