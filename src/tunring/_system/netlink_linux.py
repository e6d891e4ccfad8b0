"""A socket of rtnetlink's: questions about interfaces that the kernel filters, and requests in batches.

Messages are put together and taken apart by pyroute2. Its own sockets are not used: each request of theirs is a round
trip through an event loop, and of a batch that fails in part they can't tell which part.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from pyroute2.netlink import nlmsgerr
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from tunring._system.own_socket import make_socket
from tunring._win32 import Win32
from tunring.errors import WintunError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence number, port
_ERROR = struct.Struct("=i")
_ATTRIBUTE = struct.Struct("=HH")  # length, type

_NLMSG_NOOP, _NLMSG_ERROR, _NLMSG_DONE = 1, 2, 3
_RTM_DELLINK = 17
_REQUEST, _ACK, _DUMP = 0x001, 0x004, 0x300
_DUMP_INTERRUPTED = 0x010
#: Flags of a request that adds: only what is not there yet; in place of what is there.
ADD, REPLACE = 0x600, 0x500

_AF_NETLINK, _SOL_NETLINK = 16, 270
_CAP_ACK, _EXT_ACK, _STRICT_CHECK = 10, 11, 12

#: Requests that one system call sends. Were all of them refused, the answers would still fit into the socket's queue.
_BATCH = 128
#: More than the kernel ever puts into one answer.
_ANSWER_BYTES = 0x20000
#: The kernel answers before the call that asks returns: nobody has ever waited that long.
_ANSWER_SECONDS = 30.0
#: How often a dump is begun anew because others change what it lists.
_DUMP_ATTEMPTS = 8


class KernelError(Exception):
    """The kernel refused a request.

    Attributes
    ----------
    code : int
        Its error number.
    """

    def __init__(self, code: int, detail: str | None = None) -> None:
        text = os.strerror(code)
        super().__init__(f"{text} ({detail})" if detail else text)
        self.code = code


class Command(NamedTuple):
    """A request that changes something."""

    #: Its effect, for the error: "can't add 10.6.7.7/24".
    action: str
    #: RTM_NEWADDR and the like.
    kind: int
    flags: int
    #: The message without its header.
    body: bytes
    #: Its subject, for those who have to know when it is refused.
    subject: object = None


def encode(message_class: Any, fields: dict[str, Any], attributes: Iterable[tuple[str, Any]] = ()) -> bytes:
    """Put a message together by one of pyroute2's classes; returns it without its header."""
    message = message_class()
    message.update(fields)
    message["attrs"] = list(attributes)
    message.encode()
    return bytes(message.data[_HEADER.size :])


def decode(message_class: Any, message: bytes) -> Any:
    """Take a whole message apart by one of pyroute2's classes."""
    decoded = message_class(message)
    decoded.decode()
    return decoded


def with_attribute(body: bytes, start: int, number: int, value: bytes) -> bytes:
    """A message without its header in which one attribute is another; attributes begin at ``start``.

    All others stay as the kernel gave them, those that nobody here knows among them.
    """
    kept = [body[:start]]
    while start + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, start)
        end = start + -(-length // 4) * 4
        if kind != number:
            kept.append(body[start:end])
        start = end
    return b"".join(kept) + _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), number) + value


def delete_link(index: int) -> Command:
    """The request that deletes an interface."""
    return Command("can't delete the interface", _RTM_DELLINK, 0, encode(ifinfmsg, {"index": index}))


def body_of(message: bytes) -> bytes:
    """A message without its header."""
    return message[_HEADER.size :]


def _open_socket() -> socket.socket:
    try:
        return make_socket(_AF_NETLINK, socket.SOCK_RAW)
    except OSError as error:
        text = f"a netlink socket can't be opened: {error.strerror}"
        if error.errno in (errno.EAFNOSUPPORT, errno.EPERM, errno.EACCES):
            text += "; a sandbox forbids it: let systemd's RestrictAddressFamilies= have AF_NETLINK"
        raise WintunError(Win32.NOT_SUPPORTED, text, error.errno) from error


class Netlink:
    """A socket in the network namespace that the calling thread is in.

    Raises
    ------
    WintunError
        The system refuses it; the system's own number is in ``errno``.
    """

    def __init__(self) -> None:
        self._socket = _open_socket()
        self._socket.settimeout(_ANSWER_SECONDS)
        self._sequence = 0
        for option in (_CAP_ACK, _EXT_ACK, _STRICT_CHECK):
            with suppress(OSError):  # older kernels filter less, and give reasons less
                self._socket.setsockopt(_SOL_NETLINK, option, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._socket.close()

    def ask(self, kind: int, body: bytes) -> bytes:
        """Ask a question that has one answer.

        Raises
        ------
        KernelError
            There is none.
        """
        number = self._send([(kind, _REQUEST, body)])
        for answered, what, _, message in self._answers():
            if answered == number:
                if what == _NLMSG_ERROR:
                    raise _failure(message)
                return message
        raise AssertionError("unreachable")

    def dump(self, kind: int, body: bytes, wanted: Callable[[bytes], bool] | None = None) -> list[bytes]:
        """Ask for a list. The kernel returns the entries that match the body, or all if it is too old for that.

        Only messages of the family that was asked for are taken: for one that it lacks the kernel lists all others.

        Parameters
        ----------
        wanted : callable, optional
            Looks at each message before it is kept.

        Raises
        ------
        KernelError
            There is no such list.
        """
        for _ in range(_DUMP_ATTEMPTS):
            number = self._send([(kind, _REQUEST | _DUMP, body)])
            found: list[bytes] = []
            interrupted = False
            for answered, what, flags, message in self._answers():
                if answered != number:
                    continue
                interrupted |= bool(flags & _DUMP_INTERRUPTED)
                if what in (_NLMSG_ERROR, _NLMSG_DONE):
                    if failure := _failure_in(message):
                        raise failure
                    break
                if message[_HEADER.size] == body[0] and (wanted is None or wanted(message)):
                    found.append(message)
            if not interrupted:
                break
        return found

    def run(self, commands: Sequence[Command], *, to_the_end: bool = False) -> list[tuple[Command, KernelError]]:
        """Send requests, in order; returns those that were refused.

        A refusal does not keep the next ones from being made: those of its batch, or all if ``to_the_end``.
        """
        failed: list[tuple[Command, KernelError]] = []
        for start in range(0, len(commands), _BATCH):
            batch = commands[start : start + _BATCH]
            # Only a refusal is answered, and the last one, after all others.
            flags = [_REQUEST | command.flags for command in batch]
            flags[-1] |= _ACK
            last = self._send([(command.kind, flag, command.body) for command, flag in zip(batch, flags, strict=True)])
            first = last - len(batch) + 1
            for answered, what, _, message in self._answers():
                if what == _NLMSG_ERROR and first <= answered <= last:
                    if failure := _failure_in(message):
                        failed.append((batch[answered - first], failure))
                    if answered == last:
                        break
            if failed and not to_the_end:
                break
        return failed

    def _send(self, requests: list[tuple[int, int, bytes]]) -> int:
        """Send requests in one system call; returns the last one's number."""
        parts = []
        for kind, flags, body in requests:
            self._sequence += 1
            padding = bytes(-len(body) % 4)
            parts.append(_HEADER.pack(_HEADER.size + len(body), kind, flags, self._sequence, 0) + body + padding)
        self._socket.send(b"".join(parts))
        return self._sequence

    def _answers(self) -> Iterator[tuple[int, int, int, bytes]]:
        """The answers, as (number of the request, type, flags, message)."""
        while True:
            data = self._socket.recv(_ANSWER_BYTES)
            offset = 0
            while offset + _HEADER.size <= len(data):
                length, kind, flags, number, _ = _HEADER.unpack_from(data, offset)
                if kind != _NLMSG_NOOP:
                    yield number, kind, flags, data[offset : offset + length]
                offset += -(-length // 4) * 4


def _failure_in(message: bytes) -> KernelError | None:
    """The failure that the end of a list, or of a request, reports."""
    if len(message) < _HEADER.size + _ERROR.size or not _ERROR.unpack_from(message, _HEADER.size)[0]:
        return None
    return _failure(message)


def _failure(message: bytes) -> KernelError:
    (code,) = _ERROR.unpack_from(message, _HEADER.size)
    return KernelError(-code, decode(nlmsgerr, message).get_attr("NLMSGERR_ATTR_MSG"))
