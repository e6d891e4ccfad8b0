"""The contents of a wheel for Windows, which ``TUNRING_WINDOWS_WHEEL`` names. They need pefile."""

from __future__ import annotations

import email
import os
import re
import zipfile
from pathlib import Path

import pefile
import pytest

from tunring._system.official import BUILDS, build_of, machine_of

ROOT = Path(__file__).resolve().parents[2]
FUNCTIONS = re.findall(r"\bX\((Wintun\w+),", (ROOT / "include/wintun.h").read_text("utf-8"))


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's files."""
    folder = tmp_path_factory.mktemp("wheel")
    with zipfile.ZipFile(os.environ["TUNRING_WINDOWS_WHEEL"]) as archive:
        archive.extractall(folder)
    return folder


def exports(path: Path) -> set[str]:
    with pefile.PE(path) as file:
        return {symbol.name.decode() for symbol in file.DIRECTORY_ENTRY_EXPORT.symbols}


def imports(path: Path) -> list[str]:
    with pefile.PE(path) as file:
        return [library.dll.decode() for library in file.DIRECTORY_ENTRY_IMPORT]


def test_no_sources_and_stubs(unpacked: Path) -> None:
    found = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()}
    assert {"tunring/_core.pyi", "tunring/py.typed", "tunring/_backends/loopback.dll"} <= found
    assert not [name for name in found if name.endswith((".c", ".h", ".pyx", ".pxi", ".pxd", ".o", ".so", ".lib"))]
    assert not any("tun_linux" in name for name in found)
    [module] = [name for name in found if name.endswith(".pyd")]
    assert re.fullmatch(r"tunring/_core(\.cp\d+-win\w+)?\.pyd", module)


def test_the_back_end_exports_the_abi_and_nothing_else(unpacked: Path) -> None:
    assert len(FUNCTIONS) == 14
    assert exports(unpacked / "tunring/_backends/loopback.dll") == {*FUNCTIONS, "TunringBackend"}


def test_the_extension_exports_its_initialiser_and_nothing_else(unpacked: Path) -> None:
    [module] = unpacked.glob("tunring/_core*.pyd")
    assert exports(module) == {"PyInit__core"}


def test_libraries_need_the_system_and_python_only(unpacked: Path) -> None:
    allowed = r"(?i)(kernel32|advapi32|ntdll|ws2_32|ucrtbase|vcruntime140(_1)?|python3\d*|api-ms-win-crt-[\w-]+)\.dll"
    for path in [*unpacked.glob("tunring/*.pyd"), *unpacked.glob("tunring/_backends/*.dll")]:
        needed = imports(path)
        assert needed
        assert all(re.fullmatch(allowed, name) for name in needed), (path, needed)


def test_the_official_dll_and_both_licences(unpacked: Path) -> None:
    dll = unpacked / "tunring/wintun.dll"
    _, build = build_of(dll)
    assert build in BUILDS.values()
    [module] = unpacked.glob("tunring/_core*.pyd")
    with dll.open("rb") as official, module.open("rb") as ours:
        assert build.machine == machine_of(official) == machine_of(ours)
    [information] = unpacked.glob("tunring-*.dist-info")
    metadata = email.message_from_bytes((information / "METADATA").read_bytes())
    assert metadata["License-Expression"] == "MIT AND LicenseRef-Wintun-Prebuilt-Binaries"
    files = metadata.get_all("License-File", [])
    assert sorted(Path(name).name for name in files) == ["LICENSE", "wintun-license.txt"]
    texts = [(information / "licenses" / name).read_text("utf-8") for name in files]
    assert any("Prebuilt Binaries License" in text for text in texts)
    assert (unpacked / "tunring/wintun-license.txt").read_text("utf-8") in texts
