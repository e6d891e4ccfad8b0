"""Routes and metrics of real interfaces, read back with ``ip``, and with packets that take them."""

from __future__ import annotations

import json
import socket
from ipaddress import ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING

import pytest

import tunring
from running import eventually
from tunring import Route

if TYPE_CHECKING:
    from collections.abc import Callable

    from netns import Namespace

pytestmark = pytest.mark.root


def routes(namespace: Namespace, name: str = "tun0") -> set[tuple[str, str | None, int | None]]:
    """The main table's routes through an interface, as (network, gateway, metric)."""
    found = set()
    for family in (4, 6):
        for route in json.loads(namespace.ip(f"-json -{family} route show dev {name}") or "[]"):
            found.add((route["dst"], route.get("gateway"), route.get("metric")))
    return found


def destination(packet: memoryview) -> str:
    return str(ip_address(bytes(packet[16:20] if packet[0] >> 4 == 4 else packet[24:40])))


def test_routes_of_both_families(adapter: tunring.Adapter, namespace: Namespace) -> None:
    wanted = [
        "10.0.0.0/8",
        (ip_network("172.16.0.0/12"), "10.6.7.1"),
        Route("fd10::/16", "fd00::1", 77),
        "0.0.0.0/0",
        "::/0",
    ]
    for _ in range(2):
        found = adapter.configure(["10.6.7.7/24", "fd00::7/64"], routes=wanted)
        assert routes(namespace) == {
            ("10.6.7.0/24", None, None),
            ("10.0.0.0/8", None, None),
            ("172.16.0.0/12", "10.6.7.1", None),
            ("default", None, None),
            ("fd00::/64", None, 256),
            ("fd10::/16", "fd00::1", 77),
            ("default", None, 1024),
        }
        assert set(found.routes) == {
            Route("10.0.0.0/8"),
            Route("172.16.0.0/12", "10.6.7.1"),
            Route("0.0.0.0/0"),
            Route("fd10::/16", "fd00::1", 77),
            Route("::/0", metric=1024),
        }


def test_routes_in_another_table(adapter: tunring.Adapter, namespace: Namespace) -> None:
    """Rules of others lead there: tunring makes none."""
    rules = namespace.ip("rule")
    for _ in range(2):
        adapter.configure(["10.6.7.7/24", "fd00::7/64"], routes=["10.0.0.0/8", "0.0.0.0/0", "::/0"], table=77)
    assert {line.split()[0] for line in namespace.ip("route show table 77").splitlines()} == {"10.0.0.0/8", "default"}
    assert namespace.ip("-6 route show table 77").startswith("default")
    assert routes(namespace) == {("10.6.7.0/24", None, None), ("fd00::/64", None, 256)}
    assert namespace.ip("rule") == rules
    # They return with the interface, and a later call's route to a network replaces an earlier one's.
    adapter.configure(up=False)
    adapter.configure(routes=[Route("10.0.0.0/8", metric=7)], table=77)
    found = namespace.ip("route show table 77").splitlines()
    assert len(found) == 2
    assert [line.split()[0] for line in found if "metric 7" in line] == ["10.0.0.0/8"]
    for wrong, words in (
        ({"default": 4}, "routes are in table 77 since an earlier call: a default route can't be added"),
        ({"routes": ["10.1.0.0/16"], "table": 78}, "routes are in table 77 .*, and can't move to table 78"),
    ):
        with pytest.raises(ValueError, match=words):
            adapter.configure(**wrong)


def test_packets_take_the_routes(adapter: tunring.Adapter, namespace: Namespace) -> None:
    with adapter.start_session() as session:
        adapter.configure(["10.6.7.7/32", "fd00::7/128"], routes=["192.0.2.0/24", "::/0"])
        for target in ("192.0.2.5", "2001:db8::5"):
            family = socket.AF_INET6 if ":" in target else socket.AF_INET
            with namespace.socket(family, socket.SOCK_DGRAM) as sender:
                sender.sendto(b"hello", (target, 9))
            with session.receive(timeout=10) as batch:
                assert [destination(packet) for packet in batch] == [target]


def test_what_configuration_tells(adapter: tunring.Adapter) -> None:
    queue = {"queue_length": 500, "carrier": False}
    assert adapter.configuration() == tunring.Configuration((), 1500, None, (), (), False, **queue)
    wanted = (ip_interface("10.6.7.7/24"), ip_interface("fd00::7/64"))
    returned = adapter.configure(wanted, 1420, metric=50, routes=["10.0.0.0/8"])
    assert returned == tunring.Configuration(wanted, 1420, 50, (), (Route("10.0.0.0/8", metric=50),), True, **queue)
    assert adapter.configuration() == returned


def test_a_metric_is_for_all_routes(adapter: tunring.Adapter, namespace: Namespace) -> None:
    adapter.configure(["10.6.7.7/24", "fd00::7/64"], routes=["10.0.0.0/8", Route("fd10::/16", metric=7)])
    adapter.configure(metric=50)
    expected = {
        ("10.6.7.0/24", None, 50),
        ("fd00::/64", None, 50),
        ("10.0.0.0/8", None, 50),
        ("fd10::/16", None, 7),
    }
    assert routes(namespace) == expected
    adapter.configure(["10.9.9.9/24"], routes=["fd11::/16"])
    expected |= {("10.9.9.0/24", None, 50), ("fd11::/16", None, 50)}
    assert routes(namespace) == expected


def test_the_address_that_the_kernel_makes(adapter: tunring.Adapter, namespace: Namespace) -> None:
    namespace.write_sysctl("net/ipv6/conf/tun0/addr_gen_mode", "0")
    with adapter.start_session():
        assert adapter.configure(["10.6.7.7/24", "fd00::7/64"], metric=50).metric == 50
        assert eventually(lambda: any(address.ip.is_link_local for address in adapter.configuration().addresses))
        found = adapter.configure(up=False)
        assert [str(address) for address in found.addresses] == ["10.6.7.7/24"]
        again = {str(address) for address in adapter.configure().addresses}
        assert again >= {"10.6.7.7/24", "fd00::7/64"}
        assert eventually(lambda: adapter.configuration().metric == 50)


def test_the_lower_metric_wins(create: Callable[..., tunring.Adapter], namespace: Namespace) -> None:
    first, second = create("tun0"), create("tun1")
    first.configure(["10.6.7.7/24"], metric=20, routes=["0.0.0.0/0"])
    second.configure(["10.6.7.8/24"], metric=10, routes=["0.0.0.0/0"])
    assert "dev tun1" in namespace.ip("route get 192.0.2.1")
    assert "dev tun1" in namespace.ip("route get 10.6.7.99")
    second.configure(metric=30)
    assert "dev tun0" in namespace.ip("route get 192.0.2.1")
    assert "dev tun0" in namespace.ip("route get 10.6.7.99")


def test_a_later_route_replaces_the_earlier(adapter: tunring.Adapter, namespace: Namespace) -> None:
    adapter.configure(["10.6.7.7/24"], routes=["10.0.0.0/8", "fd10::/16"])
    adapter.configure(routes=[Route("10.0.0.0/8", "10.6.7.1"), Route("fd10::/16", metric=9)])
    assert routes(namespace) == {("10.6.7.0/24", None, None), ("10.0.0.0/8", "10.6.7.1", None), ("fd10::/16", None, 9)}


def test_down_and_up_again(adapter: tunring.Adapter, namespace: Namespace) -> None:
    before = adapter.configure(["10.6.7.7/24", "fd00::7/64"], routes=["10.0.0.0/8", "fd10::/16"])
    adapter.configure(up=False)
    assert routes(namespace) == set()
    assert adapter.configure() == before


def test_a_refused_route_is_undone(adapter: tunring.Adapter, namespace: Namespace) -> None:
    before = adapter.configure(["10.6.7.7/24", "fd00::7/64"], 1420, routes=["10.0.0.0/8"])
    for bad in (("192.0.2.0/24", "172.16.0.1"), ("2001:db8::/32", "fd05::1")):
        with pytest.raises(tunring.WintunError, match=r"can't add the route to .* by .* on adapter 'tun0': the kernel"):
            adapter.configure(["10.6.8.8/24"], 1400, metric=9, routes=["10.0.0.0/8", "fd10::/16", bad])
        assert adapter.configuration() == before
    namespace.ip("link set tun0 down")
    down = adapter.configuration()
    with pytest.raises(tunring.WintunError):
        adapter.configure(routes=[("192.0.2.0/24", "172.16.0.1")])
    assert adapter.configuration() == down


def test_what_others_made_survives_a_refusal(adapter: tunring.Adapter, namespace: Namespace) -> None:
    adapter.configure(["10.6.7.7/24"])
    namespace.ip("address add fd07::7/64 dev tun0 nodad")
    namespace.ip("route add 192.0.2.0/24 dev tun0 metric 12345")
    namespace.settle("fd07::7")
    before = adapter.configuration()
    with pytest.raises(tunring.WintunError):
        adapter.configure(["10.6.8.8/24", "::1"], up=False)
    assert adapter.configuration() == before
    assert ("192.0.2.0/24", None, 12345) in routes(namespace)


def test_a_route_that_another_interface_has(create: Callable[..., tunring.Adapter]) -> None:
    first, second = create("tun0"), create("tun1")
    first.configure(["10.6.7.7/24"], routes=["0.0.0.0/0"])
    second.configure(["10.6.8.7/24"])
    before = second.configuration()
    with pytest.raises(tunring.AlreadyExists, match=r"the route to 0\.0\.0\.0/0 on adapter 'tun1': 'tun0' has it with"):
        second.configure(routes=["0.0.0.0/0"])
    assert second.configuration() == before
    assert second.configure(metric=5, routes=["0.0.0.0/0"]).routes == (Route("0.0.0.0/0", metric=5),)


def test_routes_with_ipv6_switched_off(adapter: tunring.Adapter, namespace: Namespace) -> None:
    namespace.write_sysctl("net/ipv6/conf/tun0/disable_ipv6", "1")
    with pytest.raises(tunring.FamilyDisabled, match="IPv6") as caught:
        adapter.configure(["10.6.7.7/24"], routes=["fd10::/16"])
    assert caught.value.version == 6
    assert adapter.configuration().addresses == ()
    adapter.configure(["10.6.7.7/24"], routes=["10.0.0.0/8"])


def test_routes_that_others_made_stay(adapter: tunring.Adapter, namespace: Namespace) -> None:
    adapter.configure(["10.6.7.7/24"])
    namespace.ip("route add 10.0.0.0/8 dev tun0 metric 5")
    adapter.configure(routes=["10.0.0.0/8"])
    adapter.configure(routes=[Route("10.0.0.0/8", metric=9)])
    adapter.configure(routes=[Route("10.0.0.0/8", metric=10)])
    assert {metric for network, _, metric in routes(namespace) if network == "10.0.0.0/8"} == {5, 10}
    # A route that exists already belongs to the adapter once it is asked for.
    adapter.configure(routes=[Route("10.0.0.0/8", metric=5)])
    adapter.configure(routes=[Route("10.0.0.0/8", metric=6)])
    assert {metric for network, _, metric in routes(namespace) if network == "10.0.0.0/8"} == {6}


def test_gateway_addresses_are_hosts() -> None:
    assert Route("10.0.0.0/8", ip_address("10.6.7.1")) == Route(ip_network("10.0.0.0/8"), "10.6.7.1")
