"""Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s as WireGuard uses it. Nothing here sends, waits or looks at a clock.

The initiator: :func:`initiate` makes a message and an :class:`Initiator`, whose :meth:`Initiator.finish` takes the
response. The responder: :func:`open_initiation` finds who has sent an initiation, :meth:`Opened.verify` checks that it
is that peer, and :meth:`Opened.respond` makes the response. Both sides end with :class:`SessionKeys`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from tunring.wireguard import _noise
from tunring.wireguard._messages import (
    MACS_BYTES,
    Initiation,
    MessageError,
    Response,
    parse_initiation,
    parse_response,
)
from tunring.wireguard._tai64n import TIMESTAMP_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from tunring.wireguard._noise import AnySecret
    from tunring.wireguard.keys import Key

_CONSTRUCTION = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
_IDENTIFIER = b"WireGuard v1 zx2c4 Jason@zx2c4.com"
_LABEL_MAC1 = b"mac1----"

_FIRST_CHAINING = _noise.hash_of(_CONSTRUCTION)
_FIRST_HASH = _noise.hash_of(_FIRST_CHAINING, _IDENTIFIER)

#: The preshared key of peers that have none.
NO_PRESHARED_KEY = bytes(_noise.KEY_BYTES)


class SessionKeys(NamedTuple):
    """The result of a handshake, as seen from one side."""

    send: bytes
    receive: bytes
    local_index: int
    remote_index: int
    is_initiator: bool

    def __repr__(self) -> str:
        role = "initiator" if self.is_initiator else "responder"
        return f"SessionKeys({role}, local_index={self.local_index:#x}, remote_index={self.remote_index:#x})"


def mac1_key(public: bytes) -> bytes:
    """The key of the first MAC of messages to the owner of a public key."""
    return _noise.hash_of(_LABEL_MAC1, public)


def add_macs(message: bytes, recipient_mac1_key: bytes, cookie: AnySecret | None) -> bytes:
    """Append both MACs to a message. Without a cookie the second is zeros."""
    message += _noise.mac_of(recipient_mac1_key, message)
    return message + (_noise.mac_of(cookie, message) if cookie is not None else bytes(_noise.MAC_BYTES))


def has_mac1(message: bytes, own_mac1_key: bytes) -> bool:
    """Return whether a message's first MAC is right: its sender knows our public key."""
    body, mac = message[:-MACS_BYTES], message[-MACS_BYTES : -_noise.MAC_BYTES]
    return len(message) > MACS_BYTES and _noise.same(mac, _noise.mac_of(own_mac1_key, body))


def has_mac2(message: bytes, cookie: bytes) -> bool:
    """Return whether a message's second MAC is right: its sender got this cookie."""
    body, mac = message[: -_noise.MAC_BYTES], message[-_noise.MAC_BYTES :]
    return len(message) > MACS_BYTES and _noise.same(mac, _noise.mac_of(cookie, body))


class Identity:
    """Our private key, with what follows from it.

    Parameters
    ----------
    key : Key
        The private key.
    """

    def __init__(self, key: Key) -> None:
        self.private = _noise.PrivateKey(key.raw)
        self.public = self.private.public
        self.mac1_key = mac1_key(self.public)

    def has(self, key: Key) -> bool:
        """Return whether this is the private key."""
        return _noise.same(self.private.secret, key.raw)

    def wipe(self) -> None:
        """Wipe the private key. Handshakes that go on raise SessionClosed."""
        self.private.wipe()


class Remote:
    """A peer's public key, with what follows from it and from our identity. Raises AuthenticationError for bad keys.

    Parameters
    ----------
    identity : Identity
        Ourselves.
    public : bytes
        The peer's public key.
    preshared_key : bytes or Secret, optional
        A further secret of both sides.
    """

    def __init__(self, identity: Identity, public: bytes, preshared_key: AnySecret = NO_PRESHARED_KEY) -> None:
        self.public = public
        self.mac1_key = mac1_key(public)
        self.preshared_key = preshared_key
        # One exchange less in each handshake.
        self.static_static = identity.private.exchange(public)

    def wipe(self) -> None:
        """Wipe what follows from both keys; the preshared key is the caller's."""
        self.static_static.wipe()


@dataclass(slots=True)
class _Symmetric:
    """The chaining key, and the hash of everything exchanged."""

    chaining: bytes = field(repr=False)
    hash: bytes = field(repr=False)

    def mix_hash(self, data: bytes) -> None:
        self.hash = _noise.hash_of(self.hash, data)

    def mix_key(self, material: AnySecret) -> None:
        (self.chaining,) = _noise.derive(self.chaining, material, 1)

    def mix_key_for(self, material: AnySecret) -> bytes:
        self.chaining, key = _noise.derive(self.chaining, material, 2)
        return key

    def seal(self, key: bytes, plaintext: bytes) -> bytes:
        sealed = _noise.seal(key, plaintext, self.hash)
        self.mix_hash(sealed)
        return sealed

    def unseal(self, key: bytes, sealed: bytes) -> bytes:
        plaintext = _noise.unseal(key, sealed, self.hash)
        self.mix_hash(sealed)
        return plaintext

    def mix_preshared(self, preshared_key: AnySecret) -> bytes:
        self.chaining, middle, key = _noise.derive(self.chaining, preshared_key, 3)
        self.mix_hash(middle)
        return key

    def split(self) -> tuple[bytes, bytes]:
        first, second = _noise.derive(self.chaining, b"", 2)
        return first, second

    def copy(self) -> _Symmetric:
        return _Symmetric(self.chaining, self.hash)


def _begin(responder: bytes, ephemeral: bytes) -> _Symmetric:
    state = _Symmetric(_FIRST_CHAINING, _noise.hash_of(_FIRST_HASH, responder))
    state.mix_hash(ephemeral)
    state.mix_key(ephemeral)
    return state


class Initiator:
    """An initiation that was sent, and waits for its response."""

    def __init__(
        self, identity: Identity, remote: Remote, index: int, ephemeral: _noise.PrivateKey, state: _Symmetric
    ) -> None:
        self.index = index
        self._identity, self._preshared_key = identity, remote.preshared_key
        self._ephemeral, self._state = ephemeral, state

    def finish(self, message: bytes) -> SessionKeys:
        """Take the response.

        Raises
        ------
        MessageError
            It is not a response.
        AuthenticationError
            It is not the peer's response to this initiation; another one may still come.
        """
        response = parse_response(message)
        if response.receiver != self.index:
            raise _noise.AuthenticationError("the response is to another initiation")
        # On a copy: a forged response must not spoil the true one.
        state = self._state.copy()
        state.mix_hash(response.ephemeral)
        state.mix_key(response.ephemeral)
        state.mix_key(self._ephemeral.exchange(response.ephemeral))
        state.mix_key(self._identity.private.exchange(response.ephemeral))
        key = state.mix_preshared(self._preshared_key)
        state.unseal(key, response.empty)
        send, receive = state.split()
        return SessionKeys(send, receive, self.index, response.sender, is_initiator=True)

    def wipe(self) -> None:
        """Wipe the ephemeral key: the response, if it still comes, is of no use."""
        self._ephemeral.wipe()


def initiate(
    identity: Identity,
    remote: Remote,
    index: int,
    timestamp: bytes,
    random: Callable[[int], bytes] = _noise.random_bytes,
) -> tuple[bytes, Initiator]:
    """Begin a handshake: the initiation without its MACs, and what takes the response."""
    ephemeral = _noise.PrivateKey(random(_noise.KEY_BYTES))
    state = _begin(remote.public, ephemeral.public)
    static = state.seal(state.mix_key_for(ephemeral.exchange(remote.public)), identity.public)
    stamp = state.seal(state.mix_key_for(remote.static_static), timestamp)
    message = Initiation(index, ephemeral.public, static, stamp).pack()
    return message, Initiator(identity, remote, index, ephemeral, state)


class Opened:
    """An initiation whose sender's public key is readable, but not proven yet."""

    def __init__(self, identity: Identity, initiation: Initiation, static: bytes, state: _Symmetric) -> None:
        #: The public key that the sender claims.
        self.static = static
        #: The sender's index.
        self.sender = initiation.sender
        self._identity, self._initiation, self._state = identity, initiation, state
        self._remote: Remote | None = None

    def verify(self, remote: Remote) -> bytes:
        """Check that the sender has the private key, and return its time stamp.

        The caller checks that the stamp is newer than the peer's last one.

        Raises
        ------
        AuthenticationError
            The sender is not this peer.
        """
        if not _noise.same(self.static, remote.public):
            raise _noise.AuthenticationError("the initiation is of another peer")
        state = self._state.copy()
        timestamp = state.unseal(state.mix_key_for(remote.static_static), self._initiation.timestamp)
        assert len(timestamp) == TIMESTAMP_BYTES
        self._state, self._remote = state, remote
        return timestamp

    def respond(self, index: int, random: Callable[[int], bytes] = _noise.random_bytes) -> tuple[bytes, SessionKeys]:
        """The response without its MACs, and the keys. It is called once, after :meth:`verify`."""
        remote, self._remote = self._remote, None
        if remote is None:
            raise RuntimeError("respond() is for initiations that verify() has checked, and once for each")
        ephemeral = _noise.PrivateKey(random(_noise.KEY_BYTES))
        state = self._state
        state.mix_hash(ephemeral.public)
        state.mix_key(ephemeral.public)
        state.mix_key(ephemeral.exchange(self._initiation.ephemeral))
        state.mix_key(ephemeral.exchange(remote.public))
        ephemeral.wipe()
        key = state.mix_preshared(remote.preshared_key)
        empty = state.seal(key, b"")
        receive, send = state.split()
        message = Response(index, self.sender, ephemeral.public, empty).pack()
        return message, SessionKeys(send, receive, index, self.sender, is_initiator=False)


def open_initiation(identity: Identity, message: bytes) -> Opened:
    """Return the claimed sender of an initiation.

    Raises
    ------
    MessageError
        It is not an initiation.
    AuthenticationError
        It is not to us, or was altered.
    """
    initiation = parse_initiation(message)
    state = _begin(identity.public, initiation.ephemeral)
    key = state.mix_key_for(identity.private.exchange(initiation.ephemeral))
    return Opened(identity, initiation, state.unseal(key, initiation.static), state)


__all__ = [
    "NO_PRESHARED_KEY",
    "Identity",
    "Initiator",
    "MessageError",
    "Opened",
    "Remote",
    "SessionKeys",
    "add_macs",
    "has_mac1",
    "has_mac2",
    "initiate",
    "mac1_key",
    "open_initiation",
]
