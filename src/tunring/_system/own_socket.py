"""Sockets of ours: on Linux none is ever a standard stream, nor in a forked child."""

from __future__ import annotations

import socket
import sys

if sys.platform == "linux":
    from tunring._system.own_socket_linux import accept, make_socket
else:

    def make_socket(family: int, kind: int, protocol: int = 0) -> socket.socket:
        """Make a socket. Raises OSError."""
        return socket.socket(family, kind, protocol)

    def accept(listening: socket.socket) -> socket.socket:
        """Wait for a client. Raises OSError, also once the socket is shut down."""
        return listening.accept()[0]


__all__ = ["accept", "make_socket"]
