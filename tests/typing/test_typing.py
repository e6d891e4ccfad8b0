"""mypy on users' programs, with the stubs that are installed: it reports nothing, or the errors that it should.

It needs mypy, so it is not in pytest's default paths: ``pytest tests/typing``.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from mypy import api

import tunring

HERE = Path(__file__).parent


def check(program: str, folder: Path) -> set[tuple[int, str]]:
    """The lines at which mypy finds errors, with their codes."""
    arguments = ["--strict", "--config-file=", f"--cache-dir={folder}", f"--python-executable={sys.executable}",
                 "--no-error-summary", "--show-error-codes", str(HERE / program)]  # fmt: skip
    output, problems, _ = api.run(arguments)
    assert not problems, problems
    found = re.findall(r"^.*?:(\d+): error: .*\[([a-z-]+)\]$", output, re.MULTILINE)
    assert len(found) == output.count(": error: "), output
    return {(int(line), code) for line, code in found}


@pytest.mark.parametrize("program", ["user_sync.py", "user_async.py"])
def test_a_right_program(program: str, tmp_path: Path) -> None:
    assert check(program, tmp_path) == set()


def test_every_mistake_is_found(tmp_path: Path) -> None:
    lines = (HERE / "mistakes.py").read_text("utf-8").splitlines()
    expected = {(at, line.split("# error: ")[1]) for at, line in enumerate(lines, 1) if "# error: " in line}
    assert len(expected) > 30
    assert check("mistakes.py", tmp_path) == expected


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(tunring.__file__).parent / "py.typed").is_file()
