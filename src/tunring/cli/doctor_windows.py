"""The Windows half of ``tunring doctor``: Windows or Wine, elevation, and which DLL this is."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tunring import load
from tunring._library import PLACE_VARIABLE
from tunring._system.official import ELEVATION_ADVICE, build_of
from tunring._system.privilege import is_elevated
from tunring.cli.report import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

assert sys.platform == "win32"


def look() -> Iterator[Finding]:
    """Look at the system, without changing anything."""
    yield _system()
    yield _python()
    yield _elevation()
    yield from _dll()


def wine_version() -> str | None:
    """Wine's version, or None on Windows."""
    tell = getattr(ctypes.WinDLL("ntdll"), "wine_get_version", None)
    if tell is None:
        return None
    tell.argtypes, tell.restype = [], ctypes.c_char_p
    return str(tell().decode())


def _system() -> Finding:
    topic, windows = "system", sys.getwindowsversion()
    claimed = f"Windows {windows.major}.{windows.minor}.{windows.build}"
    wine = wine_version()
    if wine is None:
        return Finding(topic, "ok", claimed)
    advice = "adapters need Windows itself; loopback works here: tunring.load('loopback')"
    return Finding(
        topic, "problem", f"Wine {wine}, which says it is {claimed}; it has no place for Wintun's driver", advice
    )


def _python() -> Finding:
    bits = ctypes.sizeof(ctypes.c_void_p) * 8
    return Finding("python", "ok", f"{bits} bits, {platform.machine()}, {sys.executable}")


def _elevation() -> Finding:
    if is_elevated():
        return Finding("privileges", "ok", "elevated")
    return Finding("privileges", "warning", "not elevated: adapters can't be created or opened", ELEVATION_ADVICE)


def _dll() -> Iterator[Finding]:
    try:
        path = Path(load("wintun").path)
        digest, build = build_of(path)
    except OSError:
        return  # the default library's line reports it
    topic, text = "wintun.dll", f"SHA-256 {digest}"
    if build:
        yield Finding(topic, "ok", f"official build {build.version} for {build.machine}, {text}")
    else:
        advice = "use the official one, which tunring's wheels carry, unless you know where this one is from"
        yield Finding(topic, "warning", f"not an official build that this version of tunring knows, {text}", advice)
    named = os.environ.get(PLACE_VARIABLE)
    if named and not Path(named).is_file():
        advice = "set it to where the DLL is, or unset it"
        yield Finding(topic, "warning", f"{PLACE_VARIABLE} names {named}, which is not a file", advice)
