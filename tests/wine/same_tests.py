"""Checks that Windows runs the same tests, by name, as this system, apart from those that windows_absent.py names."""

from __future__ import annotations

import re
import sys
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING
from xml.etree import ElementTree

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from windows_absent import ABSENT, is_absent

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Arguments of pytest to list tests.
LIST = ["--collect-only", "-q", "-p", "no:cacheprovider", "-o", "addopts=--import-mode=importlib"]

#: Variants of tests, as systems have them: libraries, event loops, ways to wait in one.
#: All count as one.
_VARIANTS = {
    r"\bwintun\b": "loopback",
    r"\b(proactor|selector|uvloop)(-thread)?\b(?=[^/]*\]$)": "loop",
    r"\btrio\b(?=[^/]*\]$)": "asyncio",
    r"\b(ipsec-mb|boringssl)\b(?=[^/]*\]$)": "libcrypto",
    r"(test_the_program_ends\[.*)-(True|False)\]$": r"\1]",
}


def listed(lines: Iterable[str]) -> set[str]:
    """The tests that pytest has listed, each with its variants."""
    return _without_variants({line.strip() for line in lines if re.match(r"tests/\S+\.py::", line)})


def reported(reports: Iterable[Path]) -> set[str]:
    """The tests of JUnit reports, each with its variants."""
    cases = [case for report in reports for case in ElementTree.parse(report).iter("testcase")]
    return _without_variants(
        {f"{PureWindowsPath(case.get('file', '')).as_posix()}::{case.get('name')}" for case in cases}
    )


def _without_variants(tests: set[str]) -> set[str]:
    for variant, name in _VARIANTS.items():
        tests = {re.sub(variant, name, test) for test in tests}
    return tests


def differences(here: set[str], windows: set[str]) -> list[str]:
    """Faults of the two lists; nothing if exactly the absent ones are absent."""
    expected = {test for test in here if not is_absent(test)}
    added = {test for test in windows - here if not test.startswith("tests/windows/")}
    unused = [entry for entry in ABSENT if not any(is_absent(test, [entry]) for test in here)]
    return [
        *(f"not run on Windows, and not in windows_absent.py: {test}" for test in sorted(expected - windows)),
        *(f"in windows_absent.py, and yet run on Windows: {test}" for test in sorted(windows & (here - expected))),
        *(f"run on Windows only, outside tests/windows: {test}" for test in sorted(added)),
        *(f"in windows_absent.py, and there is no such test: {entry}" for entry in unused),
    ]


def skipped(report: Path, version: str) -> list[str]:
    """The tests of a JUnit report that were skipped, and why; but for those that need a Python later than `version`."""
    minor = int(version.split(".")[1])
    cases = ElementTree.parse(report).iter("testcase")
    return [
        f"{case.get('classname')}.{case.get('name')}: {skip.get('message')}"
        for case in cases
        for skip in case.iter("skipped")
        if skip.get("type") == "pytest.skip" and not _needs_later(skip.get("message", ""), minor)
    ]


def _needs_later(reason: str, minor: int) -> bool:
    needed = re.match(r"only Python 3\.(\d+)\b", reason)
    return needed is not None and int(needed[1]) > minor
