"""Builds for Windows: the wheel, and the driver's stand-in."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from downloads import ROOT, run
from windows_python import tag

sys.path.insert(0, str(ROOT))

import sources

_GCC = "x86_64-w64-mingw32-gcc"
_BUILT = shutil.ignore_patterns("*.so", "*.dll", "*.pyd", "__pycache__", "_backends", "*.egg-info")


def compiler(root: Path) -> str:
    """The command that compiles against the Universal C Runtime, as CPython is, where mingw's default is older."""
    specs = root / "ucrt.specs"
    specs.write_text(run(_GCC, "-dumpspecs").replace("-lmsvcrt", "-lucrt"), "utf-8")
    return f"{_GCC} -specs={specs} -D_UCRT -D__MSVCRT_VERSION__=0xE00"


def wheel(version: str, python: Path, host_python: Path, root: Path, *, stable_abi: bool) -> Path:
    """Builds the wheel of this tree, from a copy of it beside whose package the official DLL is put."""
    folder = root / "build"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in ("include", "src"):
        shutil.copytree(ROOT / name, folder / name, ignore=_BUILT)
    for name in ("pyproject.toml", "setup.py", "sources.py", "README.md", "LICENSE", "CHANGELOG.md"):
        shutil.copy(ROOT / name, folder)
    (folder / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/fetch_wintun.py", folder / ".ci")
    run(host_python, folder / ".ci/fetch_wintun.py", "amd64")
    lines = [
        "[build_ext]",
        f"include_dirs={python / 'include'}",
        f"library_dirs={python / 'libs'}",
        f"libraries=python{'3' if stable_abi else tag(version)}",
        "[bdist_wheel]",
        "plat_name=win_amd64",
    ]
    if stable_abi:
        lines.append("py_limited_api=cp311")
    (folder / "cross.cfg").write_text("\n".join(lines) + "\n", "utf-8")
    gcc = compiler(root)
    variables = {
        "DIST_EXTRA_CONFIG": str(folder / "cross.cfg"),
        "SETUPTOOLS_EXT_SUFFIX": ".pyd" if stable_abi else f".cp{tag(version)}-win_amd64.pyd",
        "CC": gcc,
        "LDSHARED": f"{gcc} -shared -static-libgcc -s",
        # CPython 3.11's header takes only MSVC for Windows.
        "CFLAGS": "-O2 -DMS_WIN64" if tag(version) == "311" else "-O2",
    }
    pip = [host_python, "-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps", "-w", folder, "."]
    run(*pip, cwd=folder, env={**os.environ, **variables})
    [built] = folder.glob("*.whl")
    return built


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
