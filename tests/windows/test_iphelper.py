"""The IP Helper API itself, as far as the system has it: Wine has the tables of addresses, but changes nothing."""

from __future__ import annotations

import ctypes
from ipaddress import ip_interface

import pytest

from tunring._configurator import Changes
from tunring._system import iphelper_windows as iphelper
from tunring.configuration._interface_windows import WindowsInterface
from tunring.configuration._request import Request, check_request


def on_wine() -> bool:
    return hasattr(ctypes.WinDLL("ntdll"), "wine_get_version")


@pytest.fixture
def luid() -> int:
    """The loopback interface's, which has index 1 everywhere."""
    found = ctypes.c_uint64()
    assert ctypes.WinDLL("iphlpapi").ConvertInterfaceIndexToLuid(1, ctypes.byref(found)) == 0
    return found.value


def test_indexes(luid: int) -> None:
    assert iphelper.index_of(luid) == 1
    assert iphelper.index_of(1) is None


def test_addresses(luid: int) -> None:
    interface = WindowsInterface(iphelper.ip_helper(), "loopback", luid)
    found = dict(interface._addresses())
    assert ip_interface("127.0.0.1/8") in [address.local for address in found]
    for address, row in found.items():
        assert (row.luid, row.index) == (luid, 1)
        assert row.dad_state == iphelper.DAD_PREFERRED
        assert row.prefix_length == address.network.prefixlen
    assert WindowsInterface(iphelper.ip_helper(), "none", 1)._addresses() == []


def test_routes(luid: int) -> None:
    # Routes that the system makes for addresses are left out, and nobody routes through the loopback interface.
    assert WindowsInterface(iphelper.ip_helper(), "loopback", luid)._routes() == []


def test_every_function_is_there_or_named() -> None:
    api = iphelper.ip_helper()
    for name in iphelper._PROTOTYPES:
        try:
            assert callable(getattr(api, name))
        except NotImplementedError as error:
            assert on_wine(), name
            assert str(error) == f"this Windows has no {name}"


def test_what_wine_lacks_is_said(luid: int) -> None:
    interface = WindowsInterface(iphelper.ip_helper(), "loopback", luid)
    if on_wine():
        with pytest.raises(NotImplementedError, match="'loopback': this system does not implement that"):
            interface.read()
        request = check_request({"addresses": ["10.6.7.7/24"], "mtu": 1420}, Request())
        with pytest.raises(NotImplementedError):
            interface.apply(request, Request(), Changes({}))
    else:
        found = interface.read()
        assert ip_interface("127.0.0.1/8") in found.addresses
        assert found.up
