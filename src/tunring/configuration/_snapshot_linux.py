"""A snapshot of one interface, as rtnetlink lists its link, addresses and routes; and the requests that change them."""

from __future__ import annotations

import socket
import sys
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING, Any, NamedTuple

from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from tunring._system.netlink_linux import ADD, REPLACE, Command, KernelError, body_of, decode, encode, with_attribute
from tunring.configuration import Route
from tunring.configuration._request import InterfaceAddress

if TYPE_CHECKING:
    from tunring._system.netlink_linux import Netlink
    from tunring.configuration._checks import Host, Network

#: Mark of everything that tunring adds, where the kernel lists who has made a thing: so what a killed process left
#: can be told. No routing daemon has this number.
OURS = 116

RTM_NEWLINK, RTM_GETLINK, RTM_SETLINK = 16, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26

IFF_UP = 0x1
_IFADDRMSG_BYTES, _IFA_RT_PRIORITY = 8, 9
_IFA_F_NODAD = 0x02
_IFAPROT_KERNEL_LL = 3
TABLE_MAIN = 254
TABLE_COMPAT = 252  # of a number that the header has no room for
_SCOPE_UNIVERSE, _SCOPE_LINK, _SCOPE_NOWHERE = 0, 253, 255
_RTN_UNICAST, _RTN_LOCAL = 1, 2
_PROTO_KERNEL = 2
_RTNH_F_ONLINK = 4
_RTM_F_FIB_MATCH = 0x2000
_RTEXT_FILTER_SKIP_STATS = 8

#: The metric that the kernel gives an IPv6 route without one; an IPv4 route without one has 0.
_METRIC6 = 1024

#: IFLA_INET6_ADDR_GEN_MODE: no address is made.
GEN_MODE_NONE = 1

VERSIONS = (4, 6)

EVERYWHERE: dict[int, Network] = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}


def family_of(version: int) -> int:
    """AF_INET or AF_INET6."""
    return socket.AF_INET if version == 4 else socket.AF_INET6


@dataclass(frozen=True)
class Link:
    """An interface without its addresses and routes."""

    name: str
    mtu: int
    up: bool
    queue_length: int
    carrier: bool
    #: How the kernel makes its link-local address, an IN6_ADDR_GEN_MODE; None where it has no IPv6.
    gen_mode: int | None
    #: True if several descriptors may be attached to it, which then may be several processes'.
    multi_queue: bool


class FoundAddress(NamedTuple):
    """An address as the kernel has it."""

    metric: int | None
    #: Its maker: OURS, or an IFAPROT number.
    protocol: int
    #: The message that it was listed by, which makes it again as it was.
    body: bytes


class TableRoute(NamedTuple):
    """A route, and the table it is in."""

    route: Route
    table: int = TABLE_MAIN

    def __str__(self) -> str:
        return str(self.route) if self.table == TABLE_MAIN else f"{self.route} in table {self.table}"


class FoundRoute(NamedTuple):
    """A route as the kernel has it."""

    #: The index of the interface it leads to.
    interface: int | None
    #: Its maker: OURS, or an RTPROT number.
    protocol: int
    #: The message that it was listed by, which makes it again as it was.
    body: bytes


@dataclass(frozen=True)
class Snapshot:
    """The state of an interface at one time."""

    link: Link
    addresses: dict[InterfaceAddress, FoundAddress]
    #: Unicast routes in all tables, without those that the kernel makes for addresses.
    routes: dict[TableRoute, FoundRoute]

    @property
    def metric(self) -> int | None:
        """The metric that all addresses give the routes to their networks, or None."""
        metrics = {found.metric for address, found in self.addresses.items() if not address.ip.is_link_local}
        return metrics.pop() if len(metrics) == 1 else None


def look(netlink: Netlink, index: int) -> Snapshot:
    """Take the snapshot."""
    addresses: dict[InterfaceAddress, FoundAddress] = {}
    routes: dict[TableRoute, FoundRoute] = {}
    for version in VERSIONS:
        addresses |= read_addresses(netlink, index, version)
        routes |= read_routes(netlink, version, index)
    return Snapshot(read_link(netlink, index), addresses, routes)


# ---- The link


def read_link(netlink: Netlink, index: int) -> Link:
    """Read the link."""
    body = encode(ifinfmsg, {"index": index}, [("IFLA_EXT_MASK", _RTEXT_FILTER_SKIP_STATS)])
    link = decode(ifinfmsg, netlink.ask(RTM_GETLINK, body))
    inet6 = link.get_nested("af_spec", "AF_INET6")
    return Link(
        link.get_attr("IFLA_IFNAME"),
        link.get_attr("IFLA_MTU"),
        bool(link["flags"] & IFF_UP),
        link.get_attr("IFLA_TXQLEN"),
        bool(link.get_attr("IFLA_CARRIER")),
        inet6.get_attr("IFLA_INET6_ADDR_GEN_MODE") if inet6 else None,
        bool(link.get_nested("linkinfo", "data", "IFLA_TUN_MULTI_QUEUE")),
    )


def set_link(index: int, before: Link, wanted: Link) -> list[Command]:
    """The requests that make one link of another. Empty if there is nothing to do."""
    commands = []
    if wanted.gen_mode != before.gen_mode and wanted.gen_mode is not None:
        # On its own, and first: as it comes up, an interface gets its address.
        mode = {"attrs": [("AF_INET6", {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", wanted.gen_mode)]})]}
        body = encode(ifinfmsg, {"index": index}, [("IFLA_AF_SPEC", mode)])
        commands.append(Command("can't change how IPv6 addresses are made", RTM_SETLINK, 0, body))
    attributes = []
    if wanted.mtu != before.mtu:
        attributes.append(("IFLA_MTU", wanted.mtu))
    if wanted.queue_length != before.queue_length:
        attributes.append(("IFLA_TXQLEN", wanted.queue_length))
    if attributes or wanted.up != before.up:
        fields = {"index": index, "flags": IFF_UP if wanted.up else 0, "change": IFF_UP}
        action = f"can't set MTU {wanted.mtu} and bring it {'up' if wanted.up else 'down'}"
        commands.append(Command(action, RTM_NEWLINK, 0, encode(ifinfmsg, fields, attributes)))
    return commands


# ---- Addresses


def read_addresses(netlink: Netlink, index: int, version: int) -> dict[InterfaceAddress, FoundAddress]:
    """Read the addresses of one family."""
    body = encode(ifaddrmsg, {"family": family_of(version), "index": index})
    found = {}
    for message in netlink.dump(RTM_GETADDR, body):
        address = decode(ifaddrmsg, message)
        if address["index"] == index:  # older kernels list everything
            key = _address_key(address)
            metric, protocol = address.get_attr("IFA_RT_PRIORITY") or None, address.get_attr("IFA_PROTO") or 0
            found[key] = FoundAddress(metric, protocol, body_of(message))
    return found


def _address_key(address: Any) -> InterfaceAddress:
    local, other = address.get_attr("IFA_LOCAL"), address.get_attr("IFA_ADDRESS")
    if local is None or other is None or local == other:
        return InterfaceAddress(ip_interface(f"{local or other}/{address['prefixlen']}"))
    return InterfaceAddress(ip_interface(local), ip_interface(f"{other}/{address['prefixlen']}"))


def is_made_by_kernel(address: InterfaceAddress, found: FoundAddress) -> bool:
    """True for the link-local address that an interface gets by itself; older kernels don't report its maker."""
    return address.ip.version == 6 and address.ip.is_link_local and found.protocol in (0, _IFAPROT_KERNEL_LL)


def add_address(index: int, address: InterfaceAddress, metric: int | None) -> Command:
    """The request that adds an address of ours."""
    fields, attributes = _address_parts(index, address)
    if address.version == 6:
        # There is nobody else on the link, so nobody has to be asked whether the address is free.
        fields["flags"] = _IFA_F_NODAD
    if metric is not None:
        attributes.append(("IFA_RT_PRIORITY", metric))
    attributes.append(("IFA_PROTO", OURS))
    return Command(f"can't add {address}", RTM_NEWADDR, ADD, encode(ifaddrmsg, fields, attributes), address)


def put_address_back(address: InterfaceAddress, found: FoundAddress) -> Command:
    """The request that adds an address as it was."""
    return Command(f"can't restore {address}", RTM_NEWADDR, REPLACE, found.body)


def change_metric(address: InterfaceAddress, found: FoundAddress, metric: int | None) -> Command:
    """The request that gives an address another metric, and leaves it otherwise as it was."""
    body = with_attribute(found.body, _IFADDRMSG_BYTES, _IFA_RT_PRIORITY, (metric or 0).to_bytes(4, sys.byteorder))
    return Command(f"can't give {address} the metric {metric}", RTM_NEWADDR, REPLACE, body)


def remove_address(index: int, address: InterfaceAddress) -> Command:
    """The request that removes an address, even one that another process made."""
    return Command(f"can't remove {address}", RTM_DELADDR, 0, encode(ifaddrmsg, *_address_parts(index, address)))


def _address_parts(index: int, address: InterfaceAddress) -> tuple[dict[str, Any], list[tuple[str, Any]]]:
    end = address.peer or address.local
    fields = {"family": family_of(address.version), "prefixlen": end.network.prefixlen, "index": index}
    return fields, [("IFA_LOCAL", str(address.ip)), ("IFA_ADDRESS", str(end.ip))]


# ---- Routes


def read_routes(
    netlink: Netlink, version: int, index: int | None = None, *, table: int | None = None
) -> dict[TableRoute, FoundRoute]:
    """Read the unicast routes of one family through an interface, in a table, but for those that the kernel makes."""
    fields = {"family": family_of(version), "type": _RTN_UNICAST}
    attributes = [("RTA_TABLE", table)] if table else []
    if index is not None:
        attributes.append(("RTA_OIF", index))
    found = {}
    for message in netlink.dump(RTM_GETROUTE, encode(rtmsg, fields, attributes), _is_somebodys):
        route = decode(rtmsg, message)
        key = _route_key(route, version)
        through = route.get_attr("RTA_OIF")
        if index in (None, through) and table in (None, key.table):  # older kernels list everything
            body = bytearray(body_of(message))
            body[8:12] = (route["flags"] & _RTNH_F_ONLINK).to_bytes(4, sys.byteorder)
            found[key] = FoundRoute(through, route["proto"], bytes(body))
    return found


def _is_somebodys(message: bytes) -> bool:
    """True for a unicast route that the kernel didn't make for an address."""
    protocol, kind = message[21], message[23]
    return protocol != _PROTO_KERNEL and kind == _RTN_UNICAST


def _route_key(route: Any, version: int) -> TableRoute:
    target, via = route.get_attr("RTA_DST"), route.get_attr("RTA_VIA")
    network = ip_network(f"{target}/{route['dst_len']}") if target else EVERYWHERE[version]
    hop = via["addr"] if via else route.get_attr("RTA_GATEWAY")
    table = route.get_attr("RTA_TABLE") or route["table"]
    metric = route.get_attr("RTA_PRIORITY")
    return TableRoute(found_route(network, None if hop is None else ip_address(hop), metric), table)


def found_route(network: Network, gateway: Host | None, metric: int | None) -> Route:
    """A route as the kernel will have it."""
    if not metric and network.version == 6:
        metric = _METRIC6
    return Route._found(network, gateway, metric or None)  # noqa: SLF001


def add_route(index: int, wanted: TableRoute) -> Command:
    """The request that adds a route of ours."""
    route = wanted.route
    link = route.network.version == 4 and route.gateway is None
    fields, attributes = _route_parts(index, wanted)
    fields |= {"proto": OURS, "type": _RTN_UNICAST, "scope": _SCOPE_LINK if link else _SCOPE_UNIVERSE}
    return Command(f"can't add the route to {wanted}", RTM_NEWROUTE, ADD, encode(rtmsg, fields, attributes), wanted)


def put_route_back(route: TableRoute, found: FoundRoute) -> Command:
    """The request that adds a route as it was."""
    return Command(f"can't restore the route to {route}", RTM_NEWROUTE, ADD, found.body)


def remove_route(index: int, route: TableRoute) -> Command:
    """The request that removes a route, even one that another process made."""
    fields, attributes = _route_parts(index, route)
    fields |= {"proto": 0, "scope": _SCOPE_NOWHERE}
    return Command(f"can't remove the route to {route}", RTM_DELROUTE, 0, encode(rtmsg, fields, attributes))


def _route_parts(index: int, wanted: TableRoute) -> tuple[dict[str, Any], list[tuple[str, Any]]]:
    route, table = wanted
    fields = {
        "family": family_of(route.network.version),
        "dst_len": route.network.prefixlen,
        "table": table if table < 256 else TABLE_COMPAT,
    }
    attributes: list[tuple[str, Any]] = [("RTA_OIF", index), ("RTA_TABLE", table)]
    if route.network.prefixlen:
        attributes.append(("RTA_DST", str(route.network.network_address)))
    if route.gateway is not None:
        attributes.append(("RTA_GATEWAY", str(route.gateway)))
    if route.metric is not None:
        attributes.append(("RTA_PRIORITY", route.metric))
    return fields, attributes


class Match(NamedTuple):
    """The route that a packet would take."""

    interface: int
    prefix_length: int
    kind: int


def match(netlink: Netlink, host: Host) -> Match | None:
    """The route that a packet to a host takes, by the kernel, or None."""
    fields = {"family": family_of(host.version), "dst_len": host.max_prefixlen, "flags": _RTM_F_FIB_MATCH}
    try:
        message = netlink.ask(RTM_GETROUTE, encode(rtmsg, fields, [("RTA_DST", str(host))]))
    except KernelError:
        return None
    route = decode(rtmsg, message)
    index = route.get_attr("RTA_OIF")
    return None if index is None else Match(index, route["dst_len"], route["type"])


def is_local(netlink: Netlink, host: Host) -> bool:
    """True if packets to the host arrive here."""
    found = match(netlink, host)
    return found is not None and found.kind == _RTN_LOCAL


def owner_of_route(netlink: Netlink, wanted: TableRoute) -> int | None:
    """The index of the interface that has a route to the same network with the same metric, or None."""
    version, table = wanted.route.network.version, wanted.table
    length, address = wanted.route.network.prefixlen, wanted.route.network.network_address.packed

    def is_candidate(message: bytes) -> bool:
        # The rest is not worth taking apart: there may be a million of them.
        return message[17] == length and (not length or address in message)

    body = encode(rtmsg, {"family": family_of(version), "type": _RTN_UNICAST}, [("RTA_TABLE", table)])
    for message in netlink.dump(RTM_GETROUTE, body, is_candidate):
        route = decode(rtmsg, message)
        found = _route_key(route, version)
        same = found.route.network == wanted.route.network and found.route.metric == wanted.route.metric
        if found.table == table and same:
            index: int | None = route.get_attr("RTA_OIF")
            return index
    return None
