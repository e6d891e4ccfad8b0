"""The three messages of handshakes, to bytes and back. Numbers are little-endian."""

from __future__ import annotations

import struct
from typing import NamedTuple

INITIATION, RESPONSE, COOKIE_REPLY, DATA = 1, 2, 3, 4

#: Bytes of each message of a handshake.
INITIATION_BYTES = 148
RESPONSE_BYTES = 92
COOKIE_REPLY_BYTES = 64

#: Bytes of the two MACs at the end of initiations and responses.
MACS_BYTES = 32

_INITIATION = struct.Struct("<2I32s48s28s")
_RESPONSE = struct.Struct("<3I32s16s")
_COOKIE_REPLY = struct.Struct("<2I24s32s")


class MessageError(ValueError):
    """Bytes are not a message of the kind that was expected."""


class Initiation(NamedTuple):
    """The first message, without its MACs."""

    sender: int
    ephemeral: bytes
    static: bytes
    timestamp: bytes

    def pack(self) -> bytes:
        """The message's bytes before the MACs."""
        return _INITIATION.pack(INITIATION, *self)


class Response(NamedTuple):
    """The second message, without its MACs."""

    sender: int
    receiver: int
    ephemeral: bytes
    empty: bytes

    def pack(self) -> bytes:
        """The message's bytes before the MACs."""
        return _RESPONSE.pack(RESPONSE, *self)


class CookieReply(NamedTuple):
    """A host's answer under load: a cookie, sealed."""

    receiver: int
    nonce: bytes
    cookie: bytes

    def pack(self) -> bytes:
        """The message's bytes, all of them."""
        return _COOKIE_REPLY.pack(COOKIE_REPLY, *self)


def _fields(layout: struct.Struct, kind: int, size: int, data: bytes) -> tuple[int | bytes, ...]:
    # The three bytes after the kind are reserved and 0, so that both are one number.
    if len(data) != size or int.from_bytes(data[:4], "little") != kind:
        raise MessageError(
            f"must be {size} bytes that begin with {kind:02x} 00 00 00, not {len(data)} bytes"
            f" that begin with {data[:4].hex(' ') or 'nothing'}"
        )
    return layout.unpack_from(data)[1:]


def parse_initiation(data: bytes) -> Initiation:
    """Take an initiation apart. Raises :class:`MessageError`; nothing in it is believed yet."""
    return Initiation._make(_fields(_INITIATION, INITIATION, INITIATION_BYTES, data))


def parse_response(data: bytes) -> Response:
    """Take a response apart. Raises :class:`MessageError`; nothing in it is believed yet."""
    return Response._make(_fields(_RESPONSE, RESPONSE, RESPONSE_BYTES, data))


def parse_cookie_reply(data: bytes) -> CookieReply:
    """Take a cookie reply apart. Raises :class:`MessageError`; nothing in it is believed yet."""
    return CookieReply._make(_fields(_COOKIE_REPLY, COOKIE_REPLY, COOKIE_REPLY_BYTES, data))
