"""Code blocks of Markdown files, run as programs."""

from __future__ import annotations

import subprocess
import sys

#: Before a block: runs it in a network namespace of its own, where it may create the adapters that it names, and where
#: 127.0.0.1 is reachable (SIOCSIFFLAGS with IFF_UP).
IN_NAMESPACE = """import ctypes, fcntl, socket, struct
assert ctypes.CDLL(None, use_errno=True).unshare(0x40000000) == 0
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    fcntl.ioctl(s, 0x8914, struct.pack("16sh14x", b"lo", 1))
del ctypes, fcntl, s, socket, struct
"""


def run(code: str, *options: str) -> str:
    """Runs a block that must succeed without a warning. Returns its output."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *options, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout
