"""Captures: pcapng files of packets, for Wireshark, tshark, tcpdump and their like.

Examples
--------
>>> import os, tempfile, tunring.testing
>>> from tunring.pcapng import Writer
>>> path = os.path.join(tempfile.mkdtemp(), "echo.pcapng")
>>> left, right = tunring.testing.pair()
>>> with left, right, Writer(path, name="left") as writer, left.capture(writer):
...     left.send([bytes([0x45]) + bytes(19)] * 3)
3
>>> writer.packets, os.path.getsize(path) > 3 * 20
(3, True)
"""

from __future__ import annotations

import operator
import os
import sys
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO, Literal, Protocol, Self

from tunring import _core
from tunring._version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import TracebackType

    from tunring._buffers import Buffer

__all__ = ["Recording", "Writer"]

#: Bytes of the largest IP packet: none is cut.
MAX_SNAPLEN = 65535

_DIRECTIONS = {None: 0, "in": 1, "out": 2}


class _HasDescriptor(Protocol):
    def fileno(self) -> int: ...


def _system_handle(descriptor: int) -> int:
    if sys.platform == "win32":
        import msvcrt

        return msvcrt.get_osfhandle(descriptor)
    else:
        return descriptor


class Writer:
    """Writes a pcapng file of IP packets (LINKTYPE_RAW), with times in nanoseconds.

    Each call writes whole blocks straight from the packets' memory, without a Python object a packet and without the
    GIL, from any number of threads. When it fails, the disk being full say, the file is cut off after its last whole
    block, so that it stays readable, and the capture is over: every later call raises the same error.

    A pipe or socket is fine as well. :meth:`write` waits for its reader. A session that is captured
    (:meth:`tunring.Session.capture`) never does: up to a megabyte waits in a buffer until the next call, and what
    doesn't fit is dropped and counted.

    Parameters
    ----------
    file : path or binary file with a descriptor
        A path is a new file. A file is written to from its present position and stays the caller's: the writer has a
        copy of its descriptor, and the file isn't closed with it.
    name : str
        Of the first interface, which has the number 0.
    mtu : int, optional
        Its MTU in bytes, which goes into its description.
    snaplen : int
        Most bytes of a packet to keep: 1 to 65535. The first interface's; by default nothing is cut.
    overwrite : bool
        Whether a file of that path may be replaced.

    Raises
    ------
    FileExistsError
        There is such a file, and it is not to be overwritten.
    OSError
        The file can't be written.
    """

    #: Also of one that could not be opened.
    _closed = True

    def __init__(
        self,
        file: str | os.PathLike[str] | BinaryIO | _HasDescriptor,
        *,
        name: str = "tunring",
        mtu: int | None = None,
        snaplen: int = MAX_SNAPLEN,
        overwrite: bool = False,
    ) -> None:
        described = _describe(name, mtu, snaplen)
        if isinstance(file, (str, os.PathLike)):
            self._file_name = os.fspath(file)
            with open(self._file_name, "wb" if overwrite else "xb", buffering=0) as opened:
                try:
                    self._open(opened, described)
                except BaseException:
                    # What was made here holds nothing, and is no capture.
                    opened.close()
                    if not overwrite:
                        with suppress(OSError):
                            os.unlink(self._file_name)
                    raise
        else:
            self._file_name = str(getattr(file, "name", "the capture"))
            self._open(file, described)

    def _open(self, file: BinaryIO | _HasDescriptor, described: tuple[str, str, int]) -> None:
        try:
            descriptor = file.fileno()
        except (AttributeError, OSError) as error:
            raise TypeError(f"file must be a path or a binary file with a descriptor, not {file!r}") from error
        if flush := getattr(file, "flush", None):
            flush()
        self._file = _core.PcapngFile(_system_handle(descriptor), f"tunring {__version__}", self._file_name)
        self._closed = False
        try:
            self._file.add(*described)
        except BaseException:
            self._closed = True
            self._file.end()
            raise

    def add_interface(self, name: str, *, mtu: int | None = None, snaplen: int = MAX_SNAPLEN) -> int:
        """Describe one more interface, of at most 64; its number is returned."""
        return self._file.add(*_describe(name, mtu, snaplen))

    def write(
        self,
        packets: _core.Batch | Iterable[Buffer],
        direction: Literal["in", "out"] | None = None,
        timestamps: int | Sequence[int] | None = None,
        *,
        interface: int = 0,
    ) -> int:
        """Write packets.

        Parameters
        ----------
        packets : Batch, or iterable of bytes-like objects
            IP packets.
        direction : {"in", "out"}, optional
            As the program sees them: "in" was received from the adapter, "out" is sent to it.
        timestamps : int or sequence of int, optional
            Nanoseconds since 1970 UTC, as ``time.time_ns()`` gives them: one for all packets or one for each. Now by
            default.
        interface : int
            The number of the interface that they are of.

        Returns
        -------
        int
            How many were written: all.

        Raises
        ------
        TypeError, ValueError
            An argument is refused; nothing was written. A ValueError also if the writer is closed.
        OSError
            The file can't be written any further.
        """
        if direction not in _DIRECTIONS:
            raise ValueError(f'direction must be "in", "out" or None, not {direction!r}')
        return self._file.write(packets, _DIRECTIONS[direction], timestamps, _check_interface(interface))

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until a pipe's reader has taken everything, or for so many seconds; whether it has."""
        return self._file.flush(timeout)

    def close(self, timeout: float | None = 5.0) -> None:
        """Close the file. Any number of times.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait until a pipe's reader has taken the rest; None waits for ever.

        Raises
        ------
        TimeoutError
            It has not; the rest is lost. The writer is closed all the same, as with the next.
        OSError
            The capture had failed before.
        """
        if self._closed:
            return
        self._closed = True
        try:
            if not self._file.flush(timeout):
                raise TimeoutError(f"{self._file_name}: the reader has not taken the end of the capture")
        finally:
            self._file.end()

    @property
    def closed(self) -> bool:
        """True once :meth:`close` was called."""
        return self._closed

    @property
    def packets(self) -> int:
        """Packets written so far."""
        return self._file.packets

    @property
    def dropped(self) -> int:
        """Packets that are missing: after a failure, or because a pipe's reader didn't keep up with a session."""
        return self._file.dropped

    @property
    def failure(self) -> OSError | None:
        """What ended the capture before its time, or None."""
        return self._file.failure

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            # What is on its way says more.
            with suppress(OSError):
                self.close()

    def __del__(self, *, warn: Callable[..., None] = warnings.warn) -> None:  # at exit, modules may be empty already
        if not self._closed:
            warn(f"unclosed {self!r}", ResourceWarning, source=self)

    def __repr__(self) -> str:
        return f"<tunring.pcapng.Writer of {self._file_name}, {'closed' if self._closed else 'open'}>"


class Recording:
    """A capture of a session that is under way. :meth:`tunring.Session.capture` makes it."""

    def __init__(self, session: _core.Session, writer: Writer, interface: int, received: bool, sent: bool) -> None:
        if not isinstance(writer, Writer):
            raise TypeError(f"a session is captured to a tunring.pcapng.Writer, not to {writer!r}")
        if writer.closed:
            raise ValueError(f"{writer!r} is closed: it takes no capture")
        self._session = session
        self._writer = writer
        self._number = session._capture(writer._file, _check_interface(interface), received, sent)  # noqa: SLF001
        self._closed = False

    @property
    def failure(self) -> OSError | None:
        """The error that ended the file before its time, or None. The session goes on without it."""
        return self._writer.failure

    def close(self) -> None:
        """End the capture. Any number of times, from any thread. When it returns, nothing more is captured.

        Raises
        ------
        OSError
            The file has failed in the meantime. The first call raises it.
        """
        closed, self._closed = self._closed, True
        self._session._end_capture(self._number)  # noqa: SLF001
        if not closed and (failure := self.failure) is not None:
            raise failure

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            with suppress(OSError):
                self.close()


def _check_interface(interface: int) -> int:
    number = operator.index(interface)
    if not 0 <= number < 1 << 32:
        raise ValueError(f"interface must be a number that add_interface() gave, not {interface}")
    return number


def _describe(name: str, mtu: int | None, snaplen: int) -> tuple[str, str, int]:
    """An interface's name, description and snaplen, checked."""
    if not isinstance(name, str):
        raise TypeError(f"name must be a str, not {type(name).__name__}")
    if not 1 <= len(name.encode("utf-8", "replace")) <= 1024 or "\0" in name:
        raise ValueError(f"name must have 1 to 1024 bytes and no NUL, not {name!r}")
    if mtu is not None and not 1 <= operator.index(mtu) <= MAX_SNAPLEN:
        raise ValueError(f"mtu must be 1 to {MAX_SNAPLEN} bytes, not {mtu}")
    if not 1 <= operator.index(snaplen) <= MAX_SNAPLEN:
        raise ValueError(f"snaplen must be 1 to {MAX_SNAPLEN} bytes, not {snaplen}")
    return name, "" if mtu is None else f"MTU {mtu}", operator.index(snaplen)
