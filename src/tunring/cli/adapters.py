"""The adapters that commands serve."""

from __future__ import annotations

from tunring import Adapter, AdapterBusy, AlreadyExists, load


def create_or_open(name: str) -> tuple[Adapter, bool]:
    """A new adapter, or one that is there and free; and whether it is new.

    Raises
    ------
    AdapterBusy
        Another program has it.
    """
    try:
        return Adapter.create(name, library=load()), True
    except AlreadyExists:
        try:
            return Adapter.open(name, library=load()), False
        except AdapterBusy as error:
            text = f"adapter {name!r} is in use: another program has it; end that one, or choose another name"
            raise AdapterBusy(error.winerror, text) from error
