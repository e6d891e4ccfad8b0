"""Sockets over descriptors of the extension module, which a forked child closes."""

from __future__ import annotations

import errno
import os
import select
import socket
import sys
import weakref

from tunring._core import Descriptor, accept_client, open_socket

assert sys.platform == "linux"

#: All of them. Not a WeakSet, whose callback is Python code, where a Ctrl-C would be lost.
_alive: set[weakref.ref[OwnSocket]] = set()


class OwnSocket(socket.socket):
    """A socket of a descriptor of ours. It is closed, without a warning, with the last reference.

    In a forked child it has no descriptor: every use of it fails as if it were closed.
    """

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: Descriptor) -> None:
        self._descriptor = descriptor
        _alive.add(weakref.ref(self, _alive.discard))
        super().__init__(fileno=descriptor.fileno())
        try:
            descriptor.fileno()
        except OSError:  # a signal handler has forked meanwhile, and in the child the number is another file's
            self.detach()
            raise

    def accept_client(self) -> OwnSocket:
        """Take a client of a listening socket that does not block. Raises OSError; BlockingIOError if there is none."""
        return OwnSocket(accept_client(self._descriptor))

    def _real_close(self, _ss: object = None) -> None:
        # The base class calls it where it would close the number: when close() was called, and no file is left of those
        # that makefile() has made.
        self.detach()
        self._descriptor.close()

    # Before the base class' own end, which would close the number. It is C, too.
    __del__ = socket.SocketType.detach


def _detach_all() -> None:
    for reference in list(_alive):
        alive = reference()
        if alive is not None:
            alive.detach()


os.register_at_fork(after_in_child=_detach_all)


def make_socket(family: int, kind: int, protocol: int = 0) -> OwnSocket:
    """Make a socket. Raises OSError."""
    return OwnSocket(open_socket(family, kind, protocol))


def accept(listening: OwnSocket) -> OwnSocket:
    """Wait for a client. Raises OSError, also once the socket is shut down."""
    listening.setblocking(False)
    while True:
        number = listening.fileno()
        if number < 0:
            raise OSError(errno.EBADF, "the socket is closed")
        poll = select.poll()
        poll.register(number, select.POLLIN)
        poll.poll()
        try:
            return listening.accept_client()
        except BlockingIOError:  # the client has hung up
            continue
