"""The cost of a configuration depends on the request, not on what others have configured."""

from __future__ import annotations

import subprocess
import time
from ipaddress import ip_interface, ip_network
from typing import TYPE_CHECKING, Any

import pytest

import tunring
from running import SANITIZED

if TYPE_CHECKING:
    from collections.abc import Callable

    from netns import Namespace

pytestmark = pytest.mark.root

#: Of the processor, so that others' work on the machine counts for little.
SLOWER = 5 if SANITIZED else 1


def batch(namespace: Namespace, lines: list[str]) -> None:
    """Run ``ip`` once for many commands."""
    with namespace.entered():
        subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True, timeout=60)


def seconds(call: Callable[[], object]) -> float:
    """The processor time that a call takes."""
    before = time.process_time()
    call()
    return time.process_time() - before


@pytest.fixture
def warm(adapter: tunring.Adapter) -> tunring.Adapter:
    """An adapter that has been configured once, so that the modules are imported."""
    adapter.configure(["10.9.0.1/24", "fd09::1/64"])
    return adapter


@pytest.mark.parametrize(("pattern", "length"), [("11.{}.{}.0", 24), ("fd11:{:x}:{:x}::", 47)])
def test_many_routes(warm: tunring.Adapter, namespace: Namespace, pattern: str, length: int) -> None:
    routes = [f"{pattern.format(i // 100, i % 100 * 2)}/{length}" for i in range(1000)]
    assert seconds(lambda: warm.configure(routes=routes)) < 1.0 * SLOWER
    assert {route.network for route in warm.configuration().routes} == set(map(ip_network, routes))
    assert seconds(lambda: warm.configure(routes=routes)) < 1.0 * SLOWER  # nothing is left to do
    family = "-6" if ":" in pattern else "-4"
    assert namespace.ip(f"{family} route show dev tun0").count(f"/{length} ") >= 1000


def test_many_addresses(warm: tunring.Adapter) -> None:
    addresses = [f"10.{20 + i}.0.1/24" for i in range(200)] + [f"fd20:{i:x}::1/64" for i in range(50)]
    assert seconds(lambda: warm.configure(addresses)) < 1.0 * SLOWER
    assert set(map(ip_interface, addresses)) <= set(warm.configuration().addresses)


def test_undoing_is_as_fast(warm: tunring.Adapter) -> None:
    before = warm.configuration()
    routes: list[Any] = [f"11.{i // 256}.{i % 256}.0/24" for i in range(1000)]
    addresses = [f"10.{20 + i}.0.1/24" for i in range(200)]

    def fail() -> None:
        with pytest.raises(tunring.WintunError, match=r"the route to 12\.0\.0\.0/8 by 172\.16\.0\.1"):
            warm.configure(addresses, routes=[*routes, ("12.0.0.0/8", "172.16.0.1")])

    assert seconds(fail) < 1.0 * SLOWER
    assert warm.configuration() == before


def test_closing_is_as_fast(namespace: Namespace, tun: tunring.Library) -> None:
    namespace.ip("tuntap add dev tun0 mode tun")
    with namespace.entered():
        adapter = tunring.Adapter.open("tun0", library=tun)
    adapter.configure([f"10.{20 + i}.0.1/24" for i in range(200)])
    adapter.configure(routes=[f"11.{i // 256}.{i % 256}.0/24" for i in range(1000)])
    assert seconds(adapter.close) < 1.0 * SLOWER
    assert namespace.ip("-4 address show dev tun0") == ""


def test_what_others_have_costs_nothing(warm: tunring.Adapter, namespace: Namespace) -> None:
    batch(namespace, ["link add veth0 type veth peer name veth1", "link set veth0 up"])
    batch(namespace, [f"route add 20.{i // 256}.{i % 256}.0/24 dev veth0" for i in range(20000)])
    assert seconds(lambda: warm.configure(["10.9.1.1/24"])) < 0.2 * SLOWER
    assert seconds(lambda: warm.configure(routes=["11.0.0.0/8"])) < 0.2 * SLOWER
    assert seconds(warm.configuration) < 0.2 * SLOWER
