"""tests/suite.py: the second try of what failed, which is shown, and refused to faults that are rare by nature."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

_FAILS_ONCE = """
from pathlib import Path
def test_other():
    Path({folder!r}, "others").open("a").write("+")
def test_one():
    tries = Path({folder!r}, "tries")
    tries.open("a").write("+")
    assert tries.read_text() == "++", {reason!r}
"""

_HANGS = """
import time
from pathlib import Path
import pytest
@pytest.mark.timeout(1)
def test_one():
    Path({folder!r}, "tries").open("a").write("+")
    time.sleep(60)
"""


def _run(folder: Path, script: str, notes: Path | None) -> subprocess.CompletedProcess[str]:
    folder.joinpath("pytest.ini").write_text("[pytest]\n")
    folder.joinpath("test_given.py").write_text(script)
    environment = {**os.environ, "TUNRING_SECOND_TRY": str(notes or "")}
    command = [sys.executable, str(ROOT / "tests/suite.py"), "test_given.py"]
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)


def test_what_failed_is_tried_again_alone_and_its_failure_is_kept(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    done = _run(tmp_path, _FAILS_ONCE.format(folder=str(tmp_path), reason="too slow"), notes)
    assert done.returncode == 0, done.stdout
    assert Path(tmp_path, "others").read_text() == "+"
    assert "too slow" in notes.read_text("utf-8")


def test_what_fails_twice_fails(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    done = _run(tmp_path, "def test_it(): assert False", notes)
    assert done.returncode == 1
    assert not notes.exists()


@pytest.mark.parametrize("reason", ["ERROR: AddressSanitizer: heap-use-after-free", "ended by SIGSEGV"])
def test_a_crash_gets_no_second_try(tmp_path: Path, reason: str) -> None:
    done = _run(tmp_path, _FAILS_ONCE.format(folder=str(tmp_path), reason=reason), tmp_path / "notes")
    assert done.returncode == 1
    assert Path(tmp_path, "tries").read_text() == "+"


def test_a_hang_gets_no_second_try(tmp_path: Path) -> None:
    done = _run(tmp_path, _HANGS.format(folder=str(tmp_path)), tmp_path / "notes")
    assert done.returncode != 0
    assert Path(tmp_path, "tries").read_text() == "+"


def test_without_the_variable_nothing_is_tried_again(tmp_path: Path) -> None:
    done = _run(tmp_path, _FAILS_ONCE.format(folder=str(tmp_path), reason="too slow"), None)
    assert done.returncode == 1
    assert Path(tmp_path, "tries").read_text() == "+"
