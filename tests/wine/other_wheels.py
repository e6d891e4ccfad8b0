"""Builds the wheels for Windows on 32-bit x86 and on 64-bit ARM, of which no Python runs under Wine here.

Both are for the stable ABI, built with the headers of the Windows Python and an import library of the names in its own.
Their contents are tested by tests/packaging/test_windows_wheel.py. Under 32-bit Wine a C program with the core in it
loads the back end and the official DLL of the 32-bit one.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import NamedTuple

import build
import sources
from build import Machine
from downloads import ROOT, pip_of, run
from windows_python import stable_abi_names

from debian_root import unpack

X86 = Machine("x86", "win32", "i686-w64-mingw32-gcc")
ARM64 = Machine("arm64", "win_arm64", "")


class _Tools(NamedTuple):
    """How to build for a machine."""

    compiler: str
    link: str  # options
    dlltool: list[str | Path]


def _tools(machine: Machine, host_python: Path, root: Path) -> _Tools:
    if machine is X86:
        # Functions would be exported by their decorated names too, which MSVC doesn't do.
        return _Tools(build.compiler(root, X86.gcc), "-Wl,--kill-at", ["i686-w64-mingw32-dlltool"])
    run(*pip_of(host_python), "install", "-q", "ziglang")
    zig = [host_python, "-m", "ziglang"]
    # A macro of Windows' own headers defines a type within offsetof(), of which clang warns.
    compiler = shlex.join([*map(str, zig), "cc", "-target", "aarch64-windows-gnu", "-Wno-c23-extensions"])
    # A wheel wants no import libraries of its own DLLs.
    return _Tools(compiler, f"-Wl,--out-implib,{root / 'unused.lib'}", [*zig, "dlltool", "-m", "arm64"])


def _import_library(python: Path, dlltool: list[str | Path], folder: Path) -> Path:
    """Makes the import library of python3.dll; returns its folder."""
    folder.mkdir(exist_ok=True)
    functions, data = stable_abi_names(python)
    lines = [*sorted(functions), *(f"{name} DATA" for name in sorted(data))]
    definition = folder / "python3.def"
    definition.write_text("LIBRARY python3.dll\nEXPORTS\n" + "\n".join(lines) + "\n", "utf-8")
    run(*dlltool, "-d", definition, "-l", folder / "libpython3.a", "-D", "python3.dll")
    return folder


def _build(machine: Machine, python: Path, host_python: Path, root: Path) -> Path:
    tools = _tools(machine, host_python, root)
    libraries = _import_library(python, tools.dlltool, root / f"import-{machine.name}")
    folder = root / f"build-{machine.name}"
    include = python / "include"
    return build.cross_build(machine, tools.compiler, libraries, include, host_python, folder, link=tools.link)


#: In a root of its own, $1, since it can't be installed beside the 64-bit one everywhere. Wine finds itself in /proc.
_IN_WINE32 = """
mount --bind /proc "$1/proc" && mount --bind /dev "$1/dev" &&
exec env -i HOME=/root WINEARCH=win32 WINEDEBUG=-all WINEDLLOVERRIDES=mscoree,mshtml= \\
    WINESERVER=/usr/lib/wine/wineserver32 "$(command -v chroot)" "$@"
"""


def _wine32(root: Path) -> Path:
    """A 32-bit Wine; returns the root of its system."""
    system = unpack("i386", ["wine32"], root / "wine32")
    for name in ("dev", "proc", "root", "tmp"):
        (system / name).mkdir(exist_ok=True)
    # As the packages' own scripts would do.
    for dll in system.glob("usr/i686-w64-mingw32/lib/*.dll"):
        shutil.copy(dll, system / "usr/lib/i386-linux-gnu/wine/i386-windows")
    return system


def _load(wheel: Path, root: Path) -> str:
    """Loads the 32-bit wheel's libraries in a 32-bit program under Wine, as root; returns what that says."""
    system = _wine32(root)
    place = system / "wheel"
    shutil.rmtree(place, ignore_errors=True)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)
    include = [f"-I{ROOT / name}" for name in (*sources.INCLUDE, "tests/c")]
    core = sources.c_files(ROOT, "windows", "core")
    source = ROOT / "tests/packaging/load_libraries.c"
    compiler = shlex.split(build.compiler(root, X86.gcc))
    program = place / "load_libraries.exe"
    run(*compiler, "-std=c11", "-O2", "-static-libgcc", "-municode", *include, source, *core, "-lws2_32", "-o", program)
    libraries = (rf"Z:\wheel\tunring\{name}" for name in (r"_backends\loopback.dll", "wintun.dll"))
    inside = ["unshare", "--mount", "sh", "-c", _IN_WINE32, "sh", system]
    try:
        return run(*inside, "/usr/lib/wine/wine", "/wheel/load_libraries.exe", *libraries).strip().splitlines()[-1]
    finally:
        subprocess.run([*inside, "/usr/lib/wine/wineserver32", "-k"], check=False, stderr=subprocess.DEVNULL)


def run_all(python: Path, host_python: Path, root: Path) -> int:
    """Builds, tests and loads them; returns 0, or 1 if anything is wrong."""
    wheels = {machine: _build(machine, python, host_python, root) for machine in (X86, ARM64)}
    # Tests of their contents run on this system, and import the project.
    pip = [*pip_of(host_python), "install", "-q"]
    run(*pip, "--group", "test")
    run(*pip, "--no-build-isolation", "--no-deps", wheels[X86].parent)
    faults = []
    for machine, wheel in wheels.items():
        faults += build.wheel_faults(host_python, wheel)
        print(f"built {wheel.name}", flush=True)
        if machine is X86:
            print(f"its libraries under 32-bit Wine: {_load(wheel, root)}", flush=True)
    print("\n".join(faults) or "both wheels have what they should have")
    return bool(faults)
