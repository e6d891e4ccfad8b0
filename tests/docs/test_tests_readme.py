"""tests/README.md maps sources to tests: all of them exist, and no source, test or folder of tests is left out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
TEXT = (TESTS / "README.md").read_text("utf-8")
#: The rows of the second table, without its line of dashes.
TABLE = TEXT.partition("| sources | tests |")[2].partition("\n## ")[0]
ROWS = re.findall(r"^\| (.+) \| (.+) \|$", TABLE, re.MULTILINE)[1:]


@pytest.mark.parametrize(("column", "folder"), [(0, TESTS.parent), (1, TESTS)], ids=["sources", "tests"])
def test_every_name_exists(column: int, folder: Path) -> None:
    names = [name for row in ROWS for name in re.findall(r"`([^`]+)`", row[column])]
    assert len(names) > 15
    assert not [name for name in names if not list(folder.glob(name.rstrip("/")))]


def test_no_folder_is_left_out() -> None:
    named = set(re.findall(r"`(\w+)/`", TEXT.partition("\n## ")[0]))
    assert {path.name for path in TESTS.iterdir() if path.is_dir() and path.name[0].isalpha()} <= named


def in_table(column: int, folder: Path) -> set[Path]:
    """The files that a column's names and patterns stand for."""
    names = [name for row in ROWS for name in re.findall(r"`([^`]+)`", row[column])]
    found = {path for name in names for path in folder.glob(name.rstrip("/"))}
    return found | {inner for path in found if path.is_dir() for inner in path.rglob("*")}


def left_out(column: int, folder: Path, patterns: list[str]) -> list[str]:
    files = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    assert len(files) > 50
    return sorted(path.relative_to(folder).as_posix() for path in files - in_table(column, folder))


def test_no_source_is_left_out() -> None:
    ours = [f"src/**/*.{ending}" for ending in ("c", "h", "pyx", "pxd", "pxi", "py", "pyi")]
    assert left_out(0, TESTS.parent, ours) == []


def test_no_test_is_left_out() -> None:
    assert left_out(1, TESTS, ["*/test_*.py", "c/test_*.c", "c/stress_*.c"]) == []
