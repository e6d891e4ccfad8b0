"""tshark, an independent reader of captures."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

#: Its line about the user on standard error: nothing else may be there.
_AS_ROOT = 'Running as user "root" and group "root". This could be dangerous.'

_WITHOUT_SANITIZER = ("env", "-u", "LD_PRELOAD")


def tshark(path: Path, *arguments: str) -> list[str]:
    """The lines that it prints about a file, which it must read without an error."""
    command = [*_WITHOUT_SANITIZER, "tshark", "-n", "-r", str(path), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    said = [line for line in done.stderr.splitlines() if line != _AS_ROOT]
    assert (done.returncode, said) == (0, []), done.stderr
    return done.stdout.splitlines()


def in_order_of_time(path: Path) -> Path:
    """A copy of the file: what is sent is written later than an answer that another thread receives meanwhile."""
    ordered = path.with_suffix(".ordered.pcapng")
    command = [*_WITHOUT_SANITIZER, "reordercap", str(path), str(ordered)]
    subprocess.run(command, capture_output=True, timeout=60, check=True)
    return ordered


def fields(path: Path, *names: str) -> list[tuple[str, ...]]:
    """Fields of every packet."""
    arguments = [argument for name in names for argument in ("-e", name)]
    return [tuple(line.split("\t")) for line in tshark(path, "-T", "fields", *arguments)]
