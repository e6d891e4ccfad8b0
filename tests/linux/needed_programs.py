"""Programs of others that tests use."""

from __future__ import annotations

import os
import shutil

import pytest

#: True where every test has to run: in .ci/run, which installs what they need, and on CI's machines.
NEEDED = bool(os.environ.get("TUNRING_NEED_PROGRAMS") or os.environ.get("CI"))


def need_programs(*names: str) -> None:
    """Skip the test if one of them is not installed; where every test has to run, fail."""
    missing = [name for name in names if not shutil.which(name)]
    if missing and not NEEDED:
        pytest.skip(f"not installed: {', '.join(missing)}")
    assert not missing, f"not installed: {', '.join(missing)}"
