"""Merged packets as others than sockets see them: probes stay alone, and a session may merge less."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

import pytest
from netns import drain
from superpackets import both_families, frames

import offload_reference as reference
from offload_reference import ACK, TCP, UDP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from netns import Namespace

    import tunring
    from tunring._adapter import Coalesce

pytestmark = pytest.mark.root

ETH_P_IP = 0x0800


def packet(number: int, protocol: int, source: str, target: str, hops: int, payload: bytes) -> bytes:
    """One of a flow: as Paris traceroute has it, only payload and identification differ between its probes."""
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    addresses = socket.inet_pton(family, source) + socket.inet_pton(family, target)
    if family == socket.AF_INET:
        head = struct.pack("!BBHHHBBH", 0x45, 0, 0, number, 0x4000, hops, protocol, 0)
    else:
        head = struct.pack("!IHBB", 6 << 28, 0, protocol, hops)
    transport = struct.pack("!HH", 33000, 33434)
    if protocol == TCP:
        transport += struct.pack("!IIBBHHH", 1000 + number * len(payload), 1, 5 << 4, ACK, 500, 0, 0)
    else:
        transport += bytes(4)
    return reference.seal(head + addresses + transport + payload)


def numbered(count: int, protocol: int, source: str, target: str, hops: int) -> list[bytes]:
    return [packet(i, protocol, source, target, hops, struct.pack("!H8x", i)) for i in range(count)]


@pytest.fixture
def start(adapter: tunring.Adapter, namespace: Namespace) -> Iterator[Callable[[Coalesce], tunring.Session]]:
    """Starts a session on tun0, which is up and forwards."""
    started: list[tunring.Session] = []

    def make(coalesce: Coalesce) -> tunring.Session:
        started.append(adapter.start_session(coalesce=coalesce))
        drain(started[0])
        return started[0]

    for sysctl, value in {
        "net/ipv4/ip_forward": "1",
        "net/ipv6/conf/all/forwarding": "1",
        "net/ipv4/icmp_ratelimit": "0",
        "net/ipv6/icmp/ratelimit": "0",
    }.items():
        namespace.write_sysctl(sysctl, value)
    adapter.configure(["10.9.0.1/24", "fd09::1/64"], routes=["198.18.0.0/15", "fd18::/32"])
    namespace.settle("10.9.0.1", "fd09::1")
    yield make
    for session in started:
        session.close()


@pytest.mark.parametrize("hops", [1, 32])
@pytest.mark.parametrize("version", [4, 6])
def test_each_probe_is_quoted(
    start: Callable[[Coalesce], tunring.Session], namespace: Namespace, version: int, hops: int
) -> None:
    """Probes of one flow in one send: this host answers those of one hop, and forwards the others one by one."""
    session = start("all")
    source, target = ("10.9.0.2", "198.18.0.9") if version == 4 else ("fd09::2", "fd18::9")
    sent = numbered(8, UDP, source, target, hops)
    into, _ = frames(namespace)
    assert session.send(sent) == 8
    assert frames(namespace)[0] - into == 8
    start_of_quote = 28 if version == 4 else 48
    icmp = {4: (9, 1), 6: (6, 58)}[version]
    quoted: list[bytes] = []
    forwarded: list[bytes] = []
    while len(quoted) + len(forwarded) < 8:
        with session.receive(timeout=5) as batch:
            assert batch
            for found in batch.tobytes():
                if found[0] >> 4 == version and found[icmp[0]] == icmp[1]:
                    quoted.append(found[start_of_quote:])
                elif found[0] >> 4 == version and found[icmp[0]] == UDP:
                    forwarded.append(found)
    # A quote may be cut, and of IPv4 has the checksum as it came.
    at = 8 if version == 4 else 7
    aged = [reference.seal(bytes([*probe[:at], hops - 1, *probe[at + 1 :]])) for probe in sent]
    if hops == 1:
        assert len(quoted) == 8
        assert all(any(whole.startswith(quote[:56]) for whole in sent) for quote in quoted)
        assert len({quote[: len(sent[0])] for quote in quoted}) == 8
    else:
        assert forwarded == aged


@both_families
@pytest.mark.parametrize(("coalesce", "alone"), [("all", ()), ("tcp", (UDP,)), ("none", (TCP, UDP))])
def test_what_is_merged(
    start: Callable[[Coalesce], tunring.Session],
    namespace: Namespace,
    family: int,
    here: str,
    there: str,
    coalesce: Coalesce,
    alone: tuple[int, ...],
) -> None:
    session = start(coalesce)
    for protocol in (TCP, UDP):
        into, _ = frames(namespace)
        assert session.send(numbered(40, protocol, there, here, 64)) == 40
        assert frames(namespace)[0] - into == (40 if protocol in alone else 1)
    assert session.stats().write_errors == 0


@pytest.mark.parametrize("coalesce", ["tcp", "none"])
def test_raw_sockets_see_each_datagram(
    start: Callable[[Coalesce], tunring.Session], namespace: Namespace, coalesce: Coalesce
) -> None:
    session = start(coalesce)
    sent = numbered(8, UDP, "10.9.0.2", "10.9.0.1", 64)
    with (
        namespace.socket(socket.AF_INET, socket.SOCK_RAW, UDP) as raw,
        namespace.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IP)) as link,
    ):
        link.bind(("tun0", ETH_P_IP))
        assert session.send(sent) == 8
        assert [raw.recv(9000) for _ in sent] == sent
        seen = [link.recv(9000) for _ in range(8)]
        assert seen == sent
