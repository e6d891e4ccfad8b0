"""WireGuard under clocks that are set, and that go on while the system is suspended: by a library that is preloaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from running import SANITIZED, check_program

#: Of wireguard_clocks.py, which runs in a process of its own.
SCENARIOS = [
    "suspended_for_a_minute",
    "suspended_past_a_rekey",
    "suspended_past_the_keys",
    "suspended_for_ten_minutes",
    "keepalives_after_a_suspend",
    "a_clock_that_is_set",
]

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("shim") / "clock_shim.so"
    options = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-O2", "-shared", "-fPIC"]
    compiler = os.environ.get("CC", "cc").split()
    subprocess.run([*compiler, *options, str(HERE / "clock_shim.c"), "-o", str(library)], check=True)
    return library


@pytest.mark.skipif(SANITIZED, reason="the sanitizer's library has to be the first that is preloaded")
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_clocks(shim: Path, tmp_path: Path, scenario: str) -> None:
    offsets = tmp_path / "offsets"
    offsets.write_bytes(bytes(16))
    environment = {
        **os.environ,
        "LD_PRELOAD": str(shim),
        "CLOCK_OFFSETS": str(offsets),
        "PYTHONPATH": str(HERE.parent / "support"),
    }
    said = check_program(sys.executable, "-W", "error", HERE / "wireguard_clocks.py", scenario, env=environment)
    assert said.split() == [scenario]
