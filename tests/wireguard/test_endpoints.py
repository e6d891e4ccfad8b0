"""Names of endpoints, looked up until they are known: by a clock and a resolver of the test's own."""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest

from tunring import Endpoint
from tunring.cli import wireguard_endpoints
from tunring.cli.wireguard_endpoints import find, retries

FOUND = [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("192.0.2.7", 51820))]
FOUND6 = [(socket.AF_INET6, socket.SOCK_DGRAM, 17, "", ("fe80::7%3", 51820, 0, 3))]
LATER = socket.gaierror(socket.EAI_AGAIN, "not now")
BROKEN = OSError(errno.ENFILE, "no descriptors")


class World:
    """Time that passes in sleep() only, and the resolver's answers: the last one for good."""

    def __init__(self) -> None:
        self.now = 0.0
        self.answers: list[Any] = []
        self.looks: list[float] = []
        self.stopped_at = float("inf")

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds <= 0.25, "a signal would have to wait"
        self.now += seconds

    def look_up(self, *_: object, **__: object) -> Any:
        self.looks.append(round(self.now, 1))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def find(self, *answers: Any) -> Endpoint:
        self.answers += answers
        return find("vpn.example", 51820, lambda: self.now >= self.stopped_at)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    monkeypatch.delenv("WG_ENDPOINT_RESOLUTION_RETRIES", raising=False)
    monkeypatch.setattr(wireguard_endpoints, "time", world)
    monkeypatch.setattr(socket, "getaddrinfo", world.look_up)
    return world


def test_pauses_grow_until_it_is_found(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert world.find(LATER, BROKEN, LATER, FOUND) == Endpoint("192.0.2.7", 51820)
    assert world.looks == [0, 1.0, 2.2, 3.6]
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "tunring: can't find the endpoint vpn.example: not now; trying again in 1.0 s"
    assert "no descriptors; trying again in 1.2 s" in lines[1]
    assert len(lines) == 3


def test_the_zone_of_an_address(world: World) -> None:
    assert world.find(FOUND6) == Endpoint("fe80::7", 51820, interface=3)


def test_the_last_try(world: World) -> None:
    with pytest.raises(OSError, match=r"can't find the endpoint vpn\.example: not now"):
        world.find(LATER)
    assert len(world.looks) == 16
    assert world.now == pytest.approx(sum(1.2**n for n in range(15)))


def test_the_longest_pause(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WG_ENDPOINT_RESOLUTION_RETRIES", "infinity")
    assert world.find(*[LATER] * 40, FOUND)
    assert world.looks[-1] - world.looks[-2] == pytest.approx(20, abs=0.11)


@pytest.mark.parametrize("name", ["EAI_NONAME", "EAI_FAIL", "EAI_NODATA"])
def test_errors_that_remain(world: World, name: str) -> None:
    code = getattr(socket, name, None)
    if code is None:
        pytest.skip(f"this system has no {name}")
    with pytest.raises(OSError, match=r"vpn\.example: never"):
        world.find(socket.gaierror(code, "never"))
    assert len(world.looks) == 1


def test_a_signal_ends_it(world: World) -> None:
    world.stopped_at = 3.0
    with pytest.raises(KeyboardInterrupt):
        world.find(LATER)
    assert (world.looks, world.now) == ([0, 1.0, 2.2], pytest.approx(3.0, abs=0.2))


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("3", 3), ("infinity", float("inf"))])
def test_the_number_of_tries(world: World, monkeypatch: pytest.MonkeyPatch, text: str, number: float) -> None:
    monkeypatch.setenv("WG_ENDPOINT_RESOLUTION_RETRIES", text)
    assert retries() == number


@pytest.mark.parametrize("text", ["", "-1", "many", "1.5"])
def test_a_wrong_number_of_tries(world: World, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("WG_ENDPOINT_RESOLUTION_RETRIES", text)
    with pytest.raises(ValueError, match=r"must be a number or infinity, not '"):
        retries()
