"""The remains of a configuration when the adapter is closed."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any

import pytest
from netns import Namespace

import tunring
from running import eventually
from tunring._system import namespace_linux
from tunring._system.netlink_linux import Command

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

pytestmark = pytest.mark.root


@pytest.fixture
def persistent(namespace: Namespace) -> Namespace:
    """A namespace with an interface tun0 that stays, and has a configuration of its own."""
    namespace.ip("tuntap add dev tun0 mode tun")
    namespace.set_up("tun0", "10.1.1.1/24", "fd01::1/64", mtu=1400)
    namespace.ip("route add 192.0.2.0/24 dev tun0 metric 12345")
    return namespace


def open_in(namespace: Namespace, tun: tunring.Library) -> tunring.Adapter:
    with namespace.entered():
        return tunring.Adapter.open("tun0", library=tun)


def look(namespace: Namespace, tun: tunring.Library) -> tunring.Configuration:
    with open_in(namespace, tun) as adapter:
        return adapter.configuration()


def test_an_interface_that_stays_gets_back_what_it_had(persistent: Namespace, tun: tunring.Library) -> None:
    before = look(persistent, tun)
    with open_in(persistent, tun) as adapter:
        adapter.configure(["10.6.7.7/24", "fd00::7/64", "10.1.1.1/24"], 1420, metric=50, routes=["10.0.0.0/8", "::/0"])
        adapter.configure(["10.6.8.7/24"], 1300, metric=60, routes=["10.0.0.0/8"])
        adapter.configure(up=False)
        changed = adapter.configure()
        assert {str(address) for address in changed.addresses} >= {"10.6.7.7/24", "fd00::7/64", "10.6.8.7/24"}
    after = look(persistent, tun)
    assert set(after.addresses) == set(before.addresses)
    assert (after.mtu, after.metric, after.routes, after.up) == (1400, None, before.routes, True)
    assert "metric" not in persistent.ip("route show 10.1.1.0/24")


def test_one_that_was_down_is_down_again(namespace: Namespace, tun: tunring.Library) -> None:
    namespace.ip("tuntap add dev tun0 mode tun")
    before = look(namespace, tun)
    adapter = open_in(namespace, tun)
    adapter.configure(["10.6.7.7/24", "fd00::7/64"], 1420, routes=["0.0.0.0/0"])
    adapter.close()
    adapter.close()
    assert look(namespace, tun) == before
    assert not before.up


def test_what_only_others_changed_stays(persistent: Namespace, tun: tunring.Library) -> None:
    with open_in(persistent, tun) as adapter:
        adapter.configure(["10.6.7.7/24"])
        persistent.ip("address del 10.6.7.7/24 dev tun0")
        persistent.ip("address add 10.5.5.5/24 dev tun0")
        persistent.ip("link set tun0 mtu 1350")
    after = look(persistent, tun)
    assert "10.5.5.5/24" in map(str, after.addresses)
    assert after.mtu == 1350


def test_an_adapter_that_only_reads_changes_nothing(persistent: Namespace, tun: tunring.Library) -> None:
    before = look(persistent, tun)
    with open_in(persistent, tun) as adapter:
        adapter.configuration()
        with pytest.raises(ValueError):
            adapter.configure(["10.6.7.7/33"])
        with pytest.raises(tunring.WintunError):
            adapter.configure(["10.6.7.7/24", "::1"])
    assert look(persistent, tun) == before


def test_a_dropped_adapter_undoes_too(persistent: Namespace, tun: tunring.Library) -> None:
    before = look(persistent, tun)
    adapter = open_in(persistent, tun)
    adapter.configure(["10.6.7.7/24"])
    with pytest.warns(ResourceWarning, match="unclosed"):
        del adapter
        gc.collect()
    assert look(persistent, tun) == before


def test_a_program_that_ends_without_closing(persistent: Namespace, tun: tunring.Library) -> None:
    before = look(persistent, tun)
    script = """
import tunring
adapter = tunring.Adapter.open("tun0")
session = adapter.start_session()
print(adapter.configure(["10.6.7.7/24", "fd00::7/64"], 1300, routes=["10.0.0.0/8"]).mtu)
raise SystemExit
"""
    assert persistent.run(sys.executable, "-W", "ignore::ResourceWarning", "-c", script) == "1300\n"
    assert look(persistent, tun) == before


def test_an_interface_that_is_gone(persistent: Namespace, tun: tunring.Library) -> None:
    with open_in(persistent, tun) as adapter:
        adapter.configure(["10.6.7.7/24"])
        persistent.ip("link del tun0")


def test_what_cannot_be_undone_is_said(
    persistent: Namespace, tun: tunring.Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunring.configuration import _snapshot_linux

    adapter = open_in(persistent, tun)
    adapter.configure(["10.6.7.7/24"], 1420)

    def refuse(index: int, address: Any) -> Command:
        return Command(f"can't remove {address}", _snapshot_linux.RTM_DELADDR, 0, bytes(8))

    monkeypatch.setattr(_snapshot_linux, "remove_address", refuse)
    adapter.configure(["10.6.8.8/24"])
    refused = r"can't remove 10\.6\.[78]\.[78]/24 on adapter 'tun0': the kernel"
    with pytest.warns(RuntimeWarning, match=f"leaves a part of its configuration behind: .*{refused}"):
        adapter.close()
    # The rest is undone all the same.
    assert look(persistent, tun).mtu == 1400


def test_a_forked_child_leaves_it(persistent: Namespace, tun: tunring.Library) -> None:
    with open_in(persistent, tun) as adapter:
        configured = adapter.configure(["10.6.7.7/24"], routes=["10.0.0.0/8"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python's own, of forks beside threads
            child = os.fork()
        if not child:
            try:
                adapter.close()
            finally:
                os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert adapter.configuration() == configured


def test_a_child_of_a_fork_while_another_thread_configures(persistent: Namespace, tun: tunring.Library) -> None:
    """That thread is not in the child, where closing the adapter must not wait for it."""
    with open_in(persistent, tun) as adapter, adapter._configurator._lock:
        ended: list[int] = []

        def fork() -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # Python's own, of forks beside threads
                child = os.fork()
            if not child:
                signal.alarm(10)
                adapter.close()
                os._exit(0)
            ended.append(os.waitpid(child, 0)[1])

        thread = threading.Thread(target=fork)
        thread.start()
        thread.join()
    assert ended == [0]


def test_configured_and_closed_at_once(persistent: Namespace, tun: tunring.Library) -> None:
    before = look(persistent, tun)
    for _ in range(5):
        adapter = open_in(persistent, tun)
        started = threading.Event()
        failures: list[BaseException] = []

        def configure(
            adapter: tunring.Adapter = adapter,
            started: threading.Event = started,
            failures: list[BaseException] = failures,
        ) -> None:
            try:
                for number in range(1, 200):
                    adapter.configure([f"10.6.{number}.7/24"], routes=["10.0.0.0/8"])
                    started.set()
            except ValueError as error:
                failures.append(error)

        thread = threading.Thread(target=configure)
        thread.start()
        assert started.wait(30)
        adapter.close()
        thread.join(30)
        assert not thread.is_alive()
        assert [str(failure) for failure in failures] == ["the adapter is closed"]
        assert look(persistent, tun) == before


@pytest.fixture
def on_alarm() -> Iterator[list[tunring.Adapter]]:
    """Adapters that are closed by a signal handler."""
    adapters: list[tunring.Adapter] = []

    def handle(*_: object) -> None:
        for adapter in adapters:
            adapter.close()

    previous = signal.signal(signal.SIGALRM, handle)
    yield adapters
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, previous)


def test_closed_by_a_signal_handler_in_the_middle(
    persistent: Namespace, tun: tunring.Library, on_alarm: list[tunring.Adapter]
) -> None:
    before = look(persistent, tun)
    for delay in (0.001, 0.004, 0.016):
        adapter = open_in(persistent, tun)
        on_alarm[:] = [adapter]
        signal.setitimer(signal.ITIMER_REAL, delay)
        with pytest.raises(ValueError, match="the adapter is closed"):
            for number in range(1, 255):
                adapter.configure([f"10.6.{number}.7/24"])
        assert eventually(lambda: look(persistent, tun) == before)


def test_closed_by_a_signal_handler_as_a_thread_starts(persistent: Namespace, tun: tunring.Library) -> None:
    """Whatever lock the start of a thread is under, the handler, which starts one too, must not wait for it."""
    before = look(persistent, tun)
    adapter = open_in(persistent, tun)
    adapter.configure(["10.6.1.7/24"])

    def handle(frame: FrameType, event: str, called: Any) -> None:
        # extend() is what starts the thread.
        if event == "c_call" and called.__name__ == "extend" and frame.f_code is starts and not adapter.closed:
            adapter.close()

    starts = namespace_linux.call_in_network.__code__

    sys.setprofile(handle)
    try:
        adapter.configure(["10.6.2.7/24"])
    finally:
        sys.setprofile(None)
    assert adapter.closed
    assert look(persistent, tun) == before
