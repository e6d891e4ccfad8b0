"""Requests of ``configure()``, checked before anything is changed."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network, ip_interface
from typing import TYPE_CHECKING, Any, TypedDict

from tunring.configuration import Route
from tunring.configuration._checks import (
    check_domain,
    check_host,
    check_interface,
    check_mark,
    check_metric,
    check_mtu,
    check_network,
    check_queue_length,
    check_table,
)

if TYPE_CHECKING:
    from tunring.configuration import AddressLike, Configuration, RouteLike
    from tunring.configuration._checks import Host, Interface, Network

#: In ``Request.default``: whichever families the adapter has addresses of.
ANY_VERSION = 0


@dataclass(frozen=True)
class InterfaceAddress:
    """An address of an interface: with its network, or with the peer, or the peer's network, at the other end.

    With a peer, ``local`` is a host's, /32 or /128.
    """

    local: Interface
    peer: Interface | None = None

    @property
    def ip(self) -> Host:
        """The address itself."""
        return self.local.ip

    @property
    def version(self) -> int:
        """4 or 6."""
        return self.local.version

    @property
    def network(self) -> Network:
        """Networks on the link."""
        return (self.peer or self.local).network

    def __str__(self) -> str:
        return f"{self.ip} peer {self.peer}" if self.peer else str(self.local)


class Given(TypedDict, total=False):
    """The arguments of ``Adapter.configure``."""

    addresses: Iterable[AddressLike]
    mtu: int | None
    metric: int | None
    dns: Iterable[str | Host]
    domains: Iterable[str]
    routes: Iterable[RouteLike]
    default: bool | int | Iterable[int]
    bypass: Iterable[str | Host | Network]
    mark: int | None
    table: int | None
    ipv6: bool | None
    queue_length: int | None
    up: bool


@dataclass(frozen=True)
class Request:
    """The request of one call of ``configure()``; or the sum of all calls' requests."""

    addresses: tuple[InterfaceAddress, ...] = ()
    mtu: int | None = None
    metric: int | None = None
    dns: tuple[Host, ...] = ()
    domains: tuple[str, ...] = ()
    routes: tuple[Route, ...] = ()
    #: IP versions whose default route it is to have, or ANY_VERSION.
    default: frozenset[int] = field(default_factory=frozenset)
    bypass: tuple[Network, ...] = ()
    mark: int | None = None
    table: int | None = None
    ipv6: bool | None = None
    queue_length: int | None = None
    up: bool = True

    def after(self, earlier: Request) -> Request:
        """Sum up: a later value wins, a later route wins over one to the same network; the rest adds up."""
        routes = {route.network: route for route in earlier.routes + self.routes}

        def latest(name: str) -> Any:
            value = getattr(self, name)
            return getattr(earlier, name) if value is None else value

        return Request(
            tuple(dict.fromkeys(earlier.addresses + self.addresses)),
            latest("mtu"),
            latest("metric"),
            self.dns or earlier.dns,
            self.domains or earlier.domains,
            tuple(routes.values()),
            earlier.default | self.default,
            tuple(dict.fromkeys(earlier.bypass + self.bypass)),
            latest("mark"),
            latest("table"),
            latest("ipv6"),
            latest("queue_length"),
            self.up,
        )

    @property
    def table_of_routes(self) -> int | None:
        """The table of ``routes``, or None for the main one: with a default route, the other table is that one's."""
        return None if self.default else self.table

    def resolved(self, found: Configuration) -> Request:
        """With the mark and the table that a default route has got."""
        return replace(self, mark=found.mark, table=found.table) if self.default else self

    def has(self, version: int) -> bool:
        """True if something of IPv4 or IPv6 is asked for, DNS and bypasses apart."""
        items = (*self.addresses, *(route.network for route in self.routes))
        return version in self.default or any(item.version == version for item in items)

    def versions(self, addresses: Iterable[InterfaceAddress]) -> list[int]:
        """The IP versions of ``default``, for an interface that has these addresses besides."""
        if ANY_VERSION not in self.default:
            return sorted(self.default)
        every = {address.version for address in (*self.addresses, *addresses) if not address.ip.is_link_local}
        return sorted(every | (self.default - {ANY_VERSION}))


def check_request(given: Given, earlier: Request) -> Request:
    """Check what a call asks for, given what earlier ones did."""

    def number(name: str, check: Any) -> Any:
        value = given.get(name)
        return None if value is None else check(value)

    ipv6 = given.get("ipv6")
    request = Request(
        tuple(check_addresses(given.get("addresses", ()))),
        number("mtu", operator.index),
        number("metric", check_metric),
        tuple(check_dns(given.get("dns", ()))),
        tuple(check_domains(given.get("domains", ()))),
        tuple(check_routes(given.get("routes", ()))),
        _check_default(given.get("default", False)),
        tuple(_check_bypass(given.get("bypass", ()))),
        number("mark", check_mark),
        number("table", check_table),
        None if ipv6 is None else bool(ipv6),
        number("queue_length", check_queue_length),
        bool(given.get("up", True)),
    )
    _check_together(request, request.after(earlier), earlier)
    return request


def _check_together(request: Request, whole: Request, earlier: Request) -> None:
    """Check what values mean for each other, those of earlier calls among them."""
    if request.mtu is not None:
        check_mtu(request.mtu, with_ipv6=any(address.version == 6 for address in whole.addresses))
    if not request.up and (request.routes or request.default):
        what = f"routes, such as {request.routes[0]}" if request.routes else "a default route"
        raise ValueError(f"up must be True for {what}: no system has them while it is down")
    if whole.ipv6 is False and whole.has(6):
        ours = [item for item in (*whole.addresses, *(route.network for route in whole.routes)) if item.version == 6]
        raise ValueError(f"ipv6=False excludes {ours[0] if ours else 'default=6'}, which was asked for, now or earlier")
    for name in ("bypass", "mark"):
        if getattr(request, name) and not whole.default:
            raise ValueError(f"{name} is for a default route: it needs default=True, 4 or 6")
    if request.table and not (whole.default or whole.routes):
        raise ValueError("table is for routes: it needs routes, or default=True, 4 or 6")
    if request.default and earlier.table_of_routes:
        raise ValueError(f"routes are in table {earlier.table} since an earlier call: a default route can't be added")
    if request.table and earlier.routes and not whole.default and request.table != earlier.table:
        where = f"table {earlier.table}" if earlier.table else "the main table"
        raise ValueError(f"routes are in {where} since an earlier call, and can't move to table {request.table}")
    for name in ("mark", "table"):
        before, wanted = getattr(earlier, name), getattr(request, name)
        if earlier.default and None not in (before, wanted) and before != wanted:
            raise ValueError(f"{name} is {before} since an earlier call, and can't become {wanted} while it is in use")


def check_addresses(addresses: Iterable[AddressLike]) -> list[InterfaceAddress]:
    """Check addresses that an interface can have, each once."""
    if isinstance(addresses, (str, bytes, IPv4Interface, IPv6Interface)):
        raise TypeError(f"addresses must be a list of addresses, not {addresses!r} alone")
    return list(dict.fromkeys(_check_address(address) for address in addresses))


def _check_address(address: AddressLike) -> InterfaceAddress:
    local: object = address
    peer: object = None
    if isinstance(address, str) and " " in address:
        words = address.split()
        if len(words) != 3 or words[1] != "peer":
            raise ValueError(f"an address with a peer looks like '10.8.0.1 peer 10.8.0.2/32', not {address!r}")
        local, peer = words[0], words[2]
    elif isinstance(address, tuple):
        try:
            local, peer = address
        except ValueError:
            raise ValueError(f"an address with a peer is (local, peer), not {address!r}") from None
    if peer is None:
        return InterfaceAddress(check_interface(local))  # type: ignore[arg-type]
    return _with_peer(local, peer)


def _with_peer(local: Any, peer: Any) -> InterfaceAddress:
    """Check an address and its peer, which may be a network."""
    if isinstance(local, (IPv4Address, IPv6Address)):
        local = ip_interface(local)
    own = check_interface(local)
    if own.network.num_addresses != 1:
        raise ValueError(f"an address with a peer has no network of its own: {own.ip}, not {own}; the peer has one")
    if isinstance(peer, (IPv4Network, IPv6Network)):
        peer = ip_interface(str(peer))
    elif isinstance(peer, (IPv4Address, IPv6Address)):
        peer = ip_interface(peer)
    if not isinstance(peer, (str, IPv4Interface, IPv6Interface)):
        raise TypeError(f"a peer must be a str or of ipaddress, not {peer!r}")
    try:
        other = ip_interface(peer)
    except ValueError:
        raise ValueError(f"a peer must look like '10.8.0.2/32' or 'fd08::2/128', not {peer!r}") from None
    if other.version != own.version:
        raise ValueError(f"the peer of {own.ip} must be an IPv{own.version} address, not {peer}")
    check_host(other.ip, "a peer")
    if other.ip == own.ip:
        raise ValueError(f"the peer of {own.ip} must be another address, not {peer}")
    return InterfaceAddress(own, other)


def check_dns(servers: Iterable[str | Host]) -> list[Host]:
    """Check the addresses of name servers, each once."""
    if isinstance(servers, (str, bytes, IPv4Address, IPv6Address)):
        raise TypeError(f"dns must be a list of addresses, not {servers!r} alone")
    return list(dict.fromkeys(check_host(server, "a DNS server") for server in servers))


def check_domains(domains: Iterable[str]) -> list[str]:
    """Check DNS domains, each once."""
    if isinstance(domains, (str, bytes)):
        raise TypeError(f"domains must be a list of domains, not {domains!r} alone")
    return list(dict.fromkeys(map(check_domain, domains)))


def check_routes(routes: Iterable[RouteLike]) -> list[Route]:
    """Check routes, one to a network."""
    if isinstance(routes, (str, bytes, IPv4Network, IPv6Network, Route)):
        raise TypeError(f"routes must be a list of routes, not {routes!r} alone")
    checked: dict[Network, Route] = {}
    for route in map(_check_route, routes):
        other = checked.setdefault(route.network, route)
        if other != route:
            raise ValueError(f"routes has two to {route.network}: {other} and {route}; an adapter can have one")
    return list(checked.values())


def _check_route(route: RouteLike) -> Route:
    if isinstance(route, Route):
        return route
    if isinstance(route, (str, IPv4Network, IPv6Network)):
        return Route(route)
    try:
        network, gateway = route
    except (TypeError, ValueError):
        text = f"a route must be a Route, a network such as '10.0.0.0/8' or (network, gateway), not {route!r}"
        raise TypeError(text) from None
    return Route(network, gateway)


def _check_default(default: bool | int | Iterable[int]) -> frozenset[int]:
    if default is False:
        return frozenset()
    if default is True:
        return frozenset((ANY_VERSION,))
    versions = list(default) if isinstance(default, Iterable) else [default]
    if not all(version in (4, 6) for version in versions):
        raise ValueError(f"default must be True, False, 4, 6 or (4, 6), not {default!r}")
    return frozenset(versions)


def _check_bypass(bypass: Iterable[str | Host | Network]) -> list[Network]:
    """Check hosts and networks that a default route leaves alone, each once."""
    if isinstance(bypass, (str, bytes, IPv4Address, IPv6Address, IPv4Network, IPv6Network)):
        raise TypeError(f"bypass must be a list of hosts and networks, not {bypass!r} alone")
    checked: dict[Network, None] = {}
    for item in bypass:
        host = isinstance(item, (IPv4Address, IPv6Address))
        network = check_network(str(item) if host else item, "what bypasses")  # type: ignore[arg-type]
        if not network.prefixlen:
            raise ValueError(f"{network} in bypass is everything, which leaves nothing for the default route")
        checked[network] = None
    return list(checked)
