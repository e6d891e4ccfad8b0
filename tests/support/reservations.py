"""Helpers of the tests of reservations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import tunring
from packets import packet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def received(session: tunring.Session) -> list[bytes]:
    with session.receive(65536, timeout=0) as batch:
        return batch.tobytes()


def fill(views: Iterable[memoryview], number: int = 0) -> list[bytes]:
    views = list(views)
    packets = [packet(len(view), number=number + i) for i, view in enumerate(views)]
    for view, data in zip(views, packets, strict=True):
        view[:] = data
    return packets


def closed_reason(call: Callable[[], object]) -> tuple[str, BaseException | None]:
    """Reason and cause of the SessionClosed that it raises."""
    with pytest.raises(tunring.SessionClosed) as caught:
        call()
    return caught.value.reason, caught.value.__cause__
