"""The official builds of wintun.dll, and what a file's own bytes say of it before anything loads it.

Nothing here needs Windows, or the rest of the package.
"""

from __future__ import annotations

import hashlib
import struct
import uuid
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from io import BufferedReader, BytesIO, FileIO
    from pathlib import Path

    Binary: TypeAlias = FileIO | BufferedReader | BytesIO

#: Where people get it.
HOME = "https://www.wintun.net"


class Build(NamedTuple):
    """One official build of the DLL."""

    version: str
    machine: str


#: Advice for processes that are not elevated.
ELEVATION_ADVICE = (
    'Wintun serves elevated processes of administrators only: start this one from a terminal opened with "Run as '
    'administrator", or as a service'
)

#: SHA-256 of the file -> which build it is.
BUILDS = {
    "e5da8447dc2c320edc0fc52fa01885c103de8c118481f683643cacc3220dafce": Build("0.14.1", "amd64"),
    "f7ba89005544be9d85231a9e0d5f23b2d15b3311667e2dad0debd344918a3f80": Build("0.14.1", "arm64"),
    "d694fa46ab4cfebcb2632d094c7aa97278eef2f8052438621766d863ae98a931": Build("0.14.1", "x86"),
    "daad267411ecdc70a0535e274d2c3e9da3d0084bdac7662cb8424dd4a031b4d9": Build("0.14.1", "arm"),
}

#: Machine types of PE files, named as the folders of the official archive.
MACHINES = {0x8664: "amd64", 0xAA64: "arm64", 0x014C: "x86", 0x01C4: "arm"}

#: The beginning of a PE file: an MZ stub, which has the position of the PE header.
_STUB = struct.Struct("<2s58xI")
#: Signature, machine, sections, optional header's size.
_HEADER = struct.Struct("<4sHH12xH2x")
#: Of a section: size and offset of its bytes in the file.
_SECTION = struct.Struct("<16xII16x")
#: Of the optional header's table: offset and size in the file of the signature, the fifth entry. By the header's magic.
_SIGNATURE_ENTRY = {0x10B: 96 + 4 * 8, 0x20B: 112 + 4 * 8}
_HEADERS_SIZE = 65536


def machine_of(file: Binary) -> str:
    """Which machine a DLL is for, such as ``"amd64"``.

    Raises
    ------
    ValueError
        It is not a DLL, or is cut off; the message names the fault.
    """
    size = file.seek(0, 2)
    file.seek(0)
    head = file.read(_HEADERS_SIZE)
    try:
        mark, offset = _STUB.unpack_from(head)
        if mark != b"MZ":
            raise ValueError("it is not a DLL: it doesn't begin with MZ")
        mark, machine, sections, optional = _HEADER.unpack_from(head, offset)
        if mark != b"PE\0\0":
            raise ValueError("it is not a DLL: it has no PE header")
        start = offset + _HEADER.size
        ends = [start + optional + sections * _SECTION.size]
        for index in range(sections):
            length, place = _SECTION.unpack_from(head, start + optional + index * _SECTION.size)
            ends.append(place + length)
        (magic,) = struct.unpack_from("<H", head, start)
        if magic in _SIGNATURE_ENTRY:
            ends.append(sum(struct.unpack_from("<II", head, start + _SIGNATURE_ENTRY[magic])))
    except struct.error:
        raise ValueError(f"it is not a whole DLL: its headers are cut off at {size} bytes") from None
    if max(ends) > size:
        raise ValueError(f"it is truncated: {size} bytes of {max(ends)}")
    return MACHINES.get(machine, f"{machine:#06x}")


def sha256_of(file: Binary) -> str:
    """The SHA-256 of a whole file, in hexadecimal."""
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()


def build_of(path: Path) -> tuple[str, Build | None]:
    """A file's SHA-256, and which official build it is, if any."""
    with path.open("rb") as file:
        digest = sha256_of(file)
    return digest, BUILDS.get(digest)


def stable_guid(name: str, machine: str) -> uuid.UUID:
    """The GUID of an adapter of this name on this machine: the same from one creation to the next.

    Windows keeps a network's settings (its profile, its firewall rules) by the adapter's GUID. Names that differ only
    in case are the same to it.

    Examples
    --------
    >>> from tunring._system.official import stable_guid
    >>> stable_guid("OfficeNet", "machine 1") == stable_guid("officenet", "machine 1")
    True
    >>> stable_guid("OfficeNet", "machine 1") == stable_guid("OfficeNet", "machine 2")
    False
    """
    return uuid.uuid5(uuid.UUID("0f8b7a0e-3a52-4b7e-9c35-7f0d6f0b51a4"), f"{machine}\0{name.lower()}")
