"""Operations on the drop-in devices of :mod:`tunring.compat`: those of both systems, over any library of ours."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any

from engine import operation
from ledger import Wrong
from loops import run_in_loop
from workers import Workers

import tunring
import tunring.testing
from tunring.compat import _linux, _windows

if TYPE_CHECKING:
    from collections.abc import Callable

    from world import Actor

PACKET = bytes([0x45]) + bytes(19)

_GOES_ON = "a read goes on after its end"

#: Packet information of IPv4.
_INFORMATION = bytes([0, 0, 8, 0])


def _start_readers(read: Callable[[], bytes | None], expected: bytes = b"") -> Workers:
    """Two threads that read from a device, until a read is cancelled or the device is over."""

    def work() -> None:
        while (data := read()) is not None:
            if expected and data != expected:
                raise Wrong(f"a device reads {data.hex()}")

    return Workers([work] * 2)


@operation(weight=5, libraries=("loopback", "tun_linux"), systems=("linux", "darwin"))  # Windows has no descriptors
def use_a_drop_in_device_of_linux(actor: Actor) -> None:
    """Threads read and write; another cancels the reads, or closes the device."""
    flags = actor.random.choice([_linux.IFF_TUN, _linux.IFF_TUN | _linux.IFF_NO_PI])
    information = b"" if flags & _linux.IFF_NO_PI else _INFORMATION
    with _linux.TunTapDevice(actor.world.name(), flags, library=actor.world.library) as device:
        readers = _start_readers(lambda: device.read(2000))
        if device.write(information + PACKET) != len(information + PACKET):
            raise Wrong("a device writes less than a packet")
        if actor.world.library.name == "tun_linux":
            device.up()
            device.mtu = actor.random.choice([1280, 1500])
            device.down()
        if device.fileno() < 3:
            raise Wrong("a device has a standard stream's descriptor")
        _read_in_tasks(actor, device)
        actor.random.choice([device.cancel_read, device.close])()
        readers.end(_GOES_ON)


@operation(weight=5, libraries=("loopback",))
def use_a_drop_in_device_of_windows(actor: Actor) -> None:
    """The driver brings packets, and the device goes down and up."""
    with _windows.TunTapDevice(actor.world.name(), library=actor.world.library) as device:
        driver = tunring.testing.Simulator.attach(device._adapter)
        for _ in range(2):
            device.up(tunring.MIN_CAPACITY)
            readers = _start_readers(device.read, PACKET)
            driver.inject([PACKET] * actor.random.randint(1, 50))
            device.write(PACKET)
            if actor.chance(0.5):
                _read_in_tasks(actor, device)
            with contextlib.suppress(TimeoutError, tunring.SessionClosed):
                device.read(1)
            if actor.chance(0.5):
                device.cancel_read()
                readers.end(_GOES_ON)
            device.down()
            readers.end(_GOES_ON)


def _read_in_tasks(actor: Actor, device: Any) -> None:
    """A task is cancelled, and another thread cancels the others' reads."""

    async def read() -> None:
        with contextlib.suppress(tunring.SessionClosed, asyncio.CancelledError):
            while await (device.async_read() if actor.chance(0.5) else device.async_read_batch()):
                pass

    async def main() -> None:
        tasks = [asyncio.create_task(read()) for _ in range(2)]
        await asyncio.sleep(actor.random.random() * 0.01)
        if actor.chance(0.5):
            tasks[0].cancel()
        canceller = threading.Thread(target=device.cancel_read)
        canceller.start()
        await asyncio.wait_for(asyncio.gather(*tasks), 15)
        canceller.join()

    run_in_loop(actor, main)
