"""Interfaces that somebody else serves too: nothing of theirs is touched, and a program can hand its own over."""

from __future__ import annotations

import fcntl
import io
import os
import socket
import struct
import subprocess
import sys
import textwrap
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from datagrams import udp4, udp_payload
from netns import drain
from tun_descriptors import (
    ALL_OFFLOADS,
    IFF_MULTI_QUEUE,
    IFF_NO_PI,
    IFF_TUN,
    IFF_VNET_HDR,
    TUNSETOFFLOAD,
    TUNSETVNETHDRSZ,
    attached,
)

import tunring
from running import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from netns import Namespace

pytestmark = pytest.mark.root

HERE, THERE = "10.9.0.1", "10.9.0.77"
TUNSETCARRIER, TUNGETVNETHDRSZ = 0x400454E2, 0x800454D7
MANY = IFF_TUN | IFF_NO_PI | IFF_MULTI_QUEUE

plain_and_virtio = pytest.mark.parametrize("flags", [0, IFF_VNET_HDR], ids=["plain", "virtio headers"])


def has_carrier(namespace: Namespace) -> bool:
    return "NO-CARRIER" not in namespace.flags("tun0")


def set_carrier(fd: int, on: bool) -> None:
    fcntl.ioctl(fd, TUNSETCARRIER, struct.pack("i", on))


def receive_all(namespace: Namespace, sessions: list[tunring.Session], count: int = 50) -> int:
    """Sends flows to all sessions; returns the number of datagrams that came."""
    with namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        for number in range(count):
            link.sendto(b"flow", (THERE, 1000 + number))
    received = 0
    for session in sessions:
        while batch := session.receive(timeout=0.2):
            with batch:
                received += sum(udp_payload(packet) == b"flow" for packet in batch.tobytes())
    return received


def answers(namespace: Namespace, session: tunring.Session) -> bool:
    """Return whether a datagram goes both ways."""
    with namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.bind((HERE, 4001))
        assert session.send([udp4((THERE, 5), (HERE, 4001), b"in")]) == 1
        return link.recv(100) == b"in" and receive_all(namespace, [session], 5) == 5


# ---- Adopted descriptors ----


@plain_and_virtio
def test_one_of_two_queues_ends(namespace: Namespace, tun: tunring.Library, flags: int) -> None:
    """When one session and its adapter end, the other goes on with the interface as they leave it."""
    with attached(namespace, MANY | flags) as first, attached(namespace, MANY | flags) as second, ExitStack() as stack:
        adapters = [stack.enter_context(tunring.Adapter.from_fd(fd, library=tun)) for fd in (first, second)]
        adapters[0].configure([f"{HERE}/24"])
        sessions = [stack.enter_context(adapter.start_session()) for adapter in adapters]
        for session in sessions:
            drain(session)
        assert receive_all(namespace, sessions) == 50
        sessions[1].close()
        adapters[1].close()
        os.close(os.dup(second))
        assert has_carrier(namespace)
    with attached(namespace, MANY | flags) as first, tunring.Adapter.from_fd(first, library=tun) as adapter:
        with attached(namespace, MANY | flags) as second, tunring.Adapter.from_fd(second, library=tun) as other:
            other.start_session().close()
        with adapter.start_session() as session:
            namespace.set_up("tun0", f"{HERE}/24")
            drain(session)
            assert receive_all(namespace, [session]) == 50


@plain_and_virtio
def test_link_and_offloads_of_an_adopted_interface_stay(namespace: Namespace, tun: tunring.Library, flags: int) -> None:
    def offloads() -> set[str]:
        with namespace.entered():
            said = namespace.run("ethtool", "-k", "tun0") if ETHTOOL else ""
        return {line.strip() for line in said.splitlines() if "segmentation" in line}

    with attached(namespace, IFF_TUN | IFF_NO_PI | flags) as fd:
        namespace.set_up("tun0", f"{HERE}/24")
        if flags:
            fcntl.ioctl(fd, TUNSETVNETHDRSZ, struct.pack("i", 12))
            fcntl.ioctl(fd, TUNSETOFFLOAD, ALL_OFFLOADS)
        before = offloads()
        for on in (True, False):
            set_carrier(fd, on)
            with tunring.Adapter.from_fd(fd, library=tun) as adapter:
                assert has_carrier(namespace) == on
                with adapter.start_session() as session:
                    drain(session)
                    assert answers(namespace, session)
                    assert offloads() == before
            # A session may switch it on.
            assert has_carrier(namespace)
        assert offloads() == before
        if flags:
            (size,) = struct.unpack("i", fcntl.ioctl(fd, TUNGETVNETHDRSZ, bytes(4)))
            assert size == 12


ETHTOOL = bool(subprocess.run(["sh", "-c", "command -v ethtool"], capture_output=True, check=False).stdout)


@pytest.mark.parametrize("size", [10, 12, 20, 64])
def test_virtio_headers_of_any_size(namespace: Namespace, tun: tunring.Library, size: int) -> None:
    """Runs that are merged and superpackets that are split, with what another program has agreed on."""
    with attached(namespace, IFF_TUN | IFF_NO_PI | IFF_VNET_HDR) as fd:
        namespace.set_up("tun0", f"{HERE}/24")
        fcntl.ioctl(fd, TUNSETVNETHDRSZ, struct.pack("i", size))
        fcntl.ioctl(fd, TUNSETOFFLOAD, ALL_OFFLOADS)
        with (
            tunring.Adapter.from_fd(fd, library=tun) as adapter,
            adapter.start_session() as session,
            namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as link,
        ):
            drain(session)
            link.bind((HERE, 4001))
            payloads = [bytes([number]) * 700 for number in range(40)]
            assert session.send([udp4((THERE, 5), (HERE, 4001), payload) for payload in payloads]) == 40
            assert [link.recv(2000) for _ in payloads] == payloads
            link.connect((THERE, 5))
            link.setsockopt(socket.SOL_UDP, 103, 700)  # UDP_SEGMENT
            assert link.send(b"".join(payloads)) == 28000
            received: list[bytes] = []
            while len(received) < 40:
                with session.receive(timeout=5) as batch:
                    assert batch
                    found = [udp_payload(packet) for packet in batch.tobytes()]
                    received += [payload for payload in found if payload is not None]
            assert received == payloads
            assert session.stats().write_errors == 0
    assert not namespace.damage()


def test_unreasonable_virtio_headers_are_refused(namespace: Namespace, tun: tunring.Library) -> None:
    with attached(namespace, IFF_TUN | IFF_NO_PI | IFF_VNET_HDR) as fd:
        fcntl.ioctl(fd, TUNSETVNETHDRSZ, struct.pack("i", 65))
        with pytest.raises(ValueError, match="65 bytes"):
            tunring.Adapter.from_fd(fd, library=tun)


def test_packets_of_an_adopted_queue_are_not_thrown_away(namespace: Namespace, tun: tunring.Library) -> None:
    """They came for whoever goes on with the descriptor."""
    with attached(namespace, IFF_TUN | IFF_NO_PI) as fd:
        namespace.set_up("tun0", f"{HERE}/24")
        with namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
            link.sendto(b"waits", (THERE, 5))
        with tunring.Adapter.from_fd(fd, library=tun) as adapter, adapter.start_session() as session:
            payloads: list[bytes | None] = []
            while b"waits" not in payloads:
                with session.receive(timeout=5) as batch:
                    assert batch
                    payloads += [udp_payload(packet) for packet in batch.tobytes()]


# ---- Opened interfaces ----


def test_opened_link_is_left_as_it_was(namespace: Namespace, tun: tunring.Library) -> None:
    namespace.ip("tuntap add mode tun name tun0")
    namespace.set_up("tun0")
    with namespace.entered(), tunring.Adapter.open("tun0", library=tun) as adapter:
        assert not has_carrier(namespace)
        adapter.start_session().close()
        assert not has_carrier(namespace)
        set_carrier(adapter.fileno(), True)
        adapter.start_session().close()
        assert has_carrier(namespace)


@plain_and_virtio
def test_opened_beside_another_queue(namespace: Namespace, tun: tunring.Library, flags: int) -> None:
    """An interface of several queues: another program's goes on with what it has agreed on."""
    with attached(namespace, MANY | flags) as fd:
        namespace.set_up("tun0", f"{HERE}/24")
        if flags:
            fcntl.ioctl(fd, TUNSETVNETHDRSZ, struct.pack("i", 12))
        with tunring.Adapter.from_fd(fd, library=tun) as mine, mine.start_session() as session:
            drain(session)
            with namespace.entered(), tunring.Adapter.open("tun0", library=tun) as adapter:
                with adapter.start_session() as other:
                    drain(other)
                    assert receive_all(namespace, [session, other]) == 50
                assert has_carrier(namespace)
            assert has_carrier(namespace)
            assert eventually(lambda: receive_all(namespace, [session]) == 50)
            assert answers(namespace, session)


def test_configuration_of_another_queue_stays(namespace: Namespace, tun: tunring.Library) -> None:
    """An adapter's configuration is taken back by that adapter alone, whoever opens and closes another."""
    namespace.ip("tuntap add mode tun name tun0 multi_queue")
    with namespace.entered(), tunring.Adapter.open("tun0", library=tun) as first:
        first.configure([f"{HERE}/24"])
        with tunring.Adapter.open("tun0", library=tun) as second:
            found = second.configure(["fd09::1/64"])
            assert {str(address) for address in found.addresses} == {f"{HERE}/24", "fd09::1/64"}
        assert [str(address) for address in first.configuration().addresses] == [f"{HERE}/24"]


def test_opened_alone_of_several_queues(namespace: Namespace, tun: tunring.Library) -> None:
    namespace.ip("tuntap add mode tun name tun0 multi_queue")
    namespace.set_up("tun0", f"{HERE}/24")
    with namespace.entered(), tunring.Adapter.open("tun0", library=tun) as adapter:
        assert not has_carrier(namespace)
        with adapter.start_session() as session:
            drain(session)
            assert answers(namespace, session)
        assert not has_carrier(namespace)


# ---- Lent and handed over ----


def test_fileno_lends(adapter: tunring.Adapter, namespace: Namespace) -> None:
    fd = adapter.fileno()
    assert fd == adapter.fileno()
    assert os.readlink(f"/proc/self/fd/{fd}") == "/dev/net/tun"
    assert not os.get_inheritable(fd)
    adapter.close()
    with pytest.raises(ValueError, match="closed"):
        adapter.fileno()
    with pytest.raises(ValueError, match="closed"):
        adapter.detach()


def test_other_libraries_have_no_descriptor() -> None:
    with tunring.Adapter.create("a", library=tunring.load("loopback")) as adapter:
        with pytest.raises(io.UnsupportedOperation, match="descriptor"):
            adapter.fileno()
        with pytest.raises(io.UnsupportedOperation, match="descriptor"):
            adapter.detach()
        assert not adapter.closed


@pytest.mark.parametrize("origin", ["created", "opened", "adopted"])
def test_detach_leaves_everything(namespace: Namespace, tun: tunring.Library, origin: str) -> None:
    """Packets sent at any time meanwhile arrive at the one or the other."""
    with ExitStack() as stack:
        if origin == "adopted":
            fd = stack.enter_context(attached(namespace, IFF_TUN | IFF_NO_PI | IFF_VNET_HDR))
            old = tunring.Adapter.from_fd(fd, library=tun)
        else:
            if origin == "opened":
                namespace.ip("tuntap add mode tun name tun0")
            with namespace.entered():
                make = tunring.Adapter.create if origin == "created" else tunring.Adapter.open
                old = make("tun0", library=tun)
        given = old.configure([f"{HERE}/24", "fd09::1/64"], 1400, routes=["10.20.0.0/16"])
        session = old.start_session()
        drain(session)
        taken = session.receive(timeout=0)
        descriptor = old.detach()
        try:
            assert old.closed
            assert session.closed
            assert not os.get_inheritable(descriptor)
            old.close()
            with namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
                for number in range(20):
                    link.sendto(b"%d" % number, ("10.20.0.1", 9))
            assert has_carrier(namespace)
            with tunring.Adapter.from_fd(descriptor, library=tun) as new, new.start_session() as again:
                found = new.configuration()
                assert (found.addresses, found.routes, found.mtu) == (given.addresses, given.routes, given.mtu)
                assert found.carrier
                payloads: list[bytes | None] = []
                while len(payloads) < 20:
                    with again.receive(timeout=5) as batch:
                        assert batch
                        payloads += [p for p in map(udp_payload, batch.tobytes()) if p is not None]
                assert payloads == [b"%d" % number for number in range(20)]
                assert answers(namespace, again)
        finally:
            os.close(descriptor)
            taken.release()
    if origin == "created":
        assert eventually(lambda: "tun0" not in namespace.interfaces())


def test_hot_restart(namespace: Namespace, tmp_path: Path) -> None:
    """A program replaces itself while datagrams come: each is answered, by the old one or the new one."""
    script = """
    import os, sys, tunring
    from datagrams import udp4, udp_payload

    library = tunring.load("tun_linux")
    if sys.argv[1:]:
        fd = int(sys.argv[1])
        adapter = tunring.Adapter.from_fd(fd, library=library)
        os.close(fd)
    else:
        adapter = tunring.Adapter.create("tun0", library=library)
        adapter.configure(["10.9.0.1/24"])
    session = adapter.start_session()
    print("serves", flush=True)
    answered = 0
    while answered < 100:
        with session.receive(timeout=20) as batch:
            assert batch
            found = [udp_payload(packet) for packet in batch.tobytes()]
        found = [payload for payload in found if payload is not None]
        session.send([udp4(("10.9.0.77", 9), ("10.9.0.1", 4001), payload) for payload in found])
        answered += len(found)
    descriptor = adapter.detach()
    os.set_inheritable(descriptor, True)
    if not sys.argv[1:]:
        os.execv(sys.executable, [sys.executable, "-W", "error", sys.argv[0], str(descriptor)])
    """
    program = tmp_path / "service.py"
    program.write_text(textwrap.dedent(script))
    with namespace.entered():
        process = subprocess.Popen(
            [sys.executable, "-W", "error", str(program)],
            stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": os.path.dirname(__file__)},
        )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "serves\n"
        with namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
            link.bind((HERE, 4001))
            for number in range(200):
                link.sendto(b"%d" % number, (THERE, 9))
                assert link.recv(100) == b"%d" % number
        assert process.stdout.readline() == "serves\n"
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.communicate()


def test_link_taken_by_somebody_else(
    session: tunring.Session, adapter: tunring.Adapter, namespace: Namespace, log_lines: list[tuple[int, str]]
) -> None:
    """The configuration shows it, and so does the log, once for each time."""
    for times in (1, 2):
        set_carrier(adapter.fileno(), True)
        assert adapter.configuration().carrier
        session.receive(timeout=0.3)
        set_carrier(adapter.fileno(), False)
        assert not adapter.configuration().carrier
        for _ in range(4):
            session.receive(timeout=0.15)
        assert eventually(lambda times=times: len(log_lines) == times), log_lines
    assert all('"tun0" was switched off by somebody else' in text for _, text in log_lines)
