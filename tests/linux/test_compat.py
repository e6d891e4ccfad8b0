"""The drop-in device with its meanings on Linux, on real interfaces."""

from __future__ import annotations

import asyncio
import errno
import select
import socket
from typing import TYPE_CHECKING

import pytest

from packets import packet
from running import Threads, eventually
from tunring.compat import TunTapDevice
from tunring.compat._linux import IFF_NO_PI, IFF_TAP, IFF_TUN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from netns import Namespace

pytestmark = pytest.mark.root

INFORMATION = b"\x00\x00\x86\xdd"


@pytest.fixture
def device(namespace: Namespace) -> Iterator[TunTapDevice]:
    with namespace.entered():
        made = TunTapDevice()
    with made:
        yield made


@pytest.fixture
def ready(device: TunTapDevice, namespace: Namespace) -> TunTapDevice:
    """`device`, up, with fd00::1/64."""
    device.addr = "fd00::1"
    device.mtu = 1400
    device.up()
    namespace.settle("fd00::1/64")
    return device


def datagrams(namespace: Namespace) -> socket.socket:
    made = namespace.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    made.bind(("fd00::1", 5000))
    return made


def read_datagram(device: TunTapDevice, size: int = 2000) -> bytes:
    """The next UDP packet: the kernel sends packets of its own, too."""
    while True:
        data = device.read(size)
        assert data is not None
        if data[4] >> 4 == 6 and data[10] == socket.IPPROTO_UDP:
            return data


def test_is_named_by_the_first_free_number(namespace: Namespace) -> None:
    with namespace.entered():
        devices = [TunTapDevice(), TunTapDevice("mine"), TunTapDevice()]
    assert [device.name for device in devices] == ["tun0", "mine", "tun1"]
    assert {"tun0", "mine", "tun1"} <= namespace.interfaces()
    for device in devices:
        device.close()
    assert eventually(lambda: namespace.interfaces() == {"lo"})


def test_address_mtu_up_and_down(device: TunTapDevice, namespace: Namespace) -> None:
    with pytest.raises(OSError, match="no IPv6 address"):
        assert device.addr
    device.addr = "fd00::1"
    device.mtu = 1400
    assert "UP" not in namespace.flags(device.name)
    device.up()
    namespace.settle("fd00::1/64")
    assert (device.addr, device.mtu) == ("fd00::1", 1400)
    assert "fd00::1/64" in namespace.ip(f"address show dev {device.name}")
    assert "UP" in namespace.flags(device.name)
    device.down()
    assert "UP" not in namespace.flags(device.name)
    device.up()
    assert "UP" in namespace.flags(device.name)


@pytest.mark.parametrize(("name", "value"), [("addr", "10.0.0.1"), ("addr", "fd00::1/64"), ("mtu", 0)])
def test_refuses_bad_values(device: TunTapDevice, name: str, value: object) -> None:
    with pytest.raises(OSError, match=str(value)) as caught:
        setattr(device, name, value)
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize("flags", [0, IFF_TAP, IFF_TUN | IFF_TAP])
def test_refuses_bad_flags(flags: int) -> None:
    with pytest.raises(OSError, match="flags"):
        TunTapDevice(flags=flags)


def test_reads_and_writes_with_packet_information(ready: TunTapDevice, namespace: Namespace) -> None:
    with datagrams(namespace) as sock:
        sock.sendto(b"there", ("fd00::2", 6000))
        data = read_datagram(ready)
        assert data[:4] == INFORMATION
        assert data.endswith(b"there")
        # Addresses and ports change sides, which keeps the checksum.
        there = data[4:12] + data[28:44] + data[12:28] + data[46:48] + data[44:46] + data[48:]
        assert ready.write(INFORMATION + there) == len(data)
        assert sock.recvfrom(100)[0] == b"there"


def test_a_read_cuts_what_is_longer(ready: TunTapDevice, namespace: Namespace) -> None:
    with datagrams(namespace) as sock:
        sock.sendto(bytes(1000), ("fd00::2", 6000))
        data = read_datagram(ready, 100)
    assert len(data) == 100
    assert data[:4] == b"\x01\x00\x86\xdd"
    for size, error in ((0, ValueError), (-1, ValueError), (3, OSError)):
        with pytest.raises(error, match="size"):
            ready.read(size)
    with pytest.raises(OSError, match="not an IP packet"):
        ready.write(INFORMATION + b"no packet")


def test_without_packet_information(namespace: Namespace) -> None:
    with namespace.entered():
        device = TunTapDevice("bare", IFF_TUN | IFF_NO_PI)
    with device:
        device.addr = "fd00::1"
        device.up()
        namespace.settle("fd00::1/64")
        with datagrams(namespace) as sock:
            sock.sendto(b"there", ("fd00::2", 6000))
            while not (data := device.read(2000) or b"").endswith(b"there"):
                pass
        assert data[0] >> 4 == 6
        assert device.write(packet(60, version=6)) == 60


def test_the_descriptor_tells_of_packets(ready: TunTapDevice, namespace: Namespace) -> None:
    while select.select([ready], [], [], 0)[0]:
        ready.read(2000)
    with datagrams(namespace) as sock:
        sock.sendto(b"there", ("fd00::2", 6000))
        assert select.select([ready.fileno()], [], [], 10)[0]
        assert read_datagram(ready).endswith(b"there")


def test_tasks_read_bare_packets(ready: TunTapDevice, namespace: Namespace) -> None:
    async def main() -> list[bytes]:
        found: list[bytes] = []
        while len(found) < 3:
            data = await ready.async_read()
            assert data
            found += [one for one in [data, *await ready.async_read_batch()] if one[6] == socket.IPPROTO_UDP]
        return found

    with datagrams(namespace) as sock:
        for number in range(4):
            sock.sendto(bytes([number]) * 10, ("fd00::2", 6000))
        found = asyncio.run(asyncio.wait_for(main(), 20))
    assert [data[-10:] for data in found[:3]] == [bytes([number]) * 10 for number in range(3)]
    assert all(data[0] >> 4 == 6 for data in found)


def test_cancel_read_and_close_end_reads(ready: TunTapDevice) -> None:
    def read() -> str:
        try:
            while ready.read(2000) is not None:
                pass
        except OSError:
            return "closed"
        return "cancelled"

    with Threads() as threads:
        threads.start(read)
        assert eventually(lambda: ready._running()[0].stats().waits >= 1)
        ready.cancel_read()
    assert threads.results == ["cancelled"]
    ready.close()
    assert read() == "closed"
    with pytest.raises(OSError, match="isn't up"):
        ready.fileno()
