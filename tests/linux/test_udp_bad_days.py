"""Sockets between two namespaces, when devices, addresses, routes and path MTUs are not what one wishes for."""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from datagrams import checksum, udp4

import tunring
from running import SANITIZED, Threads, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from netns import Namespace

    Pair = tuple[tunring.UdpSocket, tunring.UdpSocket]

HERE, THERE = "10.30.0.1", "10.30.0.2"
HERE6, THERE6 = "fd30::1", "fd30::2"

SIZE = 1400
DATAGRAMS = [number.to_bytes(4, "big") + bytes(SIZE - 4) for number in range(200)]

#: Of linux/ethtool.h, by which a device's offloads are switched without a program that few machines have.
SIOCETHTOOL, ETHTOOL_SFEATURES, ETHTOOL_GSTRINGS, ETHTOOL_GSSET_INFO = 0x8946, 0x3B, 0x1B, 0x37
ETH_SS_FEATURES = 4


def ethtool(namespace: Namespace, interface: str, request: bytes) -> bytes:
    with namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        buffer = bytearray(request)
        address = (ctypes.c_char * len(buffer)).from_buffer(buffer)
        fcntl.ioctl(sock, SIOCETHTOOL, struct.pack("16sP16x", interface.encode(), ctypes.addressof(address)))
        del address
    return bytes(buffer)


def switch_off(namespace: Namespace, interface: str, name: str) -> None:
    """Switch a feature of a device off, as ``ethtool -K`` does."""
    answer = ethtool(namespace, interface, struct.pack("IIQI", ETHTOOL_GSSET_INFO, 0, 1 << ETH_SS_FEATURES, 0))
    count = struct.unpack("IIQI", answer)[3]
    request = struct.pack("III", ETHTOOL_GSTRINGS, ETH_SS_FEATURES, count) + bytes(32 * count)
    names = ethtool(namespace, interface, request)[12:]
    number = [names[at : at + 32].rstrip(b"\0").decode() for at in range(0, len(names), 32)].index(name)
    words = (count + 31) // 32
    blocks = [0] * (2 * words)  # for each word: which are valid, which of them are on
    blocks[number // 32 * 2] = 1 << number % 32
    ethtool(namespace, interface, struct.pack(f"II{2 * words}I", ETHTOOL_SFEATURES, words, *blocks))


@pytest.fixture
def joined(namespaces: tuple[Namespace, Namespace]) -> tuple[Namespace, Namespace]:
    """Two namespaces joined by a cable: left0 in the first has HERE, and right0 in the second THERE."""
    left, right = namespaces
    descriptor = right.fileno()
    command = ["env", "-u", "LD_PRELOAD", "ip", "link", "add", "left0", "type", "veth", "peer", "name", "right0"]
    with left.entered():
        subprocess.run(
            [*command, "netns", f"/proc/self/fd/{descriptor}"], pass_fds=[descriptor], check=True, timeout=60
        )
    left.set_up("left0", f"{HERE}/24", f"{HERE6}/64")
    right.set_up("right0", f"{THERE}/24", f"{THERE6}/64")
    return left, right


@pytest.fixture(params=[HERE, HERE6])
def sockets(joined: tuple[Namespace, Namespace], request: pytest.FixtureRequest) -> Iterator[Pair]:
    left, right = joined
    with left.entered():
        near = tunring.UdpSocket.bind(("::" if ":" in request.param else "0.0.0.0", 0))
    with right.entered():
        far = tunring.UdpSocket.bind((THERE6 if ":" in request.param else THERE, 0))
    with near, far:
        meet(near, far)
        yield near, far


def meet(near: tunring.UdpSocket, far: tunring.UdpSocket) -> None:
    """Let the kernels find each other: until then they keep few datagrams."""

    def meets() -> bool:
        near.send([b"hello"], far.address)
        with far.receive(timeout=0.1) as batch:
            return bool(batch)

    assert eventually(meets)
    while far.receive(timeout=0.05):
        pass


def receive_all(udp: tunring.UdpSocket, count: int) -> list[bytes]:
    datagrams: list[bytes] = []
    while len(datagrams) < count:
        with udp.receive(timeout=10) as batch:
            assert batch, f"only {len(datagrams)} of {count} came"
            datagrams += batch.tobytes()
    return datagrams


def test_between_namespaces(sockets: Pair) -> None:
    near, far = sockets
    assert near.send(DATAGRAMS, far.address) == len(DATAGRAMS)
    assert receive_all(far, len(DATAGRAMS)) == DATAGRAMS
    assert near.stats().runs_sent == 5  # of 46 datagrams at most datagrams: 65,507 bytes
    assert near.stats().segment


def test_the_device_segments_nothing(sockets: Pair, joined: tuple[Namespace, Namespace]) -> None:
    """The kernel does it for such a device."""
    switch_off(joined[0], "left0", "tx-udp-segmentation")
    test_between_namespaces(sockets)


def test_the_device_sums_nothing(sockets: Pair, joined: tuple[Namespace, Namespace]) -> None:
    """Kernels before 6.11 refuse runs for such a device (EIO): each datagram goes by itself, once, and later ones."""
    near, far = sockets
    switch_off(joined[0], "left0", "tx-checksum-ip-generic")
    before = near.stats().sent_packets
    for _ in range(2):
        assert near.send(DATAGRAMS, far.address) == len(DATAGRAMS)
        assert receive_all(far, len(DATAGRAMS)) == DATAGRAMS
    stats = near.stats()
    assert stats.sent_packets - before == 2 * len(DATAGRAMS)
    assert stats.runs_sent == (10 if stats.segment else 0)
    assert (stats.refused_size, stats.refused_other, stats.refused_unreachable) == (0, 0, 0)


def test_the_far_end_does_not_coalesce(joined: tuple[Namespace, Namespace]) -> None:
    left, right = joined
    with left.entered():
        near = tunring.UdpSocket.bind((HERE, 0))
    with right.entered():
        far = tunring.UdpSocket.bind((THERE, 0), coalesce=False)
        plain = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with near, far, plain:
        meet(near, far)
        assert near.send(DATAGRAMS, far.address) == len(DATAGRAMS)
        assert receive_all(far, len(DATAGRAMS)) == DATAGRAMS
        assert far.stats().coalesced_reads == 0
        plain.bind((THERE, 0))
        plain.settimeout(10)
        near.send(DATAGRAMS[:50], plain.getsockname())
        assert [plain.recv(65536) for _ in range(50)] == DATAGRAMS[:50]


def test_the_path_takes_less_than_a_segment(sockets: Pair, joined: tuple[Namespace, Namespace]) -> None:
    """Runs are refused, their datagrams leave in fragments, and smaller runs still leave whole."""
    near, far = sockets
    joined[0].ip("link set left0 mtu 1300")
    for _ in range(2):
        assert near.send(DATAGRAMS[:40], far.address) == 40
        assert receive_all(far, 40) == DATAGRAMS[:40]
    assert near.stats().runs_sent == 0
    small = [data[:1000] for data in DATAGRAMS[:40]]
    assert near.send(small, far.address) == 40
    assert receive_all(far, 40) == small
    stats = near.stats()
    assert stats.segment
    assert (stats.runs_sent, stats.refused_size, stats.refused_other) == (1, 0, 0)


def test_the_network_goes_and_comes_back(sockets: Pair, joined: tuple[Namespace, Namespace]) -> None:
    near, far = sockets
    left, right = joined
    assert near.send([b"before"], far.address) == 1
    left.ip("link set left0 down")
    assert near.send(DATAGRAMS, far.address) == len(DATAGRAMS)
    assert near.stats().refused_unreachable == len(DATAGRAMS)
    left.ip("link set left0 up")
    if ":" in far.address[0]:
        left.ip(f"address replace {HERE6}/64 dev left0 nodad")
        left.settle(HERE6)
    assert eventually(lambda: "LOWER_UP" in left.flags("left0"))
    right.settle(far.address[0])
    assert receive_all(far, 1) == [b"before"]

    def arrives() -> bool:
        near.send([b"after"], far.address)
        with far.receive(timeout=0.1) as batch:
            return batch.tobytes()[:1] == [b"after"]

    assert eventually(arrives)
    assert near.send(DATAGRAMS, far.address) == len(DATAGRAMS)
    found: list[bytes] = []
    while len(found) < len(DATAGRAMS):
        found += [data for data in receive_all(far, 1) if data != b"after"]
    assert found == DATAGRAMS
    assert near.stats().segment


def test_the_address_that_was_written_to_vanishes(sockets: Pair, joined: tuple[Namespace, Namespace]) -> None:
    """A reply leaves from it while it is there, and then from another one."""
    near, far = sockets
    left, _ = joined
    second, prefix = ("fd30::9", 64) if ":" in far.address[0] else ("10.30.0.9", 24)
    left.set_up("left0", f"{second}/{prefix}")
    far.send([b"question"], (second, near.address[1]))
    with near.receive(timeout=10) as batch:
        asked = batch.sources[0]
    assert asked.local == second
    near.send(DATAGRAMS, asked)
    with far.receive(timeout=10, min_packets=len(DATAGRAMS), linger=5) as batch:
        assert [source.host for source in batch.sources] == [second]
        assert batch.tobytes() == DATAGRAMS
    left.ip(f"address del {second}/{prefix} dev left0")
    for _ in range(2):
        assert near.send(DATAGRAMS, asked) == len(DATAGRAMS)
        with far.receive(timeout=10, min_packets=len(DATAGRAMS), linger=5) as batch:
            assert [source.host for source in batch.sources] == [HERE6 if ":" in second else HERE]
            assert batch.tobytes() == DATAGRAMS
    assert near.stats().refused_unreachable == near.stats().refused_other == 0


#: Codes of "destination unreachable" that the kernel reports, and the MTU that the last one carries.
ICMP_ERRORS = {
    "port unreachable": (3, 0),
    "protocol unreachable": (2, 0),
    "host unknown": (7, 0),
    "host isolated": (8, 0),
    "host prohibited": (10, 0),
    "communication prohibited": (13, 0),
    "fragmentation needed": (4, 1000),
}


def icmp_error(code: int, mtu: int, source: tuple[str, int], target: tuple[str, int]) -> bytes:
    """The answer to a datagram between these: destination unreachable."""
    body = struct.pack("!BBHHH", 3, code, 0, 0, mtu) + udp4(source, target, b"")
    return body[:2] + struct.pack("!H", checksum(body)) + body[4:]


@pytest.mark.parametrize("kind", ICMP_ERRORS)
def test_icmp_errors_of_a_connected_socket(namespace: Namespace, kind: str) -> None:
    """Only a connected one gets them, and it is taken over: they end no loop and cost no datagram."""
    local = ("127.0.0.1", 0)
    with (
        namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer,
        namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as original,
        namespace.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as router,
    ):
        for sock in (peer, original):
            sock.bind(local)
        peer.settimeout(10)
        original.connect(peer.getsockname())
        error = icmp_error(*ICMP_ERRORS[kind], original.getsockname(), peer.getsockname())
        with tunring.UdpSocket.from_socket(original) as udp:
            assert udp.send([b"first"], peer.getsockname()) == 1
            assert peer.recv(100) == b"first"
            router.sendto(error, local)
            assert not udp.receive(timeout=0.05)
            assert udp.stats().icmp_errors == 1
            with Threads() as threads:
                threads.start(udp.receive, 256, 10)
                assert eventually(lambda: udp.stats().waits >= 2)
                router.sendto(error, local)
                assert eventually(lambda: udp.stats().icmp_errors == 2)
                peer.sendto(b"answer", original.getsockname())
            with threads.results[0] as batch:
                assert batch.tobytes() == [b"answer"]
            router.sendto(error, local)
            assert udp.send([b"second"] * 3, peer.getsockname()) == 3
            assert [peer.recv(100) for _ in range(3)] == [b"second"] * 3
            stats = udp.stats()
            assert stats.icmp_errors == 3
            assert (stats.refused_unreachable, stats.refused_size, stats.refused_other) == (0, 0, 0)


def test_link_local_addresses_need_their_interface(joined: tuple[Namespace, Namespace]) -> None:
    left, right = joined
    for namespace, name, host in ((left, "left0", "fe80::a"), (right, "right0", "fe80::b")):
        namespace.ip(f"address add {host}/64 dev {name} nodad")
    with left.entered():
        near = tunring.UdpSocket.bind(("::", 0))
        index = socket.if_nametoindex("left0")
    with right.entered():
        far = tunring.UdpSocket.bind(("::", 0))
        far_index = socket.if_nametoindex("right0")
    with near, far:
        port = far.address[1]
        to = tunring.Endpoint("fe80::b", port, interface=index)

        def arrives() -> bool:  # once the kernel takes its addresses for usable
            near.send([b"found"] * 3, to)
            with far.receive(timeout=0.1) as batch:
                if not batch:
                    return False
                (source,) = batch.sources
                assert (source.host, source.interface, source.local) == ("fe80::a", far_index, "fe80::b")
                assert far.send(batch, source) == len(batch)
            return True

        assert eventually(arrives)
        with near.receive(timeout=10) as batch:
            assert batch.sources == [to]
        # The socket module's own form is accepted, too.
        assert near.send([b"x"], ("fe80::b", port, 0, index)) == 1
        assert b"x" in receive_all(far, 1)


def test_ten_thousand_senders(joined: tuple[Namespace, Namespace]) -> None:
    """Their addresses take no memory that stays."""
    left, right = joined
    left.ip("route add local 10.31.0.0/16 dev lo")  # so that the kernel sends from each of them
    right.ip("route add 10.31.0.0/16 dev right0")
    with left.entered():
        near = tunring.UdpSocket.bind(("0.0.0.0", 0))
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with right.entered():
        far = tunring.UdpSocket.bind((THERE, 0), pinned_limit=1 << 20)
    with near, far, sender:
        sizes: list[int] = []
        for _ in range(4):
            seen: set[tunring.Endpoint] = set()
            for first in range(0, 10000, 100):
                for number in range(first, first + 100):
                    local = socket.inet_aton(f"10.31.{number // 250}.{number % 250 + 1}")
                    control = [(socket.IPPROTO_IP, 8, bytes(4) + local + bytes(4))]
                    sender.sendmsg([b"spoofed"], control, 0, far.address)
                count = 0
                while count < 100:
                    with far.receive(timeout=10) as batch:
                        assert batch
                        count += len(batch)
                        seen.update(batch.sources)
                        far.send(batch, batch.sources, index=batch.source_index)
                near.receive(timeout=0).release()
            assert len(seen) == 10000
            del seen
            with open("/proc/self/statm") as status:
                sizes.append(int(status.read().split()[1]) * 4096)
        # The address sanitizer keeps what was freed for a while.
        assert SANITIZED or sizes[-1] - sizes[1] < 4 << 20
        assert far.stats().pinned_bytes == 0


def test_the_systems_queue_overflows(joined: tuple[Namespace, Namespace]) -> None:
    left, right = joined
    with left.entered():
        near = tunring.UdpSocket.bind((HERE, 0))
    with right.entered():
        far = tunring.UdpSocket.bind((THERE, 0), receive_buffer=50000)
    with near, far:
        for _ in range(20):
            assert near.send(DATAGRAMS, far.address) == len(DATAGRAMS)
        time.sleep(0.1)
        received = 0
        while batch := far.receive(timeout=0.2):
            with batch:
                received += len(batch)
        lost = far.stats().host_dropped
        assert lost
        assert 0 < received < 20 * len(DATAGRAMS)
        # The kernel counts a coalesced run as one.
        assert 1 <= lost <= 20 * len(DATAGRAMS) - received
    assert far.stats().host_dropped == lost
