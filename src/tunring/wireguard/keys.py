"""WireGuard's keys, in base64."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Self

from tunring.wireguard import _noise


class Key:
    """A secret key: a private key, or one that two peers share. Its value is in no repr and no message.

    Parameters
    ----------
    text : str, bytes or Key
        44 characters of base64, as ``wg genkey`` prints them, or the 32 bytes themselves.

    Raises
    ------
    ValueError
        It is neither. The message does not contain it.

    Examples
    --------
    >>> from tunring.wireguard import Key
    >>> key = Key("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHk8=")
    >>> key, key.public
    (Key(secret), PublicKey('L/U28zCzZzeAAWMj8pa0fYe7QGhHPnxnQwyianIWHUc='))
    >>> key == Key(key.base64), key == Key.generate()
    (True, False)
    """

    __slots__ = ("_data", "_hash")

    def __init__(self, text: str | bytes | Key) -> None:
        self._hash: int | None = None
        if isinstance(text, Key):
            self._data: bytes = text.raw
        elif isinstance(text, bytes):
            self._data = text
        elif isinstance(text, str):
            self._data = _decoded(text)
        else:
            raise TypeError(f"a key must be base64 text or 32 bytes, not of type {type(text).__name__}")
        if len(self._data) != _noise.KEY_BYTES:
            raise ValueError(f"a key must have 32 bytes (44 characters of base64), not {len(self._data)} bytes")

    @classmethod
    def generate(cls) -> Self:
        """Make a private key from the system's random numbers. It serves as a preshared key, too."""
        return cls(_noise.clamp(_noise.random_bytes(_noise.KEY_BYTES)))

    @classmethod
    def from_hex(cls, text: str) -> Self:
        """The key of 64 hexadecimal digits, as the cross-platform protocol has them. Raises ValueError."""
        if len(text) != 2 * _noise.KEY_BYTES or not all(digit in "0123456789abcdefABCDEF" for digit in text):
            raise ValueError("a key must have 64 hexadecimal digits")
        return cls(bytes.fromhex(text))

    @property
    def public(self) -> PublicKey:
        """The public key of this private key."""
        return PublicKey(_noise.public_of(self._data))

    @property
    def raw(self) -> bytes:
        """The 32 bytes."""
        return self._data

    @property
    def base64(self) -> str:
        """The key as 44 characters of base64. Keep it out of logs."""
        return base64.b64encode(self._data).decode("ascii")

    @property
    def hex(self) -> str:
        """The key as 64 hexadecimal digits. Keep it out of logs."""
        return self._data.hex()

    def __eq__(self, other: object) -> bool:
        # In constant time, whatever the keys are.
        return _noise.same(self._data, other._data) if isinstance(other, Key) else NotImplemented

    def __hash__(self) -> int:
        # Computed once: each copy of a device's peers asks for it.
        if self._hash is None:
            self._hash = hash(hashlib.blake2s(self._data, digest_size=16, person=b"hash").digest())
        return self._hash

    def __bool__(self) -> bool:
        """Return False for 32 zero bytes, which stand for the absence of a key."""
        return not _noise.same(self._data, bytes(_noise.KEY_BYTES))

    def __repr__(self) -> str:
        return "Key(secret)"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("keys can't be pickled: take .base64 where one must leave the process")


class PublicKey(Key):
    """A public key, which everybody may see: its repr and text have it.

    Parameters
    ----------
    text : str, bytes or Key
        As for :class:`Key`.
    """

    __slots__ = ()

    @classmethod
    def generate(cls) -> Self:
        """Refuse: public keys are those of private ones."""
        raise TypeError("a public key is not generated: take Key.generate().public")

    @property
    def public(self) -> PublicKey:
        """Refuse: it is one."""
        raise TypeError("this is a public key already")

    def __repr__(self) -> str:
        return f"PublicKey({self.base64!r})"

    def __str__(self) -> str:
        return self.base64

    def __reduce__(self) -> str | tuple[object, ...]:
        return type(self), (self.base64,)


def _decoded(text: str) -> bytes:
    # Exactly what `wg` prints: no white space, and the bits that the last character does not need are 0.
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if len(text) != 44 or base64.b64encode(data).decode("ascii") != text:
        raise ValueError(
            f"a key must have 44 characters of base64, as wg genkey prints them; this text has {len(text)}"
        )
    return data
