"""Sessions as scapy sockets."""

from __future__ import annotations

import contextlib
import doctest
import select
import socket as sockets
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from scapy.automaton import Automaton, ObjectPipe
from scapy.config import conf
from scapy.layers.inet import ICMP, IP, UDP, ICMPEcho_am, TCP_client
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from scapy.sendrecv import AsyncSniffer, bridge_and_sniff, sniff
from scapy.supersocket import SimpleSocket

import tunring
import tunring.contrib.scapy
import tunring.testing
from running import NEVER, Threads, eventually, run_script
from tunring.contrib.scapy import TunSocket
from tunring.testing.responder import Responder

if TYPE_CHECKING:
    from collections.abc import Iterator

    Pair = tuple[tunring.Session, tunring.Session]


def numbered(number: int) -> IP:
    return IP(src="10.0.0.1", dst="10.0.0.2", id=number) / UDP(sport=1, dport=2) / Raw(b"x" * number)


@pytest.fixture
def ends(pair: Pair) -> tuple[TunSocket, TunSocket]:
    return TunSocket(pair[0]), TunSocket(pair[1])


@pytest.fixture
def other_pair() -> Iterator[Pair]:
    left, right = tunring.testing.pair(tunring.MIN_CAPACITY)
    with left, right:
        yield left, right


@pytest.fixture
def echoing(pair: Pair) -> Iterator[tunring.Session]:
    """A session at whose other end everything answers."""

    def serve() -> None:
        responder = Responder()
        with contextlib.suppress(tunring.SessionClosed):  # between a batch and its answer
            for batch in pair[1].batches():
                responder.answer(batch)
                pair[1].send(batch)

    with Threads() as threads:
        threads.start(serve)
        yield pair[0]
        pair[1].close()


def test_example_runs() -> None:
    results = doctest.testmod(tunring.contrib.scapy)
    assert results.attempted > 0
    assert results.failed == 0


def test_sniff(ends: tuple[TunSocket, TunSocket]) -> None:
    sent = [numbered(1), IPv6(dst="fd00::2") / ICMPv6EchoRequest(data=b"six"), numbered(1000)]
    before = time.time()
    assert [ends[0].send(packet) for packet in sent] == [len(packet) for packet in sent]
    found = sniff(opened_socket=ends[1], count=3, timeout=NEVER)
    assert [bytes(packet) for packet in found] == [bytes(packet) for packet in sent]
    assert [type(packet) for packet in found] == [IP, IPv6, IP]
    assert found[1][ICMPv6EchoRequest].data == b"six"
    assert before <= found[0].time <= found[2].time <= time.time()
    assert before <= sent[0].sent_time <= time.time()


def test_sniff_uses_no_select_that_takes_only_sockets(
    ends: tuple[TunSocket, TunSocket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows' one doesn't take a session's event."""

    def refuse(*_: object) -> None:
        raise OSError(10038, "not a socket")

    for place in (select, __import__("scapy.supersocket", fromlist=["select"])):
        monkeypatch.setattr(place, "select", refuse)
    ends[0].send(numbered(1))
    assert len(sniff(opened_socket=ends[1], count=1, timeout=NEVER)) == 1
    assert len(sniff(opened_socket=ends[1], timeout=0.2)) == 0


def test_sniff_ends_in_time_without_packets(ends: tuple[TunSocket, TunSocket]) -> None:
    started = time.perf_counter()
    assert len(sniff(opened_socket=ends[1], timeout=0.3)) == 0
    assert 0.3 <= time.perf_counter() - started < NEVER


def test_what_one_sniff_leaves_is_the_next_ones(ends: tuple[TunSocket, TunSocket]) -> None:
    for number in range(1, 6):
        ends[0].send(numbered(number))
    found = []
    for count in (1, 3, 1):
        found += [packet.id for packet in sniff(opened_socket=ends[1], count=count, timeout=NEVER)]
    assert found == [1, 2, 3, 4, 5]


def test_a_sniffer_in_the_background_can_be_stopped(ends: tuple[TunSocket, TunSocket]) -> None:
    sniffer = AsyncSniffer(opened_socket=ends[1])
    sniffer.start()
    ends[0].send(numbered(7))
    assert eventually(lambda: getattr(sniffer, "count", 0) == 1)
    sniffer.stop()
    assert [packet.id for packet in sniffer.results] == [7]


def test_sr1(echoing: tunring.Session) -> None:
    socket = TunSocket(echoing)
    answer = socket.sr1(IP(src="10.0.0.1", dst="10.0.0.2") / ICMP(id=5, seq=6) / b"hello", timeout=NEVER, verbose=0)
    assert answer is not None
    assert (answer.src, answer[ICMP].type, answer[ICMP].id, answer[ICMP].seq) == ("10.0.0.2", 0, 5, 6)
    assert answer[Raw].load == b"hello"
    answer6 = socket.sr1(IPv6(src="fd00::1", dst="fd00::2") / ICMPv6EchoRequest(), timeout=NEVER, verbose=0)
    assert (answer6.src, answer6.payload.type) == ("fd00::2", 129)


@pytest.mark.parametrize("threaded", [False, True])
def test_sr_with_what_nobody_answers(echoing: tunring.Session, threaded: bool) -> None:
    asked = [IP(src="10.0.0.1", dst="10.0.0.2") / ICMP(seq=number) for number in range(20)]
    asked.append(IP(src="10.0.0.1", dst="224.0.0.1") / ICMP())
    answered, unanswered = TunSocket(echoing).sr(asked, timeout=1, verbose=0, threaded=threaded)
    assert [question[ICMP].seq for question, _ in answered] == list(range(20))
    assert [question.dst for question in unanswered] == ["224.0.0.1"]


def test_answering_machine(pair: Pair, ends: tuple[TunSocket, TunSocket]) -> None:
    machine = ends[1].am(ICMPEcho_am, verbose=0)
    sniffer = machine.bg()
    try:
        answer = ends[0].sr1(IP(src="10.0.0.1", dst="10.0.0.2") / ICMP(seq=9) / b"data", timeout=NEVER, verbose=0)
        assert (answer.src, answer[ICMP].type, answer[ICMP].seq, answer[Raw].load) == ("10.0.0.2", 0, 9, b"data")
    finally:
        sniffer.stop()


def test_bridge_and_sniff(pair: Pair, other_pair: Pair) -> None:
    near, far = TunSocket(pair[0]), TunSocket(other_pair[1])

    def age(packet: IP) -> IP:
        packet.ttl -= 1
        del packet.chksum
        return packet

    def seldom(packet: IP) -> bool:
        return packet.id != 13

    bridged = []
    with Threads() as threads:
        threads.start(
            lambda: bridged.extend(
                bridge_and_sniff(
                    TunSocket(pair[1]), TunSocket(other_pair[0]), xfrm12=age, xfrm21=seldom, count=5, timeout=NEVER
                )
            )
        )
        near.send(numbered(1))
        far.send(numbered(13))
        near.send(numbered(2))
        far.send(numbered(14))
        far.send(numbered(15))
        there = sniff(opened_socket=far, count=2, timeout=NEVER)
        back = sniff(opened_socket=near, count=2, timeout=NEVER)
    assert [(packet.id, packet.ttl) for packet in there] == [(1, 63), (2, 63)]
    assert [packet.id for packet in back] == [14, 15]
    assert sorted(packet.id for packet in bridged) == [1, 2, 13, 14, 15]


def test_closing_the_session_ends_a_sniff(pair: Pair, ends: tuple[TunSocket, TunSocket]) -> None:
    ends[0].send(numbered(1))
    seen = threading.Event()
    with Threads() as threads:
        threads.start(lambda: sniff(opened_socket=ends[1], prn=lambda _: seen.set()))
        assert seen.wait(NEVER)
        pair[1].close()
    assert [packet.id for packet in threads.results[0]] == [1]
    assert ends[1].closed
    with pytest.raises(EOFError):
        ends[1].recv()
    with pytest.raises(tunring.SessionClosed):
        ends[1].send(numbered(1))


def test_closing_the_socket_leaves_the_session(pair: Pair) -> None:
    with TunSocket(pair[1]) as socket:
        pass
    with pytest.raises(tunring.SessionClosed):
        socket.recv()
    with pytest.raises(tunring.SessionClosed):
        socket.send(numbered(1))
    del socket
    TunSocket(pair[0]).send(numbered(3))
    assert sniff(opened_socket=TunSocket(pair[1]), count=1, timeout=NEVER)[0].id == 3


def test_recv_waits(ends: tuple[TunSocket, TunSocket]) -> None:
    with Threads() as threads:
        threads.start(ends[1].recv)
        ends[0].send(numbered(4))
    assert threads.results[0].id == 4
    ends[0].send(numbered(100))
    assert len(ends[1].recv(50)) == 50


def test_beside_a_socket_of_another_kind(ends: tuple[TunSocket, TunSocket]) -> None:
    one, other = sockets.socketpair()
    with one, other, SimpleSocket(other) as simple:
        ends[0].send(numbered(5))
        one.send(b"other")
        found = sniff(opened_socket={ends[1]: "tun", simple: "simple"}, count=2, timeout=NEVER)
    assert {packet.sniffed_on: bytes(packet) for packet in found} == {"tun": bytes(numbered(5)), "simple": b"other"}


def test_an_automaton(echoing: tunring.Session) -> None:
    """It waits for a pipe of commands, the TunSocket, and a thing that has a descriptor and no select()."""
    socket = TunSocket(echoing)
    client = TCP_client.tcplink(
        Raw, "10.0.0.2", 7, srcip="10.0.0.1", ll=lambda **_: socket, recvsock=lambda **_: socket, timeout=NEVER
    )
    try:
        for number in range(3):
            client.send(Raw(b"hello %d" % number))
            assert client.select([client], NEVER) == [client]
            assert bytes(client.recv()) == b"hello %d" % number
    finally:
        client.close()


@pytest.mark.parametrize("kind", ["pipe", "descriptor"])
def test_what_is_beside_it_ends_the_wait(
    ends: tuple[TunSocket, TunSocket], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(conf, "recv_poll_rate", NEVER)
    pipe: ObjectPipe[int] = ObjectPipe("pipe")
    beside = pipe if kind == "pipe" else Automaton._IO_fdwrapper(pipe, None)
    with closing(pipe), Threads() as threads:
        threads.start(TunSocket.select, [beside, ends[1]])
        time.sleep(0.05)
        assert threads.threads[0].is_alive()
        started = time.perf_counter()
        pipe.send(1)
        threads.join()
        assert threads.results[0] == [beside]
        assert time.perf_counter() - started < NEVER / 2
        ends[0].send(numbered(1))
        assert eventually(lambda: TunSocket.select([beside, ends[1]], 0) == [beside, ends[1]])


def test_two_sockets_of_one_session_can_be_waited_for(pair: Pair, ends: tuple[TunSocket, TunSocket]) -> None:
    other = TunSocket(pair[1])
    assert TunSocket.select([ends[1], other], 0.001) == []
    ends[0].send(numbered(1))
    assert len(TunSocket.select([ends[1], other], NEVER)) == 1


def test_repr_names_the_interface(pair: Pair) -> None:
    socket = TunSocket(pair[1])
    assert repr(socket) == f"<tunring.contrib.scapy.TunSocket of {pair[1].adapter.name!r}, open>"
    socket.close()
    assert repr(socket).endswith("closed>")


def test_what_is_no_ip_packet_is_refused(ends: tuple[TunSocket, TunSocket]) -> None:
    with pytest.raises(ValueError, match="not an IP packet"):
        ends[0].send(Raw(b"hello"))
    ends[0].send(Ether() / numbered(6))
    ends[0].send(bytes(numbered(7)))
    assert [packet.id for packet in sniff(opened_socket=ends[1], count=2, timeout=NEVER)] == [6, 7]


@pytest.mark.parametrize("session", [None, "tun0", 3])
def test_what_is_no_session_is_refused(session: object) -> None:
    with pytest.raises(TypeError, match="Session"):
        TunSocket(session)


def test_without_scapy_the_error_says_what_to_install() -> None:
    done = run_script("import sys; sys.modules['scapy'] = None\nimport tunring.contrib.scapy")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == ("ImportError: tunring.contrib.scapy needs scapy: pip install scapy")
