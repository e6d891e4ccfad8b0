"""Configuring and closing in the middle of configuring, as a signal handler may: over a system of the test's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tunring._configurator import Changes, Configurator, Target
from tunring.configuration import Configuration
from tunring.configuration._request import Given, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ORIGINAL = {"mtu": 1500, "metric": 7}


class FakeSystem:
    """An interface that has an MTU and a metric. `interrupt` is called once, before the second of them is changed."""

    def __init__(self) -> None:
        self.state = dict(ORIGINAL)
        self.interrupt: Callable[[], object] = lambda: None
        self.failure: Exception | None = None

    def apply(self, request: Request, _: Request, changes: Changes) -> Configuration:
        for name in ("mtu", "metric"):
            wanted = getattr(request, name)
            if wanted is not None:
                changes.note((name,), self.state[name])
                self.state[name] = wanted
            interrupt, self.interrupt = self.interrupt, lambda: None
            interrupt()
        failure, self.failure = self.failure, None
        if failure:
            raise failure
        return self.read()

    def read(self) -> Configuration:
        return Configuration((), self.state["mtu"], self.state["metric"], (), (), True)

    def restore(self, before: Mapping[tuple[Any, ...], Any]) -> None:
        for (name,), value in before.items():
            self.state[name] = value

    def sweep(self, *, interface: bool) -> None:
        pass


@pytest.fixture
def system() -> FakeSystem:
    return FakeSystem()


@pytest.fixture
def configurator(system: FakeSystem) -> Configurator:
    target = Target("fake", 1, 1, -1, "fake", official=False)
    return Configurator(lambda: target, stays=True, opened=False, call=lambda _, work: work(system))


def test_what_a_handler_configures_meanwhile_stays_and_is_undone(
    system: FakeSystem, configurator: Configurator
) -> None:
    system.interrupt = lambda: configurator.configure(Given(mtu=1300, metric=9))
    configurator.configure(Given(mtu=1400))
    assert system.state == {"mtu": 1300, "metric": 9}
    assert configurator.close() is None
    assert system.state == ORIGINAL


def test_what_a_handler_configures_in_a_call_that_fails(system: FakeSystem, configurator: Configurator) -> None:
    def interrupt() -> None:
        configurator.configure(Given(metric=9))
        system.failure = OSError("no")

    system.interrupt = interrupt
    with pytest.raises(OSError, match="no"):
        configurator.configure(Given(mtu=1400))
    assert system.state == {"mtu": 1500, "metric": 9}
    configurator.close()
    assert system.state == ORIGINAL


def test_a_call_that_fails_leaves_nothing_to_undo(system: FakeSystem, configurator: Configurator) -> None:
    system.failure = OSError("no")
    with pytest.raises(OSError, match="no"):
        configurator.configure(Given(mtu=1400))
    assert system.state == ORIGINAL
    system.state["mtu"] = 1492  # somebody else's
    configurator.close()
    assert system.state["mtu"] == 1492


def test_a_handler_that_closes_the_adapter_meanwhile(system: FakeSystem, configurator: Configurator) -> None:
    configurator.configure(Given(mtu=1450))
    system.interrupt = configurator.close
    configurator.configure(Given(mtu=1400, metric=9))
    assert system.state == ORIGINAL
    system.state["mtu"] = 1492  # somebody else's
    configurator.close()
    assert system.state["mtu"] == 1492


def test_a_handler_that_closes_the_adapter_in_a_call_that_fails(system: FakeSystem, configurator: Configurator) -> None:
    """The call misses the changes that the close has taken back: the reason is the close."""

    def interrupt() -> None:
        configurator.close()
        system.failure = OSError("the kernel accepted it, but does not have it")

    system.interrupt = interrupt
    with pytest.raises(ValueError, match="the adapter is closed"):
        configurator.configure(Given(mtu=1400))
    assert system.state == ORIGINAL
