"""The anyio helper, under asyncio and under trio."""

from __future__ import annotations

import ctypes
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

import tunring
import tunring.testing
from packets import number_of, packet
from running import check_script
from tasks import cancel_everywhere, numbered, rest, served_in_turn
from tunring._loops.tasks import Tasks
from tunring.contrib import anyio as helper
from tunring.packets import fill_checksums

if TYPE_CHECKING:
    from collections.abc import Callable

    Pair = tuple[tunring.Session, tunring.Session]
    Run = Callable[..., Any]

#: trio waits by an interface of Windows' sockets that Wine refuses (WSAEOPNOTSUPP).
WINE = sys.platform == "win32" and hasattr(ctypes.WinDLL("ntdll"), "wine_get_version")

MANY = 1000
SIZE = 1000


@pytest.fixture(params=["asyncio"] if WINE else ["asyncio", "trio"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs an async function."""
    return partial(anyio.run, backend=request.param)


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await anyio.lowlevel.checkpoint()


async def waiting(session: tunring.Session, count: int = 1) -> None:
    """Returns once `count` tasks wait for packets."""
    while sum(len(tasks._waiting) for tasks in session._tasks.values()) != count:
        await anyio.lowlevel.checkpoint()


def test_waits_for_packets_and_takes_all(pair: Pair, run: Run) -> None:
    left, right = pair
    total = 5000

    def send() -> None:
        for first in range(0, total, 50):
            assert left.send(numbered(first, 50), timeout=20) == 50

    async def main() -> list[int]:
        sender = threading.Thread(target=send)
        sender.start()
        found: list[int] = []
        iterator = helper.batches(right, 64)
        async for batch in iterator:
            found += [number_of(view) for view in batch]
            if len(found) == total:
                break
        await iterator.aclose()  # type: ignore[attr-defined]
        sender.join()
        return found

    assert run(main) == list(range(total))


def test_waits_for_room(pair: Pair, run: Run) -> None:
    left, right = pair
    found: list[int] = []

    async def take() -> None:
        async for batch in helper.batches(right):
            found.extend(number_of(view) for view in batch)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(take)
            assert await helper.send(left, numbered(0, MANY, SIZE)) == MANY
            packed = b"".join(numbered(MANY, MANY, SIZE))
            assert await helper.send_packed(left, packed, [SIZE] * MANY) == MANY
            while len(found) < 2 * MANY:
                await anyio.sleep(0.001)
            right.close()

    run(main)
    assert found == list(range(2 * MANY))


def test_sends_with_checksums(pair: Pair, run: Run) -> None:
    left, right = pair
    empty = bytes.fromhex("45000020000100004011 0000 0a000001 0a000002 0007 0009 000c 0000") + b"data"
    whole = bytearray(empty)
    assert fill_checksums([whole]) == 1

    async def main() -> list[bytes]:
        assert await helper.send(left, [empty], checksums="fill") == 1
        assert await helper.send_packed(left, empty * 2, [len(empty)] * 2, checksums="fill") == 2
        assert await helper.send(left, [empty]) == 1
        found: list[bytes] = []
        while len(found) < 4:
            with await helper.receive(right) as batch:
                found += batch.tobytes()
        no_checksums = pytest.raises(TypeError, match="a UdpSocket takes no checksums")
        with tunring.UdpSocket.bind(("127.0.0.1", 0)) as udp, no_checksums:
            await helper.send(udp, [empty], udp.address, checksums="fill")  # type: ignore[call-overload]
        return found

    assert run(main) == [bytes(whole)] * 3 + [empty]


def test_each_function_is_a_checkpoint_of_trio(pair: Pair) -> None:
    from trio.testing import assert_checkpoints

    left, right = pair

    async def main() -> None:
        left.send(numbered(0, 3))
        with assert_checkpoints():
            (await helper.receive(right, 1)).release()
        with assert_checkpoints():
            (await helper.receive(right, 1, timeout=1)).release()
        iterator = helper.batches(right)
        with assert_checkpoints():
            assert len(await anext(iterator)) == 1
        await iterator.aclose()  # type: ignore[attr-defined]
        with assert_checkpoints():
            assert not await helper.receive(right, timeout=0)
        with assert_checkpoints():
            assert await helper.send(left, numbered(0, 1)) == 1
        with assert_checkpoints():
            assert await helper.send(left, numbered(0, MANY, SIZE), on_full="partial") < MANY
        with assert_checkpoints():
            assert await helper.send(left, []) == 0
        with assert_checkpoints():
            assert await helper.send_packed(right, packet(), [20]) == 1
        with assert_checkpoints():
            assert await helper.send_packed(right, b"", []) == 0
        left.close()
        right.close()
        iterator = helper.batches(right)
        with assert_checkpoints():
            assert await anext(iterator, None) is None

    anyio.run(main, backend="trio")


def test_each_function_is_a_checkpoint_of_asyncio(pair: Pair) -> None:
    left, right = pair

    async def main() -> None:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(tick)
            await anyio.lowlevel.checkpoint()
            for function in (
                lambda: helper.send(left, numbered(0, 2)),
                lambda: helper.send_packed(left, packet(), [20]),
                lambda: helper.receive(right, 1),
                lambda: helper.receive(right, 2, timeout=0),
                lambda: helper.receive(right, timeout=0),
            ):
                before = ticks
                await function()
                assert ticks > before
            tasks.cancel_scope.cancel()

    anyio.run(main)


def test_cancelled_by_asyncio_itself_it_loses_nothing(pair: Pair) -> None:
    """A cancel scope's shield does not keep ``Task.cancel()`` off."""
    left, right = pair
    sent = 0

    def fill() -> None:
        nonlocal sent
        sent += left.send(numbered(sent, 5))

    def check(_: int, batch: tunring.Batch | None) -> None:
        if batch is not None:
            with batch:
                seen.extend(number_of(view) for view in batch)
        seen.extend(rest(right))
        assert seen == list(range(sent))
        fill()

    async def main() -> None:
        fill()
        assert await cancel_everywhere(lambda: helper.receive(right, 3), check, lambda _: None) >= 1

    seen: list[int] = []
    anyio.run(main)


def test_times_out(pair: Pair, run: Run) -> None:
    left, right = pair

    async def main() -> None:
        assert not await helper.receive(right, timeout=0)
        assert not await helper.receive(right, timeout=0.01)
        with anyio.move_on_after(0.01):
            await helper.receive(right)
        sent = await helper.send(left, numbered(0, MANY, SIZE), timeout=0.01)
        assert 0 < sent < MANY
        with pytest.raises(tunring.RingFull):
            await helper.send(left, [packet(SIZE)] * MANY, on_full="raise")
        with pytest.raises(ValueError, match="timeout"):
            await helper.receive(right, timeout=-1)

    run(main)


def test_cancelled_it_loses_nothing(pair: Pair, run: Run) -> None:
    left, right = pair
    seen: list[int] = []

    async def take() -> None:
        async for batch in helper.batches(right, 7):
            seen.extend(number_of(view) for view in batch)

    async def main() -> None:
        sent = 0
        for turn in range(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(take)
                await turns(turn % 5)
                sent += left.send(numbered(sent, 20))
                await turns(turn % 7)
                tasks.cancel_scope.cancel()
        seen.extend(rest(right))
        assert seen == list(range(sent))
        assert not any(tasks._waiting for tasks in right._tasks.values())

    run(main)


@pytest.mark.parametrize("thread", [False, True])
def test_close_ends_every_wait(pair: Pair, run: Run, thread: bool) -> None:
    _, right = pair
    ended: list[str] = []

    async def take() -> None:
        with pytest.raises(tunring.SessionClosed):
            await helper.receive(right)
        ended.append("receive")

    async def send() -> None:
        with pytest.raises(tunring.SessionClosed):
            await helper.send(right, [packet(SIZE)] * MANY)
        ended.append("send")

    async def main() -> None:
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                for function in (take, take, send, send):
                    tasks.start_soon(function)
                await waiting(right, 2)
                await turns()
                if thread:
                    closer.start()
                else:
                    right.close()

    closer = threading.Thread(target=right.close)
    run(main)
    if thread:
        closer.join()
    assert sorted(ended) == ["receive"] * 2 + ["send"] * 2


def test_the_loop_is_woken_once_a_burst(pair: Pair, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = pair
    fires: list[None] = []
    original = Tasks.fired
    monkeypatch.setattr(Tasks, "fired", lambda self: (fires.append(None), original(self)))

    async def main() -> None:
        async def take() -> None:
            with await helper.receive(right) as batch:
                assert len(batch) == 100

        for _ in range(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(take)
                await waiting(right)
                left.send(numbered(0, 100))

    run(main)
    assert len(fires) == 20


def test_tasks_that_wait_are_served_in_order(pair: Pair, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = pair
    fires: list[None] = []
    original = Tasks.fired
    monkeypatch.setattr(Tasks, "fired", lambda self: (fires.append(None), original(self)))

    async def main() -> list[int]:
        async with anyio.create_task_group() as tasks:
            return await served_in_turn(left, right, lambda: helper.receive(right), anyio.sleep, tasks.start_soon)

    assert run(main) == list(range(8))
    # The official DLL's event may be set for packets that a task has just taken, which costs a wake-up each.
    assert len(fires) == 8 or (right.adapter.library.official and len(fires) < 17)


def test_one_session_in_run_after_run(pair: Pair, run: Run) -> None:
    left, right = pair

    async def main() -> None:
        assert not await helper.receive(right, timeout=0.001)
        left.send([packet()])
        assert len(await helper.receive(right)) == 1

    for _ in range(3):
        run(main)
    assert len(right._tasks) == 1


def test_without_anyio_the_error_names_the_extra() -> None:
    out = check_script("""
import sys
sys.modules["anyio"] = None
try:
    import tunring.contrib.anyio
except ImportError as error:
    print(error)
""")
    assert "pip install anyio" in out


def test_nothing_of_it_is_imported_with_the_package() -> None:
    out = check_script("import sys; print([name for name in ('anyio', 'trio', 'asyncio') if name in sys.modules])")
    assert out.strip() == "[]"


def test_a_program_ends_after_a_run_of_trio() -> None:
    check_script(
        """
import anyio
import anyio.lowlevel
from tunring._loops.tasks import Tasks
from tunring.contrib import anyio as helper
left, right = tunring.testing.pair()
async def main():
    await helper.receive(right, timeout=0.001)
anyio.run(main, backend="trio")
""",
        "-W",
        "ignore",
    )
