"""Sockets of IPv6 that serve IPv4 too, those that do not, and those that are bound to a mapped IPv4 address."""

from __future__ import annotations

import os
import socket

import pytest

import tunring

#: Wine reports no ECN bits.
WINDOWS = os.name == "nt"


def ipv6_is_here() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


pytestmark = pytest.mark.skipif(not ipv6_is_here(), reason="this machine has no IPv6")


def bind(host: str, **options: object) -> tunring.UdpSocket:
    return tunring.UdpSocket.bind((host, 0), **options)


def receive(udp: tunring.UdpSocket, count: int) -> tunring.Batch:
    return udp.receive(timeout=10, min_packets=count, linger=10)


def ecn_of(batch: tunring.Batch, expected: list[int]) -> bool:
    return list(batch.ecn) in (expected, [0] * len(expected)) if WINDOWS else list(batch.ecn) == expected


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_both_families_talk_to_one_socket(host: str) -> None:
    """A far end of either family is seen as what it is, and a reply leaves from the address that was written to."""
    datagrams = [b"a" * 100] * 3 + [b"b"]
    with bind("::") as both, bind(host) as far:
        port = both.address[1]
        assert far.send(datagrams, (host, port), ecn=[1, 1, 1, 2]) == 4
        with receive(both, 4) as batch:
            assert batch.tobytes() == datagrams
            (source,) = batch.sources
            assert (source, source.host, source.local) == (tunring.Endpoint(*far.address[:2]), host, host)
            assert ecn_of(batch, [1, 1, 1, 2])
            assert both.send(batch, source, ecn=3) == 4
        with receive(far, 4) as batch:
            assert batch.tobytes() == datagrams
            assert batch.sources == [tunring.Endpoint(host, port)]
            assert ecn_of(batch, [3] * 4)


@pytest.mark.parametrize("form", ["127.0.0.1", "::ffff:127.0.0.1"])
def test_ipv4_is_mapped_however_it_is_written(form: str) -> None:
    with bind("::") as both, bind("127.0.0.1") as far:
        assert both.send([b"x" * 200] * 5, (form, far.address[1]), ecn=2) == 5
        assert both.send([b"y"], tunring.Endpoint(form, far.address[1])) == 1
        with receive(far, 6) as batch:
            assert batch.tobytes() == [b"x" * 200] * 5 + [b"y"]
            assert batch.sources == [tunring.Endpoint("127.0.0.1", both.address[1])]
            assert ecn_of(batch, [2] * 5 + [0])
            assert far.send(batch, batch.sources[0]) == 6
        with receive(both, 6) as batch:
            assert batch.sources == [tunring.Endpoint("127.0.0.1", far.address[1])]


def test_one_call_sends_to_both_families() -> None:
    with bind("::") as both, bind("127.0.0.1") as far, bind("::1") as far6:
        to = [far.address, far6.address]
        assert both.send([b"4", b"6", b"4"], to, index=[0, 1, 0]) == 3
        with receive(far, 2) as batch, receive(far6, 1) as batch6:
            assert (batch.tobytes(), batch6.tobytes()) == ([b"4", b"4"], [b"6"])
            assert [b.sources[0].host for b in (batch, batch6)] == ["127.0.0.1", "::1"]
        far.send([b"from 4"], ("127.0.0.1", both.address[1]))
        with receive(both, 1) as batch:
            assert batch.sources == [tunring.Endpoint(*far.address)]
        far6.send([b"from 6"], ("::1", both.address[1]))
        with receive(both, 1) as batch:
            assert batch.sources == [tunring.Endpoint(*far6.address[:2])]


def test_ipv6_only() -> None:
    with bind("::", ipv6_only=True) as only, bind("127.0.0.1") as far, bind("::1") as far6:
        far.send([b"nobody there"], ("127.0.0.1", only.address[1]))
        far6.send([b"6"], ("::1", only.address[1]))
        with receive(only, 1) as batch:
            assert batch.tobytes() == [b"6"]
            assert only.send(batch, batch.sources[0]) == 1
        assert not only.receive(timeout=0.02)
        with tunring.UdpSocket.bind(("0.0.0.0", only.address[1])):  # the port is free for IPv4
            pass


REFUSED = [
    ("127.0.0.1", {}, "::1", "::1 is an IPv6 address, and the socket is of IPv4"),
    ("::ffff:127.0.0.1", {}, "::1", "::1 is an IPv6 address, and the socket is of IPv4"),
    ("::1", {}, "127.0.0.1", "127.0.0.1 is an IPv4 address, and the socket is of IPv6 only"),
    ("::1", {}, "::ffff:127.0.0.1", "127.0.0.1 is an IPv4 address, and the socket is of IPv6 only"),
    ("::", {"ipv6_only": True}, "127.0.0.1", "127.0.0.1 is an IPv4 address, and the socket is of IPv6 only"),
]


@pytest.mark.parametrize(("host", "options", "to", "words"), REFUSED)
def test_another_family_is_refused_before_anything_is_sent(
    host: str, options: dict[str, object], to: str, words: str
) -> None:
    with bind(host, **options) as udp:
        good, bad = udp.address if host != "::" else ("::1", udp.address[1]), (to, 9)
        with pytest.raises(ValueError, match=words):
            udp.send([b"x"], bad)
        with pytest.raises(ValueError, match=words):
            udp.send([b"x", b"y"], [good, bad], index=[0, 1])
        with pytest.raises(ValueError, match=words):
            udp.send_many([(good, [b"x"]), (bad, [b"y"])])
        stats = udp.stats()
        assert (stats.sent_packets, stats.refused_other, stats.refused_unreachable) == (0, 0, 0)


def test_a_socket_that_is_bound_to_a_mapped_address_serves_ipv4() -> None:
    with bind("::ffff:127.0.0.1") as udp, bind("127.0.0.1") as far:
        assert udp.send([b"x" * 50] * 3, far.address) == 3
        with receive(far, 3) as batch:
            assert batch.sources == [tunring.Endpoint("127.0.0.1", udp.address[1])]
            assert far.send(batch, batch.sources[0]) == 3
        with receive(udp, 3) as batch:
            assert (batch.sources[0].host, batch.sources[0].local) == ("127.0.0.1", "127.0.0.1")


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::ffff:127.0.0.1"])
def test_ipv4_is_not_of_ipv6_only(host: str) -> None:
    with pytest.raises(ValueError, match=f"ipv6_only must be False for a socket of IPv4, and '{host}'"):
        bind(host, ipv6_only=True)


@pytest.mark.parametrize("only", [True, False])
def test_a_socket_taken_over_reaches_what_it_is_made_for(only: bool) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock, bind("127.0.0.1") as far:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
        sock.bind(("::", 0))
        with tunring.UdpSocket.from_socket(sock) as udp:
            if only:
                with pytest.raises(ValueError, match="IPv6 only"):
                    udp.send([b"x"], far.address)
            else:
                assert udp.send([b"x"], far.address) == 1
                with receive(far, 1) as batch:
                    assert batch.sources == [tunring.Endpoint("127.0.0.1", udp.address[1])]
