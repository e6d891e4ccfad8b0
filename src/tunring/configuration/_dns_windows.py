"""Name servers and search domains of an interface, which on Windows it has once for IPv4 and once for IPv6."""

from __future__ import annotations

import re
import time
from ctypes import c_uint64
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

from tunring._system.iphelper_windows import (
    DNS_IPV6,
    DNS_NAME_SERVER,
    DNS_SEARCH_LIST,
    DNS_VERSION,
    DnsSettings,
    Guid,
)
from tunring._win32 import Win32
from tunring.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Callable

    from tunring._configurator import Changes
    from tunring._system.iphelper_windows import IpHelper
    from tunring.configuration._checks import Host
    from tunring.configuration._request import Request

#: How long the place where Windows keeps the settings may take to be there.
_DNS_SECONDS = 3.0
_POLL_SECONDS = 0.01


class Dns(NamedTuple):
    """DNS settings of an interface for one family."""

    servers: tuple[Host, ...]
    domains: tuple[str, ...]


class InterfaceDns:
    """The DNS settings of one interface.

    Parameters
    ----------
    check : callable
        Raises the error for a code and an action, unless the code is 0.
    """

    def __init__(self, api: IpHelper, luid: int, check: Callable[[int, str], None]) -> None:
        self._api = api
        self._luid = luid
        self._check = check

    def read(self, version: int) -> Dns:
        """Read those of one family."""
        settings = DnsSettings(version=DNS_VERSION, flags=_flags(version))
        code = self._call(self._api.GetInterfaceDnsSettings, settings)
        self._check(code, "can't read the DNS servers")
        try:
            return Dns(tuple(map(ip_address, _words(settings.name_server))), tuple(_words(settings.search_list)))
        finally:
            self._api.FreeInterfaceDnsSettings(settings)

    def read_all(self) -> list[Dns]:
        """Read those of both families; none where the system has no such settings."""
        try:
            return [self.read(4), self.read(6)]
        except (NotImplementedError, NotFound):
            return []

    def change(self, request: Request, changes: Changes) -> None:
        """Set what is asked for."""
        for version in (4, 6):
            before = self.read(version)
            wanted = before
            if request.dns:
                wanted = wanted._replace(servers=tuple(host for host in request.dns if host.version == version))
            if request.domains:
                wanted = wanted._replace(domains=request.domains)
            if wanted != before:
                changes.note(("dns", version), before)
                self.write(version, wanted)

    def write(self, version: int, wanted: Dns) -> None:
        """Set those of one family."""
        servers, domains = ",".join(map(str, wanted.servers)), ",".join(wanted.domains)
        settings = DnsSettings(version=DNS_VERSION, flags=_flags(version), name_server=servers, search_list=domains)
        text = " and ".join(filter(None, (servers, domains))) or "of before"
        self._check(self._call(self._api.SetInterfaceDnsSettings, settings), f"can't set the DNS servers {text}")

    def _guid(self) -> Guid:
        guid = Guid()
        self._check(self._api.ConvertInterfaceLuidToGuid(c_uint64(self._luid), guid), "can't read the interface's GUID")
        return guid

    def _call(self, call: Callable[[Guid, DnsSettings], int], settings: DnsSettings) -> int:
        """Get or set: the place where Windows keeps them comes a while after the adapter."""
        limit = time.monotonic() + _DNS_SECONDS
        while True:
            code = call(self._guid(), settings)
            if code not in (Win32.FILE_NOT_FOUND, Win32.NOT_FOUND) or time.monotonic() >= limit:
                return code
            time.sleep(_POLL_SECONDS)


def _flags(version: int) -> int:
    return DNS_NAME_SERVER | DNS_SEARCH_LIST | (DNS_IPV6 if version == 6 else 0)


def _words(text: str | None) -> list[str]:
    return [word for word in re.split(r"[ ,;]+", text or "") if word]
