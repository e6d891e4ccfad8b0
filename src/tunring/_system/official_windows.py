"""Loading a DLL that is what it was when it was checked: the Windows half of :mod:`tunring._system.official`."""

from __future__ import annotations

import ctypes
import msvcrt
import os
import sys
import warnings
import winreg
from contextlib import contextmanager
from ctypes import wintypes
from pathlib import Path
from typing import TYPE_CHECKING

from tunring import _core
from tunring._system.official import BUILDS, machine_of, sha256_of
from tunring._win32 import Win32
from tunring.errors import LibraryInvalid, LibraryNotFound, WintunError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import FileIO

assert sys.platform == "win32"

_GENERIC_READ = 0x80000000
_FILE_SHARE_READ = 1
_OPEN_EXISTING = 3
_INVALID_HANDLE = ctypes.c_void_p(-1).value
_PATH_SIZE = 32768

_OPEN_FAILURES: dict[int, str] = {
    Win32.ACCESS_DENIED: "this user may not read it",
    Win32.SHARING_VIOLATION: "a program has it open for writing",
}

_kernel32 = ctypes.WinDLL("kernel32.dll", use_last_error=True, winmode=0x800)
_create_file = _kernel32.CreateFileW
_create_file.argtypes = [
    wintypes.LPCWSTR,
    wintypes.DWORD,
    wintypes.DWORD,
    ctypes.c_void_p,
    wintypes.DWORD,
    wintypes.DWORD,
    wintypes.HANDLE,
]
_create_file.restype = ctypes.c_void_p
_final_path = _kernel32.GetFinalPathNameByHandleW
_final_path.argtypes = [wintypes.HANDLE, wintypes.LPWSTR, wintypes.DWORD, wintypes.DWORD]
_final_path.restype = wintypes.DWORD
_system_directory = _kernel32.GetSystemDirectoryW
_system_directory.argtypes = [wintypes.LPWSTR, wintypes.UINT]
_system_directory.restype = wintypes.UINT


def system_folder() -> Path:
    """System32, as the system names it: an environment variable could be anybody's."""
    buffer = ctypes.create_unicode_buffer(_PATH_SIZE)
    if not _system_directory(buffer, _PATH_SIZE):
        raise ctypes.WinError(ctypes.get_last_error())
    return Path(buffer.value)


def machine_id() -> str:
    """The identity that Windows gave this machine when it was installed; the computer's name where there is none."""
    access = winreg.KEY_READ | winreg.KEY_WOW64_64KEY
    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"SOFTWARE\Microsoft\Cryptography", 0, access) as key:
            return str(winreg.QueryValueEx(key, "MachineGuid")[0])
    except OSError:
        return os.environ.get("COMPUTERNAME", "")


@contextmanager
def checked(path: Path, *, verify: bool) -> Iterator[str]:
    """Hold a DLL's file open against writers, having checked it; yields the path to load it by.

    Parameters
    ----------
    path : Path
        The file.
    verify : bool
        True: only official builds are accepted. False: other builds cause a warning.

    Raises
    ------
    LibraryInvalid
        It is not a whole DLL, is for another machine, or is not an official build.
    LibraryNotFound
        It has gone.
    """
    with _open_denying_writers(path) as file:
        _check_machine(path, file)
        _check_hash(path, file, verify)
        yield _path_of(file)


def _open_denying_writers(path: Path) -> FileIO:
    handle = _create_file(str(path), _GENERIC_READ, _FILE_SHARE_READ, None, _OPEN_EXISTING, 0, None)
    if handle is None or handle == _INVALID_HANDLE:
        code = ctypes.get_last_error()
        reason = _OPEN_FAILURES.get(code, ctypes.FormatError(code).strip())
        kind = LibraryNotFound if code in (Win32.FILE_NOT_FOUND, Win32.PATH_NOT_FOUND) else LibraryInvalid
        raise kind(code, f"can't load {path}: {reason} (code {code})")
    return os.fdopen(msvcrt.open_osfhandle(handle, os.O_RDONLY), "rb", buffering=0)


def _check_machine(path: Path, file: FileIO) -> None:
    # The machine that counts is this process's, which an emulator may run: the extension module was made for it.
    with open(_core.__file__, "rb") as ours:
        wanted = machine_of(ours)
    try:
        machine = machine_of(file)
    except ValueError as error:
        raise LibraryInvalid(Win32.BAD_EXE_FORMAT, f"can't load {path}: {error}") from None
    if machine != wanted:
        text = f"can't load {path}: it is for {machine}, and this Python is for {wanted}"
        raise LibraryInvalid(
            Win32.EXE_MACHINE_TYPE_MISMATCH, f"{text}; take the official archive's bin\\{wanted}\\wintun.dll"
        )


def _check_hash(path: Path, file: FileIO, verify: bool) -> None:
    digest = sha256_of(file)
    if digest in BUILDS:
        return
    text = f"{path} is not an official build of wintun.dll that this version of tunring knows (SHA-256 {digest})"
    if verify:
        advice = "if you trust it, load it with verify=False, or set TUNRING_WINTUN_VERIFY=0"
        raise LibraryInvalid(Win32.INVALID_IMAGE_HASH, f"can't load {text}; {advice}")
    warnings.warn(f"{text}; loading it anyway", RuntimeWarning, stacklevel=2)


def _path_of(file: FileIO) -> str:
    """The opened file's own path, free of links, which nobody can point elsewhere while it is open."""
    buffer = ctypes.create_unicode_buffer(_PATH_SIZE)
    length = _final_path(msvcrt.get_osfhandle(file.fileno()), buffer, _PATH_SIZE, 0)
    if not 0 < length < _PATH_SIZE:
        raise WintunError(ctypes.get_last_error(), "can't load a DLL: its final path is unknown")
    path = buffer.value
    # Without the prefix, where both mean the same: others know the module by its ordinary path.
    if path.startswith("\\\\?\\UNC\\"):
        return "\\\\" + path[8:] if len(path) < 260 else path
    return path[4:] if path.startswith("\\\\?\\") and path[5:7] == ":\\" and len(path) < 260 else path
