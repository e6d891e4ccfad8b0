"""A configuration is checked before anything is changed, and the message names what is allowed."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network
from typing import Any, cast

import pytest

import tunring
from tunring import Route
from tunring.configuration._checks import check_metric
from tunring.configuration._request import InterfaceAddress, Request, check_dns, check_request, check_routes


def check(*, earlier: Request | None = None, **given: Any) -> Request:
    return check_request(cast("Any", given), earlier or Request())


def plain(*addresses: str) -> tuple[InterfaceAddress, ...]:
    return tuple(InterfaceAddress(ip_interface(address)) for address in addresses)


def test_routes_in_each_form() -> None:
    expected = [
        Route(ip_network("10.0.0.0/8")),
        Route(ip_network("0.0.0.0/0"), ip_address("10.6.7.1")),
        Route(ip_network("fd00::/8"), None, 5),
    ]
    given = ["10.0.0.0/8", ("0.0.0.0/0", "10.6.7.1"), Route("fd00::/8", metric=5), ip_network("10.0.0.0/8")]
    assert check_routes(given) == expected
    assert check_routes(expected) == expected
    assert [str(route) for route in expected] == ["10.0.0.0/8", "0.0.0.0/0 by 10.6.7.1", "fd00::/8 with metric 5"]
    assert Route("10.0.0.0").network == ip_network("10.0.0.0/32")


@pytest.mark.parametrize(
    ("routes", "error", "words"),
    [
        ("10.0.0.0/8", TypeError, "a list of routes, not '10.0.0.0/8' alone"),
        ([8], TypeError, r"a network such as '10\.0\.0\.0/8' or \(network, gateway\), not 8"),
        ([("10.0.0.0/8", "10.0.0.1", 5)], TypeError, "not .*, 5"),
        ([(8, "10.0.0.1")], TypeError, "IPv4Network or IPv6Network, not 8"),
        ([("10.0.0.0/8", 8)], TypeError, "a gateway must be .*, not 8"),
        (["default"], ValueError, "look like '10.0.0.0/8' or 'fd00::/8', not 'default'$"),
        (["10.1.2.3/8"], ValueError, "host bits, its network is '10.0.0.0/8'"),
        ([("10.0.0.0/8", "router")], ValueError, "a gateway must be an address such as .* not 'router'"),
        ([("10.0.0.0/8", "fd00::1")], ValueError, "the gateway of 10.0.0.0/8 must be an IPv4 address, not fd00::1"),
        ([("fd00::/8", "10.0.0.1")], ValueError, "must be an IPv6 address"),
        ([("fd00::/8", "fe80::1%eth0")], ValueError, "names an interface"),
        ([("10.0.0.0/8", "0.0.0.0")], ValueError, "unspecified"),
        (["10.0.0.0/8", ("10.0.0.0/8", "10.0.0.1")], ValueError, "routes has two to 10.0.0.0/8"),
    ],
)
def test_refused_routes(routes: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        check(routes=routes)


@pytest.mark.parametrize(("default", "versions"), [(4, {4}), ((4, 6), {4, 6}), ({6}, {6}), ([], set()), (False, set())])
def test_default_routes_by_version(default: Any, versions: set[int]) -> None:
    request = check(addresses=["10.6.7.7/24"], default=default)
    assert set(request.versions([])) == versions


@pytest.mark.parametrize("default", [5, None, "46", (4, 5), (True,), [[]], 4.5])
def test_refused_default_routes(default: Any) -> None:
    with pytest.raises(ValueError, match=r"default must be True, False, 4, 6 or \(4, 6\), not "):
        check(default=default)


@pytest.mark.parametrize("metric", [0, -1, 10000])
def test_metrics(metric: int) -> None:
    assert [check_metric(value) for value in (1, 9999)] == [1, 9999]
    with pytest.raises(ValueError, match=f"1 to 9999, not {metric}"):
        check(metric=metric)
    with pytest.raises(ValueError, match=f"1 to 9999, not {metric}"):
        Route("10.0.0.0/8", metric=metric)
    with pytest.raises(TypeError):
        check(metric=1.0)


@pytest.mark.parametrize(
    ("dns", "error", "words"),
    [
        ("9.9.9.9", TypeError, "a list of addresses, not '9.9.9.9' alone"),
        ([9], TypeError, "a DNS server must be a str"),
        (["dns.example"], ValueError, "a DNS server must be an address such as .*, not 'dns.example'"),
        (["10.0.0.0/8"], ValueError, "not '10.0.0.0/8'"),
        (["224.0.0.251"], ValueError, "multicast"),
        (["::"], ValueError, "unspecified"),
    ],
)
def test_refused_name_servers(dns: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        check(dns=dns)


def test_name_servers() -> None:
    servers = [ip_address("9.9.9.9"), ip_address("2620:fe::fe")]
    assert check_dns(["9.9.9.9", *servers, "2620:00fe::fe"]) == servers


@pytest.mark.parametrize(
    ("address", "kind", "hint"),
    [
        ("10.6.7.0/24", "network's own address", "'10.6.7.1/24'"),
        ("10.6.7.255/24", "network's broadcast address", "'10.6.7.1/24'"),
        ("10.6.7.8/30", "network's own address", "'10.6.7.9/30'"),
        ("10.6.7.11/30", "network's broadcast address", "'10.6.7.9/30'"),
        ("10.0.0.0/8", "network's own address", "'10.0.0.1/8'"),
        ("fd00::/64", "address of any router in its network", "'fd00::1/64'"),
        ("fd00::4/126", "address of any router in its network", "'fd00::5/126'"),
    ],
)
def test_addresses_that_belong_to_the_network(address: str, kind: str, hint: str) -> None:
    for given in (address, ip_interface(address)):
        with pytest.raises(ValueError, match=f"{address}' is the {kind}; a host has one such as {hint}, and") as caught:
            check(addresses=[given])
        alone = f"{address.partition('/')[0]}/{ip_interface(address).max_prefixlen}"
        assert f"'{alone}' is the address without a network" in str(caught.value)
        assert check(addresses=[alone]).addresses == plain(alone)


@pytest.mark.parametrize(
    "address",
    "10.6.7.0/31 10.6.7.1/31 10.6.7.0/32 10.6.7.0 10.6.7.9/30 10.6.0.255/16 "
    "fd00::/127 fd00::1/127 fd00::/128 fd00:: fd00::5/126 fd00::ffff:ffff:ffff:ffff/64".split(),
)
def test_addresses_of_hosts_pass(address: str) -> None:
    assert check(addresses=[address]).addresses == plain(address)


def test_routes_need_the_interface_up() -> None:
    with pytest.raises(ValueError, match=r"up must be True for routes, such as 10\.0\.0\.0/8"):
        check(routes=["10.0.0.0/8"], up=False)


def test_the_mtu_counts_earlier_addresses() -> None:
    earlier = check(addresses=["fd00::1/64"])
    with pytest.raises(ValueError, match="1280 to 65535"):
        check(mtu=1279, earlier=earlier)
    assert check(mtu=1280, earlier=earlier).mtu == 1280


def test_calls_add_up() -> None:
    first = check(addresses=["10.0.0.1/24"], mtu=1400, metric=5, dns=["9.9.9.9"], routes=["10.0.0.0/8", "fd00::/8"])
    second = check(addresses=["10.0.0.2/24", "10.0.0.1/24"], routes=[("10.0.0.0/8", "10.0.0.3")])
    both = second.after(first)
    assert both.addresses == plain("10.0.0.1/24", "10.0.0.2/24")
    assert (both.mtu, both.metric, both.dns) == (1400, 5, first.dns)
    assert both.routes == (Route("10.0.0.0/8", "10.0.0.3"), Route("fd00::/8"))
    assert both.has(4)
    assert both.has(6)
    assert not second.has(6)


@pytest.mark.ours_only(reason="an adapter of the official DLL is one that the system can configure")
def test_a_cable_end_has_no_configuration(adapter: tunring.Adapter) -> None:
    for call in (adapter.configuration, adapter.configure):
        with pytest.raises(NotImplementedError, match="of loopback can't be configured: the system has no such"):
            call()
    adapter.close()
    with pytest.raises(ValueError, match="the adapter is closed"):
        adapter.configuration()
