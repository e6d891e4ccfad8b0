"""Configuration on Windows: by the IP Helper API, and by the interface that a socket is bound to."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from tunring._system.iphelper_windows import AF_INET6, ip_helper
from tunring._win32 import Win32
from tunring.configuration._interface_windows import WindowsInterface
from tunring.errors import WintunError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tunring._configurator import Target
    from tunring.configuration._request import Request


#: IP_UNICAST_IF and IPV6_UNICAST_IF, and the byte order that each wants the index in.
_UNICAST_IF = 31
_OPTIONS = {4: (socket.IPPROTO_IP, "!I"), 6: (socket.IPPROTO_IPV6, "=I")}

T = TypeVar("T")


def call_with_interface(target: Target, work: Callable[[WindowsInterface], T]) -> T:
    """Call a function with the interface."""
    return work(WindowsInterface(ip_helper(), target.name, target.luid))


def bypass(target: Target, sock: Any, given: Request) -> None:
    """Bind a socket to the interface that has the best default route but the adapter's."""
    call_with_interface(target, lambda interface: bind_beside(interface, sock))


def bind_beside(interface: WindowsInterface, sock: Any) -> None:
    """Bind a socket to the interface that has the best default route but this one's."""
    if sock.family in (AF_INET6, socket.AF_INET6):
        _bind(interface, sock, 6)
        with suppress(OSError):  # IPv4 as well, if it may do both
            _bind(interface, sock, 4)
    else:
        _bind(interface, sock, 4)


def _bind(interface: WindowsInterface, sock: Any, version: int) -> None:
    level, order = _OPTIONS[version]
    index = interface.uplink(version)
    try:
        sock.setsockopt(level, _UNICAST_IF, struct.pack(order, index))
    except OSError as error:
        text = f"can't bind a socket to interface {index} for IPv{version}: {error.strerror}"
        raise WintunError(Win32.GEN_FAILURE, text, error.errno) from error
