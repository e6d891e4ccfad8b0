"""Cookies: how a host under load makes sure that who asks can also hear, before it computes for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunring._core import Secret
from tunring.wireguard import _noise
from tunring.wireguard._messages import MACS_BYTES, CookieReply, parse_cookie_reply

if TYPE_CHECKING:
    from collections.abc import Callable

_LABEL_COOKIE = b"cookie--"

#: Nanoseconds that a cookie, and the secret it is made from, are good for.
COOKIE_LIFETIME = 120 * 1_000_000_000


def cookie_key(public: bytes) -> bytes:
    """The key that seals cookies of the owner of a public key."""
    return _noise.hash_of(_LABEL_COOKIE, public)


def mac1_of(message: bytes) -> bytes:
    """The first MAC of a message that has both."""
    return message[-MACS_BYTES : -_noise.MAC_BYTES]


def make_cookie(secret: bytes, address: bytes, port: int) -> bytes:
    """The cookie of a source: its address, 4 or 16 bytes, and its port."""
    return _noise.mac_of(secret, address + port.to_bytes(2, "big"))


def reply_to(
    message: bytes,
    sender: int,
    cookie: bytes,
    own_cookie_key: bytes,
    random: Callable[[int], bytes] = _noise.random_bytes,
) -> bytes:
    """The cookie reply to a message, whose sender's index is given."""
    nonce = random(_noise.XNONCE_BYTES)
    return CookieReply(sender, nonce, _noise.xseal(own_cookie_key, nonce, cookie, mac1_of(message))).pack()


class CookieJar:
    """The cookie that a peer gave us, and the first MAC of what we sent last, which a reply must refer to.

    Parameters
    ----------
    peer_public : bytes
        The peer's public key.
    """

    def __init__(self, peer_public: bytes) -> None:
        self._key = cookie_key(peer_public)
        self._cookie: Secret | None = None
        self._until = 0
        self._last_mac1: bytes | None = None

    def current(self, now: int) -> Secret | None:
        """The cookie, if there is one that is good at a time in nanoseconds."""
        if self._cookie is not None and now >= self._until:
            self.forget()
        return self._cookie

    def forget(self) -> None:
        """Wipe the cookie. From any thread."""
        cookie, self._cookie = self._cookie, None
        if cookie is not None:
            cookie.wipe()

    def sent(self, message: bytes) -> None:
        """Remember a message with its MACs, which was sent to the peer."""
        self._last_mac1 = mac1_of(message)

    def take(self, message: bytes, now: int) -> None:
        """Take a cookie reply to the last message.

        Raises
        ------
        MessageError
            It is not a cookie reply.
        AuthenticationError
            It is not the peer's reply to the last message, or that had one already.
        """
        reply = parse_cookie_reply(message)
        if self._last_mac1 is None:
            raise _noise.AuthenticationError("there is no message that a cookie reply could belong to")
        cookie = Secret(_noise.xunseal(self._key, reply.nonce, reply.cookie, self._last_mac1))
        self.forget()
        self._cookie = cookie
        self._until = now + COOKIE_LIFETIME
        self._last_mac1 = None
