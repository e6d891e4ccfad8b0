"""Adapters over a descriptor that somebody else has attached to an interface."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest
from datagrams import udp4, udp_payload
from netns import drain
from nobody import BECOME_NOBODY
from tun_descriptors import (
    IFF_NO_PI,
    IFF_TAP,
    IFF_TUN,
    IFF_VNET_HDR,
    TUNSETVNETHDRSZ,
    attached,
    flags_of,
)

import tunring
from running import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from netns import Namespace

pytestmark = pytest.mark.root

UDP_SEGMENT = 103
HERE, THERE = "10.9.0.1", "10.9.0.77"

plain_and_virtio = pytest.mark.parametrize(
    "flags", [IFF_NO_PI, IFF_NO_PI | IFF_VNET_HDR], ids=["plain", "virtio headers"]
)


def exchange(session: tunring.Session, namespace: Namespace) -> None:
    """Datagrams both ways, among them superpackets where the kernel makes them."""
    with (
        namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as out,
        namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as link,
    ):
        link.bind((HERE, 4001))
        out.connect((THERE, 4000))
        data = os.urandom(30 * 1000 + 7)
        out.setsockopt(socket.SOL_UDP, UDP_SEGMENT, 1000)
        out.send(data)
        expected = [data[start : start + 1000] for start in range(0, len(data), 1000)]
        received: list[bytes] = []
        while len(received) < len(expected):
            with session.receive(timeout=10) as batch:
                assert batch, f"{len(received)} packets have come"
                found = [udp_payload(packet) for packet in batch.tobytes()]
                received += [payload for payload in found if payload is not None]
        assert received == expected
        assert session.send([udp4((THERE, 5), (HERE, 4001), payload) for payload in expected]) == len(expected)
        assert [link.recv(2000) for _ in expected] == expected
    assert session.stats().write_errors == 0
    assert not namespace.damage()


# ---- Served ----


@plain_and_virtio
def test_traffic_both_ways(namespace: Namespace, tun: tunring.Library, flags: int) -> None:
    with (
        attached(namespace, IFF_TUN | flags) as fd,
        tunring.Adapter.from_fd(fd, library=tun) as adapter,
        adapter.start_session() as session,
    ):
        namespace.set_up("tun0", f"{HERE}/24")
        drain(session)
        exchange(session, namespace)


def test_larger_virtio_headers_are_set_right(namespace: Namespace, tun: tunring.Library) -> None:
    """Another program's choices are kept."""
    with attached(namespace, IFF_TUN | IFF_NO_PI | IFF_VNET_HDR) as fd:
        fcntl.ioctl(fd, TUNSETVNETHDRSZ, struct.pack("i", 12))
        with tunring.Adapter.from_fd(fd, library=tun) as adapter, adapter.start_session() as session:
            namespace.set_up("tun0", f"{HERE}/24")
            drain(session)
            exchange(session, namespace)


@plain_and_virtio
def test_name_and_index(namespace: Namespace, tun: tunring.Library, flags: int) -> None:
    with (
        attached(namespace, IFF_TUN | flags, "other%d") as fd,
        tunring.Adapter.from_fd(fd, library=tun) as adapter,
    ):
        with namespace.entered():
            index = socket.if_nametoindex("other0")
        assert (adapter.name, adapter.ifindex) == ("other0", index)
        assert adapter.library is tun
        namespace.ip("link set other0 name renamed")
        assert (adapter.name, adapter.ifindex) == ("renamed", index)


@plain_and_virtio
def test_descriptor_stays_the_callers(namespace: Namespace, tun: tunring.Library, flags: int) -> None:
    """Session after session, adapter after adapter; the interface goes with the caller's close."""
    with attached(namespace, IFF_TUN | flags) as fd:
        namespace.set_up("tun0", f"{HERE}/24")
        for _ in range(3):
            adapter = tunring.Adapter.from_fd(fd, library=tun)
            for _ in range(2):
                with adapter.start_session(tunring.MIN_CAPACITY) as session:
                    drain(session)
                    exchange(session, namespace)
            adapter.close()
            adapter.close()
            assert flags_of(fd) & (IFF_TUN | flags) == IFF_TUN | flags
            assert "tun0" in namespace.interfaces()
    assert eventually(lambda: "tun0" not in namespace.interfaces(), 2)


@plain_and_virtio
def test_caller_reads_single_packets_after_close(namespace: Namespace, tun: tunring.Library, flags: int) -> None:
    with attached(namespace, IFF_TUN | flags) as fd:
        with tunring.Adapter.from_fd(fd, library=tun) as adapter, adapter.start_session() as session:
            namespace.set_up("tun0", f"{HERE}/24")
            drain(session)
            exchange(session, namespace)
        # We had switched the link on, so the end of the session switches it off.
        fcntl.ioctl(fd, 0x400454E2, struct.pack("i", 1))
        check_plain_reads(namespace, fd, 10 if flags & IFF_VNET_HDR else 0)


def check_plain_reads(namespace: Namespace, fd: int, header: int) -> None:
    """No superpackets, and no checksums left to do, come to a program that has asked for none."""
    os.set_blocking(fd, False)
    with namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.connect((THERE, 4000))
        out.setsockopt(socket.SOL_UDP, UDP_SEGMENT, 500)
        # The kernel's queues may follow the link's state a little later.
        received: list[bytes] = []

        def arrived() -> bool:
            out.send(bytes(5000))
            try:
                while True:
                    received.append(os.read(fd, 70000)[header:])
            except BlockingIOError:
                return len(received) >= 10

        assert eventually(arrived, 5)
    assert {udp_payload(packet) for packet in received} - {None} == {bytes(500)}


def test_interface_deleted(namespace: Namespace, tun: tunring.Library) -> None:
    with attached(namespace, IFF_TUN | IFF_NO_PI | IFF_VNET_HDR) as fd:
        adapter = tunring.Adapter.from_fd(fd, library=tun)
        session = adapter.start_session(tunring.MIN_CAPACITY)
        namespace.ip("link delete tun0")
        with pytest.raises(tunring.SessionClosed) as caught:
            session.receive(timeout=5)
        assert caught.value.reason == "removed"
        session.close()
        with pytest.raises(FileNotFoundError):
            adapter.start_session()
        adapter.close()
        with pytest.raises(ValueError, match="TUN"):
            tunring.Adapter.from_fd(fd, library=tun)


def test_caller_closes_first(namespace: Namespace, tun: tunring.Library) -> None:
    """The copy keeps the interface."""
    with attached(namespace, IFF_TUN | IFF_NO_PI) as fd:
        adapter = tunring.Adapter.from_fd(fd, library=tun)
    with adapter, adapter.start_session() as session:
        namespace.set_up("tun0", f"{HERE}/24")
        drain(session)
        exchange(session, namespace)
    assert eventually(lambda: "tun0" not in namespace.interfaces(), 2)


def test_copy_is_not_inherited(namespace: Namespace, tun: tunring.Library) -> None:
    with attached(namespace, IFF_TUN | IFF_NO_PI) as fd, tunring.Adapter.from_fd(fd, library=tun):
        found = subprocess.run(
            ["ls", "-l", "/proc/self/fd"], capture_output=True, text=True, check=True, close_fds=False
        )
        assert "/dev/net/tun" not in found.stdout


# ---- Without privileges ----

_SERVICE = (
    BECOME_NOBODY
    + """
library = tunring.load("tun_linux")
fd = int(sys.argv[1])
try:
    tunring.Adapter.create("tun7", library=library)
except PermissionError:
    print("unprivileged", flush=True)
with tunring.Adapter.from_fd(fd, library=library) as adapter, adapter.start_session() as session:
    print(adapter.name, adapter.ifindex, flush=True)
    left = 64
    while left:
        with session.receive(timeout=10) as batch:
            assert batch
            packets = [bytearray(packet) for packet in batch if packet[0] >> 4 == 4 and packet[9] == 17]
        for packet in packets:
            # Addresses and ports change places, which no checksum minds.
            packet[12:16], packet[16:20] = packet[16:20], packet[12:16]
            packet[20:22], packet[22:24] = packet[22:24], packet[20:22]
        left -= session.send(packets)
    sys.stdin.read()
print("done")
"""
)


@plain_and_virtio
def test_unprivileged_service(namespace: Namespace, flags: int) -> None:
    """A program of nobody's, to which its parent hands the descriptor."""
    with attached(namespace, IFF_TUN | flags) as fd:
        namespace.set_up("tun0", f"{HERE}/24")
        with namespace.entered():
            index = socket.if_nametoindex("tun0")
            process = subprocess.Popen(
                [sys.executable, "-W", "error", "-c", textwrap.dedent(_SERVICE), str(fd)],
                pass_fds=[fd],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "unprivileged\n"
            assert process.stdout.readline() == f"tun0 {index}\n"
            with namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
                link.connect((THERE, 4000))
                link.setsockopt(socket.SOL_UDP, UDP_SEGMENT, 1000)
                data = os.urandom(32000)
                for _ in range(2):
                    link.send(data)
                    assert b"".join(link.recv(2000) for _ in range(32)) == data
            assert process.communicate("", timeout=10)[0] == "done\n"
            assert process.returncode == 0
        finally:
            process.kill()
            process.communicate()
        assert "tun0" in namespace.interfaces()
    assert not namespace.damage()


# ---- Refused ----


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (IFF_TAP, "TAP"),
        (IFF_TAP | IFF_NO_PI, "TAP"),
        (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, "TAP"),
        (IFF_TUN, "packet information"),
        (IFF_TUN | IFF_VNET_HDR, "packet information"),
    ],
)
@pytest.mark.parametrize("up", [False, True], ids=["down", "up"])
def test_other_modes_are_refused(namespace: Namespace, tun: tunring.Library, flags: int, why: str, up: bool) -> None:
    with attached(namespace, flags) as fd:
        if up:
            namespace.ip("link set tun0 up")
        before = fcntl.fcntl(fd, fcntl.F_GETFL), len(os.listdir("/proc/self/fd"))
        with pytest.raises(ValueError, match=why) as caught:
            tunring.Adapter.from_fd(fd, library=tun)
        assert isinstance(caught.value, tunring.WintunError)
        assert caught.value.winerror == 87
        assert str(fd) in str(caught.value)
        # Nothing is changed.
        assert (fcntl.fcntl(fd, fcntl.F_GETFL), len(os.listdir("/proc/self/fd"))) == before


def test_no_tun_at_all_is_refused(tun: tunring.Library) -> None:
    def check(fd: int) -> None:
        with pytest.raises(ValueError, match="TUN") as caught:
            tunring.Adapter.from_fd(fd, library=tun)
        assert isinstance(caught.value, tunring.WintunError)
        assert caught.value.winerror == 87

    reading, writing = os.pipe()
    null = os.open("/dev/null", os.O_RDWR)
    unattached = os.open("/dev/net/tun", os.O_RDWR)
    for fd in (reading, writing, null, unattached):
        check(fd)
    for fd in (reading, writing, null, unattached):
        os.close(fd)
        check(fd)
    check(0x7FFFFFFF)


@pytest.mark.parametrize("number", [-1, -(2**31), 2**31, 2**32 + 3, 2**64])
def test_numbers_that_are_no_descriptor(tun: tunring.Library, number: int) -> None:
    with pytest.raises(ValueError, match="descriptor"):
        tunring.Adapter.from_fd(number, library=tun)


@pytest.mark.parametrize("thing", ["3", 3.0, None, b"3"])
def test_what_is_no_number(tun: tunring.Library, thing: object) -> None:
    with pytest.raises(TypeError):
        tunring.Adapter.from_fd(thing, library=tun)  # type: ignore[arg-type]


def test_other_libraries_have_no_descriptors(namespace: Namespace) -> None:
    loopback = tunring.load("loopback")
    with attached(namespace, IFF_TUN | IFF_NO_PI) as fd:
        with pytest.raises(tunring.WintunError) as caught:
            tunring.Adapter.from_fd(fd, library=loopback)
        assert caught.value.winerror == 50


# ---- Options ----


@pytest.mark.parametrize("value", ["yes", 1, 0, None])
def test_options_are_bools(value: object) -> None:
    with pytest.raises(TypeError, match="offloads"):
        tunring.load("tun_linux", offloads=value)


@pytest.mark.parametrize(("which", "option"), [("loopback", "offloads"), ("tun_linux", "offload")])
def test_unknown_options(which: str, option: str) -> None:
    with pytest.raises(TypeError, match=option):
        tunring.load(which, **{option: True})


@pytest.fixture
def wanting() -> Iterator[Callable[[bool], tunring.Library]]:
    yield lambda offloads: tunring.load("tun_linux", offloads=offloads)
    tunring.load("tun_linux", offloads=True)


def test_persistent_interface_by_turns(namespace: Namespace, wanting: Callable[[bool], tunring.Library]) -> None:
    """With offloads, without, and by a program that knows of none: each finds the interface as it needs it."""
    namespace.ip("tuntap add mode tun name tun0")
    namespace.set_up("tun0", f"{HERE}/24")
    for offloads in (True, False, True, True, False):
        with (
            namespace.entered(),
            tunring.Adapter.open("tun0", library=wanting(offloads)) as adapter,
            adapter.start_session() as session,
        ):
            drain(session)
            exchange(session, namespace)
        for flags, header in ((IFF_NO_PI, 0), (IFF_NO_PI | IFF_VNET_HDR, 10)):
            with attached(namespace, IFF_TUN | flags) as fd:
                check_plain_reads(namespace, fd, header)
