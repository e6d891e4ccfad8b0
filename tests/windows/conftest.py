"""Windows only: for the whole folder."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import libraries

if sys.platform != "win32":
    collect_ignore_glob = ["test_*.py"]
elif not libraries.STANDIN:
    collect_ignore_glob = ["test_stand_in_*.py"]


@pytest.fixture
def official_dll() -> Path:
    """The official DLL for this machine."""
    from tunring.library import _find

    return _find("wintun")
