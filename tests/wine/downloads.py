"""Fetches system packages, a Windows Python, the official DLL. Each by its name, and checked by its hash."""

from __future__ import annotations

import hashlib
import os
import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/support"))

from commands import run

WINE = Path("/usr/lib/wine/wine64")

#: Programs and files that are needed -> the Debian package that has them.
SYSTEM = {
    str(WINE): "wine64",
    "x86_64-w64-mingw32-gcc": "gcc-mingw-w64-x86-64",
    "mvn": "maven",
    "cc": "gcc",
}


class Release(NamedTuple):
    """A Windows CPython, as the Maven artifact org.bytedeco:cpython has it."""

    artifact: str
    sha256: str
    #: numpy's later versions call functions that Wine 8's C library lacks, and end the process.
    numpy: str


PYTHONS = {
    "3.11.3": Release(
        "3.11.3-1.5.9", "3263a50b256447bb7b9e604d6587627e419891370fc33b94469e6a06ff4de834", "numpy==2.0.2"
    ),
    "3.12.1": Release(
        "3.12.1-1.5.10", "e69bc4491c311e19ea7169bafc5efbbe03b980d69c6962b049daf1fcb4913391", "numpy==2.1.3"
    ),
    "3.13.5": Release(
        "3.13.5-1.5.12", "cfe5502ffa7ea369be707b6d88bf68344732a7800450665080fb4267c01bfeae", "numpy==2.1.3"
    ),
}

#: The package whose wheel carries the official DLL, and where in it.
DLL_PACKAGE = "pytun-pmd3==3.0.3"
DLL_MEMBER = "pytun_pmd3/wintun/bin/amd64/wintun.dll"
HEADER_MEMBER = (
    "pytun_pmd3/wintun/include/wintun.h",
    "510a5984fbf73efd21a61ada60edfe05e1a38a77c8c47f6d62e0ab1cdbdd460f",
)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def install_system_packages() -> None:
    """Installs, as root on Debian or Ubuntu, what is missing."""
    missing = [package for program, package in SYSTEM.items() if not shutil.which(program)]
    have_pip = subprocess.run([sys.executable, "-c", "import ensurepip"], stderr=subprocess.DEVNULL, check=False)
    if have_pip.returncode:
        missing.append("python3-venv")
    if not missing:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise SystemExit(f"install these first: {' '.join(missing)}")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    apt = ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=600"]
    run(*apt, "update", env=env)
    run(*apt, "install", "-y", "--no-install-recommends", *missing, env=env)


def checked(path: Path, digest: str) -> Path:
    """The file, if it is what it should be."""
    if sha256(path) != digest:
        found = sha256(path)
        path.unlink()
        raise SystemExit(f"{path} has SHA-256 {found}, not {digest}: removed it")
    return path


def python_archive(version: str, folder: Path) -> Path:
    """The archive with a Windows CPython in it, in `folder`."""
    release = PYTHONS[version]
    path = folder / f"cpython-{release.artifact}-windows-x86_64.jar"
    if not path.exists():
        artifact = f"org.bytedeco:cpython:{release.artifact}:jar:windows-x86_64"
        run("mvn", "-q", "-B", "dependency:copy", f"-Dartifact={artifact}", f"-DoutputDirectory={folder}")
    return checked(path, release.sha256)


def pip_of(python: Path) -> list[str | Path]:
    """How that Python's pip is called."""
    return [python, "-m", "pip", "--disable-pip-version-check"]


def _from_dll_package(pip: list[str | Path], folder: Path, member: str, digest: str) -> Path:
    """One file of the package that has the official DLL, in `folder`."""
    path = folder / Path(member).name
    if not path.exists():
        run(*pip, "download", "--no-deps", "--only-binary=:all:", "--platform=win_amd64", "-d", folder, DLL_PACKAGE)
        [wheel] = folder.glob(f"{DLL_PACKAGE.partition('==')[0].replace('-', '_')}*.whl")
        with zipfile.ZipFile(wheel) as archive:
            path.write_bytes(archive.read(member))
        wheel.unlink()
    return checked(path, digest)


def official_dll(pip: list[str | Path], folder: Path) -> Path:
    """The official DLL, in `folder`."""
    builds = runpy.run_path(str(ROOT / "src/tunring/_system/official.py"))["BUILDS"]
    [digest] = [digest for digest, build in builds.items() if build == ("0.14.1", "amd64")]
    return _from_dll_package(pip, folder, DLL_MEMBER, digest)


def official_header(pip: list[str | Path], folder: Path) -> Path:
    """The official wintun.h, in `folder`."""
    return _from_dll_package(pip, folder, *HEADER_MEMBER)
