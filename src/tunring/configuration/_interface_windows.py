"""One interface, configured over Windows' IP Helper API: each table is read once before changes, and once after."""

from __future__ import annotations

import time
from ctypes import c_uint64, create_unicode_buffer
from ipaddress import IPv4Address, IPv6Address, ip_interface, ip_network
from typing import TYPE_CHECKING, Any, NamedTuple

from tunring._system.iphelper_windows import (
    AF_INET6,
    ALIAS_SIZE,
    DAD_DUPLICATE,
    DAD_PREFERRED,
    PROTOCOL_LOCAL,
    ROUTER_DISCOVERY_DISABLED,
    ForwardRow,
    InterfaceRow,
    SocketAddress,
    UnicastRow,
    read_table,
)
from tunring._win32 import Win32
from tunring.configuration import Configuration, Route
from tunring.configuration._checks import MIN_MTU6
from tunring.configuration._dns_windows import InterfaceDns
from tunring.configuration._networks import Networks
from tunring.configuration._request import InterfaceAddress
from tunring.errors import AccessDenied, AlreadyExists, FamilyDisabled, InvalidArgument, NotFound, WintunError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from tunring._configurator import Changes, Key
    from tunring._system.iphelper_windows import IpHelper
    from tunring.configuration._checks import Host, Network
    from tunring.configuration._request import Request

#: How long an interface may take to appear; how long one family may lag behind the other, if it is needed or if not.
_INTERFACE_SECONDS, _NEEDED_FAMILY_SECONDS, _OTHER_FAMILY_SECONDS = 10.0, 3.0, 0.5
#: How long an address may take to become usable.
_ADDRESS_SECONDS = 5.0
_POLL_SECONDS = 0.01


#: The metric of an interface that is to have the default route, unless one is asked for.
_DEFAULT_METRIC = 1

_ANYWHERE: dict[int, Host] = {4: IPv4Address(0), 6: IPv6Address(0)}


class Settings(NamedTuple):
    """Fields of an interface's row that are changed and restored."""

    mtu: int
    automatic_metric: int
    metric: int
    dad_transmits: int
    router_discovery: int

    @classmethod
    def of(cls, row: InterfaceRow) -> Settings:
        """Those of a row."""
        return cls(*(getattr(row, name) for name in cls._fields))


class Detour(NamedTuple):
    """A route of another interface, which what bypasses the adapter takes."""

    network: Network
    luid: int
    hop: Host


class WindowsInterface:
    """One interface as the IP Helper API sees it."""

    def __init__(self, api: IpHelper, name: str, luid: int) -> None:
        self._api = api
        self._name = name
        self._luid = luid
        self._dns = InterfaceDns(api, luid, self._check)

    # ---- The face that both systems have

    def apply(self, request: Request, earlier: Request, changes: Changes) -> Configuration:
        """Apply a request, note what was there before it is changed, and compare with the system's state afterwards."""
        self._refuse(request)
        whole = request.after(earlier)
        rows = self._wait_for_rows(request)
        present, routes = dict(self._addresses()), self._routes()
        versions = whole.versions(present)
        if whole.default and not versions:
            text = f"default=True requires an address, and adapter {self._name!r} has none; or pass default=4 or 6"
            raise ValueError(text)
        self._check_gateways(request, present, routes)
        own = [Route(ip_network((_ANYWHERE[version], 0))) for version in versions]
        detours = [self._detour(network) for network in whole.bypass if network.version in versions]
        wanted = {
            version: self._wanted_settings(request, whole, version, row, changes, default=version in versions)
            for version, row in rows.items()
        }
        if set(own).difference(routes):
            self._check_default(versions, wanted)
        for version, row in rows.items():
            self._change_settings(version, Settings.of(row), wanted[version], changes)
        self._change_addresses(request.addresses, present, changes)
        self._add_detours(detours, changes)
        wanted_routes = (*request.routes, *own)
        self._change_routes(wanted_routes, earlier.routes, routes, changes)
        if request.dns or request.domains:
            self._dns.change(request, changes)
        self._wait_for_addresses(request.addresses)
        return self._compare(request, wanted_routes, wanted)

    def read(self) -> Configuration:
        """Read the interface's configuration from the system."""
        rows = self._rows()
        if not rows:
            raise self._failure(Win32.NOT_FOUND, "can't read the interface")
        metrics = {None if row.automatic_metric else row.metric for row in rows.values()}
        routes = tuple(self._routes())
        dns = self._dns.read_all()
        connected = any(row.connected for row in rows.values())
        return Configuration(
            tuple(address.local for address, _ in self._addresses()),
            rows[min(rows)].mtu,
            metrics.pop() if len(metrics) == 1 else None,
            tuple(server for part in dns for server in part.servers),
            routes,
            connected,
            domains=tuple(dict.fromkeys(domain for part in dns for domain in part.domains)),
            default=tuple(sorted({route.network.version for route in routes if not route.network.prefixlen})),
            carrier=connected,
        )

    def mtu(self) -> int | None:
        """The smaller MTU of the two families, or None while the system has no such interface."""
        return min((int(row.mtu) for row in self._rows().values()), default=None)

    def sweep(self, *, interface: bool) -> None:
        """Remove nothing: an interface goes with its process, and what is beside it bears no mark."""

    def restore(self, before: Mapping[Key, Any]) -> Exception | None:
        """Make things what they were; returns the first failure, which keeps the others from nothing."""
        of_kind: dict[str, dict[Any, Any]] = {}
        for key, value in before.items():
            of_kind.setdefault(key[0], {})[key[1]] = value
        steps: list[Callable[[], None]] = []
        for version, dns in of_kind.get("dns", {}).items():
            steps.append(lambda version=version, dns=dns: self._dns.write(version, dns))  # type: ignore[misc]
        steps += self._route_steps(of_kind.get("route", {}))
        steps += self._address_steps(of_kind.get("address", {}))
        for version, settings in of_kind.get("settings", {}).items():
            steps.append(lambda version=version, settings=settings: self._set(version, settings))  # type: ignore[misc]
        steps += self._detour_steps(of_kind.get("bypass", {}))
        failure: Exception | None = None
        for step in steps:
            try:
                step()
            except NotFound:
                continue  # gone with its interface
            except (OSError, NotImplementedError) as error:
                failure = failure or error
        return failure

    def _route_steps(self, before: Mapping[Route, Any]) -> list[Callable[[], None]]:
        rows = dict(self._route_rows()) if before else {}
        steps: list[Callable[[], None]] = []
        for route, found in before.items():
            if found is None and route in rows:
                steps.append(lambda route=route: self._remove_route(route, rows[route]))  # type: ignore[misc]
        for route, found in before.items():
            if found is not None and route not in rows:
                steps.append(lambda route=route: self._add_route(route))  # type: ignore[misc]
        return steps

    def _address_steps(self, before: Mapping[InterfaceAddress, Any]) -> list[Callable[[], None]]:
        rows = dict(self._addresses()) if before else {}

        def remove(address: InterfaceAddress) -> None:
            self._remove(self._api.DeleteUnicastIpAddressEntry(rows[address]), f"can't remove {address}")

        return [lambda address=address: remove(address) for address in before if address in rows]  # type: ignore[misc]

    def _detour_steps(self, before: Mapping[Detour, Any]) -> list[Callable[[], None]]:
        def remove(detour: Detour) -> None:
            code = self._api.DeleteIpForwardEntry2(self._detour_row(detour))
            self._remove(code, f"can't remove the route to {detour.network} by {self._alias(detour.luid)!r}")

        return [lambda detour=detour: remove(detour) for detour in before]  # type: ignore[misc]

    # ---- What Windows has not

    def _refuse(self, request: Request) -> None:
        adapter = f"adapter {self._name!r}"
        if not request.up:
            raise NotImplementedError(f"{adapter} can't be brought down: on Windows it is up while it has a session")
        for address in request.addresses:
            if address.peer:
                text = f"{adapter} can't have {address}: Windows has no addresses with a peer; give {address.local}"
                raise NotImplementedError(f"{text}, and routes=['{address.peer.network}'] for the other end")
        for domain in request.domains:
            if domain[0] == "~":
                text = f"{adapter} can't have the domain {domain!r}: Windows routes names by a policy table"
                raise NotImplementedError(f"{text} that would outlive this process; only search domains are possible")
        if request.queue_length is not None:
            text = (
                f"{adapter} can't have queue_length={request.queue_length}: on Windows the session's ring is the queue"
            )
            raise NotImplementedError(f"{text}, start_session(capacity=...)")
        for name in ("mark", "table"):
            if getattr(request, name) is not None:
                text = (
                    f"{adapter} can't have {name}={getattr(request, name)}: Windows has no marks and no routing tables"
                )
                raise NotImplementedError(f"{text}; there default=... goes by metrics")

    # ---- MTU, metric and more, which the interface has once for IPv4 and once for IPv6

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
                raise NotFound(Win32.NOT_FOUND, text)
            time.sleep(_POLL_SECONDS)

    def _disabled(self, version: int) -> FamilyDisabled:
        why = "it is switched off for this adapter, or for the system as DisabledComponents in the registry does"
        error = FamilyDisabled(Win32.NOT_SUPPORTED, f"adapter {self._name!r} has no IPv{version}: {why}")
        error.version = version
        return error

    @staticmethod
    def _wanted_settings(
        request: Request, whole: Request, version: int, row: InterfaceRow, changes: Changes, *, default: bool
    ) -> Settings:
        wanted = Settings.of(row)
        # IPv6 has no smaller MTU, and keeps what it has.
        if request.mtu is not None and (version == 4 or request.mtu >= MIN_MTU6):
            wanted = wanted._replace(mtu=request.mtu)
        metric = _DEFAULT_METRIC if default and whole.metric is None else request.metric
        if metric is not None:
            wanted = wanted._replace(automatic_metric=0, metric=metric)
        if any(address.version == version for address in request.addresses):
            # There is nobody else on the link, so nobody has to be asked whether an address is free.
            wanted = wanted._replace(dad_transmits=0)
        if version == 6 and request.ipv6 is False:
            wanted = wanted._replace(dad_transmits=0, router_discovery=ROUTER_DISCOVERY_DISABLED)
        if version == 6 and request.ipv6 and (original := changes.original().get(("settings", 6))):
            ours = any(address.version == 6 for address in whole.addresses)
            transmits = 0 if ours else original.dad_transmits
            wanted = wanted._replace(dad_transmits=transmits, router_discovery=original.router_discovery)
        return wanted

    def _change_settings(self, version: int, before: Settings, wanted: Settings, changes: Changes) -> None:
        if wanted != before:
            changes.note(("settings", version), before)
            self._set(version, wanted)

    def _set(self, version: int, settings: Settings) -> None:
        row = self._rows().get(version)
        if row is None:
            return
        for name, value in settings._asdict().items():
            setattr(row, name, value)
        row.site_prefix_length = 0  # else it is refused for IPv4
        self._check(self._api.SetIpInterfaceEntry(row), f"can't set MTU {row.mtu} and metric for IPv{version}")

    # ---- Addresses

    def _addresses(self) -> list[tuple[InterfaceAddress, UnicastRow]]:
        rows = self._table("can't read the addresses", self._api.GetUnicastIpAddressTable, UnicastRow)
        return [(InterfaceAddress(ip_interface((row.address.host, row.prefix_length))), row) for row in rows]

    def _change_addresses(
        self, wanted: Iterable[InterfaceAddress], present: Mapping[InterfaceAddress, UnicastRow], changes: Changes
    ) -> None:
        for address in wanted:
            if address not in present:
                changes.note(("address", address), None)
                self._add_address(address, present)

    def _add_address(self, address: InterfaceAddress, present: Iterable[InterfaceAddress]) -> None:
        row = UnicastRow()
        self._api.InitializeUnicastIpAddressEntry(row)
        row.luid = self._luid
        row.address = SocketAddress.of(address.ip)
        row.prefix_length = address.network.prefixlen
        row.dad_state = DAD_PREFERRED
        code = self._api.CreateUnicastIpAddressEntry(row)
        if code == Win32.OBJECT_ALREADY_EXISTS:
            others = [str(other) for other in present if other.ip == address.ip]
            where = f"as {others[0]}" if others else "on another interface"
            text = f"can't add {address} on adapter {self._name!r}: it exists {where}"
            raise AlreadyExists(Win32.ALREADY_EXISTS, text)
        if code == Win32.NOT_SUPPORTED:
            raise self._disabled(address.version)
        self._check(code, f"can't add {address}")

    def _wait_for_addresses(self, addresses: tuple[InterfaceAddress, ...]) -> None:
        """Wait until addresses can be used: not before there is a link, which comes with a session."""
        limit = time.monotonic() + _ADDRESS_SECONDS
        wanted = set(addresses)
        while wanted and any(row.connected for row in self._rows().values()):
            states = {address: row.dad_state for address, row in self._addresses() if address in wanted}
            pending = [address for address, state in states.items() if state != DAD_PREFERRED]
            if not pending:
                return
            if DAD_DUPLICATE in states.values():
                address = next(address for address in pending if states[address] == DAD_DUPLICATE)
                text = f"{address} on adapter {self._name!r} can't be used: Windows reports that another host has it"
                raise WintunError(Win32.GEN_FAILURE, text)
            if time.monotonic() >= limit:
                text = f"{pending[0]} on adapter {self._name!r} can't be used after {_ADDRESS_SECONDS:.0f} s"
                raise WintunError(Win32.GEN_FAILURE, f"{text}: its state is {states[pending[0]]}")
            time.sleep(_POLL_SECONDS)

    # ---- Routes

    def _route_rows(self) -> list[tuple[Route, ForwardRow]]:
        """The routes through it, without those that the system makes for addresses."""
        rows = self._table("can't read the routes", self._api.GetIpForwardTable2, ForwardRow)
        return [(_route_of(row), row) for row in rows if row.protocol != PROTOCOL_LOCAL]

    def _routes(self) -> list[Route]:
        return [route for route, _ in self._route_rows()]

    def _check_gateways(self, request: Request, present: Iterable[InterfaceAddress], routes: list[Route]) -> None:
        """Refuse a gateway that is behind another interface: packets to it would loop into the adapter."""
        gateways = {route.gateway: route for route in request.routes if route.gateway is not None}
        linked = Networks(address.network for address in (*present, *request.addresses))
        direct = Networks(route.network for route in (*routes, *request.routes) if route.gateway is None)
        for gateway, route in gateways.items():
            best = None if gateway in linked else self._best_route(gateway)
            if best and best.luid != self._luid and direct.longest_prefix(gateway) < best.destination.length:
                text = f"can't add the route to {route} on adapter {self._name!r}: its gateway is not on the adapter"
                raise InvalidArgument(Win32.INVALID_PARAMETER, f"{text}, but behind {self._alias(best.luid)!r}")

    def _change_routes(
        self, wanted: Iterable[Route], earlier: Iterable[Route], present: Iterable[Route], changes: Changes
    ) -> None:
        """Add routes, and remove what earlier calls have made to the same networks: an adapter has one to each."""
        given, there = set(earlier), set(present)
        to_network = {route.network: route for route in wanted}
        replaced = {r for r in there if r in given and to_network.get(r.network, r) != r}
        if replaced:
            for route, row in self._route_rows():
                if route in replaced:
                    changes.note(("route", route), True)
                    self._remove_route(route, row)
        for route in to_network.values():
            if route not in there:
                changes.note(("route", route), None)
                self._add_route(route)

    def _add_route(self, route: Route) -> None:
        row = self._forward_row(self._luid, route.network, route.gateway)
        row.metric = route.metric or 0
        code = self._api.CreateIpForwardEntry2(row)
        if code == Win32.OBJECT_ALREADY_EXISTS:
            if route in self._routes():
                return
            text = f"can't add the route to {route} on adapter {self._name!r}: there is one with another metric"
            raise AlreadyExists(Win32.ALREADY_EXISTS, text)
        if code == Win32.NOT_SUPPORTED:
            raise self._disabled(route.network.version)
        self._check(code, f"can't add the route to {route}")

    def _forward_row(self, luid: int, network: Network, hop: Host | None) -> ForwardRow:
        row = ForwardRow()
        self._api.InitializeIpForwardEntry(row)
        row.luid = luid
        row.destination.prefix = SocketAddress.of(network.network_address)
        row.destination.length = network.prefixlen
        row.next_hop = SocketAddress.of(hop or _ANYWHERE[network.version])
        row.metric = 0
        return row

    def _remove_route(self, route: Route, row: ForwardRow) -> None:
        self._remove(self._api.DeleteIpForwardEntry2(row), f"can't remove the route to {route}")

    # ---- A default route beside another one

    def _defaults(self, version: int) -> list[tuple[int, ForwardRow]]:
        """The default routes of other interfaces that are connected, as (metric, row), the best first."""
        code, interfaces = read_table(self._api, self._api.GetIpInterfaceTable, InterfaceRow, None)
        self._check(code, "can't read the interfaces")
        metrics = {row.luid: row.metric for row in interfaces if _version(row.family) == version and row.connected}
        code, rows = read_table(self._api, self._api.GetIpForwardTable2, ForwardRow, None)
        self._check(0 if code == Win32.NOT_FOUND else code, "can't read the routes")
        found = [
            (metrics[row.luid] + row.metric, row)
            for row in rows
            if not row.destination.length
            and _version(row.destination.prefix.family) == version
            and row.luid != self._luid
            and row.luid in metrics
        ]
        return sorted(found, key=lambda item: item[0])

    def _check_default(self, versions: list[int], wanted: Mapping[int, Settings]) -> None:
        """Refuse a default route that would lose against another interface's; warn of one that is left."""
        if not versions:
            return
        for version in (4, 6):
            best = next(iter(self._defaults(version)), None)
            if best is None:
                continue
            metric, row = best
            other = self._alias(row.luid)
            if version not in versions:
                import logging

                logging.getLogger("tunring").warning(
                    "adapter %r has no default route of IPv%d: such traffic goes by %r, outside the tunnel",
                    self._name,
                    version,
                    other,
                )
            elif version in wanted and metric <= wanted[version].metric:
                text = f"adapter {self._name!r} can't have the default route of IPv{version}: {other!r} has it with the"
                text = f"{text} metric {metric}, which {wanted[version].metric} does not beat"
                raise AlreadyExists(Win32.ALREADY_EXISTS, text)

    def uplink(self, version: int) -> int:
        """The index of the interface that has the best default route but this one's."""
        for _, row in self._defaults(version):
            index: int = row.index
            return index
        text = f"nothing but adapter {self._name!r} has a default route of IPv{version}, so nothing can bypass it"
        raise NotFound(Win32.NOT_FOUND, text)

    def _best_route(self, host: Host, luid: int | None = None) -> ForwardRow | None:
        row, source = ForwardRow(), SocketAddress()
        restricted = None if luid is None else c_uint64(luid)
        code = self._api.GetBestRoute2(restricted, 0, None, SocketAddress.of(host), 0, row, source)
        return None if code else row

    def _detour(self, network: Network) -> Detour:
        """Find how a network is reached but by this interface."""
        host = network.network_address
        best = self._best_route(host)
        if best is None or best.luid == self._luid:
            others = (self._best_route(host, row.luid) for _, row in self._defaults(network.version))
            best = next((row for row in others if row), None)
        if best is None:
            text = f"{network} can't bypass adapter {self._name!r}: no other interface leads there"
            raise NotFound(Win32.NOT_FOUND, text)
        return Detour(network, best.luid, best.next_hop.host)

    def _detour_row(self, detour: Detour) -> ForwardRow:
        return self._forward_row(detour.luid, detour.network, detour.hop)

    def _add_detours(self, detours: list[Detour], changes: Changes) -> None:
        code, rows = read_table(self._api, self._api.GetIpForwardTable2, ForwardRow, None) if detours else (0, [])
        self._check(0 if code == Win32.NOT_FOUND else code, "can't read the routes")
        present = {Detour(_network_of(row), row.luid, row.next_hop.host) for row in rows}
        for detour in detours:
            if detour not in present:
                changes.note(("bypass", detour), None)
                code = self._api.CreateIpForwardEntry2(self._detour_row(detour))
                self._check(code, f"can't add the route to {detour.network} by {self._alias(detour.luid)!r}")

    def _alias(self, luid: int) -> str:
        alias = create_unicode_buffer(ALIAS_SIZE)
        code = self._api.ConvertInterfaceLuidToAlias(c_uint64(luid), alias, ALIAS_SIZE)
        return alias.value if code == 0 and alias.value else f"interface {luid:#x}"

    # ---- All of it

    def _table(self, action: str, function: Callable[[int, Any], int], kind: Any) -> list[Any]:
        code, rows = read_table(self._api, function, kind, self._luid)
        if code != Win32.NOT_FOUND:  # which is what an empty table may be
            self._check(code, action)
        return rows

    def _check(self, code: int, action: str) -> None:
        if code == Win32.NOT_SUPPORTED:  # as much of it is in Wine
            raise NotImplementedError(f"{action} on adapter {self._name!r}: this system does not implement that")
        if code:
            raise self._failure(code, action)

    def _remove(self, code: int, action: str) -> None:
        self._check(0 if code == Win32.NOT_FOUND else code, action)

    def _failure(self, code: int, action: str) -> WintunError:
        text = f"{action} on adapter {self._name!r}: "
        if code == Win32.ACCESS_DENIED:
            return AccessDenied(code, text + "that needs an elevated process (Run as administrator)")
        if code in (Win32.NOT_FOUND, Win32.FILE_NOT_FOUND):
            return NotFound(code, text + "the interface is gone, or not complete yet")
        return WintunError(code, f"{text}Windows reports error {code}")

    def _compare(self, request: Request, routes: Iterable[Route], wanted: Mapping[int, Settings]) -> Configuration:
        """Read everything back."""
        found = self.read()
        addresses, found_routes = set(found.addresses), set(found.routes)
        lacking: list[object] = [address for address in request.addresses if address.local not in addresses]
        lacking += [f"the route to {route}" for route in routes if route not in found_routes]
        if request.dns and set(found.dns) != set(request.dns):
            lacking.append(f"the DNS servers {', '.join(map(str, request.dns))}")
        if request.domains and found.domains != request.domains:
            lacking.append(f"the DNS domains {', '.join(request.domains)}")
        if lacking:
            text = f"can't add {lacking[0]} on adapter {self._name!r}: Windows accepted it, but does not have it"
            raise WintunError(Win32.GEN_FAILURE, text)
        for version, row in self._rows().items():
            settings = wanted.get(version, Settings.of(row))
            if settings[:3] != Settings.of(row)[:3]:
                text = f"adapter {self._name!r} should have MTU {settings.mtu} and metric {settings.metric}"
                text = f"{text} for IPv{version}, but has MTU {row.mtu} and metric {row.metric}"
                raise WintunError(Win32.GEN_FAILURE, text)
        return found


def _version(family: int) -> int:
    return 6 if family == AF_INET6 else 4


def _network_of(row: ForwardRow) -> Network:
    return ip_network((row.destination.prefix.host, row.destination.length), strict=False)


def _route_of(row: ForwardRow) -> Route:
    hop = row.next_hop.host
    return Route._found(  # noqa: SLF001
        _network_of(row), None if hop.is_unspecified else hop, row.metric or None
    )
