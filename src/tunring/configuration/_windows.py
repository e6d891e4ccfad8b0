"""Configuration over Windows' IP Helper API."""

from __future__ import annotations

import re
import time
from ctypes import c_uint64
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING, Any, Self, TypeVar

from tunring._system.iphelper_windows import (
    AF_INET6,
    DAD_DUPLICATE,
    DAD_PREFERRED,
    DNS_IPV6,
    DNS_NAME_SERVER,
    DNS_VERSION,
    PROTOCOL_LOCAL,
    DnsSettings,
    ForwardRow,
    Guid,
    InterfaceRow,
    SocketAddress,
    UnicastRow,
    ip_helper,
    read_table,
)
from tunring.configuration import Configuration, Route, no_interface
from tunring.errors import AccessDenied, AlreadyExists, FamilyDisabled, NotFound, WintunError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tunring._adapter import Adapter
    from tunring._system.iphelper_windows import IpHelper
    from tunring.configuration import Host, Interface, Request
    from tunring.configuration._configurator import Changes

#: How long an interface may take to appear; how long one family may lag behind the other, if it is needed or if not.
_INTERFACE_SECONDS, _NEEDED_FAMILY_SECONDS, _OTHER_FAMILY_SECONDS = 10.0, 3.0, 0.5
#: How long an address may take to become usable, and the DNS settings to be there.
_ADDRESS_SECONDS, _DNS_SECONDS = 5.0, 3.0
_POLL_SECONDS = 0.01

_FILE_NOT_FOUND, _ACCESS_DENIED, _GEN_FAILURE, _NOT_SUPPORTED = 2, 5, 31, 50
_EXISTS, _NOT_FOUND, _OBJECT_EXISTS = 183, 1168, 5010

_MIN_MTU6 = 1280

#: What of an interface's row is changed, and restored.
_Settings = tuple[int, int, int, int]

T = TypeVar("T")


class WindowsTarget:
    """The interface of an adapter of the official DLL."""

    def __init__(self, adapter: Adapter) -> None:
        if adapter.closed:
            raise ValueError("the adapter is closed")
        if not adapter.library.official:
            raise no_interface(adapter)
        self._interface = WindowsInterface(ip_helper(), adapter.name, adapter.luid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def run(self, work: Callable[[WindowsInterface], T]) -> T:
        """Call a function with the interface."""
        return work(self._interface)


class WindowsInterface:
    """One interface as the IP Helper API sees it."""

    def __init__(self, api: IpHelper, name: str, luid: int) -> None:
        self._api = api
        self._name = name
        self._luid = luid

    def apply(self, request: Request, earlier: Request, changes: Changes) -> None:
        """Do what is asked for, note how to undo it as it is done, and compare what the system then says."""
        if not request.up:
            text = f"adapter {self._name!r} can't be brought down: on Windows it is up while it has a session"
            raise NotImplementedError(text)
        for version, row in self._wait_for_rows(request).items():
            self._change_settings(row, self._wanted_settings(request, version, row), changes)
        for address in request.addresses:
            self._change_address(address, changes)
        self._drop_replaced(request.routes, earlier.routes, changes)
        for route in request.routes:
            self._change_route(route, changes)
        if request.dns:
            self._change_dns(request.dns, changes)
        self._wait_for_addresses(request.addresses)
        self._compare(request)

    def read(self) -> Configuration:
        """Ask the system what the interface has."""
        rows = self._rows()
        if not rows:
            raise self._failure(_NOT_FOUND, "can't read the interface")
        metrics = {None if row.automatic_metric else row.metric for row in rows.values()}
        return Configuration(
            tuple(address for address, _ in self._addresses()),
            rows[min(rows)].mtu,
            metrics.pop() if len(metrics) == 1 else None,
            self._all_dns(),
            tuple(self._routes()),
            any(row.connected for row in rows.values()),
        )

    # ---- MTU and metric, which the interface has once for IPv4 and once for IPv6

    def _rows(self) -> dict[int, InterfaceRow]:
        rows = self._table("can't read the interface", self._api.GetIpInterfaceTable, InterfaceRow)
        return {6 if row.family == AF_INET6 else 4: row for row in rows}

    def _wait_for_rows(self, request: Request) -> dict[int, InterfaceRow]:
        """The interface's rows: they come a while after the adapter, and one never does if its family is off."""
        needed = {version for version in (4, 6) if request.has(version)}
        start = time.monotonic()
        first: float | None = None
        while True:
            rows, now = self._rows(), time.monotonic()
            first = now if rows and first is None else first
            waited = 0.0 if first is None else now - first
            if len(rows) == 2 or (rows and needed <= rows.keys() and waited >= _OTHER_FAMILY_SECONDS):
                return rows
            if rows and waited >= _NEEDED_FAMILY_SECONDS:
                raise self._disabled(min(needed - rows.keys()))
            if not rows and now - start >= _INTERFACE_SECONDS:
                text = f"adapter {self._name!r} has had no IP interface for {_INTERFACE_SECONDS:.0f} s"
                raise NotFound(_NOT_FOUND, text)
            time.sleep(_POLL_SECONDS)

    def _disabled(self, version: int) -> FamilyDisabled:
        why = "it is switched off for this adapter, or for the system as DisabledComponents in the registry does"
        error = FamilyDisabled(_NOT_SUPPORTED, f"adapter {self._name!r} has no IPv{version}: {why}")
        error.version = version
        return error

    @staticmethod
    def _wanted_settings(request: Request, version: int, row: InterfaceRow) -> _Settings:
        mtu, automatic, metric, transmits = _settings(row)
        # IPv6 has no smaller MTU, and keeps what it has.
        if request.mtu is not None and (version == 4 or request.mtu >= _MIN_MTU6):
            mtu = request.mtu
        if request.metric is not None:
            automatic, metric = 0, request.metric
        if any(address.version == version for address in request.addresses):
            # There is nobody else on the link, so nobody has to be asked whether an address is free.
            transmits = 0
        return mtu, automatic, metric, transmits

    def _change_settings(self, row: InterfaceRow, wanted: _Settings, changes: Changes) -> None:
        before = _settings(row)
        if wanted != before:
            version = 6 if row.family == AF_INET6 else 4
            changes["settings", version] = partial(WindowsInterface.set_settings, version=version, settings=before)
            self.set_settings(version, wanted)

    def set_settings(self, version: int, settings: _Settings) -> None:
        """Set MTU, metric and how often others are asked about an address, for one family."""
        row = self._rows().get(version)
        if row is None:
            return
        row.mtu, row.automatic_metric, row.metric, row.dad_transmits = settings
        row.site_prefix_length = 0  # else it is refused for IPv4
        self._check(self._api.SetIpInterfaceEntry(row), f"can't set MTU {row.mtu} and metric for IPv{version}")

    # ---- addresses

    def _addresses(self) -> list[tuple[Interface, UnicastRow]]:
        rows = self._table("can't read the addresses", self._api.GetUnicastIpAddressTable, UnicastRow)
        return [(ip_interface((row.address.host, row.prefix_length)), row) for row in rows]

    def _change_address(self, address: Interface, changes: Changes) -> None:
        present = dict(self._addresses())
        if address in present:
            return
        row = UnicastRow()
        self._api.InitializeUnicastIpAddressEntry(row)
        row.luid = self._luid
        row.address = SocketAddress.of(address.ip)
        row.prefix_length = address.network.prefixlen
        row.dad_state = DAD_PREFERRED
        code = self._api.CreateUnicastIpAddressEntry(row)
        if code == _OBJECT_EXISTS:
            others = [str(other) for other in present if other.ip == address.ip]
            where = f"as {others[0]}" if others else "on another interface"
            text = f"can't add {address} on adapter {self._name!r}: it is there {where}"
            raise AlreadyExists(_EXISTS, text)
        if code == _NOT_SUPPORTED:
            raise self._disabled(address.version)
        self._check(code, f"can't add {address}")
        changes["address", address] = partial(WindowsInterface.remove_address, address=address)

    def remove_address(self, address: Interface) -> None:
        """Remove an address, if it is there."""
        for present, row in self._addresses():
            if present == address:
                self._remove(self._api.DeleteUnicastIpAddressEntry(row), f"can't remove {address}")

    def _wait_for_addresses(self, addresses: tuple[Interface, ...]) -> None:
        """Wait until addresses can be used: not before there is a link, which comes with a session."""
        limit = time.monotonic() + _ADDRESS_SECONDS
        while any(row.connected for row in self._rows().values()):
            states = {address: row.dad_state for address, row in self._addresses() if address in addresses}
            pending = [address for address, state in states.items() if state != DAD_PREFERRED]
            if not pending:
                return
            if DAD_DUPLICATE in states.values():
                address = next(address for address in pending if states[address] == DAD_DUPLICATE)
                text = f"{address} on adapter {self._name!r} can't be used: another host has it, Windows says"
                raise WintunError(_GEN_FAILURE, text)
            if time.monotonic() >= limit:
                text = f"{pending[0]} on adapter {self._name!r} can't be used after {_ADDRESS_SECONDS:.0f} s"
                raise WintunError(_GEN_FAILURE, f"{text}: its state is {states[pending[0]]}")
            time.sleep(_POLL_SECONDS)

    # ---- routes

    def _route_rows(self) -> list[tuple[Route, ForwardRow]]:
        """The routes through it, without those that the system makes for addresses."""
        found = []
        for row in self._table("can't read the routes", self._api.GetIpForwardTable2, ForwardRow):
            if row.protocol != PROTOCOL_LOCAL:
                network = ip_network((row.destination.prefix.host, row.destination.length), strict=False)
                hop = row.next_hop.host
                found.append((Route.found(network, None if hop.is_unspecified else hop, row.metric or None), row))
        return found

    def _routes(self) -> list[Route]:
        return [route for route, _ in self._route_rows()]

    def _drop_replaced(self, routes: tuple[Route, ...], earlier: tuple[Route, ...], changes: Changes) -> None:
        """Remove what earlier calls have made to the same networks: an adapter has one route to each."""
        wanted = {route.network: route for route in routes}
        for present in self._routes():
            if present in earlier and wanted.get(present.network, present) != present:
                changes["route", present] = partial(WindowsInterface.put_route, route=present)
                self.remove_route(present)

    def _change_route(self, route: Route, changes: Changes) -> None:
        if route not in self._routes():
            self.put_route(route)
            changes.setdefault(("route", route), partial(WindowsInterface.remove_route, route=route))

    def put_route(self, route: Route) -> None:
        """Add a route, unless it is there."""
        if route in self._routes():
            return
        row = ForwardRow()
        self._api.InitializeIpForwardEntry(row)
        anywhere = IPv4Address(0) if route.network.version == 4 else IPv6Address(0)
        row.luid = self._luid
        row.destination.prefix = SocketAddress.of(route.network.network_address)
        row.destination.length = route.network.prefixlen
        row.next_hop = SocketAddress.of(route.gateway or anywhere)
        row.metric = route.metric or 0
        code = self._api.CreateIpForwardEntry2(row)
        if code == _OBJECT_EXISTS:
            text = f"can't add the route to {route} on adapter {self._name!r}: there is one with another metric"
            raise AlreadyExists(_EXISTS, text)
        if code == _NOT_SUPPORTED:
            raise self._disabled(route.network.version)
        self._check(code, f"can't add the route to {route}")

    def remove_route(self, route: Route) -> None:
        """Remove a route, if it is there."""
        for present, row in self._route_rows():
            if present == route:
                self._remove(self._api.DeleteIpForwardEntry2(row), f"can't remove the route to {route}")

    # ---- name servers, which the interface has once for IPv4 and once for IPv6

    def _guid(self) -> Guid:
        guid = Guid()
        self._check(self._api.ConvertInterfaceLuidToGuid(c_uint64(self._luid), guid), "can't read the interface's GUID")
        return guid

    def _call_dns(self, call: Callable[[Guid, DnsSettings], int], settings: DnsSettings) -> int:
        """Get or set: the place where Windows keeps them comes a while after the adapter."""
        limit = time.monotonic() + _DNS_SECONDS
        while True:
            code = call(self._guid(), settings)
            if code not in (_FILE_NOT_FOUND, _NOT_FOUND) or time.monotonic() >= limit:
                return code
            time.sleep(_POLL_SECONDS)

    def _dns(self, version: int) -> tuple[Host, ...]:
        settings = DnsSettings(version=DNS_VERSION, flags=DNS_NAME_SERVER | (DNS_IPV6 if version == 6 else 0))
        code = self._call_dns(self._api.GetInterfaceDnsSettings, settings)
        self._check(code, "can't read the DNS servers")
        try:
            return tuple(ip_address(server) for server in re.split(r"[ ,;]+", settings.name_server or "") if server)
        finally:
            self._api.FreeInterfaceDnsSettings(settings)

    def _all_dns(self) -> tuple[Host, ...]:
        try:
            return self._dns(4) + self._dns(6)
        except (NotImplementedError, NotFound):
            return ()

    def _change_dns(self, servers: tuple[Host, ...], changes: Changes) -> None:
        for version in (4, 6):
            wanted = tuple(server for server in servers if server.version == version)
            before = self._dns(version)
            if wanted != before:
                changes["dns", version] = partial(WindowsInterface.set_dns, version=version, servers=before)
                self.set_dns(version, wanted)

    def set_dns(self, version: int, servers: tuple[Host, ...]) -> None:
        """Set the name servers for one family."""
        text = ",".join(map(str, servers))
        settings = DnsSettings(
            version=DNS_VERSION, flags=DNS_NAME_SERVER | (DNS_IPV6 if version == 6 else 0), name_server=text
        )
        code = self._call_dns(self._api.SetInterfaceDnsSettings, settings)
        self._check(code, f"can't set the DNS servers {text or 'of before'}")

    # ---- all of it

    def _table(self, action: str, function: Callable[[int, Any], int], kind: Any) -> list[Any]:
        code, rows = read_table(self._api, function, kind, self._luid)
        if code != _NOT_FOUND:  # which is what an empty table may be
            self._check(code, action)
        return rows

    def _check(self, code: int, action: str) -> None:
        if code == _NOT_SUPPORTED:  # as much of it is in Wine
            raise NotImplementedError(f"{action} on adapter {self._name!r}: this system does not implement that")
        if code:
            raise self._failure(code, action)

    def _remove(self, code: int, action: str) -> None:
        self._check(0 if code == _NOT_FOUND else code, action)

    def _failure(self, code: int, action: str) -> WintunError:
        text = f"{action} on adapter {self._name!r}: "
        if code == _ACCESS_DENIED:
            return AccessDenied(code, text + "that needs an elevated process (Run as administrator)")
        if code in (_NOT_FOUND, _FILE_NOT_FOUND):
            return NotFound(code, text + "the interface is gone, or not complete yet")
        return WintunError(code, f"{text}Windows says error {code}")

    def _compare(self, request: Request) -> None:
        """Read everything back."""
        found = self.read()
        lacking: list[object] = [address for address in request.addresses if address not in found.addresses]
        lacking += [f"the route to {route}" for route in request.routes if route not in found.routes]
        if request.dns and set(found.dns) != set(request.dns):
            lacking.append(f"the DNS servers {', '.join(map(str, request.dns))}")
        if lacking:
            text = f"can't add {lacking[0]} on adapter {self._name!r}: Windows took it, but doesn't have it"
            raise WintunError(_GEN_FAILURE, text)
        for version, row in self._rows().items():
            wanted = self._wanted_settings(request, version, row)
            if wanted[:3] != _settings(row)[:3]:
                text = f"adapter {self._name!r} should have MTU {wanted[0]} and metric {wanted[2]} for IPv{version}"
                raise WintunError(_GEN_FAILURE, f"{text}, but has MTU {row.mtu} and metric {row.metric}")


def _settings(row: InterfaceRow) -> _Settings:
    return row.mtu, row.automatic_metric, row.metric, row.dad_transmits
