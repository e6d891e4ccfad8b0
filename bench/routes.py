"""Lookups in a table of prefixes: ``python bench/routes.py [TURNS]`` on Linux.

Nanoseconds of processor time per packet, medians of the turns and their range: in C, of a million random destinations
in batches of 256. The last column is the time that a prefix takes to add.
"""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import programs
from programs import ROOT
from turns import Turns

if TYPE_CHECKING:
    from collections.abc import Sequence

PACKETS = 1_000_000
BATCH = 256
VERSIONS = (4, 6)
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


def lookups(sizes: Sequence[int] = SIZES, *, turns: int) -> dict[tuple[int, int], Turns]:
    """By the version of IP and the number of prefixes: a figure for each column and turn."""
    program = build()
    found = {(version, prefixes): Turns({name: [] for name in COLUMNS}) for prefixes in sizes for version in VERSIONS}
    for _ in range(turns):
        for case, result in found.items():
            for name, figure in zip(COLUMNS, measure(program, *case), strict=True):
                result.taken[name].append(figure)
    return found


def main() -> None:
    turns = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    found = lookups(turns=turns)
    print(f"| IP | prefixes | {' | '.join(COLUMNS)} |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for (version, prefixes), result in found.items():
        print(f"| IPv{version} | {prefixes:,} | {' | '.join(str(result.spread(name)) for name in COLUMNS)} |")


if __name__ == "__main__":
    main()
