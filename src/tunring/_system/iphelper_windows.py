"""The part of Windows' IP Helper API that configuration needs: its structures, and its functions by name.

The structures have the same layout on every system, so that tests anywhere can stand in for the API.
"""

from __future__ import annotations

import ctypes
import sys
from ctypes import POINTER, c_size_t, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p, c_wchar_p
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from tunring.configuration._checks import Host

AF_UNSPEC, AF_INET, AF_INET6 = 0, 2, 23

#: NL_DAD_STATE: whether others were asked, and may use an address too.
DAD_TENTATIVE, DAD_DUPLICATE, DAD_PREFERRED = 1, 2, 4

#: NL_ROUTE_PROTOCOL: made by the system for an address, and by people.
PROTOCOL_LOCAL, PROTOCOL_MANAGEMENT = 2, 3

#: DNS_INTERFACE_SETTINGS.
DNS_VERSION = 1
DNS_IPV6, DNS_NAME_SERVER, DNS_SEARCH_LIST = 0x1, 0x2, 0x4

#: NL_ROUTER_DISCOVERY_BEHAVIOR.
ROUTER_DISCOVERY_DISABLED = 0

#: UTF-16 units of an interface's alias, with its NUL.
ALIAS_SIZE = 257

_LOAD_LIBRARY_SEARCH_SYSTEM32 = 0x800


class Guid(ctypes.Structure):
    """GUID."""

    _fields_ = (("bytes_le", c_uint8 * 16),)


class SocketAddress(ctypes.Structure):
    """SOCKADDR_INET: a sockaddr_in and a sockaddr_in6 in one place."""

    _fields_ = (
        ("family", c_uint16),
        ("port", c_uint16),
        ("v4", c_uint8 * 4),  # in a sockaddr_in6 the flow label
        ("v6", c_uint8 * 16),
        ("scope", c_uint32),
    )

    @classmethod
    def of(cls, host: Host) -> SocketAddress:
        """Make one."""
        made = cls(family=family_of(host.version))
        if host.version == 4:
            made.v4[:] = host.packed
        else:
            made.v6[:] = host.packed
        return made

    @property
    def host(self) -> Host:
        """The address, without its scope."""
        return IPv6Address(bytes(self.v6)) if self.family == AF_INET6 else IPv4Address(bytes(self.v4))


class AddressPrefix(ctypes.Structure):
    """IP_ADDRESS_PREFIX."""

    _fields_ = (("prefix", SocketAddress), ("length", c_uint8))


class UnicastRow(ctypes.Structure):
    """MIB_UNICASTIPADDRESS_ROW: an address of an interface."""

    _fields_ = (
        ("address", SocketAddress),
        ("luid", c_uint64),
        ("index", c_uint32),
        ("prefix_origin", c_uint32),
        ("suffix_origin", c_uint32),
        ("valid_lifetime", c_uint32),
        ("preferred_lifetime", c_uint32),
        ("prefix_length", c_uint8),
        ("skip_as_source", c_uint8),
        ("dad_state", c_uint32),
        ("scope", c_uint32),
        ("created", c_uint64),
    )


class InterfaceRow(ctypes.Structure):
    """MIB_IPINTERFACE_ROW: what an interface has for IPv4, or for IPv6."""

    _fields_ = (
        ("family", c_uint16),
        ("luid", c_uint64),
        ("index", c_uint32),
        ("max_reassembly_size", c_uint32),
        ("identifier", c_uint64),
        ("min_advertisement_interval", c_uint32),
        ("max_advertisement_interval", c_uint32),
        ("advertising", c_uint8),
        ("forwarding", c_uint8),
        ("weak_host_send", c_uint8),
        ("weak_host_receive", c_uint8),
        ("automatic_metric", c_uint8),
        ("unreachability_detection", c_uint8),
        ("managed_address_configuration", c_uint8),
        ("other_stateful_configuration", c_uint8),
        ("advertise_default_route", c_uint8),
        ("router_discovery", c_uint32),
        ("dad_transmits", c_uint32),
        ("base_reachable_time", c_uint32),
        ("retransmit_time", c_uint32),
        ("path_mtu_discovery_timeout", c_uint32),
        ("link_local_behavior", c_uint32),
        ("link_local_timeout", c_uint32),
        ("zone_indices", c_uint32 * 16),
        ("site_prefix_length", c_uint32),
        ("metric", c_uint32),
        ("mtu", c_uint32),
        ("connected", c_uint8),
        ("wake_up_patterns", c_uint8),
        ("neighbor_discovery", c_uint8),
        ("supports_router_discovery", c_uint8),
        ("reachable_time", c_uint32),
        ("transmit_offload", c_uint8),
        ("receive_offload", c_uint8),
        ("disable_default_routes", c_uint8),
    )


class ForwardRow(ctypes.Structure):
    """MIB_IPFORWARD_ROW2: a route."""

    _fields_ = (
        ("luid", c_uint64),
        ("index", c_uint32),
        ("destination", AddressPrefix),
        ("next_hop", SocketAddress),
        ("site_prefix_length", c_uint8),
        ("valid_lifetime", c_uint32),
        ("preferred_lifetime", c_uint32),
        ("metric", c_uint32),
        ("protocol", c_uint32),
        ("loopback", c_uint8),
        ("autoconfigure", c_uint8),
        ("publish", c_uint8),
        ("immortal", c_uint8),
        ("age", c_uint32),
        ("origin", c_uint32),
    )


class DnsSettings(ctypes.Structure):
    """DNS_INTERFACE_SETTINGS: name servers of an interface, for one family."""

    _fields_ = (
        ("version", c_uint32),
        ("flags", c_uint64),
        ("domain", c_wchar_p),
        ("name_server", c_wchar_p),
        ("search_list", c_wchar_p),
        ("registration_enabled", c_uint32),
        ("register_adapter_name", c_uint32),
        ("enable_llmnr", c_uint32),
        ("query_adapter_name", c_uint32),
        ("profile_name_server", c_wchar_p),
    )


class Table(ctypes.Structure):
    """The beginning of all tables: the number of rows; the first row is where the second field is."""

    _fields_ = (("count", c_uint32), ("first", c_uint64))


TablePointer = POINTER(Table)

Row = TypeVar("Row", UnicastRow, InterfaceRow, ForwardRow)


class IpHelper(Protocol):
    """The functions. Each returns 0 or a Win32 error code, apart from those that free or initialize."""

    def ConvertInterfaceLuidToIndex(self, luid: c_uint64, index: c_uint32, /) -> int: ...
    def ConvertInterfaceLuidToGuid(self, luid: c_uint64, guid: Guid, /) -> int: ...
    def ConvertInterfaceLuidToAlias(self, luid: c_uint64, alias: Any, size: int, /) -> int: ...
    def GetIpInterfaceTable(self, family: int, table: Any, /) -> int: ...
    def SetIpInterfaceEntry(self, row: InterfaceRow, /) -> int: ...
    def GetUnicastIpAddressTable(self, family: int, table: Any, /) -> int: ...
    def InitializeUnicastIpAddressEntry(self, row: UnicastRow, /) -> None: ...
    def CreateUnicastIpAddressEntry(self, row: UnicastRow, /) -> int: ...
    def DeleteUnicastIpAddressEntry(self, row: UnicastRow, /) -> int: ...
    def GetIpForwardTable2(self, family: int, table: Any, /) -> int: ...
    def InitializeIpForwardEntry(self, row: ForwardRow, /) -> None: ...
    def CreateIpForwardEntry2(self, row: ForwardRow, /) -> int: ...
    def DeleteIpForwardEntry2(self, row: ForwardRow, /) -> int: ...
    def GetBestRoute2(
        self,
        luid: c_uint64 | None,
        index: int,
        source: SocketAddress | None,
        destination: SocketAddress,
        options: int,
        row: ForwardRow,
        best_source: SocketAddress,
        /,
    ) -> int: ...
    def GetInterfaceDnsSettings(self, interface: Guid, settings: DnsSettings, /) -> int: ...
    def SetInterfaceDnsSettings(self, interface: Guid, settings: DnsSettings, /) -> int: ...
    def FreeInterfaceDnsSettings(self, settings: DnsSettings, /) -> None: ...
    def FreeMibTable(self, table: Any, /) -> None: ...


#: A function's result and parameters.
_PROTOTYPES: dict[str, tuple[Any, ...]] = {
    "ConvertInterfaceLuidToIndex": (c_uint32, POINTER(c_uint64), POINTER(c_uint32)),
    "ConvertInterfaceLuidToGuid": (c_uint32, POINTER(c_uint64), POINTER(Guid)),
    "ConvertInterfaceLuidToAlias": (c_uint32, POINTER(c_uint64), c_wchar_p, c_size_t),
    "GetIpInterfaceTable": (c_uint32, c_uint16, POINTER(TablePointer)),
    "SetIpInterfaceEntry": (c_uint32, POINTER(InterfaceRow)),
    "GetUnicastIpAddressTable": (c_uint32, c_uint16, POINTER(TablePointer)),
    "InitializeUnicastIpAddressEntry": (None, POINTER(UnicastRow)),
    "CreateUnicastIpAddressEntry": (c_uint32, POINTER(UnicastRow)),
    "DeleteUnicastIpAddressEntry": (c_uint32, POINTER(UnicastRow)),
    "GetIpForwardTable2": (c_uint32, c_uint16, POINTER(TablePointer)),
    "InitializeIpForwardEntry": (None, POINTER(ForwardRow)),
    "CreateIpForwardEntry2": (c_uint32, POINTER(ForwardRow)),
    "DeleteIpForwardEntry2": (c_uint32, POINTER(ForwardRow)),
    "GetBestRoute2": (
        c_uint32,
        POINTER(c_uint64),
        c_uint32,
        POINTER(SocketAddress),
        POINTER(SocketAddress),
        c_uint32,
        POINTER(ForwardRow),
        POINTER(SocketAddress),
    ),
    "GetInterfaceDnsSettings": (c_uint32, Guid, POINTER(DnsSettings)),
    "SetInterfaceDnsSettings": (c_uint32, Guid, POINTER(DnsSettings)),
    "FreeInterfaceDnsSettings": (None, POINTER(DnsSettings)),
    "FreeMibTable": (None, c_void_p),
}


class _Library:
    """iphlpapi.dll. Each function is looked up when it is used: older systems lack some, and Wine most."""

    def __init__(self, library: Any) -> None:
        self._library = library

    def __getattr__(self, name: str) -> Any:
        result, *arguments = _PROTOTYPES[name]
        try:
            function = self._library[name]
        except AttributeError:
            raise NotImplementedError(f"this Windows has no {name}") from None
        function.restype, function.argtypes = result, arguments
        setattr(self, name, function)
        return function


@lru_cache(maxsize=1)
def ip_helper() -> IpHelper:
    """Load the API."""
    if sys.platform == "win32":
        return _Library(ctypes.WinDLL("iphlpapi.dll", winmode=_LOAD_LIBRARY_SEARCH_SYSTEM32))
    else:
        raise NotImplementedError(f"there is no IP Helper API on {sys.platform}")


def family_of(version: int) -> int:
    """Which family IPv4 or IPv6 is."""
    return AF_INET if version == 4 else AF_INET6


def index_of(luid: int) -> int | None:
    """The index of an interface, or None if the system doesn't know it, or not yet."""
    index = c_uint32()
    code = ip_helper().ConvertInterfaceLuidToIndex(c_uint64(luid), index)
    return index.value or None if code == 0 else None


def read_table(
    api: IpHelper, function: Callable[[int, Any], int], kind: type[Row], luid: int | None
) -> tuple[int, list[Row]]:
    """Read the rows of one interface, or of all, as (error code, rows)."""
    table = TablePointer()
    code = function(AF_UNSPEC, table)
    if code:
        return code, []
    try:
        start, size = ctypes.addressof(table.contents) + Table.first.offset, ctypes.sizeof(kind)
        everything = memoryview(ctypes.string_at(start, size * table.contents.count))
        rows = (everything[at : at + size] for at in range(0, len(everything), size))
        if luid is not None:
            # Before a row is made: a router's tables have many of others.
            place, wanted = slice(kind.luid.offset, kind.luid.offset + 8), luid.to_bytes(8, sys.byteorder)
            rows = (row for row in rows if row[place] == wanted)
        return 0, [kind.from_buffer_copy(row) for row in rows]
    finally:
        api.FreeMibTable(table)
