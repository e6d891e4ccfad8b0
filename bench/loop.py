"""The C program of bench/c/loop.c, and what both sides of a comparison do."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import tunring

if TYPE_CHECKING:
    from pathlib import Path

#: Packets of a round. With 1400 bytes each they fill most of a ring of 4 MiB.
PACKETS = 2048

#: Rounds of either side.
ROUNDS = 150

#: Rounds before it is the other's turn: each finds the caches as the one before left them.
TURN = 10

#: Packets of a batch.
BATCH = 256


class Loop:
    """The C program, over packets of one size."""

    def __init__(self, program: Path, size: int) -> None:
        library = tunring.load("loopback").path
        self._process = subprocess.Popen(
            [str(program), library, str(size), str(PACKETS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def rounds(self, what: str, count: int) -> list[float]:
        """Nanoseconds that each of so many rounds takes."""
        assert self._process.stdin
        assert self._process.stdout
        # All at once, so that the program never waits between two.
        self._process.stdin.write(f"{what}\n" * count)
        self._process.stdin.flush()
        return [float(self._process.stdout.readline()) for _ in range(count)]

    def close(self) -> None:
        self._process.communicate(timeout=10)
