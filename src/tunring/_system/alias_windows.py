"""Interface names, which the system calls aliases, and the LUIDs they stand for."""

from __future__ import annotations

import ctypes
import sys
from ctypes import wintypes

assert sys.platform == "win32"

#: UTF-16 units of an alias, with its NUL.
_ALIAS_SIZE = 257
_LOAD_LIBRARY_SEARCH_SYSTEM32 = 0x800

_iphlpapi = ctypes.WinDLL("iphlpapi.dll", winmode=_LOAD_LIBRARY_SEARCH_SYSTEM32)
_luid_to_alias = _iphlpapi.ConvertInterfaceLuidToAlias
_luid_to_alias.argtypes = [ctypes.POINTER(ctypes.c_uint64), wintypes.LPWSTR, ctypes.c_size_t]
_luid_to_alias.restype = wintypes.DWORD
_alias_to_luid = _iphlpapi.ConvertInterfaceAliasToLuid
_alias_to_luid.argtypes = [wintypes.LPCWSTR, ctypes.POINTER(ctypes.c_uint64)]
_alias_to_luid.restype = wintypes.DWORD


def alias_of(luid: int) -> str | None:
    """The interface's name as people see it, or None while the system has no such interface."""
    alias = ctypes.create_unicode_buffer(_ALIAS_SIZE)
    return alias.value or None if _luid_to_alias(ctypes.c_uint64(luid), alias, _ALIAS_SIZE) == 0 else None


def luid_of(alias: str) -> int | None:
    """The LUID of the interface of this name, of any kind, or None."""
    luid = ctypes.c_uint64()
    return luid.value if _alias_to_luid(alias, luid) == 0 else None
