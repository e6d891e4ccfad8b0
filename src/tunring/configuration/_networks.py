"""Networks to look hosts up in."""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tunring.configuration._checks import Host, Network


class Networks:
    """Networks, to be asked for the longest that a host is in: as fast for many as for few."""

    def __init__(self, networks: Iterable[Network]) -> None:
        self._networks = set(networks)
        self._lengths = sorted({network.prefixlen for network in self._networks}, reverse=True)

    def longest_prefix(self, host: Host) -> int:
        """The prefix length, or -1 if the host is in none of them."""
        for length in self._lengths:
            if length <= host.max_prefixlen and ip_network((host, length), strict=False) in self._networks:
                return length
        return -1

    def __contains__(self, host: Host) -> bool:
        return self.longest_prefix(host) >= 0
