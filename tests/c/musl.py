"""Prints the command of a compiler for musl, whose programs run under musl's own loader.

    apt install musl-tools

    CC="$(python3 tests/c/musl.py)" python3 tests/c/run.py

The kernel's headers are not musl's: they are linked into a folder of their own, so that none of glibc's is found there.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEADERS = ROOT / "build/musl/include"


def main() -> None:
    """Makes the folder and prints the command."""
    if not shutil.which("musl-gcc"):
        raise SystemExit("there is no musl-gcc: install musl-tools")
    machine = subprocess.run(["cc", "-print-multiarch"], capture_output=True, text=True, check=True).stdout.strip()
    system = Path("/usr/include")
    HEADERS.mkdir(parents=True, exist_ok=True)
    for name, target in {"linux": system, "asm-generic": system, "asm": system / machine}.items():
        if not (HEADERS / name).is_symlink():
            (HEADERS / name).symlink_to(target / name)
    print(shlex.join(["musl-gcc", "-idirafter", str(HEADERS)]))


if __name__ == "__main__":
    main()
