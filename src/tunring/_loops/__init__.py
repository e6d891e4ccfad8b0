"""Waiting in event loops: the extension tries at once, and what has to wait waits here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunring import _core

if TYPE_CHECKING:
    import asyncio


def _running_loop() -> asyncio.AbstractEventLoop:
    """Import asyncio when it is first needed: it takes longer than all the rest of the package."""
    import asyncio

    from tunring._loops import aio  # noqa: F401  # it takes the place of this function

    return asyncio.get_running_loop()


_core.use_loops(_running_loop, None)
