"""The kernel's queue in front of a session: long enough for a burst, on interfaces that are ours."""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING

import pytest
from netns import drain
from tun_descriptors import IFF_NO_PI, IFF_TUN, attached

import tunring

if TYPE_CHECKING:
    from collections.abc import Callable

    from netns import Namespace

pytestmark = pytest.mark.root

KIB, MIB = 1 << 10, 1 << 20


def queue_length(namespace: Namespace) -> int:
    found = re.search(r"qlen (\d+)", namespace.ip("link show dev tun0"))
    assert found
    return int(found[1])


@pytest.mark.parametrize(
    ("capacity", "length"), [(128 * KIB, 500), (1 * MIB, 512), (4 * MIB, 2048), (16 * MIB, 8192), (64 * MIB, 8192)]
)
def test_capacity_raises_it(adapter: tunring.Adapter, namespace: Namespace, capacity: int, length: int) -> None:
    assert queue_length(namespace) == 500
    with adapter.start_session(capacity):
        assert queue_length(namespace) == length


def test_it_is_never_lowered(adapter: tunring.Adapter, namespace: Namespace) -> None:
    for capacity in (16 * MIB, 4 * MIB):
        with adapter.start_session(capacity):
            assert queue_length(namespace) == 8192
    namespace.ip("link set tun0 txqueuelen 10000")
    with adapter.start_session(64 * MIB):
        assert queue_length(namespace) == 10000


def test_configured_length_wins(adapter: tunring.Adapter, namespace: Namespace) -> None:
    adapter.configure(queue_length=70)
    with adapter.start_session(16 * MIB):
        assert queue_length(namespace) == 70
        adapter.configure(["10.9.0.1/24"])
        assert adapter.configure(queue_length=90).queue_length == 90
    with adapter.start_session(16 * MIB):
        assert queue_length(namespace) == 90


def test_opened_interfaces_are_left_alone(namespace: Namespace, tun: tunring.Library) -> None:
    namespace.ip("tuntap add mode tun name tun0")
    with namespace.entered():
        adapter = tunring.Adapter.open("tun0", library=tun)
    with adapter, adapter.start_session(64 * MIB):
        assert queue_length(namespace) == 500


def test_adopted_interfaces_are_left_alone(namespace: Namespace, tun: tunring.Library) -> None:
    with (
        attached(namespace, IFF_TUN | IFF_NO_PI) as fd,
        tunring.Adapter.from_fd(fd, library=tun) as adapter,
        adapter.start_session(64 * MIB),
    ):
        assert queue_length(namespace) == 500


@pytest.mark.parametrize(("capacity", "burst"), [(4 * MIB, 2000), (16 * MIB, 6000), (64 * MIB, 8000)])
def test_bursts_arrive(
    create: Callable[[str], tunring.Adapter], namespace: Namespace, capacity: int, burst: int
) -> None:
    """Sent while the program does something else."""
    adapter = create("tun0")
    with (
        adapter.start_session(capacity) as session,
        namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as link,
    ):
        namespace.set_up("tun0", "10.9.0.1/24")
        drain(session)
        link.setsockopt(socket.SOL_SOCKET, 32, 64 * MIB)  # SO_SNDBUFFORCE: what waits counts as the sender's
        for _ in range(burst):
            link.sendto(bytes(200), ("10.9.0.2", 9))
        received = 0
        while batch := session.receive(timeout=0.2):
            with batch:
                received += sum(packet[0] == 0x45 and len(packet) == 228 for packet in batch)
        assert (received, session.stats().host_dropped) == (burst, 0)
