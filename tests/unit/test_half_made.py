"""Objects without content, by support/half_made.py. Each runs in a process, since a failure is a crash."""

from __future__ import annotations

import sys

import pytest

import half_made
from running import check_program

#: Classes whose objects are whole as they are made.
WHOLE = {"Turn", "Cancel", "Routes", "_BlockMethod"}


@pytest.mark.parametrize("name", sorted(half_made.classes()))
def test_an_empty_object_is_refused_or_refuses(name: str) -> None:
    said = check_program(sys.executable, "-X", "dev", half_made.__file__, name)
    assert name in WHOLE or "not refused" not in said, said


def test_classes_that_are_not_exported_are_among_them() -> None:
    names = {"Session", "Batch", "Lease", "Outgoing", "Batches", "_Views", "_Packets", "_Words"}
    assert names <= set(half_made.classes())
