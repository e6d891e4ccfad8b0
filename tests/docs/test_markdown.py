"""Markdown files of the tree: each table is one table when it is rendered, and lines fit in 120 columns."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
FILES = [*ROOT.glob("*.md"), *(path for name in ("bench", "docs", "tests") for path in (ROOT / name).rglob("*.md"))]
COLUMN = re.compile(r"(?<!\\)\|")
DASHES = re.compile(r"\|( :?-+:? \|)+")
CODE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)


def prose(path: Path) -> list[str]:
    """The file's lines, with empty ones in place of code blocks."""
    return CODE.sub(lambda code: "\n" * code[0].count("\n"), path.read_text("utf-8")).split("\n")


def tables(lines: list[str]) -> Iterator[list[str]]:
    """The tables: rows that follow each other."""
    table: list[str] = []
    for line in [*lines, ""]:
        if line.startswith("|"):
            table.append(line)
        elif table:
            yield table
            table = []


def wrong_tables(lines: list[str]) -> list[str]:
    """The first rows of tables without a head or with rows of another width, as of one that a paragraph divides."""
    return [
        table[0]
        for table in tables(lines)
        if len(table) < 3 or not DASHES.fullmatch(table[1]) or len({len(COLUMN.findall(row)) for row in table}) != 1
    ]


def test_what_counts_as_wrong() -> None:
    head = ["| a | b |", "| --- | ---: |"]
    assert not wrong_tables([*head, "| 1 | 2 |", "", "text", "", *head, r"| 1 \| 2 | 3 |"])
    assert wrong_tables([*head, "| 1 | 2 |", "text", "| 3 | 4 |"]) == ["| 3 | 4 |"]
    assert wrong_tables([*head, "| 1 |"])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_tables_are_whole(path: Path) -> None:
    assert not wrong_tables(prose(path))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_lines_fit(path: Path) -> None:
    """But for rows of tables, which can't be wrapped, and what report.py writes."""
    text = "\n".join(prose(path)).partition("<!-- written by report.py: begin -->")[0]
    assert [line for line in text.split("\n") if len(line) > 120 and not line.startswith("|")] == []
