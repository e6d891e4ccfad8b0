"""Fixtures for all tests, and the check that each leaves nothing behind."""

from __future__ import annotations

import functools
import gc
import itertools
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.register_assert_rewrite("running", "packets", "libraries", "pcapng_reader")

from hypothesis import HealthCheck, settings

import libraries
import tunring
import tunring.testing
import windows_absent
from running import eventually
from tunring import _core

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_slow = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile(
    "default", max_examples=30, stateful_step_count=40, deadline=None, suppress_health_check=_slow
)
settings.register_profile("full", max_examples=1000, stateful_step_count=80, deadline=None, suppress_health_check=_slow)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

_numbers = itertools.count(1)


def _descriptors() -> dict[str, str]:
    """Open descriptors and what they are, where the system lists them."""
    found = {}
    folder = Path("/proc/self/fd")
    # Wine shows Linux's folder to Windows programs, and takes long over it.
    for entry in folder.iterdir() if sys.platform != "win32" and folder.is_dir() else ():
        try:
            found[entry.name] = os.readlink(entry)
        except OSError:
            continue  # the one that lists the folder
    return found


def _threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name != "tunring-log"}


@pytest.fixture(scope="session", autouse=True)
def _warm_up() -> None:
    """Opens everything that is opened once per process: the pipe for signals, the queue of log lines, the libraries."""
    for name in libraries.NAMES:
        library = libraries.load(name)
        tunring.set_logger(lambda level, text: None, library)
        tunring.set_logger(None, library)
        left, right = libraries.pair(library, tunring.MIN_CAPACITY)
        left.receive(timeout=0.001)
        left.close()
        right.close()
    if sys.platform == "linux":
        tunring.UdpSocket.bind(("127.0.0.1", 0)).close()
    gc.freeze()  # objects that exist now need not be looked through after each test


@pytest.fixture(autouse=True)
def _nothing_left(_warm_up: None) -> Iterator[None]:
    threads, descriptors, leaked, pinned = _threads(), _descriptors(), _core.leaked_sessions(), _core.pinned_sessions()
    yield
    gc.collect()
    assert eventually(lambda: _core.pinned_sessions() == pinned, 2), "a session is pinned"
    assert libraries.stale_ends() == 0, "a session was ended by a handle that was closed already"
    assert eventually(lambda: _threads() <= threads, 2), f"threads are left: {_threads() - threads}"
    if _core.leaked_sessions() == leaked:  # else their descriptors were given up on purpose
        # A closed adapter may still be on its way, on the helper thread.
        assert eventually(lambda: _descriptors().keys() <= descriptors.keys(), 2), (
            f"descriptors are left: {_descriptors().items() - descriptors.items()}"
        )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs tests that use a library over each library that works here without privileges."""
    if "library" in metafunc.fixturenames:
        ours_only = metafunc.definition.get_closest_marker("ours_only")
        names = [name for name in libraries.NAMES if name != "wintun" or not ours_only]
        metafunc.parametrize("library", names, indirect=True)


@pytest.fixture
def library(request: pytest.FixtureRequest) -> tunring.Library:
    """Each library that works here without privileges, unless the test is marked ``ours_only``."""
    return libraries.load(request.param)


@pytest.fixture
def name() -> str:
    """An adapter name that no other test uses."""
    return f"test{next(_numbers)}"


@pytest.fixture
def adapter(library: tunring.Library, name: str) -> Iterator[tunring.Adapter]:
    with tunring.Adapter.create(name, library=library) as adapter:
        yield adapter


@pytest.fixture
def make_pair(library: tunring.Library) -> Callable[..., tuple[tunring.Session, tunring.Session]]:
    """tunring.testing.pair(), over the library."""
    return functools.partial(libraries.pair, library)


@pytest.fixture
def pair(library: tunring.Library) -> Iterator[tuple[tunring.Session, tunring.Session]]:
    """Two connected sessions with the smallest rings."""
    left, right = libraries.pair(library, tunring.MIN_CAPACITY)
    with left, right:
        yield left, right


@pytest.fixture
def simulator(adapter: tunring.Adapter) -> tunring.testing.Simulator:
    """The driver's side of `adapter`."""
    return tunring.testing.Simulator.attach(adapter)


@pytest.fixture
def simulated(adapter: tunring.Adapter, simulator: tunring.testing.Simulator) -> Iterator[tunring.Session]:
    """A session whose driver is `simulator`."""
    with adapter.start_session(tunring.MIN_CAPACITY) as session:
        yield session


if sys.platform == "win32":
    # Whole files can't even be imported.
    collect_ignore = [entry.removeprefix("tests/") for entry in windows_absent.ABSENT if "::" not in entry]

    def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
        absent = [item for item in items if windows_absent.is_absent(item.nodeid)]
        items[:] = [item for item in items if item not in absent]
        config.hook.pytest_deselected(items=absent)
