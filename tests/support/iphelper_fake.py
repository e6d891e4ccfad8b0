"""A stand-in for Windows' IP Helper API: it keeps tables, records calls, and fails on request.

It checks what the real one would: rows are complete, tables are freed once, IPv4 rows have no site prefix.
"""

from __future__ import annotations

import ctypes
from collections import Counter
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

from tunring._system.iphelper_windows import (
    AF_INET,
    AF_INET6,
    AF_UNSPEC,
    DAD_PREFERRED,
    DAD_TENTATIVE,
    DNS_IPV6,
    DNS_NAME_SERVER,
    DNS_SEARCH_LIST,
    DNS_VERSION,
    PROTOCOL_LOCAL,
    PROTOCOL_MANAGEMENT,
    DnsSettings,
    ForwardRow,
    Guid,
    InterfaceRow,
    SocketAddress,
    Table,
    TablePointer,
    UnicastRow,
)

OK, NOT_FOUND, ACCESS_DENIED, INVALID, OBJECT_EXISTS = 0, 1168, 5, 87, 5010

LUID, OTHER_LUID = 53 << 48 | 1 << 24, 53 << 48 | 2 << 24
UNSPECIFIED = 0xFFFFFFFF


def _copy(row: Any) -> Any:
    return type(row).from_buffer_copy(row)


def _key(row: Any) -> tuple[bytes, ...]:
    """The key by which Windows knows a row."""
    if isinstance(row, UnicastRow):
        return row.luid.to_bytes(8), bytes(row.address)
    return row.luid.to_bytes(8), bytes(row.destination)[:29], bytes(row.next_hop)


@dataclass
class FakeIpHelper:
    """The API, on a system with two interfaces: LUID, which is a tunnel's, and OTHER_LUID."""

    #: Function -> codes of its next calls; what follows them works.
    failures: dict[str, list[int]] = field(default_factory=dict)
    #: Families that are switched off.
    absent: set[int] = field(default_factory=set)
    #: Reads of the interface table before the tunnel is in it, by family.
    late: Counter[int] = field(default_factory=Counter)
    #: Reads of the address table before an address is preferred; -1: it never is. Then the state it ends in.
    tentative: int = 0
    final_state: int = DAD_PREFERRED
    #: An MTU that is accepted and forgotten.
    ignored_mtu: int = 0
    connected: bool = True
    calls: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.interfaces = [
            InterfaceRow(
                family=family,
                luid=luid,
                index=luid >> 24 & 0xFFFF,
                automatic_metric=1,
                metric=5,
                mtu=65535,
                dad_transmits=3 if family == AF_INET else 1,
                router_discovery=2 if family == AF_INET else 1,
                site_prefix_length=64,
                connected=self.connected,
            )
            for luid in (LUID, OTHER_LUID)
            for family in (AF_INET, AF_INET6)
            if family not in self.absent
        ]
        self.addresses: list[UnicastRow] = []
        self.routes: list[ForwardRow] = []
        self.servers: dict[int, str] = {AF_INET: "", AF_INET6: ""}
        self.domains: dict[int, str] = {AF_INET: "", AF_INET6: ""}
        self.tables: dict[int, Any] = {}
        self.settings_out = 0

    # ---- for tests to look at

    def state(self) -> Any:
        """All that configuration may change."""
        return (
            sorted(bytes(row) for row in self.interfaces),
            sorted(bytes(row) for row in self.addresses),
            sorted(bytes(row) for row in self.routes),
            dict(self.servers),
            dict(self.domains),
        )

    def interface(self, family: int, luid: int = LUID) -> InterfaceRow:
        (found,) = (row for row in self.interfaces if row.luid == luid and row.family == family)
        return found

    def check_nothing_left(self) -> None:
        assert not self.tables, "tables were not freed"
        assert not self.settings_out, "DNS settings were not freed"

    # ---- the functions

    def _enter(self, name: str) -> int:
        self.calls.append(name)
        codes = self.failures.get(name)
        return codes.pop(0) if codes else OK

    def _hand_out(self, table: Any, rows: list[Any]) -> int:
        kind = type(rows[0]) if rows else UnicastRow

        class Made(ctypes.Structure):
            _fields_ = (("count", ctypes.c_uint32), ("rows", kind * max(len(rows), 1)))

        assert Made.rows.offset == Table.first.offset
        made = Made(count=len(rows))
        for number, row in enumerate(rows):
            made.rows[number] = row
        table.contents = ctypes.cast(ctypes.pointer(made), TablePointer).contents
        self.tables[ctypes.addressof(made)] = made
        return OK

    def FreeMibTable(self, table: Any) -> None:
        made = self.tables.pop(ctypes.addressof(table.contents))
        ctypes.memset(ctypes.addressof(made), 0xDD, ctypes.sizeof(made))

    def ConvertInterfaceLuidToIndex(self, luid: Any, index: Any) -> int:
        index.value = luid.value >> 24 & 0xFFFF
        return self._enter("ConvertInterfaceLuidToIndex")

    def ConvertInterfaceLuidToGuid(self, luid: Any, guid: Guid) -> int:
        guid.bytes_le[:8] = luid.value.to_bytes(8, "little")
        return self._enter("ConvertInterfaceLuidToGuid")

    def ConvertInterfaceLuidToAlias(self, luid: Any, alias: Any, size: int) -> int:
        assert len(alias) == size
        alias.value = {LUID: "OfficeNet", OTHER_LUID: "Ethernet"}[luid.value]
        return self._enter("ConvertInterfaceLuidToAlias")

    def GetIpInterfaceTable(self, family: int, table: Any) -> int:
        assert family == AF_UNSPEC
        if code := self._enter("GetIpInterfaceTable"):
            return code
        rows = [row for row in self.interfaces if row.luid != LUID or not self.late[row.family]]
        for name in (AF_INET, AF_INET6):
            self.late[name] -= self.late[name] > 0
        return self._hand_out(table, rows)

    def SetIpInterfaceEntry(self, row: InterfaceRow) -> int:
        if code := self._enter("SetIpInterfaceEntry"):
            return code
        if row.family == AF_INET and row.site_prefix_length:
            return INVALID
        if row.family == AF_INET6 and row.mtu < 1280:
            return INVALID
        known = [other for other in self.interfaces if (other.luid, other.family) == (row.luid, row.family)]
        if not known:
            return NOT_FOUND
        for name in ("automatic_metric", "dad_transmits", "router_discovery"):
            setattr(known[0], name, getattr(row, name))
        known[0].metric = 5 if row.automatic_metric else row.metric
        if row.mtu != self.ignored_mtu:
            known[0].mtu = row.mtu
        return OK

    def GetUnicastIpAddressTable(self, family: int, table: Any) -> int:
        assert family == AF_UNSPEC
        if code := self._enter("GetUnicastIpAddressTable"):
            return code
        if self.tentative > 0:
            self.tentative -= 1
        for row in self.addresses:
            row.dad_state = DAD_TENTATIVE if self.tentative or not self.connected else self.final_state
        return self._hand_out(table, self.addresses)

    def InitializeUnicastIpAddressEntry(self, row: UnicastRow) -> None:
        self._enter("InitializeUnicastIpAddressEntry")
        ctypes.memset(ctypes.addressof(row), 0, ctypes.sizeof(row))
        row.valid_lifetime = row.preferred_lifetime = UNSPECIFIED
        row.prefix_length = 255

    def CreateUnicastIpAddressEntry(self, row: UnicastRow) -> int:
        if code := self._enter("CreateUnicastIpAddressEntry"):
            return code
        assert row.valid_lifetime == UNSPECIFIED, "the row was not initialized"
        if not self._serves(row.luid, row.address.family):
            return NOT_FOUND
        if row.prefix_length > (32 if row.address.family == AF_INET else 128):
            return INVALID
        if any(bytes(other.address) == bytes(row.address) for other in self.addresses):
            return OBJECT_EXISTS
        self.addresses.append(_copy(row))
        network = ForwardRow(luid=row.luid, protocol=PROTOCOL_LOCAL)
        network.destination.prefix, network.destination.length = row.address, row.prefix_length
        network.next_hop.family = row.address.family
        self.routes.append(network)
        return OK

    def DeleteUnicastIpAddressEntry(self, row: UnicastRow) -> int:
        if code := self._enter("DeleteUnicastIpAddressEntry"):
            return code
        before = len(self.addresses)
        self.addresses = [other for other in self.addresses if _key(other) != _key(row)]
        self.routes = [
            route
            for route in self.routes
            if route.protocol != PROTOCOL_LOCAL or bytes(route.destination.prefix) != bytes(row.address)
        ]
        return OK if len(self.addresses) < before else NOT_FOUND

    def GetIpForwardTable2(self, family: int, table: Any) -> int:
        assert family == AF_UNSPEC
        return self._enter("GetIpForwardTable2") or self._hand_out(table, self.routes)

    def InitializeIpForwardEntry(self, row: ForwardRow) -> None:
        self._enter("InitializeIpForwardEntry")
        ctypes.memset(ctypes.addressof(row), 0, ctypes.sizeof(row))
        row.valid_lifetime = row.preferred_lifetime = row.metric = UNSPECIFIED
        row.protocol = PROTOCOL_MANAGEMENT

    def CreateIpForwardEntry2(self, row: ForwardRow) -> int:
        if code := self._enter("CreateIpForwardEntry2"):
            return code
        assert row.protocol == PROTOCOL_MANAGEMENT, "the row was not initialized"
        family = row.destination.prefix.family
        if row.metric == UNSPECIFIED or row.next_hop.family != family:
            return INVALID
        if not self._serves(row.luid, family):
            return NOT_FOUND
        if any(_key(other) == _key(row) for other in self.routes):
            return OBJECT_EXISTS
        self.routes.append(_copy(row))
        return OK

    def DeleteIpForwardEntry2(self, row: ForwardRow) -> int:
        if code := self._enter("DeleteIpForwardEntry2"):
            return code
        before = len(self.routes)
        self.routes = [other for other in self.routes if _key(other) != _key(row)]
        return OK if len(self.routes) < before else NOT_FOUND

    def GetBestRoute2(
        self, luid: Any, index: int, source: Any, destination: SocketAddress, options: int, row: Any, best: Any
    ) -> int:
        if code := self._enter("GetBestRoute2"):
            return code
        assert (index, source, options) == (0, None, 0)

        def quality(route: ForwardRow) -> tuple[int, int]:
            return route.destination.length, -self.interface(destination.family, route.luid).metric - route.metric

        found = [
            route
            for route in self.routes
            if destination.host in ip_network((route.destination.prefix.host, route.destination.length), strict=False)
            and (luid is None or route.luid == luid.value)
        ]
        if not found:
            return NOT_FOUND
        chosen = max(found, key=quality)
        ctypes.memmove(ctypes.addressof(row), ctypes.addressof(chosen), ctypes.sizeof(row))
        return OK

    def GetInterfaceDnsSettings(self, interface: Guid, settings: DnsSettings) -> int:
        if code := self._enter("GetInterfaceDnsSettings"):
            return code
        self._check_settings(interface, settings)
        settings.name_server = self.servers[self._family(settings)] or None
        settings.search_list = self.domains[self._family(settings)] or None
        self.settings_out += 1
        return OK

    def SetInterfaceDnsSettings(self, interface: Guid, settings: DnsSettings) -> int:
        if code := self._enter("SetInterfaceDnsSettings"):
            return code
        self._check_settings(interface, settings)
        self.servers[self._family(settings)] = settings.name_server or ""
        self.domains[self._family(settings)] = settings.search_list or ""
        return OK

    def FreeInterfaceDnsSettings(self, settings: DnsSettings) -> None:
        settings.name_server = settings.search_list = None
        self.settings_out -= 1

    def _check_settings(self, interface: Guid, settings: DnsSettings) -> None:
        assert bytes(interface.bytes_le[:8]) == LUID.to_bytes(8, "little")
        assert settings.version == DNS_VERSION
        assert settings.flags & ~DNS_IPV6 == DNS_NAME_SERVER | DNS_SEARCH_LIST

    @staticmethod
    def _family(settings: DnsSettings) -> int:
        return AF_INET6 if settings.flags & DNS_IPV6 else AF_INET

    def _serves(self, luid: int, family: int) -> bool:
        return any((row.luid, row.family) == (luid, family) for row in self.interfaces)

    # ---- other programs' actions

    def give_route(self, network: str, hop: str, luid: int = OTHER_LUID, metric: int = 0) -> None:
        target = ip_network(network)
        row = ForwardRow(luid=luid, index=luid >> 24 & 0xFFFF, protocol=PROTOCOL_MANAGEMENT, metric=metric)
        row.destination.prefix, row.destination.length = SocketAddress.of(target.network_address), target.prefixlen
        row.next_hop = SocketAddress.of(ip_address(hop))
        self.routes.append(row)

    def give_address(self, address: str, luid: int = OTHER_LUID) -> None:
        interface = ip_interface(address)
        row = UnicastRow(luid=luid, prefix_length=interface.network.prefixlen, dad_state=DAD_PREFERRED)
        row.address = SocketAddress.of(interface.ip)
        self.addresses.append(row)
