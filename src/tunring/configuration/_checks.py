"""Checks of single values that an interface can be given. Each error names the value and what is allowed."""

from __future__ import annotations

import operator
import re
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
from typing import TypeAlias

#: Types of checked values.
Host: TypeAlias = IPv4Address | IPv6Address
Interface: TypeAlias = IPv4Interface | IPv6Interface
Network: TypeAlias = IPv4Network | IPv6Network

#: Bytes: what IPv4 and IPv6 ask for at least, and the maximum of an IP packet.
MIN_MTU, MIN_MTU6, MAX_MTU = 68, 1280, 65535

#: The tools of each system take these, too.
_MAX_METRIC = 9999

#: Packets.
_MAX_QUEUE_LENGTH = 65536

_MAX_UINT32 = 0xFFFFFFFF

#: The tables of Linux' that have routes of its own or of everybody: default, main and local.
_SYSTEM_TABLES = range(253, 256)

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)", re.IGNORECASE)
_MAX_DOMAIN = 253


def check_interface(address: str | Interface) -> Interface:
    """Check an address with its prefix length, which is a host's; without one it is /32 or /128."""
    if not isinstance(address, (str, IPv4Interface, IPv6Interface)):
        raise TypeError(f"an address must be a str, IPv4Interface or IPv6Interface, not {address!r}")
    try:
        interface = ip_interface(address)
    except ValueError:
        text = f"an address must look like '10.6.7.7/24' or 'fd00::7/64', not {address!r}"
        raise ValueError(text) from None
    _refuse_host(interface.ip, address)
    _refuse_scope(interface, address)
    _refuse_network(interface, address)
    return interface


def check_host(address: str | Host, what: str) -> Host:
    """Check an address that one host can have."""
    if not isinstance(address, (str, IPv4Address, IPv6Address)):
        raise TypeError(f"{what} must be a str, IPv4Address or IPv6Address, not {address!r}")
    try:
        host = ip_address(address)
    except ValueError:
        raise ValueError(f"{what} must be an address such as '10.6.7.1' or 'fd00::1', not {address!r}") from None
    _refuse_host(host, address)
    _refuse_scope(host, address)
    return host


def check_network(network: str | Network, what: str = "a route's network") -> Network:
    """Check a network, without host bits."""
    if not isinstance(network, (str, IPv4Network, IPv6Network)):
        raise TypeError(f"{what} must be a str, IPv4Network or IPv6Network, not {network!r}")
    try:
        return ip_network(network)
    except ValueError:
        pass
    try:
        hint = f"; that one has host bits, its network is '{ip_network(network, strict=False)}'"
    except ValueError:
        hint = ""
    raise ValueError(f"{what} must look like '10.0.0.0/8' or 'fd00::/8', not {network!r}{hint}")


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
    minimum = MIN_MTU6 if with_ipv6 else MIN_MTU
    if not minimum <= value <= MAX_MTU:
        why = ", since IPv6 addresses are asked for" if with_ipv6 else ""
        raise ValueError(f"mtu must be {minimum} to {MAX_MTU} bytes{why}, not {mtu}")
    return value


def check_metric(metric: int) -> int:
    """Check a metric."""
    value = operator.index(metric)
    if not 1 <= value <= _MAX_METRIC:
        raise ValueError(f"a metric must be 1 to {_MAX_METRIC}, not {metric}")
    return value


def check_queue_length(length: int) -> int:
    """Check the length of an interface's queue, in packets."""
    value = operator.index(length)
    if not 1 <= value <= _MAX_QUEUE_LENGTH:
        raise ValueError(f"queue_length must be 1 to {_MAX_QUEUE_LENGTH} packets, not {length}")
    return value


def check_mark(mark: int) -> int:
    """Check a mark of sockets."""
    value = operator.index(mark)
    if not 1 <= value <= _MAX_UINT32:
        raise ValueError(f"mark must be 1 to {_MAX_UINT32:#x}, not {mark}")
    return value


def check_table(table: int) -> int:
    """Check the number of a routing table."""
    value = operator.index(table)
    if not 1 <= value <= _MAX_UINT32 or value in _SYSTEM_TABLES:
        raise ValueError(f"table must be 1 to {_MAX_UINT32:#x} and none of the system's own (253 to 255), not {table}")
    return value


def check_domain(domain: str) -> str:
    """Check a DNS domain, such as ``"corp.example"``, ``"~corp.example"`` or ``"~."``; returns it in lower case."""
    if not isinstance(domain, str):
        raise TypeError(f"a DNS domain must be a str, not {domain!r}")
    routed, name = domain[:1] == "~", domain.removeprefix("~")
    if routed and name == ".":
        return domain
    name = name.removesuffix(".")
    try:
        name = name.encode("ascii").decode() if name.isascii() else name.encode("idna").decode()
    except UnicodeError as error:
        raise ValueError(f"{domain!r} is not a DNS domain: {error}") from error
    labels = name.split(".")
    if len(name) > _MAX_DOMAIN or not all(map(_LABEL.fullmatch, labels)):
        text = (
            "must look like 'corp.example', '~corp.example' or '~.', in labels of 1 to 63 letters, digits and hyphens"
        )
        raise ValueError(f"a DNS domain {text}, not {domain!r}")
    return ("~" if routed else "") + name.lower()
