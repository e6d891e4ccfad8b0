"""Configuration over netlink, in the network namespace that the adapter is in."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import time
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar

from tunring._extras import import_advice
from tunring._system.namespace_linux import call_in_network
from tunring.configuration import Configuration, Route, no_interface
from tunring.configuration._resolved_linux import Resolver
from tunring.errors import AccessDenied, AlreadyExists, FamilyDisabled, NotFound, WintunError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tunring._adapter import Adapter
    from tunring.configuration import Host, Interface, Network, Request
    from tunring.configuration._configurator import Changes

_IFF_UP = 1
_IFA_F_NODAD = 0x02
_RT_TABLE_MAIN = 254
_RT_SCOPE_UNIVERSE, _RT_SCOPE_LINK, _RT_SCOPE_NOWHERE = 0, 253, 255
_RTN_UNICAST, _RTN_LOCAL = 1, 2
_RTPROT_KERNEL = 2
_FAMILIES = (socket.AF_INET, socket.AF_INET6)

#: What the kernel makes of an IPv6 route without a metric; an IPv4 one then really has none.
_METRIC6 = 1024

_SETTLE_SECONDS = 1.0

_ACCESS_DENIED, _GEN_FAILURE, _NOT_SUPPORTED, _EXISTS, _NOT_FOUND = 5, 31, 50, 183, 1168

T = TypeVar("T")


def _family(version: int) -> int:
    return socket.AF_INET if version == 4 else socket.AF_INET6


class LinuxTarget:
    """The interface of an adapter, and the network namespace it is in."""

    def __init__(self, adapter: Adapter) -> None:
        index = adapter.ifindex
        if index is None:
            raise no_interface(adapter)
        self._name = adapter.name
        self._index = index
        self._namespace = adapter._handle.open_namespace()  # noqa: SLF001

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._namespace >= 0:
            os.close(self._namespace)

    def run(self, work: Callable[[LinuxInterface], T]) -> T:
        """Call a function with the interface, in its namespace."""
        try:
            import pyroute2
        except ImportError as error:
            text = f"configuring adapters {import_advice(error, 'pyroute2')}"
            raise WintunError(_NOT_SUPPORTED, text) from error

        def call() -> T:
            # pyroute2's sockets belong to the namespace of the thread that makes them, its event loop to the thread.
            with pyroute2.IPRoute() as netlink:
                return work(LinuxInterface(netlink, self._name, self._index))

        try:
            return call_in_network(self._namespace, call)
        except PermissionError as error:
            if isinstance(error, WintunError):
                raise
            text = f"adapter {self._name!r} is in another network namespace, and entering it needs CAP_SYS_ADMIN"
            raise AccessDenied(_ACCESS_DENIED, text) from error


class LinuxInterface:
    """One interface as netlink sees it."""

    def __init__(self, netlink: Any, name: str, index: int) -> None:
        self._netlink = netlink
        self._name = name
        self._index = index

    def apply(self, request: Request, earlier: Request, changes: Changes) -> None:
        """Do what is asked for, note how to undo it as it is done, and compare what the kernel then says."""
        with ExitStack() as stack:
            # Before anything is changed: there may be none.
            resolver = stack.enter_context(Resolver()) if request.dns else None
            self._apply(request, earlier, changes)
            if resolver:
                self._change_dns(resolver, request.dns, changes)

    def _apply(self, request: Request, earlier: Request, changes: Changes) -> None:
        whole = request.after(earlier)
        mtu, was_up = self._link()
        # The kernel forgets routes and IPv6 addresses of an interface that goes down: they return when it is back. A
        # metric is for all that the adapter has.
        wanted = whole if request.metric or (request.up and not was_up) else request
        link = mtu if request.mtu is None else request.mtu, request.up
        # The state comes first: going down takes addresses away, and without it there are no routes.
        self._change_link((mtu, was_up), link, changes)
        for address in wanted.addresses:
            self._change_address(address, whole.metric, changes)
        if request.up:
            self._settle(wanted.addresses)
        routes = [_with_metric(route, whole.metric) for route in wanted.routes]
        self._drop_replaced(routes, earlier, changes)
        for route in routes:
            self._change_route(route, changes)
        self._compare(wanted.addresses, whole.metric, routes, link)

    def read(self) -> Configuration:
        """Ask the kernel what the interface has."""
        mtu, up = self._link()
        addresses = self._addresses()
        # The address that the kernel itself makes has none.
        metrics = {metric for address, metric in addresses.items() if not address.ip.is_link_local}
        metric = metrics.pop() if len(metrics) == 1 else None
        return Configuration(tuple(addresses), mtu, metric, self._dns(), tuple(self._routes()), up)

    # ---- the link

    def _change_link(self, before: tuple[int, bool], wanted: tuple[int, bool], changes: Changes) -> None:
        if wanted == before:
            return
        # A small MTU takes IPv6 addresses away, and going down takes them and all routes.
        addresses, routes = self._addresses(), list(self._routes())

        def undo(interface: LinuxInterface) -> None:
            interface.set_link(*before)
            for address, metric in addresses.items():
                with suppress(AlreadyExists):
                    interface.add_address(address, metric)
            for route in routes:
                with suppress(AlreadyExists):
                    interface.add_route(route)

        changes["link",] = undo
        self.set_link(*wanted)

    def _link(self) -> tuple[int, bool]:
        """Its MTU, and whether it is up."""
        for link in self._request("can't read the link", "link", "get", index=self._index):
            return link.get("mtu"), bool(link["flags"] & _IFF_UP)
        raise self._failure(errno.ENODEV, "can't read the link")

    def set_link(self, mtu: int, up: bool) -> None:
        """Set both."""
        state = "up" if up else "down"
        what = f"can't set MTU {mtu} and bring it {state}"
        self._request(what, "link", "set", index=self._index, mtu=mtu, state=state)

    # ---- addresses

    def _change_address(self, address: Interface, metric: int | None, changes: Changes) -> None:
        present = self._addresses()
        if address not in present:
            try:
                self.add_address(address, metric)
            except AlreadyExists:
                others = ", ".join(str(other) for other in present if other.ip == address.ip)
                text = f"can't add {address} on adapter {self._name!r}: it is there as {others}"
                raise WintunError(_GEN_FAILURE, text) from None
            changes["address", address] = partial(LinuxInterface.remove_address, address=address)
        elif metric is not None and present[address] != metric:
            before = present[address]
            changes["address", address] = partial(
                LinuxInterface.add_address, address=address, metric=before, command="replace"
            )
            self.add_address(address, metric, "replace")

    def _address(self, address: Interface) -> dict[str, Any]:
        return {
            "index": self._index,
            "family": _family(address.version),
            "address": str(address.ip),
            "prefixlen": address.network.prefixlen,
        }

    def add_address(self, address: Interface, metric: int | None, command: str = "add") -> None:
        """Add an address, or give it another metric."""
        fields = self._address(address)
        if address.version == 6:
            # There is nobody else on the link, so nobody has to be asked whether the address is free.
            fields["flags"] = _IFA_F_NODAD
        if metric is not None:
            fields["rt_priority"] = metric
        self._request(f"can't add {address}", "addr", command, **fields)

    def remove_address(self, address: Interface) -> None:
        """Remove an address, if it is there."""
        if address in self._addresses():
            self._request(f"can't remove {address}", "addr", "del", **self._address(address))

    def _addresses(self) -> dict[Interface, int | None]:
        """Its addresses, with the metric of their networks where they have one of their own."""
        found: dict[Interface, int | None] = {}
        for family in _FAMILIES:
            # A dump: the kernel may not look at the index.
            for message in self._request("can't read the addresses", "addr", "dump", family=family):
                if message["index"] == self._index:
                    address = message.get("local") or message.get("address")
                    interface = ipaddress.ip_interface(f"{address}/{message['prefixlen']}")
                    found[interface] = message.get("rt_priority") or None
        return found

    def _settle(self, addresses: tuple[Interface, ...]) -> None:
        """Wait until IPv6 addresses are this host's: the kernel makes their routes a moment after it has them."""
        limit = time.monotonic() + _SETTLE_SECONDS
        for address in addresses:
            while address.version == 6 and not self._is_local(address) and time.monotonic() < limit:
                time.sleep(0.001)

    def _is_local(self, address: Interface) -> bool:
        from pyroute2.netlink.exceptions import NetlinkError

        try:
            routes = list(self._netlink.route("get", dst=str(address.ip), family=socket.AF_INET6))
        except NetlinkError:
            return False
        return bool(routes) and routes[0]["type"] == _RTN_LOCAL

    # ---- routes

    def _drop_replaced(self, routes: list[Route], earlier: Request, changes: Changes) -> None:
        """Remove what earlier calls have made to the same networks: an adapter has one route to each."""
        given = {_with_metric(route, earlier.metric) for route in earlier.routes}
        wanted = {route.network: route for route in routes}
        for present in list(self._routes()):
            if present in given and wanted.get(present.network, present) != present:
                changes["route", present] = partial(LinuxInterface.put_route, route=present)
                self.remove_route(present)

    def _change_route(self, route: Route, changes: Changes) -> None:
        if route not in self._routes():
            self.add_route(route)
            changes.setdefault(("route", route), partial(LinuxInterface.remove_route, route=route))

    def _route(self, route: Route) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "family": _family(route.network.version),
            "dst": str(route.network),
            "oif": self._index,
            "table": _RT_TABLE_MAIN,
        }
        if route.gateway is not None:
            fields["gateway"] = str(route.gateway)
        if route.metric is not None:
            fields["priority"] = route.metric
        return fields

    def add_route(self, route: Route) -> None:
        """Add a route."""
        try:
            link = route.network.version == 4 and route.gateway is None
            scope = _RT_SCOPE_LINK if link else _RT_SCOPE_UNIVERSE
            self._request(f"can't add the route to {route}", "route", "add", scope=scope, **self._route(route))
        except AlreadyExists:
            text = f"can't add the route to {route} on adapter {self._name!r}: there is one with that metric"
            raise AlreadyExists(_EXISTS, text) from None

    def put_route(self, route: Route) -> None:
        """Add a route, unless it is there."""
        if route not in self._routes():
            self.add_route(route)

    def remove_route(self, route: Route) -> None:
        """Remove a route, if it is there."""
        if route in self._routes():
            anyone = {"proto": 0, "scope": _RT_SCOPE_NOWHERE}
            self._request(f"can't remove the route to {route}", "route", "del", **anyone, **self._route(route))

    def _routes(self) -> Iterator[Route]:
        """The routes through it, without those that the kernel makes for addresses."""
        for family in _FAMILIES:
            everywhere = ipaddress.ip_network("0.0.0.0/0" if family == socket.AF_INET else "::/0")
            for message in self._request("can't read the routes", "route", "dump", family=family):
                mine = message.get("oif") == self._index and message.get("table") == _RT_TABLE_MAIN
                if mine and message["type"] == _RTN_UNICAST and message["proto"] != _RTPROT_KERNEL:
                    target = message.get("dst")
                    network = ipaddress.ip_network(f"{target}/{message['dst_len']}") if target else everywhere
                    yield _found_route(network, message.get("gateway"), message.get("priority"))

    # ---- name servers, of which the kernel knows nothing

    def _dns(self) -> tuple[Host, ...]:
        try:
            with Resolver() as resolver:
                return resolver.servers(self._index)
        except (NotImplementedError, WintunError):
            return ()

    def _change_dns(self, resolver: Resolver, servers: tuple[Host, ...], changes: Changes) -> None:
        resolver.wait_for(self._index)
        before = resolver.servers(self._index)
        if servers == before:
            return
        changes["dns",] = partial(LinuxInterface.set_dns, servers=before)
        resolver.set_servers(self._index, servers)
        if (found := resolver.servers(self._index)) != servers:
            text = f"adapter {self._name!r} should have the DNS servers {servers}, but has {found}"
            raise WintunError(_GEN_FAILURE, text)

    def set_dns(self, servers: tuple[Host, ...]) -> None:
        """Set the name servers."""
        with Resolver() as resolver:
            resolver.set_servers(self._index, servers)

    # ---- all of it

    def _request(self, action: str, kind: str, command: str, **fields: Any) -> list[Any]:
        """Make one request; an error of the kernel's becomes one of ours."""
        from pyroute2.netlink.exceptions import NetlinkError

        try:
            return list(getattr(self._netlink, kind)(command, **fields))
        except NetlinkError as error:
            raise self._failure(error.code, action) from error

    def _failure(self, code: int, action: str) -> WintunError:
        text = f"{action} on adapter {self._name!r}: "
        if code == errno.EEXIST:
            return AlreadyExists(_EXISTS, text + "it is there already")
        if code == errno.EPERM:
            return AccessDenied(_ACCESS_DENIED, text + "that needs the capability CAP_NET_ADMIN")
        if code == errno.EACCES:
            return FamilyDisabled(_NOT_SUPPORTED, text + "IPv6 is disabled there (net.ipv6.conf.*.disable_ipv6)")
        if code == errno.ENODEV:
            return NotFound(_NOT_FOUND, text + "the interface is gone")
        return WintunError(_GEN_FAILURE, text + f"the kernel says: {os.strerror(code)}")

    def _compare(
        self, addresses: tuple[Interface, ...], metric: int | None, routes: list[Route], link: tuple[int, bool]
    ) -> None:
        """Read everything back."""
        found_addresses, found_routes = self._addresses(), list(self._routes())
        lacking: list[object] = [address for address in addresses if address not in found_addresses]
        lacking += [f"{a} with metric {metric}" for a in addresses if metric and found_addresses.get(a) != metric]
        lacking += [f"the route to {route}" for route in routes if route not in found_routes]
        if lacking:
            text = f"can't add {lacking[0]} on adapter {self._name!r}: the kernel took it, but doesn't have it"
            raise WintunError(_GEN_FAILURE, text)
        if self._link() != link:
            mtu, up = link
            text = f"adapter {self._name!r} should have MTU {mtu} and be {'up' if up else 'down'}"
            raise WintunError(_GEN_FAILURE, f"{text}, but has (MTU, up) = {self._link()}")


def _with_metric(route: Route, metric: int | None) -> Route:
    """The route as the kernel will have it."""
    return _found_route(route.network, route.gateway, route.metric or metric)


def _found_route(network: Network, gateway: str | Host | None, metric: int | None) -> Route:
    if not metric and network.version == 6:
        metric = _METRIC6
    return Route.found(network, None if gateway is None else ipaddress.ip_address(gateway), metric or None)
