"""What an adapter's interface can be given: addresses, MTU, metric, DNS servers, routes. All input is checked here."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tunring._adapter import Adapter

#: What checked values are.
Host: TypeAlias = IPv4Address | IPv6Address
Interface: TypeAlias = IPv4Interface | IPv6Interface
Network: TypeAlias = IPv4Network | IPv6Network

#: An address with its prefix length; without one it is a host's, /32 or /128.
Address: TypeAlias = str | Interface

#: Bytes: what IPv4 and IPv6 ask for at least, and the most that an IP packet has.
_MIN_MTU, _MIN_MTU6, _MAX_MTU = 68, 1280, 65535

#: What the tools of each system take, too.
_MAX_METRIC = 9999


@dataclass(frozen=True, init=False)
class Route:
    """A network that is reached through an adapter.

    Parameters
    ----------
    network : str or ipaddress network
        Such as ``"10.0.0.0/8"``, or ``"0.0.0.0/0"`` for all of IPv4.
    gateway : str or ipaddress address, optional
        The next hop, which a tunnel seldom needs: without one the network is right behind the adapter.
    metric : int, optional
        1 to 9999; of several routes to a network, the lowest wins. By default what the adapter's routes have.

    Raises
    ------
    ValueError
        A value is refused.

    Examples
    --------
    >>> import tunring
    >>> tunring.Route("10.0.0.0/8", metric=50)
    Route(network=IPv4Network('10.0.0.0/8'), gateway=None, metric=50)
    """

    network: Network
    gateway: Host | None
    metric: int | None

    def __init__(self, network: str | Network, gateway: str | Host | None = None, metric: int | None = None) -> None:
        checked = _check_network(network)
        hop = None if gateway is None else _check_host(gateway, "a gateway")
        if hop is not None and hop.version != checked.version:
            raise ValueError(f"the gateway of {checked} must be an IPv{checked.version} address, not {hop}")
        object.__setattr__(self, "network", checked)
        object.__setattr__(self, "gateway", hop)
        object.__setattr__(self, "metric", None if metric is None else check_metric(metric))

    @classmethod
    def found(cls, network: Network, gateway: Host | None, metric: int | None) -> Route:
        """Make one as the system has it, whatever that is."""
        route = cls.__new__(cls)
        object.__setattr__(route, "network", network)
        object.__setattr__(route, "gateway", gateway)
        object.__setattr__(route, "metric", metric)
        return route

    def __str__(self) -> str:
        gateway = f" by {self.gateway}" if self.gateway else ""
        metric = f" with metric {self.metric}" if self.metric else ""
        return f"{self.network}{gateway}{metric}"


#: What is taken for a route: it, its network, or (network, gateway).
RouteLike: TypeAlias = Route | str | Network | tuple[str | Network, str | Host | None]


@dataclass(frozen=True)
class Configuration:
    """What an adapter's interface has, as the system tells.

    Attributes
    ----------
    addresses : tuple of ipaddress interfaces
        All its addresses.
    mtu : int
        Its largest packet, in bytes.
    metric : int or None
        What its routes are given. None if the system chooses, or addresses differ in it.
    dns : tuple of ipaddress addresses
        The name servers that belong to it.
    routes : tuple of Route
        What is reached through it, without the routes that the system makes for addresses.
    up : bool
        Whether packets can pass.
    """

    addresses: tuple[Interface, ...]
    mtu: int
    metric: int | None
    dns: tuple[Host, ...]
    routes: tuple[Route, ...]
    up: bool


def no_interface(adapter: Adapter) -> NotImplementedError:
    """The error for an adapter that the system knows nothing of."""
    text = f"adapter {adapter.name!r} of {adapter.library.name} can't be configured: the system has no such interface"
    return NotImplementedError(text)


@dataclass(frozen=True)
class Request:
    """What one call of ``configure()`` asks for, checked; or, summed up, what all calls have."""

    addresses: tuple[Interface, ...] = ()
    mtu: int | None = None
    metric: int | None = None
    dns: tuple[Host, ...] = ()
    routes: tuple[Route, ...] = ()
    up: bool = True

    def after(self, earlier: Request) -> Request:
        """Sum up: a later value wins, a later route wins over one to the same network, addresses add up."""
        routes = {route.network: route for route in earlier.routes + self.routes}
        return Request(
            tuple(dict.fromkeys(earlier.addresses + self.addresses)),
            earlier.mtu if self.mtu is None else self.mtu,
            earlier.metric if self.metric is None else self.metric,
            self.dns or earlier.dns,
            tuple(routes.values()),
            self.up,
        )

    def has(self, version: int) -> bool:
        """Whether something of IPv4 or IPv6 is asked for, DNS apart."""
        return any(item.version == version for item in (*self.addresses, *(route.network for route in self.routes)))


def check_request(
    addresses: Iterable[Address],
    mtu: int | None,
    metric: int | None,
    dns: Iterable[str | Host],
    routes: Iterable[RouteLike],
    up: bool,
    earlier: Request,
) -> Request:
    """Check what a call asks for, given what earlier ones did."""
    request = Request(
        tuple(check_addresses(addresses)),
        None if mtu is None else operator.index(mtu),
        None if metric is None else check_metric(metric),
        tuple(check_dns(dns)),
        tuple(check_routes(routes)),
        bool(up),
    )
    if request.mtu is not None:
        check_mtu(request.mtu, with_ipv6=any(address.version == 6 for address in request.after(earlier).addresses))
    if request.routes and not request.up:
        raise ValueError(
            f"up must be True for routes, such as {request.routes[0]}: no system has them while it is down"
        )
    return request


def check_addresses(addresses: Iterable[Address]) -> list[Interface]:
    """Parse addresses that an interface can have, each once."""
    if isinstance(addresses, (str, bytes, IPv4Interface, IPv6Interface)):
        raise TypeError(f"addresses must be a list of addresses, not {addresses!r} alone")
    return list(dict.fromkeys(_check_address(address) for address in addresses))


def _check_address(address: Address) -> Interface:
    if not isinstance(address, (str, IPv4Interface, IPv6Interface)):
        raise TypeError(f"an address must be a str, IPv4Interface or IPv6Interface, not {address!r}")
    try:
        interface = ip_interface(address)
    except ValueError:
        text = f"no address with a prefix length: {address!r}; it looks like '10.6.7.7/24' or 'fd00::7/64'"
        raise ValueError(text) from None
    _refuse_host(interface.ip, address)
    _refuse_scope(interface, address)
    _refuse_network(interface, address)
    return interface


def _check_host(address: str | Host, what: str) -> Host:
    if not isinstance(address, (str, IPv4Address, IPv6Address)):
        raise TypeError(f"{what} must be a str, IPv4Address or IPv6Address, not {address!r}")
    try:
        host = ip_address(address)
    except ValueError:
        raise ValueError(f"{what} must be an address such as '10.6.7.1' or 'fd00::1', not {address!r}") from None
    _refuse_host(host, address)
    _refuse_scope(host, address)
    return host


def _refuse_host(host: Host, given: object) -> None:
    fault = None
    if host.is_multicast:
        fault = "is a multicast address"
    elif host.is_unspecified:
        fault = "is the unspecified address"
    elif host == IPv4Address("255.255.255.255"):
        fault = "is the broadcast address"
    if fault:
        raise ValueError(f"{str(given)!r} {fault}; only addresses that one host can have are allowed")


def _refuse_scope(host: Host, given: object) -> None:
    if isinstance(host, IPv6Address) and host.scope_id:
        raise ValueError(f"{str(given)!r} names an interface; only addresses that one host can have are allowed")


def _refuse_network(interface: Interface, given: object) -> None:
    """Refuse the addresses of a network that no host of it can have: a slip for one of its hosts."""
    network = interface.network
    if network.max_prefixlen - network.prefixlen < 2:
        return  # /31 and /127 have no such addresses, and a host is alone in its network
    if interface.ip == network.network_address:
        kind = "network's own address" if network.version == 4 else "address of any router in its network"
    elif network.version == 4 and interface.ip == network.broadcast_address:
        kind = "network's broadcast address"
    else:
        return
    hint = f"a host has one such as '{network.network_address + 1}/{network.prefixlen}'"
    alone = f"'{interface.ip}/{network.max_prefixlen}' is the address without a network"
    raise ValueError(f"{str(given)!r} is the {kind}; {hint}, and {alone}")


def check_mtu(mtu: int, *, with_ipv6: bool) -> int:
    """Check an MTU, in bytes."""
    value = operator.index(mtu)
    least = _MIN_MTU6 if with_ipv6 else _MIN_MTU
    if not least <= value <= _MAX_MTU:
        why = ", since IPv6 addresses are asked for" if with_ipv6 else ""
        raise ValueError(f"mtu must be {least} to {_MAX_MTU} bytes{why}, not {mtu}")
    return value


def check_metric(metric: int) -> int:
    """Check a metric."""
    value = operator.index(metric)
    if not 1 <= value <= _MAX_METRIC:
        raise ValueError(f"a metric must be 1 to {_MAX_METRIC}, not {metric}")
    return value


def check_dns(servers: Iterable[str | Host]) -> list[Host]:
    """Parse the addresses of name servers, each once."""
    if isinstance(servers, (str, bytes, IPv4Address, IPv6Address)):
        raise TypeError(f"dns must be a list of addresses, not {servers!r} alone")
    return list(dict.fromkeys(_check_host(server, "a DNS server") for server in servers))


def check_routes(routes: Iterable[RouteLike]) -> list[Route]:
    """Parse routes, one to a network."""
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


def _check_network(network: str | Network) -> Network:
    if not isinstance(network, (str, IPv4Network, IPv6Network)):
        raise TypeError(f"a route's network must be a str, IPv4Network or IPv6Network, not {network!r}")
    try:
        return ip_network(network)
    except ValueError:
        pass
    try:
        hint = f"; that one has host bits, its network is '{ip_network(network, strict=False)}'"
    except ValueError:
        hint = ""
    raise ValueError(f"a route's network must look like '10.0.0.0/8' or 'fd00::/8', not {network!r}{hint}")
