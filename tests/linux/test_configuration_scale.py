"""The cost of a configuration depends on the request, not on what others have configured."""

from __future__ import annotations

import subprocess
import time
from functools import partial
from ipaddress import ip_interface, ip_network
from typing import TYPE_CHECKING, Any

import pytest

import tunring
from running import SANITIZED

if TYPE_CHECKING:
    from collections.abc import Callable

    from netns import Namespace

pytestmark = pytest.mark.root

#: Seconds of the processor, so that others' work on the machine counts for little, and tries of which one must do: what
#: is slow for a reason of its own is slow each time.
MANY, FOREIGN = (5 * limit if SANITIZED else limit for limit in (0.5, 0.2))
TRIES = 4


def batch(namespace: Namespace, lines: list[str]) -> None:
    """Run ``ip`` once for many commands."""
    with namespace.entered():
        subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True, timeout=60)


def seconds(call: Callable[[], object]) -> float:
    """The processor time that a call takes."""
    before = time.process_time()
    call()
    return time.process_time() - before


def check(limit: float, prepare: Callable[[], Callable[[], object]]) -> None:
    """Fail unless a try takes no longer than the limit. Each is prepared anew, off the clock."""
    taken: list[float] = []
    while not taken or taken[-1] > limit:
        assert len(taken) < TRIES, f"{min(taken):.2f} s at best"
        taken.append(seconds(prepare()))


@pytest.fixture
def warm(create: Callable[..., tunring.Adapter]) -> Callable[[], tunring.Adapter]:
    """Makes tun0 anew, configured once, so that the modules are imported."""
    made: list[tunring.Adapter] = []

    def make() -> tunring.Adapter:
        for old in made:
            old.close()
        made.append(create())
        made[-1].configure(["10.9.0.1/24", "fd09::1/64"])
        return made[-1]

    return make


def ipv4_routes() -> list[Any]:
    return [f"11.{i // 256}.{i % 256}.0/24" for i in range(1000)]


def ipv4_addresses() -> list[Any]:
    return [f"10.{20 + i}.0.1/24" for i in range(200)]


@pytest.mark.parametrize(("pattern", "length"), [("11.{}.{}.0", 24), ("fd11:{:x}:{:x}::", 47)])
def test_many_routes(warm: Callable[[], tunring.Adapter], namespace: Namespace, pattern: str, length: int) -> None:
    routes = [f"{pattern.format(i // 100, i % 100 * 2)}/{length}" for i in range(1000)]
    check(MANY, lambda: partial(warm().configure, routes=routes))
    adapter = warm()
    found = adapter.configure(routes=routes)
    assert {route.network for route in found.routes} == set(map(ip_network, routes))
    check(MANY, lambda: partial(adapter.configure, routes=routes))  # nothing is left to do
    family = "-6" if ":" in pattern else "-4"
    assert namespace.ip(f"{family} route show dev tun0").count(f"/{length} ") >= 1000


def test_many_addresses(warm: Callable[[], tunring.Adapter]) -> None:
    addresses = ipv4_addresses() + [f"fd20:{i:x}::1/64" for i in range(50)]
    check(MANY, lambda: partial(warm().configure, addresses))
    assert set(map(ip_interface, addresses)) <= set(warm().configure(addresses).addresses)


def test_undoing_is_as_fast(warm: Callable[[], tunring.Adapter]) -> None:
    adapter = warm()
    before = adapter.configuration()

    def fail() -> None:
        with pytest.raises(tunring.WintunError, match=r"the route to 12\.0\.0\.0/8 by 172\.16\.0\.1"):
            adapter.configure(ipv4_addresses(), routes=[*ipv4_routes(), ("12.0.0.0/8", "172.16.0.1")])
        assert adapter.configuration() == before

    check(MANY, lambda: fail)


def test_closing_is_as_fast(namespace: Namespace, tun: tunring.Library) -> None:
    namespace.ip("tuntap add dev tun0 mode tun")

    def configured() -> Callable[[], None]:
        with namespace.entered():
            adapter = tunring.Adapter.open("tun0", library=tun)
        adapter.configure(ipv4_addresses())
        adapter.configure(routes=ipv4_routes())
        return adapter.close

    check(MANY, configured)
    assert namespace.ip("-4 address show dev tun0") == ""


def test_what_others_have_costs_nothing(warm: Callable[[], tunring.Adapter], namespace: Namespace) -> None:
    batch(namespace, ["link add veth0 type veth peer name veth1", "link set veth0 up"])
    batch(namespace, [f"route add 20.{i // 256}.{i % 256}.0/24 dev veth0" for i in range(20000)])
    check(FOREIGN, lambda: partial(warm().configure, ["10.9.1.1/24"]))
    check(FOREIGN, lambda: partial(warm().configure, routes=["11.0.0.0/8"]))
    check(FOREIGN, lambda: warm().configuration)
