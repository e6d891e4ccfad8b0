"""The packages that these tests look at, and environments to install them in."""

from __future__ import annotations

import os
import sys
import venv
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from running import check_program

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]

# A wheel for Windows is built by tests/wine, and named in TUNRING_WINDOWS_WHEEL.
collect_ignore = [] if "TUNRING_WINDOWS_WHEEL" in os.environ else ["test_windows_wheel.py"]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, built from the sdist beside it."""
    if "TUNRING_WHEEL" in os.environ:
        return Path(os.environ["TUNRING_WHEEL"]).resolve()
    folder = tmp_path_factory.mktemp("dist")
    check_program(sys.executable, "-m", "build", "--outdir", folder, ROOT)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="session")
def make_python() -> Callable[[Path], Path]:
    """Makes an empty virtual environment in a folder, and returns its Python."""

    def make(folder: Path) -> Path:
        venv.create(folder, with_pip=True)
        return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    return make


@pytest.fixture
def python(tmp_path: Path, make_python: Callable[[Path], Path]) -> Path:
    """The Python of an empty virtual environment."""
    return make_python(tmp_path / "venv")
