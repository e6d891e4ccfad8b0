"""The cost of sealing and opening, beside the cipher's library alone: ``python bench/aead.py [ROUNDS [TURNS]]``, Linux.

For each library, algorithm and size two rows of a table: nanoseconds per packet by the library alone (in C, one context
used again), by tunring's C, and by ``Sealer.seal`` and ``Opener.open`` of batches, with their ratios to the first. Each
turn has the best of many rounds; the figures are medians of the turns, and the ratios those within a turn.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

import programs
from programs import ROOT
from turns import Turns

from tunring.aead import ALGORITHMS, Opener, Sealer, providers

if TYPE_CHECKING:
    from collections.abc import Iterator

    #: Library, algorithm and bytes per packet.
    Case = tuple[str, str, int]

PACKETS = 256
SIZES = (64, 1400)
SIDES = ("alone", "C", "Python")
PATHS = {
    "libcrypto": "libcrypto.so.3",
    "ipsec-mb": "libIPSec_MB.so.1",
    "boringssl": f"/usr/lib/{os.uname().machine}-linux-gnu/android/libcrypto.so.0",
}


@contextmanager
def using(library: str) -> Iterator[None]:
    """Let tunring take this library only."""
    before = os.environ.get("TUNRING_AEAD")
    os.environ["TUNRING_AEAD"] = library
    try:
        yield
    finally:
        del os.environ["TUNRING_AEAD"]
        if before is not None:
            os.environ["TUNRING_AEAD"] = before


@cache
def build() -> str:
    """Compile bench/c/aead.c with the core that it measures."""
    program = programs.BUILT / "aead"
    programs.BUILT.mkdir(parents=True, exist_ok=True)
    found = subprocess.run(
        [sys.executable, str(ROOT / "sources.py"), "linux", "core", "os"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    options = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-DNDEBUG", "-pthread", f"-I{ROOT / 'include'}", f"-I{ROOT / 'src'}"]
    subprocess.run(
        ["cc", *options, str(ROOT / "bench/c/aead.c"), *found, "-ldl", "-o", str(program)], check=True, cwd=ROOT
    )
    return str(program)


def in_c(program: str, library: str, algorithm: str, size: int, rounds: int) -> list[float]:
    """Seal alone, seal, open alone, open: nanoseconds per packet."""
    number = str(ALGORITHMS.index(algorithm))  # type: ignore[arg-type]
    command = [program, library, PATHS[library], number, str(size), str(PACKETS), str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [float(line) for line in done.stdout.split()]


def in_python(algorithm: str, size: int, rounds: int) -> list[float]:
    """The same of a batch, by Python: seal, open in place."""
    key = bytes(16 if "128" in algorithm else 32)
    sealer = Sealer(algorithm, key, header=bytes(8))  # type: ignore[arg-type]
    opener = Opener(algorithm, key, header=bytes(8))  # type: ignore[arg-type]
    packets = [os.urandom(size) for _ in range(PACKETS)]
    best = [float("inf")] * 2
    # A batch to seal from, as a session's would be.
    source = Sealer(algorithm, key).seal([packet[: max(size - 24, 0)] for packet in packets])  # type: ignore[arg-type]
    for _ in range(rounds):
        began = time.perf_counter_ns()
        datagrams = sealer.seal(source)
        sealed = time.perf_counter_ns()
        opened = opener.open(datagrams)
        ended = time.perf_counter_ns()
        assert len(opened) == PACKETS
        datagrams.release()
        best = [min(best[0], sealed - began), min(best[1], ended - sealed)]
    return [figure / PACKETS for figure in best]


def cases() -> list[Case]:
    """The combinations measured: each library, algorithm and size."""
    found = []
    for library in PATHS:
        with using(library):
            names = [algorithm for algorithm in ALGORITHMS if providers()[algorithm].name is not None]
        found += [(library, algorithm, size) for algorithm in names for size in SIZES]
    return found


def costs(case: Case, *, turns: int, rounds: int) -> dict[str, Turns]:
    """Nanoseconds per packet to seal and to open: by the library alone, by tunring's C, and by Python."""
    library, algorithm, size = case
    program = build()
    found = {verb: Turns({side: [] for side in SIDES}) for verb in ("seal", "open")}
    for _ in range(turns):
        seal_alone, seal, open_alone, opening = in_c(program, library, algorithm, size, rounds)
        with using(library):
            by_python = in_python(algorithm, size, rounds)
        for verb, figures in (
            ("seal", (seal_alone, seal, by_python[0])),
            ("open", (open_alone, opening, by_python[1])),
        ):
            for side, figure in zip(SIDES, figures, strict=True):
                found[verb].taken[side].append(figure)
    return found


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    turns = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    print("| library | algorithm | bytes | | alone | C | ratio | Python | ratio |")
    print("| --- | --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |")
    for case in cases():
        for verb, result in costs(case, turns=turns, rounds=rounds).items():
            alone, c, python = (f"{result.spread(side).median:.0f}" for side in SIDES)
            ratios = [result.ratio(side, "alone") for side in SIDES[1:]]
            words = (*case, verb, alone, c, ratios[0], python, ratios[1])
            print(f"| {' | '.join(map(str, words))} |", flush=True)


if __name__ == "__main__":
    main()
