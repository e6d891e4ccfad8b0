"""Code blocks of Markdown files, run as programs."""

from __future__ import annotations

import subprocess
import sys

#: Before a block: runs it in a network namespace of its own, where it may create the adapters that it names.
IN_NAMESPACE = "import ctypes; assert ctypes.CDLL(None, use_errno=True).unshare(0x40000000) == 0\n"


def run(code: str, *options: str) -> str:
    """Runs a block that must succeed without a warning. Returns its output."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *options, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout
