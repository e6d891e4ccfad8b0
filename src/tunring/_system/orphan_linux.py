"""Removes an interface that outlived its process."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tunring._extras import import_advice
from tunring._system.namespace_linux import call_in_network
from tunring._win32 import Win32
from tunring.errors import error_from_code

if TYPE_CHECKING:
    from tunring import _core


def remove(handle: _core.AdapterHandle, name: str) -> None:
    """Remove the persistent interface that a handle is attached to, so that nobody else can be."""
    action = f"can't remove what is left over of {name!r}"
    try:
        from tunring._system.netlink_linux import Netlink, delete_link
    except ImportError as error:
        raise error_from_code(Win32.NOT_SUPPORTED, action, f"that {import_advice(error, 'pyroute2')}") from error

    def delete() -> None:
        index = handle.index
        with Netlink() as netlink:
            for _, error in netlink.run([delete_link(index or 0)]):
                code = Win32.ACCESS_DENIED if error.code in (1, 13) else Win32.GEN_FAILURE
                raise error_from_code(code, action, str(error), error.code) from error

    namespace = handle.open_namespace()
    try:
        call_in_network(namespace, delete)
    except PermissionError as error:
        raise error_from_code(Win32.ACCESS_DENIED, action, "that takes CAP_NET_ADMIN", error.errno) from error
    finally:
        if namespace >= 0:
            os.close(namespace)
