"""Superpackets whose length fields are unset, as the large sends of a guest come by a bridge."""

from __future__ import annotations

import fcntl
import os
import socket
from typing import TYPE_CHECKING

import pytest
from netns import drain
from tun_descriptors import ALL_OFFLOADS, IFF_NO_PI, IFF_TUN, IFF_VNET_HDR, TUNSETOFFLOAD, attached

import offload_reference as reference
from offload_reference import TCP, UDP, Virtio

if TYPE_CHECKING:
    from netns import Namespace

    import tunring

pytestmark = pytest.mark.root

SEGMENT = 1000


def superpacket(version: int, protocol: int) -> bytes:
    """Three segments from behind tun1 to behind tun0."""
    here, there = ("10.1.0.2", "10.9.0.2") if version == 4 else ("fd01::2", "fd09::2")
    if version == 4:
        head = bytes([0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, protocol, 0, 0]) + socket.inet_aton(here)
        head += socket.inet_aton(there)
    else:
        head = bytes([0x60, 0, 0, 0, 0, 0, protocol, 64]) + socket.inet_pton(socket.AF_INET6, here)
        head += socket.inet_pton(socket.AF_INET6, there)
    ports = bytes([0x10, 0, 0x10, 1])
    transport = ports + (bytes([0, 0, 0, 7, 0, 0, 0, 9, 0x50, 0x10, 1, 0, 0, 0, 0, 0]) if protocol == TCP else bytes(4))
    return reference.seal(head + transport + bytes(i & 0xFF for i in range(2 * SEGMENT + 500)))


def partial(packet: bytes, udp_length: int | None, *, total_length: bool) -> tuple[Virtio, bytes]:
    """The packet as its sender hands it to a device: lengths unset, and the sum of the pseudo-header to match."""
    headers = reference.parse(packet)
    assert headers
    data = bytearray(packet)
    length = len(packet) - headers.transport
    if udp_length is not None:
        length = udp_length
        reference.put16(data, headers.transport + 4, length)
    at = reference.checksum_at(headers)
    reference.put16(data, at, reference.pseudo(packet, headers, length))
    if not total_length:
        reference.put16(data, 2, 0)
        reference.put16(data, 10, 0)
        reference.put16(data, 10, ~reference.total(bytes(data[:20])))
    kind = 5 if headers.protocol == UDP else {4: 1, 6: 4}[headers.version]
    return Virtio(1, kind, headers.length, SEGMENT, headers.transport, at - headers.transport), bytes(data)


@pytest.mark.parametrize(
    ("version", "protocol", "udp_length", "total_length"),
    [
        pytest.param(4, TCP, None, True, id="v4 TCP"),
        pytest.param(4, TCP, None, False, id="v4 TCP, total length 0"),
        pytest.param(4, UDP, 0, True, id="v4 UDP, length 0"),
        pytest.param(4, UDP, 8 + SEGMENT, True, id="v4 UDP, length of a segment"),
        pytest.param(6, UDP, 0, True, id="v6 UDP, length 0"),
        pytest.param(6, UDP, 8 + SEGMENT, True, id="v6 UDP, length of a segment"),
    ],
)
def test_forwarded(
    session: tunring.Session,
    namespace: Namespace,
    version: int,
    protocol: int,
    udp_length: int | None,
    total_length: bool,
) -> None:
    """The kernel forwards them whole; the session receives what the kernel itself would make of them."""
    for sysctl in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"):
        namespace.write_sysctl(sysctl, "1")
    with attached(namespace, IFF_TUN | IFF_NO_PI | IFF_VNET_HDR, "tun1") as fd:
        fcntl.ioctl(fd, TUNSETOFFLOAD, ALL_OFFLOADS)
        namespace.set_up("tun1", "10.1.0.1/24", "fd01::1/64")
        drain(session)
        packet = superpacket(version, protocol)
        virtio, data = partial(packet, udp_length, total_length=total_length)
        os.write(fd, virtio.pack() + data)
        received: list[bytes] = []
        while len(received) < 3:
            with session.receive(timeout=5) as batch:
                assert batch, f"{len(received)} packets have come"
                received += [found for found in batch.tobytes() if found[9 if found[0] >> 4 == 4 else 6] == protocol]
    # Each hop takes one from the lifetime.
    aged = bytearray(packet)
    aged[8 if version == 4 else 7] -= 1
    virtio, data = partial(reference.seal(bytes(aged)), None, total_length=True)
    assert received == reference.split(virtio, data)
    assert session.stats().host_filtered == 0
