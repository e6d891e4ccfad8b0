"""Builds for Windows: the wheel, and the driver's stand-in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from downloads import ROOT, run
from windows_python import tag

sys.path.insert(0, str(ROOT))

import sources

_BUILT = shutil.ignore_patterns("*.so", "*.dll", "*.pyd", "__pycache__", "_backends", "*.egg-info")


class Machine(NamedTuple):
    """A machine that wheels are built for."""

    #: Of the official DLL's folders, and the wheel's tag.
    name: str
    platform: str
    gcc: str


AMD64 = Machine("amd64", "win_amd64", "x86_64-w64-mingw32-gcc")


def compiler(root: Path, gcc: str = AMD64.gcc) -> str:
    """The command that compiles against the Universal C Runtime, as CPython is, where mingw's default is older."""
    specs = root / f"{gcc}.specs"
    specs.write_text(run(gcc, "-dumpspecs").replace("-lmsvcrt", "-lucrt"), "utf-8")
    return f"{gcc} -specs={specs} -D_UCRT -D__MSVCRT_VERSION__=0xE00"


def _copy(folder: Path) -> None:
    """Copies what a wheel is built from."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in ("include", "src"):
        shutil.copytree(ROOT / name, folder / name, ignore=_BUILT)
    for name in ("pyproject.toml", "setup.py", "sources.py", "README.md", "LICENSE", "CHANGELOG.md"):
        shutil.copy(ROOT / name, folder)
    (folder / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/fetch_wintun.py", folder / ".ci")


def cross_build(
    machine: Machine,
    command: str,
    libraries: Path,
    include: Path,
    host_python: Path,
    folder: Path,
    *,
    version: str = "",
    flags: str = "-O2",
    link: str = "",
) -> Path:
    """Builds the wheel from a copy of this tree, beside whose package the official DLL is put.

    `command` compiles and, with ``-shared`` and `link`, links to Python's import library in the folder `libraries`.
    Without a `version`, such as ``"3.13.5"``, it is built for the stable ABI.
    """
    _copy(folder)
    run(host_python, folder / ".ci/fetch_wintun.py", machine.name)
    lines = [
        "[build_ext]",
        f"include_dirs={include}",
        f"library_dirs={libraries}",
        f"libraries=python{tag(version) if version else '3'}",
        "[bdist_wheel]",
        f"plat_name={machine.platform}",
    ]
    if not version:
        lines.append("py_limited_api=cp311")
    (folder / "cross.cfg").write_text("\n".join(lines) + "\n", "utf-8")
    variables = {
        "DIST_EXTRA_CONFIG": str(folder / "cross.cfg"),
        "SETUPTOOLS_EXT_SUFFIX": f".cp{tag(version)}-{machine.platform}.pyd" if version else ".pyd",
        "CC": command,
        "LDSHARED": f"{command} -shared -static-libgcc -s {link}",
        "CFLAGS": flags,
    }
    pip = [host_python, "-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps", "-w", folder, "."]
    run(*pip, cwd=folder, env={**os.environ, **variables})
    [built] = folder.glob("*.whl")
    return built


def wheel(version: str, python: Path, host_python: Path, root: Path, *, stable_abi: bool) -> Path:
    """Builds the wheel that is tested under Wine."""
    return cross_build(
        AMD64,
        compiler(root),
        python / "libs",
        python / "include",
        host_python,
        root / "build",
        version="" if stable_abi else version,
        # CPython 3.11's header takes only MSVC for Windows.
        flags="-O2 -DMS_WIN64" if tag(version) == "311" else "-O2",
    )


def wheel_faults(host_python: Path, wheel: Path) -> list[str]:
    """Faults of the wheel, by the tests of its contents."""
    run(host_python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "pefile>=2024.8.26")
    done = subprocess.run(
        [host_python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/packaging/test_windows_wheel.py"],
        cwd=ROOT, env={**os.environ, "TUNRING_WINDOWS_WHEEL": str(wheel)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return [f"{wheel.name}:\n{done.stdout}{done.stderr}"] if done.returncode else []


def stand_in(root: Path) -> Path:
    """Builds the DLL that plays the driver's part for the official DLL."""
    path = root / "standin.dll"
    run(ROOT / "tests/wine/standin/build", path, env={**os.environ, "CC": compiler(root)})
    return path


def _c(root: Path, target: Path, *arguments: str | Path) -> Path:
    """Compiles C of the tests, as strictly as the rest."""
    include = [f"-I{ROOT / folder}" for folder in (*sources.INCLUDE, "tests/wine")]
    strict = ["-std=c11", "-pedantic-errors", "-Wall", "-Wextra", "-Werror", "-O2", "-static-libgcc"]
    run(*compiler(root).split(), *strict, *include, *arguments, "-o", target)
    return target


def race(root: Path) -> Path:
    """Builds the race for the lost wake-up, over the core."""
    core = sources.c_files(ROOT, "windows", "core")
    return _c(root, root / "race.exe", "-municode", ROOT / "tests/wine/race.c", *core, "-lws2_32")


def plain_loop(root: Path) -> Path:
    """Builds the C that batches over the official DLL are measured beside."""
    return _c(root, root / "plain_loop.dll", "-shared", ROOT / "tests/wine/plain_loop.c")
