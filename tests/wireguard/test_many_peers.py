"""Ten thousand peers that nobody answers for, and one that answers: it waits for none of them."""

from __future__ import annotations

import os
import socket
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from running import SANITIZED, eventually
from tunring.wireguard import PublicKey
from wireguard_ends import End, ipv4

if TYPE_CHECKING:
    pass

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(SANITIZED, reason="the sanitizer's own memory and time are not what is measured"),
]

PEERS = 10_000

#: The bound that docs/guide/wireguard.md states: KiB of each peer, and MiB of what is staged for all together.
PEER_KIB, STAGED_MIB = 10, 64

#: Bytes of one packet for which each peer has room beyond that.
ASSURED = 1536

#: Seconds in which an answer comes while all others are tried: it waits for a few handshakes, not for thousands.
PROMPT = 2.0


def resident() -> int:
    """Bytes of this process's memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def address(number: int) -> str:
    return f"10.77.{number >> 8}.{number & 0xFF}"


def crowd(stack: ExitStack, end: End) -> None:
    """Peers at an address where everything is swallowed."""
    silent = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    silent.bind(("127.0.0.1", 0))
    where = silent.getsockname()
    for number in range(PEERS):
        end.device.add_peer(PublicKey(os.urandom(32)), allowed_ips=[address(number)], endpoint=where)


def answer_time(near: End, far: End) -> float:
    """Seconds until a packet has arrived."""
    packet = ipv4("10.0.0.1", "10.0.0.2")
    began = time.monotonic()
    near.host.send([packet])
    while packet not in far.received():
        assert time.monotonic() - began < 20, "it does not arrive"
    return time.monotonic() - began


def test_unreachable_peers_stall_nobody(stack: ExitStack) -> None:
    near, far = End(stack), End(stack)
    peer = near.add(far, "10.0.0.2")
    far.add(near, "10.0.0.1", with_endpoint=False)
    answer_time(near, far)
    before = resident()
    crowd(stack, near)
    packets = [ipv4("10.0.0.1", address(number), 1400) for number in range(PEERS)]
    waits, renewals = [], []

    def renew() -> None:
        # As after a long pause: data asks for a handshake, as the data of all others does.
        peer._state.core.wipe_keys()
        renewals.append(answer_time(near, far))

    # As soon as another handshake may begin.
    time.sleep(max(0.0, (peer.latest_handshake or 0) + 5.2 - time.time()))
    for turn in range(8):
        # Each of them is sent a packet, which is staged; so each is tried.
        for first in range(0, PEERS, 100):
            near.host.send(packets[first : first + 100])
            if first % 2000 == 0:
                waits.append(answer_time(near, far))
        if turn == 0:
            # A handshake with one that answers goes before thousands with those that don't.
            renew()
        # No slot of the ring waits with what is staged.
        assert eventually(lambda: near.session.stats().pinned_packets == 0)
        if turn == 7:
            time.sleep(max(0.0, (peer.latest_handshake or 0) + 5.2 - time.time()))
            renew()
    figures = near.device.stats()
    grown = resident() - before
    print(
        f"answers after {max(waits) * 1000:.0f} ms at most, handshakes after {[round(1000 * s) for s in renewals]} ms; "
        f"{grown / PEERS / 1024:.1f} KiB a peer with {figures['staged_bytes'] >> 20} MiB staged"
    )
    assert max(waits) < PROMPT
    assert max(renewals) < PROMPT
    assert 0 < figures["staged_bytes"] <= (STAGED_MIB << 20) + PEERS * ASSURED
    assert figures["staged_dropped"] > 0
    assert grown < PEERS * PEER_KIB * 1024 + (STAGED_MIB << 20)
    assert len(near.device.peers) == PEERS + 1


def test_a_peer_keeps_the_newest_packets(stack: ExitStack) -> None:
    """128 of them, which arrive once it is reachable."""
    near, far = End(stack), End(stack)
    peer = near.add(far, "10.0.0.2", with_endpoint=False)
    far.add(near, "10.0.0.1", with_endpoint=False)
    packets = [ipv4("10.0.0.1", "10.0.0.2") for _ in range(200)]
    near.host.send(packets)
    assert eventually(lambda: near.device.stats()["staged_dropped"] == 72)
    assert near.device.stats()["staged_bytes"] == 128 * 112  # with what the allocator takes
    # The batch that they came in is released once all are copied.
    assert eventually(lambda: near.session.stats().pinned_packets == 0)
    peer.endpoint = ("127.0.0.1", far.device.listen_port)
    peer.handshake()
    found: list[bytes] = []
    assert eventually(lambda: found.extend(far.received(1)) or len(found) >= 128)
    assert found == packets[72:]
    assert near.device.stats()["staged_bytes"] == 0
