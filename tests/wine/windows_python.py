"""A Windows Python with what the tests import, laid out in a folder."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import tomllib
import zipfile
from pathlib import Path

from downloads import PYTHONS, ROOT, run

_MINGW = "x86_64-w64-mingw32-"


def tag(version: str) -> str:
    """The two numbers that distinguish versions' ABIs: ``"313"``."""
    major, minor, _ = version.split(".")
    return major + minor


def _requirements(version: str) -> list[str]:
    """Packages that the tests need, some of them in the last release that runs."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["dependency-groups"]
    wanted = [word for word in groups["bench"] + groups["test"] if isinstance(word, str)]
    # scapy's later versions look on import for a function that Wine 8's secur32.dll lacks.
    pinned = {"numpy": PYTHONS[version].numpy, "scapy": "scapy==2.6.1"}
    return [pinned.get(word.partition(">")[0], word) for word in wanted]


def install(version: str, archive: Path, host_python: Path, root: Path) -> Path:
    """Makes the folder from the archive unless it is there; returns it."""
    requirements = _requirements(version)
    key = hashlib.sha256("\n".join([*requirements, Path(__file__).read_text("utf-8")]).encode()).hexdigest()[:12]
    target = root / f"python-{version}-{key}"
    if target.exists():
        return target
    for older in root.glob(f"python-{version}-*"):
        shutil.rmtree(older)
    with tempfile.TemporaryDirectory(dir=root) as temporary:
        folder = Path(temporary, "python")
        _unpack(archive, Path(temporary, "jar"), folder)
        # Under Wine 8 it ends the process: `platform` does without.
        (folder / "lib/_wmi.pyd").unlink(missing_ok=True)
        _make_stable_abi_dll(folder, tag(version), Path(temporary))
        _make_random_dll(folder, Path(temporary))
        # pip would read the markers for the system that it runs on; its own under Wine takes a minute.
        run(
            host_python, "-m", "uv", "pip", "install", "--target", folder / "lib/site-packages", "--only-binary=:all:",
            "--python-platform=x86_64-pc-windows-msvc", f"--python-version={version}", *requirements,
        )  # fmt: skip
        os.rename(folder, target)
    return target


def _unpack(archive: Path, temporary: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as jar:
        names = [name for name in jar.namelist() if not re.search(r"/lib/(test|idlelib)/", name)]
        jar.extractall(temporary, names)
    os.rename(temporary / "org/bytedeco/cpython/windows-x86_64", folder)


def stable_abi_names(python: Path) -> tuple[set[str], set[str]]:
    """Names in the import library of python3.dll: functions, and data."""
    symbols = run(f"{_MINGW}nm", python / "libs/python3.lib")
    functions = set(re.findall(r" T (\w+)$", symbols, re.MULTILINE))
    return functions, set(re.findall(r" I __imp_(\w+)$", symbols, re.MULTILINE)) - functions


def _make_stable_abi_dll(python: Path, version: str, temporary: Path) -> None:
    """Makes python3.dll, which the archive lacks: it forwards the stable ABI to the DLL of the version."""
    functions, data = stable_abi_names(python)
    names = functions | data
    listing = run(f"{_MINGW}objdump", "-p", python / f"python{version}.dll").partition("[Ordinal/Name Pointer] Table")[
        2
    ]
    names &= set(re.findall(r"^\s*\[ *\d+\].* (\w+)$", listing, re.MULTILINE))
    lines = [f"  {name}=python{version}.{name}{'' if name in functions else ' DATA'}" for name in sorted(names)]
    definition, entry, exports = temporary / "python3.def", temporary / "entry.c", temporary / "exports.o"
    definition.write_text("LIBRARY python3.dll\nEXPORTS\n" + "\n".join(lines) + "\n", "utf-8")
    entry.write_text("int __stdcall DllMainCRTStartup(void *a, unsigned b, void *c) { return 1; }\n", "utf-8")
    run(f"{_MINGW}dlltool", "-d", definition, "-e", exports, "-D", "python3.dll")
    run(f"{_MINGW}gcc", "-shared", "-nostdlib", "-s", "-o", python / "python3.dll", entry, exports)


def _make_random_dll(python: Path, temporary: Path) -> None:
    """Makes bcryptprimitives.dll, which Wine 8 lacks: what is in Rust, such as cryptography, has random bytes of it."""
    source = temporary / "random.c"
    source.write_text(
        "#include <windows.h>\n#include <ntsecapi.h>\n"
        "__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE data, SIZE_T size)\n"
        "{ return RtlGenRandom(data, (ULONG)size); }\n",
        "utf-8",
    )
    run(f"{_MINGW}gcc", "-shared", "-s", "-o", python / "bcryptprimitives.dll", source, "-ladvapi32")
