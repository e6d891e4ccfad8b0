"""The cost of sealing and opening, beside the cipher's library alone: ``python bench/aead.py [ROUNDS]`` on Linux.

For each library, algorithm and size two rows of a table: nanoseconds per packet by the library alone (in C, one context
used again), by tunring's C, and by ``Sealer.seal`` and ``Opener.open`` of batches, with their ratios to the first. Each
figure is the best of many rounds.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

import programs
from programs import ROOT

from tunring.aead import ALGORITHMS, Opener, Sealer, providers

PACKETS = 256
SIZES = (64, 1400)
PATHS = {"libcrypto": "libcrypto.so.3", "ipsec-mb": "libIPSec_MB.so.1"}


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


def main() -> None:
    program = build()
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    print("| library | algorithm | bytes | | alone | C | ratio | Python | ratio |")
    print("| --- | --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |")
    for library in PATHS:
        os.environ["TUNRING_AEAD"] = library
        for algorithm in ALGORITHMS:
            if providers()[algorithm].name is None:
                continue
            version = providers()[algorithm].version
            for size in SIZES:
                halves = [in_c(program, library, algorithm, size, rounds) for _ in range(2)]
                seal_alone, seal, open_alone, opening = (min(pair) for pair in zip(*halves, strict=True))
                by_python = in_python(algorithm, size, rounds)
                for verb, alone, ours, python in (
                    ("seal", seal_alone, seal, by_python[0]),
                    ("open", open_alone, opening, by_python[1]),
                ):
                    print(
                        f"| {version} | {algorithm} | {size} | {verb} | {alone:.0f} | {ours:.0f} | {ours / alone:.2f} "
                        f"| {python:.0f} | {python / alone:.2f} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
