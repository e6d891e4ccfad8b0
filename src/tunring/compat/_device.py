"""The part that the drop-in devices of all systems have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from tunring._adapter import Adapter
from tunring._core import Cancel, receive_in_task
from tunring._win32 import Win32
from tunring.errors import SessionClosed

if TYPE_CHECKING:
    from types import TracebackType

    from tunring._core import Batch, Library, Session

#: Bytes of packet information: flags, and the protocol in network order.
PREFIX_SIZE = 4
PROTOCOLS = {4: 0x0800, 6: 0x86DD}

#: Packets that one wake-up of :meth:`Device.async_read_batch` gives at most.
_BATCH = 256


class Device:
    """An adapter with at most one session."""

    def __init__(self, name: str, tunnel_type: str, library: Library | None) -> None:
        self._adapter = Adapter.create(name, tunnel_type, library=library)
        self._up: tuple[Session, Cancel] | None = None

    def _start(self, capacity: int) -> None:
        self._up = self._adapter.start_session(capacity), Cancel()

    def _stop(self) -> None:
        up, self._up = self._up, None
        if up is not None:
            up[0].close()

    def _running(self) -> tuple[Session, Cancel]:
        up = self._up
        if up is None:
            raise SessionClosed(Win32.HANDLE_EOF, f"the device {self._adapter.name!r} isn't up")
        return up

    def _send(self, packet: memoryview) -> None:
        session, _ = self._running()
        session.send([packet])

    @property
    def name(self) -> str:
        """The interface's name."""
        return self._adapter.name

    def _receive(self, timeout: float | None) -> bytes | None:
        """One packet. None if the read was cancelled; TimeoutError when the time is up."""
        session, cancel = self._running()
        with session._receive_or_cancel(1, timeout, cancel) as batch:  # noqa: SLF001
            if batch:
                return bytes(batch[0])
        if cancel.called:
            return None
        raise TimeoutError("no packet within the timeout")

    async def _receive_async(self, max_packets: int) -> Batch:
        session, cancel = self._running()
        return await receive_in_task(session, None, max_packets, None, cancel)

    async def async_read(self) -> bytes | None:
        """Read one bare packet in an asyncio task. None if :meth:`cancel_read` was called."""
        with await self._receive_async(1) as batch:
            return bytes(batch[0]) if batch else None

    async def async_read_batch(self) -> list[bytes]:
        """Read the bare packets that are there, at least one, in an asyncio task. Empty after :meth:`cancel_read`."""
        with await self._receive_async(_BATCH) as batch:
            return batch.tobytes()

    def cancel_read(self) -> None:
        """End every read that finds no packet, now and until the device is brought up again. From any thread."""
        up = self._up
        if up is None:
            return
        session, cancel = up
        cancel.set()
        # Not a tuple(): while it allocates, the garbage collector may run what changes the dictionary.
        for tasks in list(session._tasks.values()):  # noqa: SLF001
            tasks.look_again()

    def close(self) -> None:
        """Remove the interface. Idempotent."""
        self._stop()
        self._adapter.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__qualname__} {self.name!r}>"
