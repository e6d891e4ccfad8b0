"""Packages that only a part of tunring needs: where one can't be imported, the error has the reason."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

#: Package, and a statement that needs it.
USERS = [
    ("scapy", "import tunring.contrib.scapy"),
    ("anyio", "import tunring.contrib.anyio"),
    ("numpy", "import tunring.examples.count"),
    ("cryptography", "import tunring.wireguard"),
    ("rich", "import tunring.cli.display as d; d.make_display('rich', [], None, None)"),
]


def failure(package: str, statement: str, folder: Path, content: str) -> list[str]:
    """Return the output of a program that finds a package of this content."""
    (folder / package).mkdir()
    (folder / package / "__init__.py").write_text(content)
    done = subprocess.run(
        [sys.executable, "-c", statement],
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    return done.stderr.splitlines()


@pytest.mark.parametrize(("package", "statement"), USERS)
def test_an_absent_package(package: str, statement: str, tmp_path: Path) -> None:
    absent = f"raise ModuleNotFoundError({package!r}, name={package!r})"
    lines = failure(package, statement, tmp_path, absent)
    assert lines[-1].startswith("ImportError: ")
    extra = ", or the extra tunring[wireguard]" if package == "cryptography" else ""
    assert lines[-1].endswith(f"needs {package}: pip install {package}{extra}")


@pytest.mark.parametrize(("package", "statement"), USERS)
def test_a_package_that_lacks_something_itself(package: str, statement: str, tmp_path: Path) -> None:
    lines = failure(package, statement, tmp_path, "import a_module_that_this_python_lacks")
    reason = "No module named 'a_module_that_this_python_lacks'"
    assert lines[-1].endswith(f"needs {package}, which is installed but can't be imported: {reason}")
    assert f"ModuleNotFoundError: {reason}" in lines, "the cause is chained"
    assert not any("pip install" in line for line in lines)
