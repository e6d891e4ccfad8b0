"""The drop-in device with its meanings on Windows, over a simulated driver, on every system."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from typing import TYPE_CHECKING

import pytest

import tunring
import tunring.testing
from packets import number_of, packet
from running import Threads, eventually
from tunring.compat._windows import TunTapDevice

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX = b"\x00\x00\x86\xdd"


@pytest.fixture
def device(library: tunring.Library, name: str) -> Iterator[TunTapDevice]:
    with TunTapDevice(name, library=library) as device:
        yield device


@pytest.fixture
def driver(device: TunTapDevice) -> tunring.testing.Simulator:
    """Return a simulator of the driver of `device`, which is up."""
    driver = tunring.testing.Simulator.attach(device._adapter)
    device.up(tunring.MIN_CAPACITY)
    return driver


def test_reads_and_writes_bare_packets(device: TunTapDevice, driver: tunring.testing.Simulator) -> None:
    driver.inject([packet(60, version=6, number=1), packet(number=2)])
    assert device.read() == packet(60, version=6, number=1)
    assert device.read(timeout=5000) == packet(number=2)
    device.write(packet(60, version=6, number=3))
    device.write(PREFIX + packet(60, version=6, number=4))
    device.write(packet(number=5))
    assert [driver.drain() for _ in range(3)] == [
        packet(60, version=6, number=3),
        packet(60, version=6, number=4),
        packet(number=5),
    ]


def test_read_times_out_in_milliseconds(device: TunTapDevice, driver: tunring.testing.Simulator) -> None:
    began = time.perf_counter()
    with pytest.raises(TimeoutError):
        device.read(timeout=30)
    assert 0.02 < time.perf_counter() - began < 10
    with pytest.raises(TimeoutError):
        device.read(0)


def test_cancel_read_ends_reads_until_the_next_up(device: TunTapDevice, driver: tunring.testing.Simulator) -> None:
    with Threads() as threads:
        threads.start(device.read)
        threads.start(device.read)
        assert eventually(lambda: device._running()[0].stats().waits >= 2)
        device.cancel_read()
    assert threads.results == [None, None]
    assert device.read() is None
    driver.inject([packet(number=7)])
    assert device.read() == packet(number=7), "a packet that is there is read all the same"
    device.down()
    device.up(tunring.MIN_CAPACITY)
    with pytest.raises(TimeoutError):
        device.read(0)


@pytest.mark.parametrize("end", ["down", "close"])
def test_the_end_of_the_device_ends_a_read(device: TunTapDevice, driver: tunring.testing.Simulator, end: str) -> None:
    def read() -> bool:
        with pytest.raises(OSError, match="over"):
            device.read()
        return True

    with Threads() as threads:
        threads.start(read)
        assert eventually(lambda: device._running()[0].stats().waits >= 1)
        getattr(device, end)()
    for call in (device.read, lambda: device.write(packet())):
        with pytest.raises(OSError, match="isn't up"):
            call()
    device.cancel_read()
    device.close()
    device.close()


def test_properties(device: TunTapDevice, driver: tunring.testing.Simulator) -> None:
    assert device.name == device._adapter.name
    assert device.luid == device._adapter.luid
    assert device.addr == ""
    assert device.interface_index is None
    with pytest.raises(ValueError, match="fe80"):
        device.addr = "fe80::no"
    with pytest.raises(NotImplementedError):
        device.addr = "fd00::1"  # a simulated adapter has no interface
    with pytest.raises(NotImplementedError):
        device.mtu = 1400
    with pytest.raises(NotImplementedError):
        assert device.mtu
    assert device.addr == ""
    with pytest.raises(io.UnsupportedOperation):
        device.fileno()


def test_reads_in_tasks(device: TunTapDevice, driver: tunring.testing.Simulator) -> None:
    async def main() -> None:
        task = asyncio.create_task(device.async_read())
        await asyncio.sleep(0.01)
        driver.inject([packet(number=number) for number in range(5)])
        first = await task
        assert first is not None
        assert number_of(first) == 0
        assert [number_of(data) for data in await device.async_read_batch()] == [1, 2, 3, 4]

        cancelled = asyncio.create_task(device.async_read())
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        driver.inject([packet(number=9)])
        assert await asyncio.wait_for(device.async_read(), 10) == packet(number=9), "a cancelled task took nothing"

    asyncio.run(main())


@pytest.mark.parametrize("thread", [False, True])
def test_cancel_read_ends_reads_in_tasks(device: TunTapDevice, driver: tunring.testing.Simulator, thread: bool) -> None:
    async def main() -> None:
        tasks = [asyncio.create_task(device.async_read()), asyncio.create_task(device.async_read_batch())]
        await asyncio.sleep(0.01)
        if thread:
            canceller = threading.Thread(target=device.cancel_read)
            canceller.start()
            canceller.join()
        else:
            device.cancel_read()
        assert await asyncio.wait_for(asyncio.gather(*tasks), 10) == [None, []]
        assert await device.async_read() is None

    asyncio.run(main())


def test_the_end_of_the_device_ends_reads_in_tasks(device: TunTapDevice, driver: tunring.testing.Simulator) -> None:
    async def main() -> None:
        task = asyncio.create_task(device.async_read_batch())
        await asyncio.sleep(0.01)
        device.down()
        with pytest.raises(OSError, match="over"):
            await asyncio.wait_for(task, 10)
        with pytest.raises(OSError, match="isn't up"):
            await device.async_read()

    asyncio.run(main())
