"""Sessions for tests, anywhere and without privileges: two ends of a cable, or one whose driver the test plays."""

from __future__ import annotations

import enum
import uuid
from typing import TYPE_CHECKING

from tunring import _core
from tunring._adapter import Adapter
from tunring._library import load

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tunring._core import Library, Session

__all__ = ["Corruption", "Simulator", "pair", "use_simulator"]


def pair(capacity: int = 0x400000) -> tuple[Session, Session]:
    """Start two sessions with a cable between them: what one sends, the other receives. It loses nothing.

    Each session owns its adapter: closing one closes the other's link, not its session.

    Parameters
    ----------
    capacity : int
        Bytes of each ring: a power of two from 128 KiB to 64 MiB.

    Examples
    --------
    >>> import tunring.testing
    >>> left, right = tunring.testing.pair()
    >>> packet = bytes([0x45]) + bytes(19)
    >>> left.send([packet])
    1
    >>> with right.receive() as batch:
    ...     bytes(batch[0]) == packet
    True
    >>> left.close(); right.close()
    """
    library = load("loopback")
    cable = uuid.uuid4()
    sessions: list[Session] = []
    try:
        for end in "ab":
            adapter = Adapter.create(f"pair-{cable.hex[:12]}-{end}", guid=cable, library=library)
            try:
                sessions.append(adapter._start(capacity, closes_adapter=True))  # noqa: SLF001
            except BaseException:
                adapter.close()
                raise
    except BaseException:
        for session in sessions:
            session.close()
        raise
    return sessions[0], sessions[1]


# ---- The driver's side. ----


def use_simulator(library: Library, path: str, symbol: str) -> None:
    """Let :class:`Simulator` play the driver of a library that has no simulator of its own.

    Parameters
    ----------
    library : Library
        The library, such as the official DLL over a stand-in for its driver.
    path, symbol : str
        A shared library and what it exports: a ``struct tunring_simulator``, as include/tunring_backend.h describes it,
        whose functions take that library's adapters. It is loaded and stays loaded.

    Raises
    ------
    LibraryNotFound, LibraryInvalid
        The file does not exist, or does not export the symbol.
    """
    _core.simulator_load(library, path, symbol)


class Corruption(enum.IntEnum):
    """The word that :meth:`Simulator.corrupt` overwrites."""

    #: The index that a receiver reads to see what has come.
    RECEIVE_TAIL = 0
    #: The size of the oldest packet that is not received yet.
    RECEIVE_SIZE = 1
    #: The index that a sender reads to see what room there is.
    SEND_HEAD = 2
    #: The size of the oldest packet that is sent and not drained.
    SEND_SIZE = 3


class Simulator:
    """The driver's side of a ``loopback`` adapter, played by a test. :meth:`attach` makes it.

    From then on the adapter is not a cable end: packets move only by these methods, chains are dropped whole on
    overflow, and a session ends by the official driver's rules. All methods may be called from any thread. Each raises
    WintunError for what the library refuses: NotFound after :meth:`remove`, SessionClosed without a session; and
    ValueError once the adapter is closed.

    Examples
    --------
    >>> import tunring, tunring.testing
    >>> packet = bytes([0x45]) + bytes(19)
    >>> with tunring.Adapter.create("simulated", library=tunring.load("loopback")) as adapter:
    ...     driver = tunring.testing.Simulator.attach(adapter)
    ...     with adapter.start_session() as session:
    ...         driver.inject([packet, packet])
    ...         session.send(session.receive()), driver.drain() == packet
    (2, True)
    """

    def __init__(self, adapter: Adapter) -> None:
        self._library = adapter.library
        self._handle = adapter._handle  # noqa: SLF001

    @classmethod
    def attach(cls, adapter: Adapter) -> Simulator:
        """Take over an adapter of ``loopback`` for good. It must have no session yet.

        Raises
        ------
        ValueError
            The adapter's library has no simulator, or the adapter is closed.
        AdapterBusy
            It has a session.
        """
        if not _core.simulator_available(adapter.library):
            raise ValueError(f"{adapter.library!r} has no simulator; 'loopback' has one")
        self = cls(adapter)
        _core.simulator_attach(self._handle)
        return self

    def inject(self, chain: Iterable[bytes | int]) -> None:
        """Bring one chain of packets to the session.

        Parameters
        ----------
        chain : iterable of bytes or int
            The packets; they need not be IP packets. A number stands for that many bytes which the driver can't read:
            they arrive as zeros. The driver skips packets of more than 65535 bytes.

        Raises
        ------
        RingFull
            The ring lacks room for all: the whole chain was dropped, and counted.
        """
        _core.simulator_inject(self._handle, chain)

    def drain(self) -> bytes | None:
        """Take the oldest packet that the session has sent, or None. Anything but IP packets is dropped and counted.

        Raises
        ------
        RingCorrupt
            The ring's contents are corrupt: the session can't send from now on.
        """
        return _core.simulator_drain(self._handle)

    def drain_all(self) -> list[bytes]:
        """Take every packet that the session has sent."""
        return list(iter(self.drain, None))

    def corrupt(self, what: Corruption, value: int) -> None:
        """Overwrite a word of a ring with ``value``: 0 to 0xFFFFFFFF.

        Raises
        ------
        WintunError
            The ring holds no packet whose size could be overwritten (ERROR_NO_MORE_ITEMS).
        """
        _core.simulator_corrupt(self._handle, what, value)

    def delay(self, seconds: float) -> None:
        """Make every injection and every drain take this long from now on."""
        _core.simulator_delay(self._handle, round(seconds * 1e6))

    def remove(self) -> None:
        """Remove the adapter, as an administrator may: its session ends, and its handle is closed."""
        _core.simulator_remove(self._handle)

    def stale_ends(self) -> int:
        """Count the sessions of this process that were ended after their adapter was removed: it must stay 0."""
        return _core.simulator_stale_ends(self._library)
