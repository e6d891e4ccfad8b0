"""Sessions for tests, anywhere and without privileges: two ends of a cable, or one whose driver the test plays."""

from __future__ import annotations

import ctypes
import enum
import uuid
from typing import TYPE_CHECKING, ClassVar

from tunring._adapter import Adapter
from tunring._library import load
from tunring.errors import error_from_code

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tunring._core import Library, Session


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


# ---- The driver's side. These mirror tunring_backend.h. ----

_Adapter = ctypes.c_void_p
_DWORD = ctypes.c_uint32
_BACKEND_VERSION = 1
_MOST_BYTES = 0xFFFF
_NO_MORE_ITEMS = 259


class _ChainPacket(ctypes.Structure):
    _fields_: ClassVar = [("data", ctypes.c_void_p), ("size", _DWORD)]


class _Functions(ctypes.Structure):
    _fields_: ClassVar = [
        ("attach", ctypes.CFUNCTYPE(_DWORD, _Adapter)),
        ("inject", ctypes.CFUNCTYPE(_DWORD, _Adapter, ctypes.POINTER(_ChainPacket), _DWORD)),
        ("drain", ctypes.CFUNCTYPE(_DWORD, _Adapter, ctypes.c_char_p, ctypes.POINTER(_DWORD))),
        ("corrupt", ctypes.CFUNCTYPE(_DWORD, _Adapter, ctypes.c_int, _DWORD)),
        ("delay", ctypes.CFUNCTYPE(_DWORD, _Adapter, _DWORD)),
        ("remove", ctypes.CFUNCTYPE(_DWORD, _Adapter)),
        ("stale_ends", ctypes.CFUNCTYPE(_DWORD)),
    ]


class _Backend(ctypes.Structure):
    _fields_: ClassVar = [
        ("version", _DWORD),
        ("size", _DWORD),
        ("name", ctypes.c_char_p),
        *[
            (name, ctypes.c_void_p)
            for name in (
                "detach counters send_room adapter_name adapter_index adapter_namespace adopt set_option "
                "receive_many release_many send_many".split()
            )
        ],
        ("simulator", ctypes.POINTER(_Functions)),
    ]


#: By path: of libraries that have none of their own.
_simulators: dict[str, _Functions] = {}


def use_simulator(library: Library, address: int) -> None:
    """Let :class:`Simulator` play the driver of a library that has no simulator of its own.

    Parameters
    ----------
    library : Library
        Such as the official DLL, over something that stands in for its driver.
    address : int
        Of a ``struct tunring_simulator``, as include/tunring_backend.h describes it. It must stay valid, and its
        functions take that library's adapters.
    """
    _simulators[library.path] = _Functions.from_address(address)


def _functions(library: Library) -> _Functions:
    if library.path in _simulators:
        return _simulators[library.path]
    # The library is loaded already, and this is the same copy of it.
    try:
        backend = _Backend.in_dll(ctypes.CDLL(library.path), "TunringBackend")
    except ValueError:
        backend = _Backend()
    if backend.version != _BACKEND_VERSION or backend.size != ctypes.sizeof(_Backend) or not backend.simulator:
        raise ValueError(f"{library!r} has no simulator; 'loopback' has one")
    functions: _Functions = backend.simulator.contents
    return functions


class Corruption(enum.IntEnum):
    """What :meth:`Simulator.corrupt` overwrites."""

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

    From then on the adapter is no cable end: nothing moves but by these methods, chains are dropped whole on overflow,
    and a session ends by the official driver's rules. All methods may be called from any thread. Each raises
    WintunError for what the library refuses: NotFound after :meth:`remove`, SessionClosed without a session.

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

    def __init__(self, adapter: Adapter, functions: _Functions) -> None:
        self._adapter = adapter
        self._functions = functions

    @classmethod
    def attach(cls, adapter: Adapter) -> Simulator:
        """Take an adapter of ``loopback`` over, for good. It must have no session yet.

        Raises
        ------
        ValueError
            The adapter's library has no simulator.
        AdapterBusy
            It has a session.
        """
        self = cls(adapter, _functions(adapter.library))
        self._check(self._functions.attach(self._handle), "can't attach the simulator")
        return self

    @property
    def _handle(self) -> int:
        return self._adapter._handle.address  # noqa: SLF001

    @staticmethod
    def _check(code: int, action: str) -> None:
        if code:
            raise error_from_code(code, action)

    def inject(self, chain: Iterable[bytes | int]) -> None:
        """Bring one chain of packets to the session.

        Parameters
        ----------
        chain : iterable of bytes or int
            The packets; they need be no IP packets. A number stands for that many bytes which the driver can't read:
            they come as zeros. The driver passes over packets of more than 65535 bytes.

        Raises
        ------
        RingFull
            There is no room for all: the whole chain was dropped, and counted.
        """
        packets = list(chain)
        entries = (_ChainPacket * len(packets))()
        for entry, packet in zip(entries, packets, strict=True):
            if isinstance(packet, int):
                entry.data, entry.size = None, packet
            else:
                entry.data, entry.size = ctypes.cast(ctypes.c_char_p(packet), ctypes.c_void_p), len(packet)
        self._check(self._functions.inject(self._handle, entries, len(packets)), "can't inject the chain")

    def drain(self) -> bytes | None:
        """Take the oldest packet that the session has sent, or None. What is no IP packet is dropped, and counted.

        Raises
        ------
        RingCorrupt
            The ring holds nonsense: from here on the session can't send.
        """
        return self._drain(ctypes.create_string_buffer(_MOST_BYTES))

    def _drain(self, buffer: ctypes.Array[ctypes.c_char]) -> bytes | None:
        size = _DWORD(_MOST_BYTES)
        code = self._functions.drain(self._handle, buffer, ctypes.byref(size))
        if code == _NO_MORE_ITEMS:
            return None
        self._check(code, "can't drain")
        return ctypes.string_at(buffer, size.value)

    def drain_all(self) -> list[bytes]:
        """Take every packet that the session has sent."""
        buffer = ctypes.create_string_buffer(_MOST_BYTES)
        return list(iter(lambda: self._drain(buffer), None))

    def corrupt(self, what: Corruption, value: int) -> None:
        """Overwrite a word of a ring with ``value``: 0 to 0xFFFFFFFF.

        Raises
        ------
        WintunError
            There is no packet whose size could be overwritten (code 259).
        """
        self._check(self._functions.corrupt(self._handle, what, value), "can't corrupt the ring")

    def delay(self, seconds: float) -> None:
        """Let every injection and every drain from here on take so long."""
        self._check(self._functions.delay(self._handle, round(seconds * 1e6)), "can't set the delay")

    def remove(self) -> None:
        """Let the system remove the adapter, as an administrator may: its session is over, and its handle closed."""
        self._check(self._functions.remove(self._handle), "can't remove the adapter")

    def stale_ends(self) -> int:
        """Count the sessions of this process that were ended after their adapter was removed: it must stay 0."""
        ends: int = self._functions.stale_ends()
        return ends
