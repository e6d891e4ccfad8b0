"""Each test of asyncio runs in every kind of loop, with each of the ways to wait for packets that it has."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from typing import TYPE_CHECKING, Any

import pytest

from running import FREE_THREADED, NEVER
from tunring._loops import aio

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    Run = Callable[[Coroutine[Any, Any, Any]], Any]


def _loops() -> dict[str, tuple[Callable[[], asyncio.AbstractEventLoop], bool]]:
    """Name -> the loop's factory, and True if a thread waits."""
    if sys.platform == "win32":
        return {"proactor": (asyncio.ProactorEventLoop, True), "selector": (asyncio.SelectorEventLoop, True)}
    selectors = {"selector": (asyncio.SelectorEventLoop, False), "selector-thread": (asyncio.SelectorEventLoop, True)}
    if FREE_THREADED and not importlib.util.find_spec("uvloop"):
        return selectors
    import uvloop

    return {
        **selectors,
        "uvloop": (uvloop.new_event_loop, False),
        "uvloop-thread": (uvloop.new_event_loop, True),
    }


LOOPS = _loops()


@pytest.fixture(scope="session", autouse=True)
def _warm_up_loops() -> None:
    """Opens the descriptors that a kind of loop opens once per process."""
    for make, _ in LOOPS.values():
        loop = make()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


@pytest.fixture(params=list(LOOPS))
def make_loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """Makes an event loop."""
    make, threads = LOOPS[request.param]
    monkeypatch.setattr(aio, "use_threads", threads)
    return make


@pytest.fixture
def run(make_loop: Callable[[], asyncio.AbstractEventLoop]) -> Run:
    """Runs a coroutine to its end, in a loop of its own."""

    def run_to_the_end(coroutine: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=make_loop) as runner:
            return runner.run(asyncio.wait_for(coroutine, NEVER))

    return run_to_the_end
