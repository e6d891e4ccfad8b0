"""The capabilities of this process that tunring has to do with."""

from __future__ import annotations

from pathlib import Path

#: By their bits.
CAPABILITIES = {12: "CAP_NET_ADMIN", 13: "CAP_NET_RAW", 21: "CAP_SYS_ADMIN"}


def capabilities() -> set[str]:
    """Which of them are effective."""
    for line in Path("/proc/self/status").read_text("utf-8").splitlines():
        if line.startswith("CapEff:"):
            held = int(line.split()[1], 16)
            return {name for bit, name in CAPABILITIES.items() if held >> bit & 1}
    return set()
