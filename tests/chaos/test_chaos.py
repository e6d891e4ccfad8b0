"""A short run of the chaos; tests/chaos/run.py makes longer ones."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import libraries

SECONDS = float(os.environ.get("TUNRING_CHAOS_SECONDS", "4"))

TIMEOUT = SECONDS + 110


def run(library: str) -> None:
    """A process of its own, since it sends signals to itself and lowers its limits."""
    command = [sys.executable, str(Path(__file__).with_name("run.py")), "--library", library, "--seconds", str(SECONDS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT)
    print(done.stdout)
    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(TIMEOUT + 10)
@pytest.mark.parametrize("name", [*libraries.NAMES, *(["tun_linux"] if sys.platform == "linux" else [])])
def test_chaos(name: str) -> None:
    if name == "tun_linux" and (os.geteuid() != 0 or not os.path.exists("/dev/net/tun")):
        pytest.skip("needs root, and /dev/net/tun")
    run(name)
