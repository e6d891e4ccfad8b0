"""Facts from a DLL's own bytes, before anything loads it."""

from __future__ import annotations

import hashlib
import io
import struct
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunring._system.official import BUILDS, build_of, machine_of, stable_guid

#: magic, bytes of the optional header before its table
PE32, PE32_PLUS = (0x10B, 96), (0x20B, 112)


def dll(machine: int, kind: tuple[int, int] = PE32_PLUS, sections: int = 2, signature: int = 40) -> bytes:
    """A DLL's outline: headers, sections of 512 bytes, a signature at the end."""
    magic, before = kind
    optional = before + 16 * 8
    end = 1024 + sections * 512
    entries = bytearray(16 * 8)
    if signature:
        struct.pack_into("<II", entries, 4 * 8, end, signature)
    head = struct.pack("<2s58xI", b"MZ", 128).ljust(128, b"\0")
    head += struct.pack("<4sHHIIIHH", b"PE\0\0", machine, sections, 0, 0, 0, optional, 0x2022)
    head += struct.pack("<H", magic).ljust(before, b"\0") + entries
    for index in range(sections):
        head += struct.pack("<8sIIII16x", b".text", 512, 4096, 512, 1024 + index * 512)
    return head.ljust(1024, b"\0") + bytes(sections * 512 + signature)


@pytest.mark.parametrize(
    ("machine", "kind", "name"),
    [
        (0x8664, PE32_PLUS, "amd64"),
        (0xAA64, PE32_PLUS, "arm64"),
        (0x014C, PE32, "x86"),
        (0x01C4, PE32, "arm"),
        (0x0200, PE32_PLUS, "0x0200"),
    ],
)
def test_the_machine(machine: int, kind: tuple[int, int], name: str) -> None:
    assert machine_of(io.BytesIO(dll(machine, kind))) == name


@pytest.mark.parametrize("kind", [PE32, PE32_PLUS])
@pytest.mark.parametrize("signature", [0, 40])
def test_a_truncated_dll_at_every_length(kind: tuple[int, int], signature: int) -> None:
    whole = dll(0x8664, kind, signature=signature)
    for length in range(len(whole)):
        with pytest.raises(ValueError, match=r"not a DLL|truncated|cut off"):
            machine_of(io.BytesIO(whole[:length]))
    assert machine_of(io.BytesIO(whole + b"more")) == "amd64"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "cut off"),
        (b"no library, but long enough to be looked at: " + bytes(100), "MZ"),
        (b"\x7fELF" + bytes(1000), "MZ"),
        (b"MZ" + bytes(1000), "PE header"),
        (dll(0x8664).replace(b"PE\0\0", b"NE\0\0"), "PE header"),
    ],
)
def test_a_file_that_is_not_a_dll(content: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        machine_of(io.BytesIO(content))


@given(st.binary(max_size=300), st.integers(0, 1400))
def test_any_damage_is_answered_by_a_machine_or_a_value_error(patch: bytes, place: int) -> None:
    content = bytearray(dll(0x8664))
    content[place : place + len(patch)] = patch
    try:
        assert machine_of(io.BytesIO(content))
    except ValueError as error:
        assert str(error).startswith("it is ")


def test_a_file_that_is_not_an_official_build(tmp_path: Path) -> None:
    path = tmp_path / "wintun.dll"
    path.write_bytes(dll(0x8664))
    assert build_of(path) == (hashlib.sha256(dll(0x8664)).hexdigest(), None)


def test_the_official_builds() -> None:
    assert sorted(build.machine for build in BUILDS.values()) == ["amd64", "arm", "arm64", "x86"]
    assert all(len(digest) == 64 and bytes.fromhex(digest) for digest in BUILDS)


def test_an_adapters_guid_is_stable_by_name_and_machine() -> None:
    one = stable_guid("OfficeNet", "machine 1")
    assert one == stable_guid("officeNET", "machine 1") == uuid.UUID(str(one))
    assert len({one, stable_guid("OfficeNet", "machine 2"), stable_guid("OfficeNet 2", "machine 1")}) == 3
    assert one.version == 5
