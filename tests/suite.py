"""Runs pytest in this Python, where the project is installed: everything, or what the arguments select.

    python tests/suite.py [pytest's arguments ...]

Everything is run in several processes side by side, as the tests wait more than they compute, but for what compares
rates. The output of the first one is shown as it comes, that of the others at the end.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from glob import glob
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "support"))

import second_try

#: pytest's exit code where it found none.
NO_TESTS = 5

#: Tests that compare rates have the machine for themselves, after the others.
RATES = ["tests/linux/test_offloads_bulk.py", "tests/linux/test_wireguard_flood.py"]

#: WireGuard's tests in network namespaces take as long as all others there.
_TUNNELS = "tests/linux/test_wireguard_*.py"

#: Each share takes about as long. The first one has what the others leave.
SHARES = [
    ["tests", "--ignore=tests/linux", "--ignore=tests/unit", "--ignore=tests/wireguard"],
    ["tests/linux", f"--ignore-glob={_TUNNELS}", *(f"--ignore={file}" for file in RATES)],
    sorted({*glob(_TUNNELS)} - {*RATES}),
    ["tests/unit", "tests/wireguard"],
]


def show(output: bytes) -> None:
    """Prints what pytest printed, in whatever encoding that is."""
    sys.stdout.buffer.write(output)
    sys.stdout.flush()


def run_pytest(arguments: list[str], further: list[str], *, at_once: bool = True) -> tuple[int, bytes]:
    """Runs pytest; its exit code and output, which is shown as it comes if asked for."""
    command = [sys.executable, "-m", "pytest", *arguments, *further]
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout
        for line in process.stdout:
            lines.append(line)
            if at_once:
                show(line)
    return process.returncode, b"".join(lines)


def run_again(arguments: list[str], code: int, output: bytes) -> int:
    """Runs what failed once more, if that may be; returns pytest's exit code."""

    def run(further: list[str]) -> tuple[int, str]:
        code, output = run_pytest(arguments, further)
        return code, output.decode("utf-8", "replace")

    return second_try.of_pytest(run, code, output.decode("utf-8", "replace").replace("\r\n", "\n"))


def worst(codes: list[int]) -> int:
    """The worst exit code; not every system has tests everywhere."""
    return max((code for code in codes if code != NO_TESTS), default=NO_TESTS)


def run_shares(shares: list[list[str]], cache: str) -> int:
    """Runs shares of the tests beside each other, then what failed; returns pytest's exit code, the worst one."""
    shares = [[*share, "-o", f"cache_dir={Path(cache, str(number))}"] for number, share in enumerate(shares)]
    with ThreadPoolExecutor() as pool:
        behind = [pool.submit(run_pytest, share, [], at_once=False) for share in shares[1:]]
        ends = [run_pytest(shares[0], []), *(future.result() for future in behind)]
    for _, output in ends[1:]:
        show(output)
    codes = [run_again(share, *end) for share, end in zip(shares, ends, strict=True)]
    return worst(codes)


def main() -> int:
    """Returns pytest's exit code."""
    arguments = sys.argv[1:]
    selected = any(not argument.startswith("-") for argument in arguments)
    if sys.stdout.isatty() and not second_try.asked():
        arguments.append("--color=yes")
    rounds = [[[]]] if selected else [SHARES, [RATES]]
    codes = []
    for shares in rounds:
        with tempfile.TemporaryDirectory() as cache:
            codes.append(run_shares([[*arguments, *share] for share in shares], cache))
    return worst(codes)


if __name__ == "__main__":
    sys.exit(main())
