"""Scapy on a real interface: the kernel's pings answered by it, and its pings by the kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from scapy.layers.inet import ICMP, IP, ICMPEcho_am

from tunring.contrib.scapy import TunSocket

if TYPE_CHECKING:
    from netns import Namespace

    import tunring

pytestmark = pytest.mark.root


def test_the_kernel_answers_scapy(session: tunring.Session) -> None:
    ping = IP(src="10.9.0.2", dst="10.9.0.1") / ICMP(id=1, seq=2) / b"payload"
    answer = TunSocket(session).sr1(ping, timeout=20, verbose=0)
    assert (answer.src, answer[ICMP].type, answer[ICMP].seq) == ("10.9.0.1", 0, 2)
    assert bytes(answer[ICMP].payload) == b"payload"


def test_scapy_answers_the_kernel(session: tunring.Session, namespace: Namespace) -> None:
    sniffer = TunSocket(session).am(ICMPEcho_am, verbose=0).bg()
    try:
        namespace.ping("10.9.0.2")
    finally:
        sniffer.stop()
    assert not namespace.damage()
