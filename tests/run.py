"""Sets up a virtual environment with the project in it, and runs the C and Python tests.

    python3 tests/run.py [--venv FOLDER] [pytest's arguments ...]

It needs Python 3.11 or later with its headers, a C compiler, and a package index for what the tests use.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def environment(folder: Path) -> Path:
    """Makes the virtual environment if need be, installs the project as it is now, and returns its Python."""
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        venv.create(folder, with_pip=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "pip>=25.1"], check=True)  # the first that knows dependency groups
    subprocess.run([*pip, "--group", "test", "."], check=True, cwd=ROOT)
    return python


def main() -> int:
    """Runs both suites, even if the first one fails; returns 0 if both passed."""
    text = "Set up an environment and run the C and Python tests."
    parser = argparse.ArgumentParser(description=text, allow_abbrev=False)
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv-test", help="default: %(default)s")
    options, pytest_arguments = parser.parse_known_args()
    try:
        python = environment(options.venv.resolve())
    except subprocess.CalledProcessError as error:
        return int(error.returncode)
    programs = subprocess.run([sys.executable, "tests/c/run.py"], cwd=ROOT, check=False)
    suite = subprocess.run([python, "tests/suite.py", *pytest_arguments], cwd=ROOT, check=False)
    return programs.returncode or suite.returncode


if __name__ == "__main__":
    sys.exit(main())
