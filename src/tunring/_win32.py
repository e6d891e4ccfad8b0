"""Win32 error codes, which every library of the Wintun ABI reports by, on every system."""

from __future__ import annotations

from enum import IntEnum


class Win32(IntEnum):
    """A Win32 error code, by its name in Windows' headers without ``ERROR_``."""

    FILE_NOT_FOUND = 2
    PATH_NOT_FOUND = 3
    TOO_MANY_OPEN_FILES = 4
    ACCESS_DENIED = 5
    NOT_ENOUGH_MEMORY = 8
    INVALID_DATA = 13
    GEN_FAILURE = 31
    SHARING_VIOLATION = 32
    HANDLE_EOF = 38
    NOT_SUPPORTED = 50
    INVALID_PARAMETER = 87
    BUFFER_OVERFLOW = 111
    MOD_NOT_FOUND = 126
    PROC_NOT_FOUND = 127
    BUSY = 170
    ALREADY_EXISTS = 183
    BAD_EXE_FORMAT = 193
    EXE_MACHINE_TYPE_MISMATCH = 216
    INVALID_IMAGE_HASH = 577
    KEY_DELETED = 1018
    NOT_FOUND = 1168
    ALREADY_INITIALIZED = 1247
    DEVICE_NOT_AVAILABLE = 4319
    OBJECT_ALREADY_EXISTS = 5010
