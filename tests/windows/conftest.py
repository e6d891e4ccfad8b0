"""Windows only: for the whole folder."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import libraries

if sys.platform != "win32":
    collect_ignore_glob = ["test_*.py"]
else:
    import ctypes

    # Wine has no drivers; the stand-in for ours is loaded where it is asked for.
    WINE = hasattr(ctypes.WinDLL("ntdll"), "wine_get_version")
    collect_ignore_glob = [
        *(["test_driver.py"] if WINE else []),
        *([] if libraries.STANDIN else ["test_stand_in_*.py"]),
    ]


@pytest.fixture
def official_dll() -> Path:
    """The official DLL for this machine."""
    from tunring._library import _find

    return _find("wintun")
