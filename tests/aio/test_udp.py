"""UDP sockets in tasks: waking, lingering, destinations, cancelling, the end. tests/linux waits for room."""

from __future__ import annotations

import asyncio
import ctypes
import select
import sys
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import tunring
from tasks import cancel_everywhere, tasks_here, turns
from tunring.contrib import anyio as helper

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    Pair = tuple[tunring.UdpSocket, tunring.UdpSocket]
    Run = Callable[[Coroutine[Any, Any, Any]], Any]


#: trio waits by an interface of Windows' sockets that Wine refuses (WSAEOPNOTSUPP).
WINE = sys.platform == "win32" and hasattr(ctypes.WinDLL("ntdll"), "wine_get_version")


@pytest.fixture
def sockets() -> Iterator[Pair]:
    with tunring.UdpSocket.bind(("127.0.0.1", 0)) as left, tunring.UdpSocket.bind(("127.0.0.1", 0)) as right:
        yield left, right


def numbers(count: int, first: int = 0) -> list[bytes]:
    return [number.to_bytes(4, "big") for number in range(first, first + count)]


async def waiting(udp: tunring.UdpSocket, count: int = 1) -> None:
    loop = asyncio.get_running_loop()
    while loop not in udp._tasks or len(tasks_here(udp)._waiting) != count:
        await asyncio.sleep(0)


def test_echoes_between_tasks(sockets: Pair, run: Run) -> None:
    left, right = sockets

    async def echo() -> None:
        async for batch in right.batches_async():
            for endpoint, part in batch.runs():
                await right.send_async(part, endpoint)

    async def main() -> None:
        echoing = asyncio.create_task(echo())
        for first in range(0, 2000, 100):
            assert await left.send_async(numbers(100, first), right.address, ecn=1) == 100
            found: list[bytes] = []
            while len(found) < 100:
                with await left.receive_async(timeout=20) as batch:
                    assert batch
                    found += batch.tobytes()
            assert found == numbers(100, first)
        packed = b"".join(numbers(3))
        assert await left.send_packed_async(packed, [4] * 3, [right.address, left.address], index=[1, 1, 1]) == 3
        with await left.receive_async(timeout=20) as batch:
            assert batch.tobytes() == numbers(3)
        right.close()
        await echoing

    run(main())


def test_wakes_once_a_burst(sockets: Pair, run: Run) -> None:
    left, right = sockets

    async def main() -> None:
        for first in range(0, 100, 10):
            task = asyncio.create_task(right.receive_async())
            await waiting(right)
            left.send(numbers(10, first), right.address)
            with await task as batch:
                assert batch.tobytes() == numbers(10, first)
        assert not await right.receive_async(timeout=0)
        assert right.stats().received_batches == 10

    run(main())


def test_a_thread_sends(sockets: Pair, run: Run) -> None:
    left, right = sockets
    total = 20000

    def send() -> None:
        for first in range(0, total, 100):
            acknowledged.acquire(timeout=20)
            assert left.send(numbers(100, first), right.address) == 100

    acknowledged = threading.Semaphore(20)

    async def main() -> list[bytes]:
        sender = threading.Thread(target=send)
        sender.start()
        found: list[bytes] = []
        async for batch in right.batches_async(64):
            before = len(found) // 100
            found += batch.tobytes()
            if len(found) // 100 > before:
                acknowledged.release(len(found) // 100 - before)
            if len(found) == total:
                break
        sender.join()
        return found

    assert run(main()) == numbers(total)


def test_lingers_for_more(sockets: Pair, run: Run) -> None:
    left, right = sockets

    async def main() -> None:
        clock = asyncio.get_running_loop().time
        task = asyncio.create_task(right.receive_async(min_packets=3, linger=0.2))
        await waiting(right)
        left.send(numbers(1), right.address)
        began = clock()
        await asyncio.sleep(0.05)
        assert not task.done()
        left.send(numbers(1, 1), right.address)
        with await task as batch:
            assert clock() - began > 0.15
            assert batch.tobytes() == numbers(2)
        # Nothing to linger for.
        assert not await right.receive_async(timeout=0, min_packets=3, linger=10)
        assert not await right.receive_async(timeout=0.02, min_packets=3, linger=10)
        left.send(numbers(1), right.address)
        with await right.receive_async(linger=10) as batch:
            assert len(batch) == 1

    run(main())


def test_a_task_that_is_cancelled_while_it_lingers_loses_nothing(sockets: Pair, run: Run) -> None:
    left, right = sockets

    async def main() -> None:
        lingering = asyncio.create_task(right.receive_async(min_packets=100, linger=60))
        await waiting(right)
        behind = asyncio.create_task(right.receive_async())
        await waiting(right, 2)
        left.send(numbers(5), right.address)
        await asyncio.sleep(0.02)
        assert not behind.done()
        lingering.cancel()
        with await behind as batch:
            assert batch.tobytes() == numbers(5)
        with pytest.raises(asyncio.CancelledError):
            await lingering

    run(main())


def test_lingering_ends_once_there_are_enough(sockets: Pair, run: Run) -> None:
    left, right = sockets

    async def main() -> None:
        task = asyncio.create_task(right.receive_async(min_packets=5, linger=60))
        await waiting(right)
        for first in (0, 2, 4):
            left.send(numbers(2, first), right.address)
            await asyncio.sleep(0.01)
        with await asyncio.wait_for(task, 20) as batch:
            assert batch.tobytes() == numbers(6)
        # No more than max_packets is ever enough.
        task = asyncio.create_task(right.receive_async(2, min_packets=5, linger=60))
        await waiting(right)
        left.send(numbers(3), right.address)
        with await asyncio.wait_for(task, 20) as batch:
            assert batch.tobytes() == numbers(2)
        with await right.receive_async() as batch:
            assert batch.tobytes() == numbers(1, 2)

    run(main())


@pytest.mark.parametrize("backend", ["asyncio"] if WINE else ["asyncio", "trio"])
def test_lingering_of_anyio_ends_once_there_are_enough(sockets: Pair, backend: str) -> None:
    left, right = sockets

    async def main() -> None:
        async with anyio.create_task_group() as group:

            async def send() -> None:
                for first in (0, 2, 4):
                    await anyio.sleep(0.01)
                    await helper.send(left, numbers(2, first), right.address)

            group.start_soon(send)
            with anyio.fail_after(20):
                with await helper.receive(right, min_packets=5, linger=60) as batch:
                    assert batch.tobytes() == numbers(6)

    anyio.run(main, backend=backend)


async def cancelled(source: tunring.UdpSocket | tunring.Session, lingering: asyncio.Task[Any]) -> None:
    """Cancel a task once it lingers."""
    async with asyncio.timeout(20):
        while not tasks_here(source).woken:
            await asyncio.sleep(0)
    await turns()
    lingering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await lingering


def test_a_thread_takes_what_a_cancelled_task_lingered_for(sockets: Pair, run: Run) -> None:
    left, right = sockets
    found: list[list[bytes]] = []

    def take() -> None:
        with right.receive(timeout=20) as batch:
            found.append(batch.tobytes())

    async def main() -> None:
        lingering = asyncio.create_task(right.receive_async(min_packets=100, linger=60))
        await waiting(right)
        left.send(numbers(3), right.address)
        await cancelled(right, lingering)
        await asyncio.to_thread(take)

    run(main())
    assert found == [numbers(3)]


def test_the_descriptor_tells_of_what_a_cancelled_task_lingered_for(sockets: Pair, run: Run) -> None:
    left, right = sockets
    other = tunring.UdpSocket.bind(("127.0.0.1", 0))

    def readable() -> bool:
        return bool(select.select([right], [], [], 0)[0])

    async def main() -> None:
        lingering = asyncio.create_task(right.receive_async(min_packets=100, linger=60))
        await waiting(right)
        left.send(numbers(3), right.address, ecn=1)
        other.send(numbers(2, 3), right.address, ecn=2)
        await cancelled(right, lingering)

    with other:
        run(main())
        assert readable()
        # A receive that takes less leaves the rest, and the origins of each.
        for size, ecns, ports in ((1, [1], [left]), (3, [1, 1, 2], [left, other]), (3, [2], [other])):
            assert readable()
            with right.receive(size, timeout=0) as batch:
                assert list(batch.ecn) == ecns
                assert [source.port for source in batch.sources] == [udp.address[1] for udp in ports]
        assert not readable()
        assert not right.receive(timeout=0)


def test_a_session_keeps_what_a_cancelled_task_lingered_for(
    pair: tuple[tunring.Session, tunring.Session], run: Run
) -> None:
    left, right = pair
    packets = [bytes([0x45, 0, 0, 20, 0, number]) + bytes(14) for number in range(5)]

    async def main() -> None:
        lingering = asyncio.create_task(right.receive_async(min_packets=100, linger=60))
        await turns()
        left.send(packets[:3])
        await cancelled(right, lingering)

    run(main())
    assert select.select([right], [], [], 0)[0]
    left.send(packets[3:])
    found = []
    for size in (2, 256):
        with right.receive(size, timeout=0) as batch:
            found += batch.tobytes()
    assert found == packets
    assert not select.select([right], [], [], 0)[0]


def test_a_socket_closes_with_what_was_gathered(sockets: Pair) -> None:
    left, right = sockets
    left.send(numbers(3), right.address)
    deadline = time.monotonic() + 20
    while right._gather(256) < 3 and time.monotonic() < deadline:
        pass
    right.close()
    with pytest.raises(tunring.SessionClosed):
        right._gather(256)
    right._gather_end()


def test_a_session_lingers_too(pair: tuple[tunring.Session, tunring.Session], run: Run) -> None:
    left, right = pair
    packet = bytes([0x45]) + bytes(19)

    async def main() -> None:
        assert len(await anext(right.batches_async(timeout=0.01, min_packets=5, linger=60))) == 0
        task = asyncio.ensure_future(anext(right.batches_async(min_packets=5, linger=0.2)))
        await turns()
        for _ in range(2):
            left.send([packet])
            await asyncio.sleep(0.01)
        assert len(await task) == 2

    run(main())


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda udp: udp.receive_async(min_packets=0), "min_packets must be 1 to 65536, not 0"),
        (lambda udp: udp.receive_async(linger=-1), "linger must be 0 to 9e9 seconds, not -1"),
        (lambda udp: udp.batches_async(min_packets=70000), "min_packets must be 1 to 65536, not 70000"),
        (lambda udp: udp.batches_async(linger="1"), "linger must be seconds, not '1'"),
        (lambda udp: udp.send_async([b"x", bytes(65508)], ("127.0.0.1", 9)), "packet 1"),
        (lambda udp: udp.send_async([b"x"], ("localhost", 9)), "localhost"),
        (lambda udp: udp.send_async([b"x"], ("::1", 9)), "IPv6"),
        (lambda udp: udp.send_async([b"x"], [("127.0.0.1", 9)], index=[1]), r"index\[0\]"),
        (lambda udp: udp.send_async([b"x"], ("127.0.0.1", 9), on_full="later"), "on_full"),
        (lambda udp: udp.send_async([b"x"], ("127.0.0.1", 9), timeout=-1), "timeout"),
        (lambda udp: udp.send_packed_async(b"x", None, ("127.0.0.1", 9)), "lengths"),
    ],
)
def test_refuses_bad_arguments_at_once(sockets: Pair, call: Callable[[tunring.UdpSocket], Any], error: str) -> None:
    left, _ = sockets
    with pytest.raises((ValueError, TypeError), match=error):
        call(left)
    assert left.stats().sent_packets == 0


def test_cancelled_at_any_turn_no_datagram_is_lost(sockets: Pair, run: Run) -> None:
    left, right = sockets
    expected: list[bytes] = []
    found: list[bytes] = []

    async def take() -> list[bytes]:
        with await right.receive_async(3, min_packets=2, linger=0.001) as batch:
            return batch.tobytes()

    def step(turn: int) -> None:
        if turn == 2:
            more = numbers(3, len(expected))
            left.send(more, right.address)
            expected.extend(more)

    def check(_turns: int, result: list[bytes] | None) -> None:
        found.extend(result or [])

    async def main() -> None:
        assert await cancel_everywhere(take, check, step) > 3
        while batch := right.receive(timeout=0.2):
            with batch:
                found.extend(batch.tobytes())

    run(main())
    assert found == expected


def test_close_ends_every_task(sockets: Pair, run: Run) -> None:
    left, right = sockets

    async def iterate() -> int:
        return len([batch async for batch in right.batches_async()])

    async def main() -> None:
        tasks = [asyncio.create_task(right.receive_async(min_packets=n % 2 + 1, linger=60)) for n in range(6)]
        iterating = asyncio.create_task(iterate())
        await waiting(right, 7)
        left.send([b"x"], right.address)
        with await tasks[0]:  # the second lingers then
            pass
        left.send([b"x"], right.address)
        await asyncio.sleep(0.01)
        threading.Thread(target=right.close).start()
        done = await asyncio.gather(*tasks[1:], return_exceptions=True)
        assert all(isinstance(result, tunring.SessionClosed) for result in done), done
        assert await iterating == 0
        with pytest.raises(tunring.SessionClosed):
            await right.receive_async()
        with pytest.raises(tunring.SessionClosed):
            await right.send_async([b"x"], left.address)

    run(main())


@pytest.mark.parametrize("backend", ["asyncio"] if WINE else ["asyncio", "trio"])
def test_anyio(sockets: Pair, backend: str) -> None:
    left, right = sockets

    async def echo() -> None:
        async for batch in helper.batches(right, 64, min_packets=2, linger=0.001):
            await helper.send(right, batch, batch.sources[0])

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(echo)
            assert await helper.send(left, numbers(2), right.address) == 2
            assert await helper.send_packed(left, b"".join(numbers(2, 2)), [4, 4], right.address) == 2
            found: list[bytes] = []
            while len(found) < 4:
                with await helper.receive(left, timeout=20) as batch:
                    assert batch
                    found += batch.tobytes()
            assert found == numbers(4)
            right.close()
        with pytest.raises(TypeError, match="to must be given"):
            await helper.send(left, numbers(2))  # type: ignore[call-overload]

    anyio.run(main, backend=backend)


def test_anyio_gives_a_session_no_destination(pair: tuple[tunring.Session, tunring.Session]) -> None:
    left, _ = pair
    with pytest.raises(TypeError, match="a Session takes no to"):
        anyio.run(partial(helper.send, left, [], ("127.0.0.1", 9)))
