"""Two hosts with only a Python program between them, which forwards batches; and a plain C program to compare with."""

from __future__ import annotations

import hashlib
import random
import socket
from statistics import median
from typing import TYPE_CHECKING

import pytest
from forwarding import BULK, PYTHON, check_figures, families, running, transfer_in_turns

from running import Threads

if TYPE_CHECKING:
    from netns import Namespace

pytestmark = pytest.mark.root

# ---- Byte for byte ----


def send_all(link: socket.socket, data: bytes, seed: int) -> None:
    """Send in pieces of all sizes."""
    dice = random.Random(seed)
    start = 0
    while start < len(data):
        size = dice.choice((1, 100, 1448, 5000, 200_000))
        link.sendall(data[start : start + size])
        start += size
    link.shutdown(socket.SHUT_WR)


def receive_all(link: socket.socket) -> bytes:
    """The digest of all that comes."""
    digest = hashlib.sha256()
    while piece := link.recv(1 << 20):
        digest.update(piece)
    return digest.digest()


@families
def test_tcp_both_ways_at_once(
    namespaces: tuple[Namespace, Namespace], family: socket.AddressFamily, there: str
) -> None:
    near, far = namespaces
    data = [random.Random(seed).randbytes(20_000_000) for seed in range(2)]
    with (
        running(PYTHON, namespaces) as forwarder,
        far.socket(family, socket.SOCK_STREAM) as server,
        near.socket(family, socket.SOCK_STREAM) as client,
    ):
        server.bind((there, 5000))
        server.listen()
        client.connect((there, 5000))
        peer, _ = server.accept()
        peer.settimeout(10)
        with peer, Threads() as threads:
            for seed, link in enumerate((client, peer)):
                threads.start(send_all, link, data[seed], seed)
                threads.start(receive_all, link)
    assert threads.results[3] == hashlib.sha256(data[0]).digest()
    assert threads.results[1] == hashlib.sha256(data[1]).digest()
    assert not near.damage()
    assert not far.damage()
    check_figures(forwarder.figures)


@families
def test_udp_both_ways(namespaces: tuple[Namespace, Namespace], family: socket.AddressFamily, there: str) -> None:
    near, far = namespaces
    dice = random.Random(5)
    with (
        running(PYTHON, namespaces) as forwarder,
        far.socket(family, socket.SOCK_DGRAM) as server,
        near.socket(family, socket.SOCK_DGRAM) as client,
    ):
        server.bind((there, 5001))
        client.connect((there, 5001))
        for _ in range(50):
            payloads = [dice.randbytes(dice.randint(0, 9000)) for _ in range(15)]
            for payload in payloads:
                client.send(payload)
            for payload in payloads:
                data, source = server.recvfrom(10000)
                assert data == payload
                server.sendto(data[::-1], source)
            assert [client.recv(10000) for _ in payloads] == [payload[::-1] for payload in payloads]
    assert not near.damage()
    assert not far.damage()
    check_figures(forwarder.figures)


# ---- In bulk ----


@families
def test_bulk_tcp_is_no_worse_than_plain_c(
    iperf3: str,
    plain: list[str],
    namespaces: tuple[Namespace, Namespace],
    family: socket.AddressFamily,
    there: str,
) -> None:
    """The interfaces' queues are longer than TCP's window. With the 500 packets that they have by themselves, they
    overflow whenever a forwarder has to wait for a core: then anything between none and 15000 segments go again, with
    either program, in the same minute. Here it takes a packet lost, late or out of order to make one go again.
    """
    transfers = transfer_in_turns({"plain C": plain, "Python": PYTHON}, iperf3, namespaces, there)
    ours, theirs = transfers["Python"], transfers["plain C"]
    for transfer in ours:
        assert transfer.sent >= BULK
    # One segment in 10,000 more is the machine's doing: a forwarder that loses or reorders packets has thousands.
    chance = min(t.segments for t in ours) // 10000
    assert median(t.retransmits for t in ours) <= median(t.retransmits for t in theirs) + chance
