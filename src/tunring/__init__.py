"""Batched, zero-copy packet I/O over the Wintun ABI: Wintun on Windows, TUN on Linux, a cable in memory anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunring import _loops  # noqa: F401  # it shows the extension the way to event loops
from tunring._adapter import MAX_CAPACITY, MIN_CAPACITY, Adapter
from tunring._core import Batch, Endpoint, Library, Session, Slots, UdpSocket
from tunring._library import DriverVersion, delete_driver, load, running_driver_version
from tunring._logger import set_logger
from tunring._system.privilege import is_elevated
from tunring._version import __version__
from tunring.errors import (
    AccessDenied,
    AdapterBusy,
    AlreadyExists,
    FamilyDisabled,
    InvalidArgument,
    LibraryInvalid,
    LibraryNotFound,
    NotFound,
    RingCorrupt,
    RingFull,
    SessionClosed,
    WintunError,
)

if TYPE_CHECKING:
    from tunring._routes import RouteTable
    from tunring._stats import Stats
    from tunring._udp import UdpStats
    from tunring.configuration import Configuration, Route

__all__ = [
    "MAX_CAPACITY",
    "MIN_CAPACITY",
    "AccessDenied",
    "Adapter",
    "AdapterBusy",
    "AlreadyExists",
    "Batch",
    "Configuration",
    "DriverVersion",
    "Endpoint",
    "FamilyDisabled",
    "InvalidArgument",
    "Library",
    "LibraryInvalid",
    "LibraryNotFound",
    "NotFound",
    "RingCorrupt",
    "RingFull",
    "Route",
    "RouteTable",
    "Session",
    "SessionClosed",
    "Slots",
    "Stats",
    "UdpSocket",
    "UdpStats",
    "WintunError",
    "__version__",
    "delete_driver",
    "is_elevated",
    "load",
    "running_driver_version",
    "set_logger",
]


#: Loaded when they are asked for: dataclasses take as long as the rest of the package.
_LATER = {
    "Configuration": "tunring.configuration",
    "Route": "tunring.configuration",
    "RouteTable": "tunring._routes",
    "Stats": "tunring._stats",
    "UdpStats": "tunring._udp",
}


if not TYPE_CHECKING:  # a type checker would believe that every name is there

    def __getattr__(name: str) -> object:
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(_LATER[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
