"""Addresses, MTU and state of an adapter's interface: what is asked for is checked here, before anything is changed."""

from __future__ import annotations

import operator
import sys
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface, ip_interface
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tunring.adapter import Adapter

#: An address with its prefix length; without one it is a host's, /32 or /128.
Address: TypeAlias = str | IPv4Interface | IPv6Interface

#: Bytes: what IPv4 and IPv6 ask for at least, and the most that an IP packet has.
_MIN_MTU, _MIN_MTU6, _MAX_MTU = 68, 1280, 65535


def check_addresses(addresses: Iterable[Address]) -> list[IPv4Interface | IPv6Interface]:
    """Parse addresses that an interface can have, each once."""
    if isinstance(addresses, (str, bytes, IPv4Interface, IPv6Interface)):
        raise TypeError(f"addresses must be a list of addresses, not {addresses!r} alone")
    return list(dict.fromkeys(_check_address(address) for address in addresses))


def _check_address(address: Address) -> IPv4Interface | IPv6Interface:
    if not isinstance(address, (str, IPv4Interface, IPv6Interface)):
        raise TypeError(f"an address must be a str, IPv4Interface or IPv6Interface, not {address!r}")
    try:
        interface = ip_interface(address)
    except ValueError:
        text = f"no address with a prefix length: {address!r}; it looks like '10.6.7.7/24' or 'fd00::7/64'"
        raise ValueError(text) from None
    fault = None
    if interface.ip.is_multicast:
        fault = "is a multicast address"
    elif interface.ip.is_unspecified:
        fault = "is the unspecified address"
    elif interface.ip == IPv4Address("255.255.255.255"):
        fault = "is the broadcast address"
    elif isinstance(interface, IPv6Interface) and interface.scope_id:
        fault = "names an interface"
    if fault:
        raise ValueError(f"{str(address)!r} {fault}; only addresses that one host can have are allowed")
    return interface


def check_mtu(mtu: int, *, with_ipv6: bool) -> int:
    """Check an MTU, in bytes."""
    value = operator.index(mtu)
    least = _MIN_MTU6 if with_ipv6 else _MIN_MTU
    if not least <= value <= _MAX_MTU:
        why = ", since IPv6 addresses are asked for" if with_ipv6 else ""
        raise ValueError(f"mtu must be {least} to {_MAX_MTU} bytes{why}, not {mtu}")
    return value


def configure(adapter: Adapter, addresses: Iterable[Address], mtu: int | None, up: bool) -> None:
    """Do what :meth:`tunring.Adapter.configure` says."""
    interfaces = check_addresses(addresses)
    if mtu is not None:
        mtu = check_mtu(mtu, with_ipv6=any(interface.version == 6 for interface in interfaces))
    index = adapter.ifindex
    if index is None:
        text = (
            f"adapter {adapter.name!r} of {adapter.library.name} can't be configured: the system has no such interface"
        )
        raise NotImplementedError(text)
    if sys.platform == "linux":
        from tunring.configuration_linux import apply

        apply(adapter, index, interfaces, mtu, bool(up))
    else:
        raise NotImplementedError(f"configuring adapters is not built for {sys.platform} yet")
