"""Puts the official wintun.dll and its licence beside the package, for a Windows wheel that carries them.

    python .ci/fetch_wintun.py [amd64 | arm64 | x86 | arm]

The machine is this Python's by default. Both files come from a wheel of another project, by name and version, and must
have the SHA-256 that is pinned here and in src/tunring/_system/official.py. Neither belongs in the repository.
"""

from __future__ import annotations

import argparse
import hashlib
import runpy
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src/tunring"
SOURCE = "pytun-pmd3==3.0.3"
FOLDER = "pytun_pmd3/wintun"
LICENSE_SHA256 = "183adac21e7d96c508c8fd34d394b7b6708bc81564ad1bad61ab66143a008cd2"

MACHINES = {"win-amd64": "amd64", "win-arm64": "arm64", "win32": "x86", "win-arm32": "arm"}


def fetch(machine: str) -> None:
    """Fetch both files."""
    builds = runpy.run_path(str(PACKAGE / "_system/official.py"))["BUILDS"]
    [digest] = (digest for digest, build in builds.items() if build.machine == machine)
    wanted = {
        f"{FOLDER}/bin/{machine}/wintun.dll": ("wintun.dll", digest),
        f"{FOLDER}/LICENSE.txt": ("wintun-license.txt", LICENSE_SHA256),
    }
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*command, "--no-deps", "--only-binary", ":all:", "--dest", folder, SOURCE], check=True)
        [wheel] = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            contents = {name: archive.read(name) for name in wanted}
    for name, (_, digest) in wanted.items():
        found = hashlib.sha256(contents[name]).hexdigest()
        if found != digest:
            raise SystemExit(f"{name} of {SOURCE} has the SHA-256 {found}, not {digest}")
    for name, (target, digest) in wanted.items():
        (PACKAGE / target).write_bytes(contents[name])
        print(f"{PACKAGE / target}: {name} of {SOURCE}, SHA-256 {digest}")


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    here = MACHINES.get(sysconfig.get_platform())
    parser.add_argument("machine", nargs="?", default=here, choices=sorted(MACHINES.values()))
    machine = parser.parse_args().machine
    if machine is None:
        parser.error(f"name the machine: this Python is for {sysconfig.get_platform()}")
    fetch(machine)


if __name__ == "__main__":
    main()
