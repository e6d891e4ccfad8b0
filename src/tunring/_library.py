"""Which library of the Wintun ABI to use, and loading it once."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import NamedTuple

from tunring._core import Library
from tunring._win32 import Win32
from tunring.errors import LibraryNotFound

_BACKENDS = Path(__file__).parent / "_backends"
_SUFFIX = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
_NAMES = ("wintun", "tun_linux", "loopback")
_DEFAULT = {"win32": "wintun", "linux": "tun_linux"}

PLACE_VARIABLE = "TUNRING_WINTUN_DLL"
_VERIFY_VARIABLE = "TUNRING_WINTUN_VERIFY"


# A signal handler or a finalizer may load one as well, in a thread that is just loading one.
_lock = threading.RLock()
#: By resolved path, and by name: a process that has given up privileges may not see the file any more.
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
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def _official_places() -> list[Path]:
    """Where the official DLL may be: never the current folder or PATH, from which anybody's DLL could come."""
    places = [Path(__file__).parent / "wintun.dll"]
    if named := os.environ.get(PLACE_VARIABLE):
        if not Path(named).is_absolute():
            text = f"{PLACE_VARIABLE} must be an absolute path, not {named!r}"
            raise LibraryNotFound(Win32.MOD_NOT_FOUND, text)
        places.insert(0, Path(named))
    if sys.platform == "win32":
        from tunring._system.official_windows import system_folder

        places.append(system_folder() / "wintun.dll")
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
    text = f"no library {which!r}; looked for: {tried}"
    if which not in _NAMES:
        text += f"; anything but {', '.join(map(repr, _NAMES))} is the path of a file"
    if which == "wintun":
        from tunring._system.official import HOME

        text += (
            f". A wheel of tunring for Windows carries it; otherwise unpack the archive of {HOME}, and set "
            f"{PLACE_VARIABLE} to the wintun.dll of this machine's folder"
        )
    raise LibraryNotFound(Win32.MOD_NOT_FOUND, text)


def _open(path: Path, verify: bool) -> Library:
    if sys.platform == "win32" and path.parent != _BACKENDS.resolve():
        from tunring._system.official_windows import checked

        with checked(path, verify=verify) as final:
            return Library(final)
    return Library(str(path))


def _load_once(which: str, verify: bool) -> Library:
    with _lock:
        if which in _loaded and which in _NAMES:
            return _loaded[which]
        path = _find(which)
        library = _loaded.get(str(path)) or _open(path, verify)
        # A thread that loaded the same one in the middle of that was first.
        library = _loaded.setdefault(str(path), library)
        if which in _NAMES:
            _loaded.setdefault(which, library)
        return library


def _set_options(library: Library, options: dict[str, object]) -> None:
    for name, value in options.items():
        if not isinstance(value, bool):
            raise TypeError(f"option {name!r} must be True or False, not {value!r}")
        if not library.set_option(name, value):
            raise TypeError(f"{library.name} has no option {name!r}")


def load(which: str | os.PathLike[str] | None = None, *, verify: bool = True, **options: object) -> Library:
    """Load a library of the Wintun ABI, or return the one that was loaded before from that file.

    Parameters
    ----------
    which : str or path, optional
        ``"tun_linux"``: Linux's ``/dev/net/tun``. ``"loopback"``: a cable in memory, on every system.
        ``"wintun"``: the official DLL, at the path in ``TUNRING_WINTUN_DLL``, beside this package or in
        System32. Anything else is a path. None: the library for this system's network.
    verify : bool
        On Windows, take only official builds of the DLL, known by their SHA-256. False, or ``TUNRING_WINTUN_VERIFY=0``
        in the environment, takes others with a warning: for a build that is newer than this version of tunring.
    **options
        For all adapters that are made from now on with the library. ``tun_linux`` has ``offloads``,
        True by default: hand superpackets of TCP and UDP segments to and from the kernel, where it can, rather than
        single packets. The session's packets are the same, only faster. The official DLL has ``wake_guard``, True by
        default: up to version 0.14 its driver can miss that a packet was sent, and leave it until the next one comes.
        With the guard, one filler, which the driver drops, follows the last packet of each burst after 3 to 6 ms and
        wakes the driver.

    Returns
    -------
    Library
        It stays loaded for the life of the process.

    Raises
    ------
    LibraryNotFound
        The file does not exist; the message lists the places that were tried.
    LibraryInvalid
        It is not a library for this machine or not an official build, or lacks one of the 14 functions, which is named.
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
            raise LibraryNotFound(
                Win32.MOD_NOT_FOUND, f"no default library on {sys.platform}; 'loopback' works everywhere"
            )
    verify = bool(verify) and os.environ.get(_VERIFY_VARIABLE) != "0"
    library = _load_once(os.fspath(which), verify)
    _set_options(library, options)
    return library


def the_library(library: Library | None) -> Library:
    """The library that an argument means: None is :func:`load`'s default.

    Raises
    ------
    TypeError
        It is neither.
    """
    if library is None:
        return load()
    if not isinstance(library, Library):
        raise TypeError(f"library must be a Library, as tunring.load() returns it, or None, not {library!r}")
    return library


def running_driver_version(library: Library | None = None) -> DriverVersion:
    """Return the version of the running driver.

    Wintun's for the official DLL; the kernel's for ``tun_linux``, of which the TUN driver is a part; the library's own
    for ``loopback``.

    Raises
    ------
    NotFound
        The driver is not loaded.
    """
    return DriverVersion(*the_library(library).running_driver_version())


def delete_driver(library: Library | None = None) -> None:
    """Remove the driver from the system, if no adapter is in use.

    Our own libraries install none: for them it does nothing, but fails, too, while adapters are open.

    Raises
    ------
    WintunError
        The driver is in use, or the system refused.
    """
    the_library(library).delete_driver()
