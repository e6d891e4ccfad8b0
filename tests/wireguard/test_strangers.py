"""Whom on_unknown_peer hears of, and how often."""

from __future__ import annotations

import itertools
import os
import socket
import time
from typing import TYPE_CHECKING

import pytest

from running import eventually
from tunring.wireguard import Key, PublicKey, _engine, _handshake
from tunring.wireguard._cookies import CookieJar
from tunring.wireguard._tai64n import STAMPS
from tunring.wireguard._timers import SECOND, Limits
from wireguard_ends import End

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import ExitStack

#: Initiations that are load if they come at once, by far.
FLOOD = 500


class Stranger:
    """Begins handshakes with an end that does not know it."""

    def __init__(self, stack: ExitStack, end: End) -> None:
        self.key = Key.generate()
        self._identity = _handshake.Identity(self.key)
        self._remote = _handshake.Remote(self._identity, end.key.public.raw)
        self._jar = CookieJar(end.key.public.raw)
        self._socket = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._socket.settimeout(10)
        self._socket.connect(("127.0.0.1", end.device.listen_port))

    def begin(self) -> None:
        stamp = STAMPS.next(self._remote.public)
        message, _ = _handshake.initiate(self._identity, self._remote, 5, stamp)
        message = _handshake.add_macs(message, self._remote.mac1_key, self._jar.current(0))
        self._jar.sent(message)
        self._socket.send(message)

    def take_cookie(self) -> None:
        self._jar.take(self._socket.recv(2048), 0)

    def flood(self) -> None:
        """Put the end under load, by what nobody reads on behind its first MAC."""
        message = _handshake.add_macs(b"\1\0\0\0" + os.urandom(112), self._remote.mac1_key, None)
        for _ in range(FLOOD):
            self._socket.send(message)


@pytest.fixture
def end(stack: ExitStack) -> Iterator[tuple[End, list[PublicKey]]]:
    """An end, and the strangers that its hook has heard of."""
    made = End(stack)
    heard: list[PublicKey] = []
    made.device.on_unknown_peer = lambda key, _: heard.append(key)
    yield made, heard
    made.device.close()  # before the clock is the system's again


class Clock:
    """The engine's time, which stands still."""

    time_ns = staticmethod(time.time_ns)

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


def test_at_most_twenty_in_a_second(
    end: tuple[End, list[PublicKey]], stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, heard = end
    clock = Clock()
    monkeypatch.setattr(_engine, "time", clock)
    strangers = [Stranger(stack, made) for _ in range(3)]
    known = End(stack, _limits=Limits(retry=SECOND // 10, jitter=0))
    made.add(known, "10.0.0.2", with_endpoint=False)
    at_known = known.add(made, "10.0.0.1")

    def begin(count: int) -> None:
        """And wait until all of them have been read: the last one to begin is answered."""
        before = at_known.latest_handshake
        for stranger, _ in zip(itertools.cycle(strangers), range(count), strict=False):
            stranger.begin()
        at_known.handshake()
        assert eventually(lambda: at_known.latest_handshake != before)

    begin(50)
    assert heard == [stranger.key.public for stranger, _ in zip(itertools.cycle(strangers), range(20), strict=False)]
    clock.now += 0.99
    begin(5)
    assert len(heard) == 20
    clock.now += 0.01
    begin(30)
    assert len(heard) == 40


def test_under_load_only_with_a_cookie(end: tuple[End, list[PublicKey]], stack: ExitStack) -> None:
    made, heard = end
    stranger, crowd = Stranger(stack, made), Stranger(stack, made)
    crowd.flood()
    assert eventually(lambda: made.device.stats()["under_load"])
    stranger.begin()
    stranger.take_cookie()  # it is sent one instead of being heard
    assert heard == []
    crowd.flood()
    stranger.begin()
    assert eventually(lambda: heard == [stranger.key.public])
    assert made.device.stats()["under_load"]
