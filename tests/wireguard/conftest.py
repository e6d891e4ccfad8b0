"""A stack that closes what a test makes, and a session for a device."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tunring import testing

if TYPE_CHECKING:
    from collections.abc import Iterator

    import tunring


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


@pytest.fixture
def session(stack: ExitStack) -> tunring.Session:
    """One end of a cable in memory, whose other end is open as long."""
    host, made = testing.pair()
    stack.enter_context(host)
    return stack.enter_context(made)
