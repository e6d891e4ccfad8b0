"""Builds the fuzz targets with clang's libFuzzer, ASan and UBSan, and runs each for a while.

    python3 tests/fuzz/run.py [--seconds N] [split] [coalesce] [complete] [wireguard]

Exit code 0: nothing was found; 77: there is no clang with libFuzzer; else something was found, and the input lies in
``build/fuzz``. The corpus stays there too, for the next time.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import seeds

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import sources

BUILD = ROOT / "build/fuzz"
#: The sources that each target is linked with.
TARGETS = {
    "split": ("offloads",),
    "coalesce": ("offloads",),
    "complete": ("offloads",),
    "wireguard": ("core", "wireguard", "loopback", "common", "os", "ring"),
}
COMPILER = shlex.split(os.environ.get("CLANG", "clang"))
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fno-omit-frame-pointer"]
SANITIZERS = ["-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=undefined"]
MOST_BYTES = 70000
SKIP = 77


def available() -> bool:
    """True if the compiler can build a fuzz target."""
    if not shutil.which(COMPILER[0]):
        return False
    source = "int LLVMFuzzerTestOneInput(const char *d, unsigned long n) { return d && n > 9 ? 0 : 0; }"
    command = [*COMPILER, *SANITIZERS, "-x", "c", "-", "-o", os.devnull]
    return subprocess.run(command, input=source, text=True, capture_output=True, check=False).returncode == 0


def build(target: str) -> Path:
    """The program of a target."""
    program = BUILD / f"fuzz_{target}"
    files = [ROOT / f"tests/fuzz/fuzz_{target}.c", *sources.c_files(ROOT, sources.this_system(), *TARGETS[target])]
    include = [f"-I{ROOT / folder}" for folder in (*sources.INCLUDE, "tests/fuzz", "tests/c")]
    files = list(dict.fromkeys(files))  # parts share some
    command = [*COMPILER, *FLAGS, *SANITIZERS, *include, *map(str, files), "-pthread", "-ldl", "-o", str(program)]
    subprocess.run(command, check=True)
    return program


def fuzz(target: str, seconds: int) -> bool:
    """Runs a target; true if it found nothing."""
    learned = BUILD / "learned" / target
    learned.mkdir(parents=True, exist_ok=True)
    limits = [f"-max_total_time={seconds}", f"-max_len={MOST_BYTES}", "-timeout=10", "-print_final_stats=1"]
    folders = [learned, BUILD / "seeds" / target]
    done = subprocess.run([build(target), *limits, f"-artifact_prefix={BUILD}/{target}-", *folders], check=False)
    print(f"{'clean' if done.returncode == 0 else 'FOUND SOMETHING'}: {target}, {seconds} s", flush=True)
    return done.returncode == 0


def main() -> int:
    """Runs all targets, whatever the first one finds."""
    parser = argparse.ArgumentParser(description="Fuzz what takes apart packets from outside.")
    parser.add_argument("targets", nargs="*", metavar="split|coalesce|complete|wireguard", help="default: all")
    parser.add_argument("--seconds", type=int, default=60, help="for each target; default: %(default)s")
    options = parser.parse_args()
    if unknown := set(options.targets) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    if not available():
        print("no clang with libFuzzer; on Debian: apt-get install clang libclang-rt-dev")
        return SKIP
    BUILD.mkdir(parents=True, exist_ok=True)
    seeds.write(BUILD / "seeds")
    results = [fuzz(target, options.seconds) for target in options.targets or TARGETS]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
