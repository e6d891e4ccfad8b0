"""Which library of the Wintun ABI to use, and loading it once."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import NamedTuple

from tunring._core import Library
from tunring.errors import LibraryNotFound

_BACKENDS = Path(__file__).parent / "_backends"
_SUFFIX = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
_NAMES = ("wintun", "tun_linux", "loopback")
_DEFAULT = {"win32": "wintun", "linux": "tun_linux"}

#: The code that says a library wasn't found.
_MOD_NOT_FOUND = 126

_lock = threading.Lock()
#: By resolved path, and by name: whoever has loaded one and then given up privileges may not see the file any more.
_loaded: dict[str, Library] = {}


class DriverVersion(NamedTuple):
    """A driver's version."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


def _renew_lock() -> None:
    # Another thread of the parent may have held it when the process forked.
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def _official_places() -> list[Path]:
    """Where the official DLL may be: never the current folder or PATH, from which anybody's DLL could come."""
    places = [Path(__file__).parent / "wintun.dll"]
    if named := os.environ.get("TUNRING_WINTUN_DLL"):
        places.insert(0, Path(named))
    if system := os.environ.get("SYSTEMROOT"):
        places.append(Path(system, "System32", "wintun.dll"))
    return places


def _places(which: str) -> list[Path]:
    if which in ("loopback", "tun_linux"):
        return [_BACKENDS / f"{which}{_SUFFIX}"]
    if which == "wintun":
        return _official_places()
    return [Path(which)]


def _find(which: str) -> Path:
    places = _places(which)
    for place in places:
        if place.is_file():
            return place.resolve()
    tried = ", ".join(str(place) for place in places)
    raise LibraryNotFound(_MOD_NOT_FOUND, f"no library {which!r}; looked for: {tried}")


def _load_once(which: str) -> Library:
    with _lock:
        if which in _loaded and which in _NAMES:
            return _loaded[which]
        path = str(_find(which))
        if path not in _loaded:
            _loaded[path] = Library(path)
        if which in _NAMES:
            _loaded[which] = _loaded[path]
        return _loaded[path]


def _set_options(library: Library, options: dict[str, object]) -> None:
    for name, value in options.items():
        if not isinstance(value, bool):
            raise TypeError(f"option {name!r} must be True or False, not {value!r}")
        if not library.set_option(name, value):
            raise TypeError(f"{library.name} has no option {name!r}")


def load(which: str | os.PathLike[str] | None = None, **options: object) -> Library:
    """Load a library of the Wintun ABI, or return the one that was loaded before from that file.

    Parameters
    ----------
    which : str or path, optional
        ``"tun_linux"``: Linux's ``/dev/net/tun``. ``"loopback"``: a cable in memory, on every system.
        ``"wintun"``: the official DLL. Anything else is a path. None: what this system's packets go through.
    **options
        For adapters that are made from now on, by anybody who has loaded the library. ``tun_linux`` has ``offloads``,
        True by default: hand superpackets of TCP and UDP segments to and from the kernel, where it can, rather than
        single packets. The session's packets are the same, only faster. The official DLL has ``wake_guard``, True by
        default: up to version 0.14 its driver can miss that a packet was sent, and let it lie until the next one comes.
        With it, one filler that the driver drops follows the last packet of each burst after 1 to 2 ms, and wakes it.

    Returns
    -------
    Library
        It stays loaded for the life of the process.

    Raises
    ------
    LibraryNotFound
        There is no such file; the message lists the places that were tried.
    LibraryInvalid
        It is no library for this machine, or lacks one of the 14 functions, which is named.
    TypeError
        An option is unknown, or not a bool.

    Examples
    --------
    >>> import tunring
    >>> tunring.load("loopback").name
    'loopback'
    >>> tunring.load("loopback") is tunring.load("loopback")
    True
    """
    if which is None:
        which = _DEFAULT.get(sys.platform)
        if which is None:
            raise LibraryNotFound(_MOD_NOT_FOUND, f"no default library on {sys.platform}; 'loopback' works everywhere")
    library = _load_once(os.fspath(which))
    _set_options(library, options)
    return library


def running_driver_version(library: Library | None = None) -> DriverVersion:
    """Ask which version of the driver runs now.

    Wintun's for the official DLL; the kernel's for ``tun_linux``, of which the TUN driver is a part; the library's own
    for ``loopback``.

    Raises
    ------
    NotFound
        The driver is not loaded.
    """
    return DriverVersion(*(library or load()).running_driver_version())


def delete_driver(library: Library | None = None) -> None:
    """Remove the driver from the system, if no adapter is in use.

    Our own libraries have installed nothing: there it does nothing, and fails all the same while adapters are open.

    Raises
    ------
    WintunError
        It is in use, or the system refused.
    """
    (library or load()).delete_driver()
