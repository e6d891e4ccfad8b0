"""The elevation of this process's token, and a privilege that it has but does not use by itself."""

from __future__ import annotations

import ctypes
import sys
from contextlib import contextmanager
from ctypes import wintypes
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

assert sys.platform == "win32"

_TOKEN_QUERY = 0x0008
_TOKEN_ELEVATION = 20

_kernel32 = ctypes.WinDLL("kernel32.dll", use_last_error=True, winmode=0x800)
_current_process = _kernel32.GetCurrentProcess
_current_process.argtypes = []
_current_process.restype = wintypes.HANDLE
_close_handle = _kernel32.CloseHandle
_close_handle.argtypes = [wintypes.HANDLE]
_close_handle.restype = wintypes.BOOL
_advapi32 = ctypes.WinDLL("advapi32.dll", use_last_error=True, winmode=0x800)
_open_token = _advapi32.OpenProcessToken
_open_token.argtypes = [wintypes.HANDLE, wintypes.DWORD, ctypes.POINTER(wintypes.HANDLE)]
_open_token.restype = wintypes.BOOL
_token_information = _advapi32.GetTokenInformation
_token_information.argtypes = [
    wintypes.HANDLE,
    ctypes.c_int,
    ctypes.c_void_p,
    wintypes.DWORD,
    ctypes.POINTER(wintypes.DWORD),
]
_token_information.restype = wintypes.BOOL


class _Privilege(ctypes.Structure):
    """TOKEN_PRIVILEGES with one LUID_AND_ATTRIBUTES."""

    _fields_ = (("count", wintypes.DWORD), ("luid", wintypes.LARGE_INTEGER), ("attributes", wintypes.DWORD))
    _pack_ = 4


_TOKEN_ADJUST_PRIVILEGES, _IMPERSONATION, _ENABLED = 0x0020, 2, 2

_current_thread = _kernel32.GetCurrentThread
_current_thread.argtypes = []
_current_thread.restype = wintypes.HANDLE
_open_thread_token = _advapi32.OpenThreadToken
_open_thread_token.argtypes = [wintypes.HANDLE, wintypes.DWORD, wintypes.BOOL, ctypes.POINTER(wintypes.HANDLE)]
_open_thread_token.restype = wintypes.BOOL
_lookup_privilege = _advapi32.LookupPrivilegeValueW
_lookup_privilege.argtypes = [wintypes.LPCWSTR, wintypes.LPCWSTR, ctypes.c_void_p]
_lookup_privilege.restype = wintypes.BOOL
_adjust_privileges = _advapi32.AdjustTokenPrivileges
_adjust_privileges.argtypes = [
    wintypes.HANDLE,
    wintypes.BOOL,
    ctypes.POINTER(_Privilege),
    wintypes.DWORD,
    ctypes.c_void_p,
    ctypes.c_void_p,
]
_adjust_privileges.restype = wintypes.BOOL


def has_elevated_token() -> bool:
    """True if this process runs elevated."""
    token = wintypes.HANDLE()
    if not _open_token(_current_process(), _TOKEN_QUERY, token):
        raise ctypes.WinError(ctypes.get_last_error())
    try:
        elevated, size = wintypes.DWORD(), wintypes.DWORD()
        if not _token_information(token, _TOKEN_ELEVATION, ctypes.byref(elevated), ctypes.sizeof(elevated), size):
            raise ctypes.WinError(ctypes.get_last_error())
        return elevated.value != 0
    finally:
        _close_handle(token)


@contextmanager
def restore_privilege() -> Iterator[None]:
    """Let this thread name any owner for what it makes meanwhile (SeRestorePrivilege), if the process may.

    The process's own token stays as it is.
    """
    if not _advapi32.ImpersonateSelf(_IMPERSONATION):
        raise ctypes.WinError(ctypes.get_last_error())
    try:
        token = wintypes.HANDLE()
        if not _open_thread_token(_current_thread(), _TOKEN_ADJUST_PRIVILEGES, True, token):
            raise ctypes.WinError(ctypes.get_last_error())
        try:
            wanted = _Privilege(count=1, attributes=_ENABLED)
            luid = ctypes.addressof(wanted) + _Privilege.luid.offset
            found = _lookup_privilege(None, "SeRestorePrivilege", luid)
            # It succeeds, too, if the token lacks the privilege: that is the error's number then.
            if not found or not _adjust_privileges(token, False, wanted, 0, None, None) or ctypes.get_last_error():
                raise ctypes.WinError(ctypes.get_last_error())
        finally:
            _close_handle(token)
        yield
    finally:
        _advapi32.RevertToSelf()
