"""A second try, alone, for tests that failed beside others: for the gate, where many race the clock on a busy machine.

There is one only where the variable TUNRING_SECOND_TRY names a file. The failures of tests that pass it are added to
that file, whole, so that none goes unseen. There is none after a crash, a sanitizer's report, a hang or a fault that
chaos found: those are rare by nature.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

#: Words in the output of a test that no second try excuses.
FAULTS = re.compile(
    r"Sanitizer|runtime error: |Fatal Python error|SIG(SEGV|ABRT|BUS|ILL|FPE)|Failed: Timeout|tests[/\\]chaos"
)

#: pytest's exit code where tests failed, and nothing else went wrong.
TESTS_FAILED = 1


def asked() -> bool:
    """Return True if failed tests are to be tried again."""
    return bool(os.environ.get("TUNRING_SECOND_TRY"))


def deserved(failure: str) -> bool:
    """Return True if a test that failed with this output may be tried again."""
    return asked() and not FAULTS.search(failure)


def note(title: str, failure: str) -> None:
    """Keeps the output of something that passed the second try."""
    with Path(os.environ["TUNRING_SECOND_TRY"]).open("a", encoding="utf-8") as file:
        file.write(f"--- passed at the second try: {title}\n{failure.rstrip()}\n")


def of_pytest(run: Callable[[list[str]], tuple[int, str]], code: int, output: str) -> int:
    """The end of a run of pytest that exited so: its code, or that of the second try.

    `run` starts pytest with further arguments, and returns its exit code and output.
    """
    # Without this section, pytest itself was ended, as pytest-timeout does on Windows.
    section = re.search(r"^=+ (ERRORS|FAILURES) =+$", output, re.MULTILINE)
    if code != TESTS_FAILED or not section or not deserved(output[section.start() :]):
        return code
    print("a second try of what failed:", flush=True)
    code, _ = run(["--last-failed"])
    if code == 0:
        note("these tests", output[section.start() :])
    return code
