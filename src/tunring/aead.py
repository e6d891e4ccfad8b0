"""Authenticated encryption of whole batches: Sealers, Openers, and the library that computes it.

The cryptography is that of a well-kept library, found at run time: Intel's ipsec-mb where it is installed (Debian's
``libipsec-mb1``; it works on a batch faster than others), else OpenSSL's libcrypto, as Python's own ``hashlib`` has it
loaded or the system offers it. Each passes a known-answer test before its first use. The environment variable
``TUNRING_AEAD`` chooses: ``libcrypto``, ``ipsec-mb``, ``boringssl``, or one of them with a colon and its file's path.

``boringssl`` is Google's BoringSSL, where Debian and Ubuntu put it for the Android tools (``android-libboringssl``);
``boringssl:PATH`` is any build of it, or of Amazon's AWS-LC. It is taken only when asked for: the authors of BoringSSL
promise no stable interface. On processors without AVX-512 it is the fastest for ChaCha20-Poly1305. Its functions have
the names of OpenSSL's, but each library calls only its own: where the system can't ensure that, BoringSSL is refused.

Examples
--------
A tunnel's two directions (``session`` and ``socket`` are what packets come from and go to):

>>> import os
>>> from tunring.aead import Opener, Sealer
>>> key = os.urandom(32)
>>> sealer = Sealer("aes-256-gcm", key, header=b"demo")
>>> opener = Opener("aes-256-gcm", key, header=b"demo")
>>> with sealer.seal([b"a packet"]) as datagrams:
...     wire = datagrams.tobytes()
>>> with opener.open(wire) as packets:
...     packets.tobytes()
[b'a packet']
>>> len(opener.open(wire)), opener.replayed
(0, 1)
"""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from tunring._core import AeadLibrary, Opener, Sealer
from tunring._win32 import Win32
from tunring.errors import LibraryNotFound, WintunError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ALGORITHMS", "Algorithm", "Opener", "Provider", "Sealer", "providers"]

Algorithm: TypeAlias = Literal["chacha20-poly1305", "aes-256-gcm", "aes-128-gcm"]

#: The names that Sealers and Openers know.
ALGORITHMS: tuple[Algorithm, ...] = ("chacha20-poly1305", "aes-256-gcm", "aes-128-gcm")

VARIABLE = "TUNRING_AEAD"
_KINDS = ("ipsec-mb", "libcrypto", "boringssl")
_LIBCRYPTOS = {
    "win32": (
        "libcrypto-4.dll",
        "libcrypto-4-x64.dll",
        "libcrypto-3.dll",
        "libcrypto-3-x64.dll",
        "libcrypto-1_1.dll",
        "libcrypto-1_1-x64.dll",
    ),
    "darwin": ("libcrypto.4.dylib", "libcrypto.3.dylib", "libcrypto.1.1.dylib"),
}.get(sys.platform, ("libcrypto.so.4", "libcrypto.so.3", "libcrypto.so.1.1"))


@dataclass(frozen=True, slots=True)
class Candidate:
    """A library to try: its kind, its path, and whether it counts only if this process has loaded it already."""

    kind: str
    path: str
    loaded: bool = False

    def __str__(self) -> str:
        return f"{self.kind} {self.path}"


@dataclass(frozen=True, slots=True)
class Provider:
    """Which library serves an algorithm.

    Attributes
    ----------
    name : str or None
        ``"ipsec-mb"``, ``"libcrypto"`` or ``"boringssl"``; None if no library serves it.
    path, version : str
        The library's file, or the name by which the system found it, and its version in its own words.
    others : tuple of str
        Why each other candidate doesn't serve it.
    """

    name: str | None
    path: str
    version: str
    others: tuple[str, ...]


class _Loaded:
    """The libraries that were loaded, for one setting of the environment variable."""

    def __init__(self, setting: str) -> None:
        self.setting = setting
        self.candidates = tuple(_candidates(setting))
        self.results: dict[Candidate, AeadLibrary | str] = {}
        self.serving: dict[str, AeadLibrary] = {}

    def load(self, candidate: Candidate) -> AeadLibrary | str:
        """The library, or why there is none."""
        if candidate not in self.results:
            try:
                self.results[candidate] = AeadLibrary(candidate.kind, candidate.path, candidate.loaded)
            except WintunError as error:
                self.results[candidate] = " ".join(str(error.strerror).split())
        return self.results[candidate]

    def fault(self, candidate: Candidate, algorithm: str) -> str | None:
        """Why it doesn't serve an algorithm, or None if it does."""
        library = self.load(candidate)
        return library if isinstance(library, str) else library.fault(algorithm)


_lock = threading.RLock()
_state: _Loaded | None = None


def _renew_lock() -> None:
    # Another thread of the parent may have held it when the process forked.
    global _lock  # noqa: PLW0603
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def _candidates(setting: str) -> Iterator[Candidate]:
    """In order of preference, which is fixed: what is chosen must not depend on a measurement."""
    kind, _, path = setting.partition(":")
    if setting and kind not in _KINDS:
        names = ", ".join(map(repr, _KINDS[:-1])) + f" or {_KINDS[-1]!r}"
        raise ValueError(f"{VARIABLE} must be {names}, with ':' and a path or without, not {setting!r}")
    if path:
        yield Candidate(kind, path)
        return
    if kind in ("", "ipsec-mb") and sys.platform == "linux":
        yield Candidate("ipsec-mb", "libIPSec_MB.so.1")
    if kind in ("", "libcrypto"):
        yield from _libcryptos()
    # Never by itself: its authors promise no stable interface.
    if kind == "boringssl" and sys.platform == "linux":
        system = getattr(sys.implementation, "_multiarch", f"{os.uname().machine}-linux-gnu")
        yield Candidate("boringssl", f"/usr/lib/{system}/android/libcrypto.so.0")


def _libcryptos() -> Iterator[Candidate]:
    """The one that Python has loaded, then the system's. On Windows there is no system's, and PATH has anybody's."""
    try:
        import _hashlib
    except ImportError:
        beside = None
    else:
        beside = getattr(_hashlib, "__file__", None)
    if os.name == "nt":
        folders = [Path(beside).parent] if beside else []
        # conda keeps DLLs there.
        folders += [Path(sys.base_prefix), Path(sys.base_prefix, "Library", "bin")]
        places = (folder / name for folder in folders for name in _LIBCRYPTOS)
        yield from (Candidate("libcrypto", str(place), loaded=True) for place in places if place.is_file())
        return
    if beside:
        # A library that a module is linked with is found through it, whatever its file is called.
        yield Candidate("libcrypto", beside, loaded=True)
    yield from (Candidate("libcrypto", name) for name in _LIBCRYPTOS)


def libcryptos() -> Iterator[tuple[str, bool]]:
    """Candidates for libcrypto in order of preference: the path, and whether it counts only if it is loaded already."""
    kind, _, path = os.environ.get(VARIABLE, "").partition(":")
    if kind == "libcrypto" and path:
        yield path, False
        return
    for candidate in _libcryptos():
        yield candidate.path, candidate.loaded


def _loaded() -> _Loaded:
    global _state  # noqa: PLW0603
    setting = os.environ.get(VARIABLE, "")
    if _state is None or _state.setting != setting:
        _state = _Loaded(setting)
    return _state


def library_for(algorithm: str) -> AeadLibrary:
    """Find the library that serves an algorithm.

    Parameters
    ----------
    algorithm : str
        One of ``ALGORITHMS``.

    Raises
    ------
    LibraryNotFound
        None does. The message lists what was tried.
    """
    with _lock:
        state = _loaded()
        if algorithm in state.serving:
            return state.serving[algorithm]
        tried = []
        for candidate in state.candidates:
            fault = state.fault(candidate, algorithm)
            library = state.load(candidate)
            if fault is None and not isinstance(library, str):
                state.serving[algorithm] = library
                return library
            tried.append(f"{candidate}: {fault}")
    listed = "\n".join(tried) or "no place to look at on this system"
    raise LibraryNotFound(Win32.MOD_NOT_FOUND, f"no library serves {algorithm}; tried:\n{listed}")


def providers() -> dict[Algorithm, Provider]:
    """Return the library that serves each algorithm, and why others do not.

    Returns
    -------
    dict
        A :class:`Provider` for each of ``ALGORITHMS``.

    Examples
    --------
    >>> from tunring.aead import providers
    >>> for algorithm, provider in providers().items():
    ...     print(algorithm, provider.name is not None)
    chacha20-poly1305 True
    aes-256-gcm True
    aes-128-gcm True
    """
    with _lock:
        state = _loaded()
        return {algorithm: _provider(state, algorithm) for algorithm in ALGORITHMS}


def _provider(state: _Loaded, algorithm: str) -> Provider:
    serving: AeadLibrary | None = None
    others = []
    for candidate in state.candidates:
        fault = state.fault(candidate, algorithm)
        library = state.load(candidate)
        if fault is not None or isinstance(library, str):
            others.append(f"{candidate}: {fault}")
        elif serving is not None:
            others.append(f"{candidate}: {serving.name} comes first")
        else:
            serving = library
    if serving is None:
        return Provider(None, "", "", tuple(others))
    return Provider(serving.name, serving.path, serving.version, tuple(others))
