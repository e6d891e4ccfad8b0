"""The IP Helper structures have the layout that 64-bit Windows has: sizes and offsets as its own headers give them."""

from __future__ import annotations

import ctypes
from ipaddress import ip_address

import pytest

from tunring._system import iphelper_windows as iphelper

#: From netioapi.h, compiled for x86-64; tests/windows/iphelper_headers.py asks them again.
LAYOUTS = {
    iphelper.Guid: (16, {}),
    iphelper.SocketAddress: (28, {"family": 0, "port": 2, "v4": 4, "v6": 8, "scope": 24}),
    iphelper.AddressPrefix: (32, {"prefix": 0, "length": 28}),
    iphelper.UnicastRow: (
        80,
        {
            "address": 0,
            "luid": 32,
            "index": 40,
            "prefix_origin": 44,
            "suffix_origin": 48,
            "valid_lifetime": 52,
            "preferred_lifetime": 56,
            "prefix_length": 60,
            "skip_as_source": 61,
            "dad_state": 64,
            "scope": 68,
            "created": 72,
        },
    ),
    iphelper.InterfaceRow: (
        168,
        {
            "family": 0,
            "luid": 8,
            "index": 16,
            "max_reassembly_size": 20,
            "identifier": 24,
            "advertising": 40,
            "automatic_metric": 44,
            "advertise_default_route": 48,
            "router_discovery": 52,
            "dad_transmits": 56,
            "link_local_timeout": 76,
            "zone_indices": 80,
            "site_prefix_length": 144,
            "metric": 148,
            "mtu": 152,
            "connected": 156,
            "reachable_time": 160,
            "transmit_offload": 164,
            "receive_offload": 165,
            "disable_default_routes": 166,
        },
    ),
    iphelper.ForwardRow: (
        104,
        {
            "luid": 0,
            "index": 8,
            "destination": 12,
            "next_hop": 44,
            "site_prefix_length": 72,
            "valid_lifetime": 76,
            "preferred_lifetime": 80,
            "metric": 84,
            "protocol": 88,
            "loopback": 92,
            "immortal": 95,
            "age": 96,
            "origin": 100,
        },
    ),
    iphelper.DnsSettings: (
        64,
        {
            "version": 0,
            "flags": 8,
            "domain": 16,
            "name_server": 24,
            "search_list": 32,
            "registration_enabled": 40,
            "query_adapter_name": 52,
            "profile_name_server": 56,
        },
    ),
}


@pytest.mark.parametrize("kind", LAYOUTS, ids=lambda kind: kind.__name__)
def test_layout(kind: type[ctypes.Structure]) -> None:
    size, offsets = LAYOUTS[kind]
    assert ctypes.sizeof(kind) == size
    assert {name: getattr(kind, name).offset for name in offsets} == offsets


def test_rows_of_tables_start_where_they_do() -> None:
    assert iphelper.Table.first.offset == 8
    assert all(
        ctypes.alignment(kind) == 8 for kind in (iphelper.UnicastRow, iphelper.InterfaceRow, iphelper.ForwardRow)
    )


@pytest.mark.parametrize("text", ["10.6.7.7", "fd00::7"])
def test_socket_addresses(text: str) -> None:
    host = ip_address(text)
    address = iphelper.SocketAddress.of(host)
    assert address.host == host
    raw = bytes(address)
    assert raw[:2] == (b"\x02\0" if host.version == 4 else b"\x17\0")
    assert host.packed in (raw[4:8], raw[8:24])
