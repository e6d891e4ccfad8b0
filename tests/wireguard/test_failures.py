"""The system refuses something once, such as memory: a peer is tried again, and nothing is left over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from running import eventually
from tunring.wireguard import _handshake
from tunring.wireguard._engine import Engine
from tunring.wireguard._exchange import Exchange
from tunring.wireguard._peer_state import PeerState
from tunring.wireguard._timers import SECOND, Limits
from wireguard_ends import End, ipv4

if TYPE_CHECKING:
    from contextlib import ExitStack

V4 = ("10.0.0.1", "10.0.0.2")

#: A handshake is tried twice a second, for 4 s.
LIMITS = Limits(retry=SECOND // 2, jitter=SECOND // 10, attempt=4 * SECOND)


class Core:
    """A device's part in C that fails to make indices, and knows those of handshakes that are not given up."""

    def __init__(self, core: Any, failures: int) -> None:
        self._core, self._failures = core, failures
        self.indices: set[int] = set()

    def new_index(self, peer: Any) -> int:
        if self._failures:
            self._failures -= 1
            raise MemoryError("no memory for an index")
        index = int(self._core.new_index(peer))
        self.indices.add(index)
        return index

    def free_index(self, index: int) -> None:
        self.indices.discard(index)
        self._core.free_index(index)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._core, name)


def joined(stack: ExitStack) -> tuple[End, End, PeerState]:
    a, b = End(stack, _limits=LIMITS), End(stack, _limits=LIMITS)
    at_a = a.add(b, V4[1])
    b.add(a, V4[0], with_endpoint=False)
    return a, b, at_a._state


def put_core(end: End, failures: int = 0) -> Core:
    core = Core(end.device._core, failures)
    vars(end.device._engine)["core"] = core
    return core


def fail_once(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, *, of: object = None) -> list[object]:
    """Let the first call of a function fail: of anybody, or of one object's. Returns what those calls were of."""
    function = getattr(owner, name)
    failed: list[object] = []

    def call(*arguments: Any, **options: Any) -> Any:
        if not failed and (of is None or arguments[0] is of):
            failed.append(arguments[0])
            raise MemoryError("no memory for this")
        return function(*arguments, **options)

    monkeypatch.setattr(owner, name, call)
    return failed


def passes(a: End, b: End) -> bool:
    """One packet, which waits for a handshake, arrives."""
    packet = ipv4(*V4)
    a.host.send([packet])
    return b.received(timeout=8) == [packet]


def test_no_index(stack: ExitStack) -> None:
    a, b, _ = joined(stack)
    put_core(a, failures=1)
    assert passes(a, b)


@pytest.mark.parametrize(
    ("owner", "name"),
    [(PeerState, "remote_for"), (Exchange, "initiate"), (_handshake, "add_macs")],
    ids=["remote", "initiate", "macs"],
)
def test_an_initiation_fails(stack: ExitStack, monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> None:
    a, b, peer = joined(stack)
    core = put_core(a)
    failed = fail_once(monkeypatch, owner, name)
    assert passes(a, b)
    assert failed
    # One became the keypair's.
    assert eventually(lambda: len(core.indices) == 1 and peer.exchange.index is None), core.indices


def test_an_attempt_that_fails_ends(stack: ExitStack) -> None:
    a, _, peer = joined(stack)
    put_core(a, failures=1000)
    a.host.send([ipv4(*V4)])
    assert eventually(lambda: peer.core.staged == 1)
    assert eventually(lambda: peer.core.staged == 0 and not peer.timers.attempting, 10)


@pytest.mark.parametrize(("owner", "name"), [(Exchange, "respond"), (Engine, "_install")], ids=["respond", "install"])
def test_a_response_fails(stack: ExitStack, monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> None:
    a, b, _ = joined(stack)
    core = put_core(b)
    of = b.device._engine if owner is Engine else None
    failed = fail_once(monkeypatch, owner, name, of=of)
    assert passes(a, b)
    assert failed
    assert len(core.indices) == 1


def test_the_keys_of_a_response_fail(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handshake without keys is still wanted: the staged packet waits for the next."""
    a, b, peer = joined(stack)
    core = put_core(a)
    failed = fail_once(monkeypatch, Engine, "_install", of=a.device._engine)
    assert passes(a, b)
    assert failed
    assert eventually(lambda: len(core.indices) == 1 and not peer.timers.attempting), core.indices
