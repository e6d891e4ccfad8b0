"""Lookups in a table of prefixes: ``python bench/routes.py [TURNS]`` on Linux.

Nanoseconds of processor time per packet, medians of the turns and their range: in C, of a million random destinations
in batches of 256. The last column is the time that a prefix takes to add.
"""

from __future__ import annotations

import subprocess
import sys

import programs
from programs import ROOT
from turns import Spread

PACKETS = 1_000_000
BATCH = 256
SIZES = (50, 1_000, 10_000, 100_000)
COLUMNS = ("anywhere", "in prefixes", "in 50 prefixes", "to add")


def build() -> str:
    """Compile bench/c/routes.c with the core that it measures."""
    program = programs.BUILT / "routes"
    programs.BUILT.mkdir(parents=True, exist_ok=True)
    listing = [sys.executable, str(ROOT / "sources.py"), "linux", "core", "os"]
    files = subprocess.run(listing, capture_output=True, text=True, check=True).stdout.split()
    options = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-DNDEBUG", "-pthread", f"-I{ROOT / 'include'}", f"-I{ROOT / 'src'}"]
    source = str(ROOT / "bench/c/routes.c")
    subprocess.run(["cc", *options, source, *files, "-ldl", "-o", str(program)], check=True, cwd=ROOT)
    return str(program)


def measure(program: str, version: int, prefixes: int) -> list[float]:
    """One turn: a figure for each column."""
    command = [program, str(version), str(prefixes), str(PACKETS), str(BATCH), "5"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [float(line) for line in done.stdout.split()]


def main() -> None:
    program = build()
    turns = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    cases = [(version, prefixes) for prefixes in SIZES for version in (4, 6)]
    taken: dict[tuple[int, int], list[list[float]]] = {case: [] for case in cases}
    for _ in range(turns):
        for case in cases:
            taken[case].append(measure(program, *case))
    print(f"| IP | prefixes | {' | '.join(COLUMNS)} |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for (version, prefixes), figures in taken.items():
        spreads = [Spread.of(list(column)) for column in zip(*figures, strict=True)]
        print(f"| IPv{version} | {prefixes:,} | {' | '.join(map(str, spreads))} |")


if __name__ == "__main__":
    main()
