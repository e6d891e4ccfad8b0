"""Captures: pcapng files of packets, for Wireshark, tshark, tcpdump and similar programs.

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

import atexit
import operator
import os
import sys
import threading
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

#: Bytes, which leave room for the MTU.
_MAX_DESCRIPTION = 1000

#: Seconds that a new file may take for its header before the writer goes on without knowing.
_HEADER_TIMEOUT = 1.0

#: Seconds that the interpreter's exit waits for what is still to be written.
_EXIT_TIMEOUT = 5.0

_DIRECTIONS = {None: 0, "in": 1, "out": 2}


atexit.register(_core.finish_pcapng_files, _EXIT_TIMEOUT)


class _HasDescriptor(Protocol):
    def fileno(self) -> int: ...


def _system_handle(descriptor: int) -> int:
    # A larger one would be cut off on its way to the system, and name another file, maybe standard output.
    number = operator.index(descriptor)
    if not 0 <= number <= 0x7FFFFFFF:
        raise ValueError(f"fileno() must return a descriptor, 0 to {0x7FFFFFFF}, not {number}")
    if sys.platform == "win32":
        import msvcrt

        return msvcrt.get_osfhandle(number)
    else:
        return number


class Writer:
    """Writes a pcapng file of IP packets (LINKTYPE_RAW), with times in nanoseconds.

    Each call copies whole blocks straight from the packets' memory into a buffer of 16 MiB, without a Python object per
    packet and without the GIL, from any number of threads. A thread of the writer's own, in C, writes the buffer to the
    file: no other thread waits for a slow disk, or for the reader of a pipe or socket.

    When the buffer is full, :meth:`write` waits for room. A session that is captured
    (:meth:`tunring.Session.capture`) does not: packets that don't fit are counted in :attr:`dropped`. Only a regular
    file that is half a buffer behind may slow the session down, by at most 10 ms for each megabyte that the file takes,
    so that a disk of 100 MB/s or more gets every packet.

    When the file fails, on a full disk for example, it is cut off after its last whole block, so that it stays
    readable. The capture is over then: the next call of :meth:`write` raises the error, and so does every later one, as
    do :meth:`flush` and :meth:`close`.

    At the interpreter's exit a writer that is still open accepts nothing more, and the exit waits at most five seconds
    until its file has everything. The child of a fork has no part in its parent's writers: each call raises
    ValueError there, and nothing is written.

    Parameters
    ----------
    file : path or binary file with a descriptor
        A path names a new file. An open file is written from its present position and stays open: the writer has a
        copy of its descriptor.
    name : str
        Name of the first interface, which has the number 0.
    description : str
        Description of that interface, of at most 1000 bytes.
    mtu : int, optional
        Its MTU in bytes, which goes into its description.
    snaplen : int
        Maximum bytes of a packet to keep, for the first interface: 1 to 65535. By default nothing is cut.
    overwrite : bool
        True: an existing file of that path is replaced.

    Raises
    ------
    FileExistsError
        The file exists, and ``overwrite`` is False.
    OSError
        The file, or its header, can't be written.
    """

    #: Also of one that could not be opened.
    _closed = True

    def __init__(
        self,
        file: str | os.PathLike[str] | BinaryIO | _HasDescriptor,
        *,
        name: str = "tunring",
        description: str = "",
        mtu: int | None = None,
        snaplen: int = MAX_SNAPLEN,
        overwrite: bool = False,
    ) -> None:
        described = _describe(name, description, mtu, snaplen)
        if isinstance(file, (str, os.PathLike)):
            self._file_name = os.fspath(file)
            with open(self._file_name, "wb" if overwrite else "xb", buffering=0) as opened:
                try:
                    self._open(opened, described)
                except BaseException:
                    # A file that was made here holds nothing and is not a capture.
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
        self._first_close = threading.Lock()  # taken by the first call, for good
        try:
            self._file.add(*described)
            # A disk that is full is an error now rather than later. A pipe may be full for a while.
            self._file.flush(_HEADER_TIMEOUT)
        except BaseException:
            self._closed = True
            self._first_close.acquire(blocking=False)
            self._end(_HEADER_TIMEOUT)
            raise

    def _end(self, timeout: float | None) -> bool:
        """Close the file within ``timeout`` seconds or, returning false, by giving up what is left."""
        closed = False
        try:
            closed = self._file.close(timeout)
        finally:
            if not closed:
                self._file.give_up()
        return closed

    def add_interface(
        self, name: str, *, description: str = "", mtu: int | None = None, snaplen: int = MAX_SNAPLEN
    ) -> int:
        """Describe one more interface, of at most 64, and return its number.

        Wireshark, tshark, scapy and others read such a file. tcpdump, like all programs with libpcap up to 1.10, does
        not: "an interface has a type 101 different from the type of the first interface". It needs a file for each
        interface, or one interface and the packets' directions.
        """
        return self._file.add(*_describe(name, description, mtu, snaplen))

    def write(
        self,
        packets: _core.Batch | Iterable[Buffer],
        direction: Literal["in", "out"] | None = None,
        timestamps: int | Sequence[int] | None = None,
        *,
        interface: int = 0,
    ) -> int:
        """Write packets, waiting for room in the buffer.

        Parameters
        ----------
        packets : Batch, or iterable of bytes-like objects
            IP packets.
        direction : {"in", "out"}, optional
            From the program's point of view: "in" was received from the adapter, "out" is sent to it.
        timestamps : int or sequence of int, optional
            Nanoseconds since 1970 UTC, as ``time.time_ns()`` gives them: one for all packets or one for each. Now by
            default.
        interface : int
            The number of their interface.

        Returns
        -------
        int
            The number of packets. All are in the file or about to be: :meth:`flush` waits for that.

        Raises
        ------
        TypeError, ValueError
            An argument is refused; nothing was written. A ValueError also if the writer is closed.
        OSError
            The file can't be written any further. Packets of an earlier call may have been lost by the same error.
        """
        if direction not in _DIRECTIONS:
            raise ValueError(f'direction must be "in", "out" or None, not {direction!r}')
        return self._file.write(packets, _DIRECTIONS[direction], timestamps, _check_interface(interface))

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until the file has everything that was written so far.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait; None waits for ever.

        Returns
        -------
        bool
            False on timeout, for example because a pipe's reader lags behind.

        Raises
        ------
        OSError
            The file can't be written any further.
        ValueError
            The writer is closed.
        """
        return self._file.flush(timeout)

    def close(self, timeout: float | None = 5.0) -> None:
        """Close the file. Idempotent; may be called from any thread. Only the first call raises.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait until the file has everything that was written; None waits for ever.

        Raises
        ------
        TimeoutError
            The file does not have everything in time, because a pipe's reader lags behind or a disk is slow. The rest
            is lost, and counted in :attr:`dropped`; the writer is closed nevertheless. A write that is stuck in the
            kernel keeps the file open until it returns.
        OSError
            The file had failed before. The writer is closed nevertheless.
        """
        self._closed = True
        if not self._first_close.acquire(blocking=False):
            self._file.close(timeout)
            return
        closed = self._end(timeout)
        if (failure := self.failure) is not None:
            raise failure
        if not closed:
            raise TimeoutError(f"{self._file_name}: the file has not taken the end of the capture within {timeout} s")

    @property
    def closed(self) -> bool:
        """True once :meth:`close` was called."""
        return self._closed

    @property
    def packets(self) -> int:
        """Packets that are in the file, or in the buffer and about to be."""
        return self._file.packets

    @property
    def dropped(self) -> int:
        """Packets that are missing.

        The buffer had no room for the packets of a captured session; or the file failed, or was given up by
        :meth:`close`, before it had them. Each packet of a successful :meth:`write` is counted here or in
        :attr:`packets`.
        """
        return self._file.dropped

    @property
    def failure(self) -> OSError | None:
        """The error that ended the capture before its time, or None."""
        return self._file.failure

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            # The exception that is on its way has more.
            with suppress(OSError):
                self.close()

    def __del__(self, *, warn: Callable[..., None] = warnings.warn) -> None:  # at exit, modules may be empty already
        if not self._closed:
            warn(f"unclosed {self!r}", ResourceWarning, source=self)

    def __repr__(self) -> str:
        return f"<tunring.pcapng.Writer of {self._file_name}, {'closed' if self._closed else 'open'}>"


class Recording:
    """A capture of a session or socket that is under way. :meth:`tunring.Session.capture` makes it."""

    def __init__(
        self,
        source: _core.Session | _core.UdpSocket,
        writer: Writer,
        interface: int,
        received: bool,
        sent: bool,
    ) -> None:
        if not isinstance(writer, Writer):
            raise TypeError(f"writer must be a tunring.pcapng.Writer, not {writer!r}")
        if writer.closed:
            raise ValueError(f"{writer!r} is closed: it takes no capture")
        self._source = source
        self._writer = writer
        self._number = source._capture(writer._file, _check_interface(interface), received, sent)  # noqa: SLF001
        self._first_close = threading.Lock()  # taken by the first call, for good

    @property
    def failure(self) -> OSError | None:
        """The error that ended the file before its time, or None. The session or socket goes on without it."""
        return self._writer.failure

    def close(self) -> None:
        """End the capture: when this returns, nothing more is captured. Idempotent; may be called from any thread.

        Raises
        ------
        OSError
            The file has failed. Only the first call raises it; :meth:`Writer.close` raises later failures.
        """
        first = self._first_close.acquire(blocking=False)
        self._source._end_capture(self._number)  # noqa: SLF001
        if first and (failure := self.failure) is not None:
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


def _describe(name: str, description: str, mtu: int | None, snaplen: int) -> tuple[str, str, int]:
    """An interface's name, description and snaplen, checked."""
    if not isinstance(name, str):
        raise TypeError(f"name must be a str, not {type(name).__name__}")
    if not 1 <= len(name.encode("utf-8", "replace")) <= 1024 or "\0" in name:
        raise ValueError(f"name must have 1 to 1024 bytes and no NUL, not {name!r}")
    if not isinstance(description, str):
        raise TypeError(f"description must be a str, not {type(description).__name__}")
    if len(description.encode("utf-8", "replace")) > _MAX_DESCRIPTION or "\0" in description:
        raise ValueError(f"description must have at most {_MAX_DESCRIPTION} bytes and no NUL, not {description!r}")
    if mtu is not None and not 1 <= operator.index(mtu) <= MAX_SNAPLEN:
        raise ValueError(f"mtu must be 1 to {MAX_SNAPLEN} bytes, not {mtu}")
    if not 1 <= operator.index(snaplen) <= MAX_SNAPLEN:
        raise ValueError(f"snaplen must be 1 to {MAX_SNAPLEN} bytes, not {snaplen}")
    parts = [description] if description else []
    if mtu is not None:
        parts.append(f"MTU {operator.index(mtu)}")
    return name, ", ".join(parts), operator.index(snaplen)
