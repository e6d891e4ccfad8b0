"""Configuration over netlink, in the network namespace that the adapter is in."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tunring.errors import AccessDenied, NotFound, WintunError
from tunring.namespace_linux import call_in_network

if TYPE_CHECKING:
    from collections.abc import Iterable
    from ipaddress import IPv4Interface, IPv6Interface

    from tunring.adapter import Adapter

    Interface = IPv4Interface | IPv6Interface

_IFF_UP = 1
_IFA_F_NODAD = 0x02
_RTN_LOCAL = 2
_SETTLE_SECONDS = 1.0

_ACCESS_DENIED, _GEN_FAILURE, _NOT_SUPPORTED, _NOT_FOUND = 5, 31, 50, 1168


def apply(adapter: Adapter, index: int, interfaces: list[Interface], mtu: int | None, up: bool) -> None:
    """Configure the interface of that index, and compare what the kernel then says.

    If one step fails, what the earlier ones did is undone as far as the kernel allows: added addresses go, MTU and
    state return to what they were, and so do addresses that the kernel took away with a state.
    """
    try:
        import pyroute2
    except ImportError:
        raise WintunError(_NOT_SUPPORTED, "configuring adapters needs pyroute2: pip install pyroute2") from None

    def configure() -> None:
        # pyroute2's sockets belong to the namespace of the thread that makes them, and its event loop to the thread.
        with pyroute2.IPRoute() as netlink:
            _Interface(netlink, adapter.name, index).configure(interfaces, mtu, up)

    namespace = adapter._handle.open_namespace()  # noqa: SLF001
    try:
        call_in_network(namespace, configure)
    except PermissionError as error:
        if isinstance(error, WintunError):
            raise
        text = f"adapter {adapter.name!r} is in another network namespace, and entering it needs CAP_SYS_ADMIN"
        raise AccessDenied(_ACCESS_DENIED, text) from error
    finally:
        if namespace >= 0:
            os.close(namespace)


class _Interface:
    """One interface as netlink sees it."""

    def __init__(self, netlink: Any, name: str, index: int) -> None:
        self._netlink = netlink
        self._name = name
        self._index = index

    def configure(self, interfaces: list[Interface], mtu: int | None, up: bool) -> None:
        old_mtu, was_up = self._link()
        old_addresses = list(self._addresses())
        wanted_mtu = old_mtu if mtu is None else mtu
        added: list[Interface] = []
        try:
            # The state comes first: going down takes IPv6 addresses away.
            self._set_link(wanted_mtu, up)
            for interface in interfaces:
                self._add(interface, added)
            self._compare(interfaces, wanted_mtu, up)
            if up:
                self._settle(interfaces)
        except BaseException:
            for interface in added:
                with suppress(WintunError):
                    self._request("can't remove", "addr", "del", **self._address(interface))
            with suppress(WintunError):
                self._set_link(old_mtu, was_up)
                for interface in old_addresses:
                    self._add(interface, added)
            raise

    def _request(self, action: str, kind: str, command: str, **fields: Any) -> list[Any]:
        """Make one request; an error of the kernel's becomes one of ours."""
        from pyroute2.netlink.exceptions import NetlinkError

        try:
            return list(getattr(self._netlink, kind)(command, index=self._index, **fields))
        except NetlinkError as error:
            if error.code == errno.EEXIST:
                raise FileExistsError(error.code, os.strerror(error.code)) from error
            raise self._failure(error.code, action) from error

    def _failure(self, code: int, action: str) -> WintunError:
        text = f"{action} on adapter {self._name!r}: "
        if code == errno.EPERM:
            return AccessDenied(_ACCESS_DENIED, text + "that needs the capability CAP_NET_ADMIN")
        if code == errno.EACCES:
            return WintunError(_NOT_SUPPORTED, text + "IPv6 is disabled there (net.ipv6.conf.*.disable_ipv6)")
        if code == errno.ENODEV:
            return NotFound(_NOT_FOUND, text + "the interface is gone")
        return WintunError(_GEN_FAILURE, text + f"the kernel says: {os.strerror(code)}")

    def _settle(self, interfaces: list[Interface]) -> None:
        """Wait until IPv6 addresses are this host's: the kernel makes their routes a moment after it has them."""
        limit = time.monotonic() + _SETTLE_SECONDS
        for interface in interfaces:
            while interface.version == 6 and not self._is_local(interface) and time.monotonic() < limit:
                time.sleep(0.001)

    def _is_local(self, interface: Interface) -> bool:
        from pyroute2.netlink.exceptions import NetlinkError

        try:
            routes = list(self._netlink.route("get", dst=str(interface.ip), family=socket.AF_INET6))
        except NetlinkError:
            return False
        return bool(routes) and routes[0]["type"] == _RTN_LOCAL

    def _link(self) -> tuple[int, bool]:
        """Its MTU, and whether it is up."""
        for link in self._request("can't read the link", "link", "get"):
            return link.get("mtu"), bool(link["flags"] & _IFF_UP)
        raise self._failure(errno.ENODEV, "can't read the link")

    def _set_link(self, mtu: int, up: bool) -> None:
        state = "up" if up else "down"
        self._request(f"can't set MTU {mtu} and bring it {state}", "link", "set", mtu=mtu, state=state)

    @staticmethod
    def _address(interface: Interface) -> dict[str, Any]:
        family = socket.AF_INET if interface.version == 4 else socket.AF_INET6
        return {"family": family, "address": str(interface.ip), "prefixlen": interface.network.prefixlen}

    def _add(self, interface: Interface, added: list[Interface]) -> None:
        """Add an address, also to the list unless the interface had it."""
        # There is nobody else on the link, so nobody has to be asked whether an IPv6 address is free.
        flags = {"flags": _IFA_F_NODAD} if interface.version == 6 else {}
        with suppress(FileExistsError):
            self._request(f"can't add {interface}", "addr", "add", **self._address(interface), **flags)
            added.append(interface)

    def _addresses(self) -> Iterable[Interface]:
        for family in (socket.AF_INET, socket.AF_INET6):
            # A dump: the kernel may not look at the index.
            for message in self._request("can't read the addresses", "addr", "dump", family=family):
                if message["index"] == self._index:
                    address = message.get("local") or message.get("address")
                    yield ipaddress.ip_interface(f"{address}/{message['prefixlen']}")

    def _compare(self, interfaces: list[Interface], mtu: int, up: bool) -> None:
        """Read everything back."""
        present = set(self._addresses())
        for interface in interfaces:
            if interface not in present:
                others = ", ".join(str(other) for other in present if other.ip == interface.ip)
                reason = f"it is there as {others}" if others else "the kernel took it, but doesn't have it"
                raise WintunError(_GEN_FAILURE, f"can't add {interface} on adapter {self._name!r}: {reason}")
        if self._link() != (mtu, up):
            text = f"adapter {self._name!r} should have MTU {mtu} and be {'up' if up else 'down'}"
            raise WintunError(_GEN_FAILURE, f"{text}, but has (MTU, up) = {self._link()}")
