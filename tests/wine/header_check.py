"""Compares our wintun.h with the official one, which is read where it lies and copied nowhere.

    tests/wine/header_check.py OFFICIAL_WINTUN_H [COMPILER ...]

header_check.c compiles only if it does. So that this means something, copies of our header that are wrong in one place
must each be found out.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
OURS = HERE.parents[1] / "include/wintun.h"
COMPILER = ["x86_64-w64-mingw32-gcc"]

#: Macros that the official header needs: it marks parameters for another compiler.
FLAGS = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-D_WIN32_WINNT=0x0A00", "-fsyntax-only"]

#: A mistake in a copy of ours, and the name that the compiler must then complain of.
WRONG = {
    "WintunSendPacket": (
        "WINTUN_SEND_PACKET_FUNC)(WINTUN_SESSION_HANDLE Session, const",
        "WINTUN_SEND_PACKET_FUNC)(WINTUN_SESSION_HANDLE Session,",
    ),
    "WintunReceivePacket": ("DWORD *PacketSize);", "DWORD64 *PacketSize);"),
    "WintunGetAdapterLUID": ("NET_LUID *Luid);", "GUID *Luid);"),
    "WintunDeleteDriver": ("typedef BOOL(WINAPI WINTUN_DELETE", "typedef void(WINAPI WINTUN_DELETE"),
    "WintunStartSession": ("typedef struct _TUN_SESSION *", "typedef struct _OTHER_SESSION *"),
    "WINTUN_LOGGER_CALLBACK": ("DWORD64 Timestamp", "DWORD Timestamp"),
    "WINTUN_LOG_ERR": ("WINTUN_LOG_ERR = 2", "WINTUN_LOG_ERR = 3"),
    "WINTUN_MAX_RING_CAPACITY": ("WINTUN_MAX_RING_CAPACITY 0x4000000", "WINTUN_MAX_RING_CAPACITY 0x8000000"),
}


def differences(official: Path, ours: Path, compiler: list[str]) -> str:
    """The compiler's output; nothing if the headers agree."""
    command = [*compiler, *FLAGS, f'-DOFFICIAL_WINTUN_H="{official}"', f"-I{ours.parent}", str(HERE / "header_check.c")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stderr or ("" if done.returncode == 0 else f"exit code {done.returncode}")


def faults(official: Path, compiler: list[str] | None = None) -> list[str]:
    """Faults of our header, or of the comparison."""
    compiler = compiler or COMPILER
    found = []
    if said := differences(official, OURS, compiler):
        found.append(f"our wintun.h differs from the official one:\n{said}")
    text = OURS.read_text("utf-8")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "wintun.h")
        for name, (right, wrong) in WRONG.items():
            assert right in text, right
            copy.write_text(text.replace(right, wrong), "utf-8")
            if name not in differences(official, copy, compiler):
                found.append(f"the comparison misses that {name} is wrong")
    return found


def main() -> int:
    """Prints what is wrong, or that nothing is."""
    if len(sys.argv) < 2:
        print(__doc__)
        return 2
    found = faults(Path(sys.argv[1]).resolve(), sys.argv[2:])
    print("\n".join(found) or f"wintun.h: 14 function types, handles and constants as in {sys.argv[1]}")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
