"""Builds the wheel for Linux on 64-bit ARM, and runs tests with it in Debian's Python for that machine, under qemu.

    python3 tests/packaging/aarch64.py [--root FOLDER] [what pytest takes; default: tests/unit]

It needs qemu-user-static, gcc-aarch64-linux-gnu and apt with a Debian mirror, whose packages for that machine are not
installed but unpacked in FOLDER, from where later runs take them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/support"))

from commands import run
from debian_root import unpack

QEMU = "qemu-aarch64-static"
GCC = "aarch64-linux-gnu-gcc"

#: Tests of what qemu is not: it takes ten times as long to import, and has limits of its own.
LEFT_OUT = ["tests/unit/test_import.py", "tests/unit/test_pcapng_posix.py::test_a_file_that_can_grow_no_more"]

#: With all that they depend on; the last is numpy's.
PACKAGES = ["python3", "libpython3-dev", "libstdc++6"]


def host_python(folder: Path) -> Path:
    """The Python of a virtual environment that can build."""
    python = folder / "host/bin/python"
    if not python.exists():
        venv.create(folder / "host", with_pip=True)
        run(python, "-m", "pip", "install", "-q", "pip>=25.1")
    run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "uv", "--group", "build")
    return python


def build_wheel(host: Path, system: Path, folder: Path) -> Path:
    """Cross-builds the wheel for the stable ABI."""
    for older in folder.glob("*.whl"):
        older.unlink()
    [headers] = system.glob("usr/include/python3.*")
    settings = folder / "cross.cfg"
    settings.write_text(
        f"[build_ext]\ninclude_dirs={headers}\n[bdist_wheel]\nplat_name=linux_aarch64\npy_limited_api=cp311\n",
        "utf-8",
    )
    variables = {
        "CC": GCC,
        "LDSHARED": f"{GCC} -shared -s",
        "CFLAGS": f"-O2 -isystem {system / 'usr/include'}",
        "DIST_EXTRA_CONFIG": str(settings),
        "SETUPTOOLS_EXT_SUFFIX": ".abi3.so",
        "TUNRING_STRICT": "1",
    }
    pip = [host, "-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps", "-w", folder, "."]
    run(*pip, env={**os.environ, **variables})
    [wheel] = folder.glob("*.whl")
    return wheel


def install(host: Path, system: Path, folder: Path, wheel: Path) -> Path:
    """Installs the wheel and what the tests need; returns a program that starts Python."""
    [binary] = system.glob("usr/bin/python3.[0-9]*")
    target = system / "usr/lib/python3/dist-packages"
    version = binary.name.removeprefix("python")
    platform = ["--python-platform=aarch64-unknown-linux-gnu", f"--python-version={version}", "--only-binary=:all:"]
    install = [host, "-m", "uv", "pip", "install", "-q", "--target", target, *platform]
    run(*install, "--group", "test")
    run(*install, "--no-deps", "--reinstall", wheel)
    starter = folder / "python"
    starter.write_text(f'#!/bin/sh\nexec {QEMU} -L "{system}" "{binary}" "$@"\n', "utf-8")
    starter.chmod(0o755)
    # This system can't start a program for the other: what Python starts as itself is started in the same way.
    (target / "starter.pth").write_text(f"import sys; sys.executable = {str(starter)!r}\n", "utf-8")
    return starter


def main() -> int:
    """Returns pytest's exit code."""
    parser = argparse.ArgumentParser(description="Test the wheel for 64-bit ARM Linux under qemu.", allow_abbrev=False)
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    parser.add_argument("--root", type=Path, default=cache / "tunring-aarch64", help="default: %(default)s")
    options, tests = parser.parse_known_args()
    folder = options.root.resolve()
    if missing := [program for program in (QEMU, GCC, "apt-get") if not shutil.which(program)]:
        raise SystemExit(f"install these first: {', '.join(missing)}")
    system = unpack("arm64", PACKAGES, folder / "debian")
    host = host_python(folder)
    wheel = build_wheel(host, system, folder)
    python = install(host, system, folder, wheel)
    print(f"{wheel.name} in {run(python, '-VV').strip()}", flush=True)
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout=600"]
    command += [*(f"--deselect={name}" for name in LEFT_OUT), *(tests or ["tests/unit"])]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, "CC": GCC}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
