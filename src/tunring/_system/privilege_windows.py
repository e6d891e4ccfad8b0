"""The elevation of this process's token, and a privilege that it has but does not use by itself."""

from __future__ import annotations

import ctypes
import sys
from ctypes import wintypes

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
