"""The adapters that commands serve, and their addresses unless others are given."""

from __future__ import annotations

from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from pathlib import Path

from tunring import Adapter, AdapterBusy, AlreadyExists, load


def create_or_open(name: str) -> tuple[Adapter, bool]:
    """A new adapter, or one that is there and free; and whether it is new.

    Raises
    ------
    AdapterBusy
        Another program has it.
    """
    try:
        return Adapter.create(name, library=load()), True
    except AlreadyExists:
        try:
            return Adapter.open(name, library=load()), False
        except AdapterBusy as error:
            text = f"adapter {name!r} is in use: another program has it; end that one, or choose another name"
            raise AdapterBusy(error.winerror, text) from error


def default_addresses() -> list[IPv4Interface | IPv6Interface]:
    """Addresses for a new interface: IPv4, and IPv6 unless the system has switched it off."""
    disabled = Path("/proc/sys/net/ipv6/conf/default/disable_ipv6")
    has_ipv6 = disabled.exists() and disabled.read_text("ascii").strip() == "0"
    return [ip_interface(address) for address in ("10.77.0.1/24", "fd77::1/64")[: 1 + has_ipv6]]


def neighbour(interface: IPv4Interface | IPv6Interface) -> str | None:
    """Another address of an interface's network, behind it; None if there is no other."""
    return next((str(host) for host in interface.network.hosts() if host != interface.ip), None)
