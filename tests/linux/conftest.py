"""Fixtures for tests on real interfaces. Everything happens in network namespaces of the test's own."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import tunring

# Helpers of these tests are modules beside them.
sys.path.insert(0, str(Path(__file__).parent))

from needed_programs import need_programs
from netns import Namespace, drain, may_make_namespaces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fake_resolved import FakeResolved


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("root")]
    if marked and not may_make_namespaces():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs root, and the right to make network namespaces"))


@pytest.fixture
def offloads(request: pytest.FixtureRequest) -> bool:
    """True if adapters use them, unless a test sets it."""
    return bool(getattr(request, "param", True))


@pytest.fixture
def tun(offloads: bool) -> Iterator[tunring.Library]:
    yield tunring.load("tun_linux", offloads=offloads)
    tunring.load("tun_linux", offloads=True)


@pytest.fixture
def log_lines(tun: tunring.Library) -> Iterator[list[tuple[int, str]]]:
    """Level and text of each line in the library's log, as they come."""
    lines: list[tuple[int, str]] = []
    tunring.set_logger(lambda level, text: lines.append((level, text)), tun)
    yield lines
    tunring.set_logger(None, tun)


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    made = Namespace()
    yield made
    made.close()


@pytest.fixture
def uplink(namespace: Namespace) -> Namespace:
    """A namespace with an interface up0, which both default routes lead to."""
    namespace.ip("link add up0 type veth peer name up1")
    namespace.set_up("up0", "192.0.2.2/24", "2001:db8:2::2/64")
    namespace.ip("link set up1 up")
    namespace.ip("route add default via 192.0.2.1")
    namespace.ip("route add default via 2001:db8:2::1")
    return namespace


@pytest.fixture
def namespaces(namespace: Namespace) -> Iterator[tuple[Namespace, Namespace]]:
    other = Namespace()
    yield namespace, other
    other.close()


@pytest.fixture
def create(namespace: Namespace, tun: tunring.Library) -> Iterator[Callable[..., tunring.Adapter]]:
    """Makes adapters in the namespace, which are closed at the end."""
    with ExitStack() as adapters:

        def make(name: str = "tun0") -> tunring.Adapter:
            with namespace.entered():
                return adapters.enter_context(tunring.Adapter.create(name, library=tun))

        yield make


@pytest.fixture
def adapter(create: Callable[..., tunring.Adapter]) -> tunring.Adapter:
    """An adapter tun0, neither configured nor up."""
    return create()


@pytest.fixture
def session(adapter: tunring.Adapter, namespace: Namespace) -> Iterator[tunring.Session]:
    """A session on tun0, which is up and has 10.9.0.1/24 and fd09::1/64."""
    with adapter.start_session() as started:
        addresses = ["10.9.0.1/24", "fd09::1/64"]
        adapter.configure(addresses, mtu=1500)
        namespace.settle(*addresses)
        yield started


@pytest.fixture
def small(adapter: tunring.Adapter, namespace: Namespace) -> Iterator[tunring.Session]:
    """A session with the smallest ring, in which nothing waits."""
    with adapter.start_session(tunring.MIN_CAPACITY) as session:
        namespace.set_up("tun0", "10.9.0.1/24", "fd09::1/64")
        drain(session)
        yield session


@pytest.fixture
def resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, namespace: Namespace) -> Iterator[FakeResolved]:
    """A systemd-resolved in the namespace of the adapters, which knows their first."""
    from fake_resolved import FakeResolved

    fake = FakeResolved(tmp_path)
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", fake.address)
    with namespace.entered():
        process = subprocess.Popen(["sleep", "600"])
    fake.process = process.pid
    fake.links[2] = []
    yield fake
    process.kill()
    process.wait()
    fake.close()


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The C program that reads and writes packet by packet."""
    program = tmp_path_factory.mktemp("c") / "forwarder"
    options = ["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-pedantic-errors", "-Werror", "-O2", "-pthread"]
    compiler = os.environ.get("CC", "cc").split()
    subprocess.run([*compiler, *options, str(Path(__file__).parent / "forwarder.c"), "-o", str(program)], check=True)
    return [str(program)]


@pytest.fixture(scope="session")
def iperf3() -> str:
    need_programs("iperf3")
    return "iperf3"
