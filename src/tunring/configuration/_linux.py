"""Configuration on Linux: in the network namespace that the interface is in, by netlink and by marks of sockets."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Any, TypeVar

from tunring._extras import import_advice
from tunring._system.namespace_linux import call_in_network
from tunring._udp import SO_MARK, signed_mark
from tunring._win32 import Win32
from tunring.errors import AccessDenied, WintunError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tunring._configurator import Target
    from tunring.configuration._interface_linux import LinuxInterface
    from tunring.configuration._request import Request

T = TypeVar("T")


def call_with_interface(target: Target, work: Callable[[LinuxInterface], T]) -> T:
    """Call a function with the interface, in its namespace."""
    try:
        from tunring._system.netlink_linux import Netlink
        from tunring.configuration._interface_linux import LinuxInterface
    except ImportError as error:
        text = f"configuring adapters {import_advice(error, 'pyroute2')}"
        raise WintunError(Win32.NOT_SUPPORTED, text) from error

    def call() -> T:
        # A socket belongs to the namespace of the thread that makes it.
        with Netlink() as netlink:
            return work(LinuxInterface(netlink, target.name, target.ifindex))

    try:
        return call_in_network(target.namespace, call)
    except PermissionError as error:
        if isinstance(error, WintunError):
            raise
        text = f"adapter {target.name!r} is in another network namespace, and entering it needs CAP_SYS_ADMIN"
        raise AccessDenied(Win32.ACCESS_DENIED, text, error.errno) from error


def bypass(target: Target, sock: Any, given: Request) -> None:
    """Mark a socket, so that the rules of the default route let its packets pass."""
    assert given.mark is not None
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_MARK, signed_mark(given.mark))
    except OSError as error:
        text = f"can't mark a socket to bypass adapter {target.name!r}: "
        if error.errno == errno.EPERM:
            raise AccessDenied(
                Win32.ACCESS_DENIED, text + "that needs the capability CAP_NET_ADMIN", error.errno
            ) from error
        raise WintunError(Win32.GEN_FAILURE, f"{text}{error.strerror}", error.errno) from error
