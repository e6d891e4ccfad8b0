"""Configuration of an adapter's interface."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from tunring.configuration._checks import Host, Interface, Network, check_host, check_metric, check_network

#: An address with its prefix length; without one it is a host's, /32 or /128. With the address, or the network, at the
#: other end: ``"10.8.0.1 peer 10.8.0.2/32"`` or (local, peer).
AddressLike: TypeAlias = str | Interface | tuple[str | Interface | Host, str | Interface | Network | Host]


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
        1 to 9999; of several routes to a network, the lowest wins. The metric of the adapter's routes by default.

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
        checked = check_network(network)
        hop = None if gateway is None else check_host(gateway, "a gateway")
        if hop is not None and hop.version != checked.version:
            raise ValueError(f"the gateway of {checked} must be an IPv{checked.version} address, not {hop}")
        object.__setattr__(self, "network", checked)
        object.__setattr__(self, "gateway", hop)
        object.__setattr__(self, "metric", None if metric is None else check_metric(metric))

    @classmethod
    def _found(cls, network: Network, gateway: Host | None, metric: int | None) -> Route:
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


#: Forms of a route: it, its network, or (network, gateway).
RouteLike: TypeAlias = Route | str | Network | tuple[str | Network, str | Host | None]


@dataclass(frozen=True)
class Configuration:
    """Everything that an adapter's interface has, as the system reports it.

    Attributes
    ----------
    addresses : tuple of ipaddress interfaces
        All its addresses. One with a peer has the prefix length of a host.
    mtu : int
        Its largest packet, in bytes.
    metric : int or None
        The metric of its routes. None if the system chooses it, or if it differs between addresses.
    dns : tuple of ipaddress addresses
        The name servers that belong to it.
    routes : tuple of Route
        Its routes, without those that the system makes for addresses, and on Linux without those outside of the main
        table.
    up : bool
        True if packets can pass.
    peers : dict of ipaddress addresses to networks
        For each address that has a peer, the peer's network.
    domains : tuple of str
        The DNS domains that belong to it; with ``~`` those that are only routed to its servers.
    default : tuple of int
        The IP versions whose default route it has: on Linux by ``configure(default=...)``, beside other interfaces'.
    mark, table : int or None
        The mark by which a socket's packets bypass that default route, and the route's table. Linux.
    queue_length : int or None
        Maximum number of packets that wait for a slow session before the kernel drops others. Linux.
    carrier : bool or None
        True if the link is connected, as it is while the adapter has a session.
    """

    addresses: tuple[Interface, ...]
    mtu: int
    metric: int | None
    dns: tuple[Host, ...]
    routes: tuple[Route, ...]
    up: bool
    peers: dict[Host, Network] = field(default_factory=dict, hash=False)
    domains: tuple[str, ...] = ()
    default: tuple[int, ...] = ()
    mark: int | None = None
    table: int | None = None
    queue_length: int | None = None
    carrier: bool | None = None
