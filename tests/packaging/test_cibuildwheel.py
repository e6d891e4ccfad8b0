"""The wheels of a release, as cibuildwheel lists them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

EVERY = ["cp311", "cp312", "cp313", "cp314", "cp314t", "cp315"]
#: cp311 is the wheel for the stable ABI.
ONLY_STABLE = ["cp311"]

EXPECTED = {
    "linux": {
        "manylinux_x86_64": EVERY,
        "manylinux_aarch64": EVERY,
        "musllinux_x86_64": ONLY_STABLE,
        "musllinux_aarch64": ONLY_STABLE,
    },
    "windows": {"win_amd64": EVERY, "win_arm64": EVERY, "win32": ONLY_STABLE},
}


@pytest.mark.parametrize("platform", EXPECTED)
def test_identifiers(platform: str) -> None:
    command = [sys.executable, "-m", "cibuildwheel", "--platform", platform, "--print-build-identifiers", str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = {f"{python}-{system}" for system, pythons in EXPECTED[platform].items() for python in pythons}
    assert set(done.stdout.split()) == expected
