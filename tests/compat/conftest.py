"""Fixtures of the tests that run other packages over the drop-in device."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "linux"))

from netns import Namespace

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def namespaces() -> Iterator[tuple[Namespace, Namespace]]:
    """Two network namespaces, which need root."""
    both = Namespace(), Namespace()
    yield both
    for namespace in both:
        namespace.close()
