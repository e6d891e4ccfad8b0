"""The cryptography of handshakes: BLAKE2s, its HMAC and key derivation, X25519, and the two kinds of sealing."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import struct
from typing import TypeAlias

from tunring._core import Secret, wireguard_exchange, wireguard_public_key
from tunring._extras import import_advice

try:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
    from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
except ImportError as error:
    raise ImportError(f"tunring.wireguard {import_advice(error, 'cryptography', 'wireguard')}") from error

#: Bytes of a key, of a sealed message beyond its plaintext, of a MAC, and of a cookie reply's nonce.
KEY_BYTES = 32
TAG_BYTES = 16
MAC_BYTES = 16
XNONCE_BYTES = 24

# Its first use imports more of that package. It must not be a device's: a child that is forked meanwhile would wait for
# those modules without end.
X25519PrivateKey.from_private_bytes(bytes(KEY_BYTES))

_ZERO_NONCE = bytes(12)

#: The first four words of a ChaCha20 block.
_CHACHA_CONSTANTS = struct.unpack("<4I", b"expand 32-byte k")


#: A secret, in memory of its own or in Python's.
AnySecret: TypeAlias = bytes | Secret


class AuthenticationError(ValueError):
    """A message does not come from who it should, or was altered."""


def hash_of(*parts: bytes) -> bytes:
    """The 32-byte BLAKE2s hash of the parts, one after the other."""
    return hashlib.blake2s(b"".join(parts)).digest()


def mac_of(key: AnySecret, data: bytes) -> bytes:
    """The 16-byte keyed BLAKE2s of some data."""
    return hashlib.blake2s(data, digest_size=MAC_BYTES, key=key).digest()


def same(one: AnySecret, other: AnySecret) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(one, other)


def derive(chaining: bytes, material: AnySecret, count: int) -> tuple[bytes, ...]:
    """Derive 1 to 3 keys: HKDF with HMAC-BLAKE2s."""
    secret = hmac.digest(chaining, material, hashlib.blake2s)
    keys: list[bytes] = []
    last = b""
    for number in range(1, count + 1):
        last = hmac.digest(secret, last + bytes([number]), hashlib.blake2s)
        keys.append(last)
    return tuple(keys)


def clamp(private: bytes) -> bytes:
    """The private key as X25519 uses it."""
    return bytes([private[0] & 0xF8]) + private[1:31] + bytes([private[31] & 0x7F | 0x40])


def public_of(private: bytes) -> bytes:
    """The public key of a private one."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


class PrivateKey:
    """A private key that is kept, in memory that no child process has, and its public key.

    Parameters
    ----------
    raw : bytes or Secret
        The 32 bytes. They are copied.
    """

    __slots__ = ("public", "secret")

    def __init__(self, raw: AnySecret) -> None:
        self.secret = Secret(raw)
        self.public = wireguard_public_key(self.secret)

    def exchange(self, public: bytes) -> Secret:
        """Compute what the two sides share.

        Raises
        ------
        AuthenticationError
            It is all zeros, as with a public key of small order, which no honest peer has.
        """
        shared = wireguard_exchange(self.secret, self.public, public)
        if shared is None:
            raise AuthenticationError("the public key is of small order")
        return shared

    def wipe(self) -> None:
        """Wipe it. Each later use raises SessionClosed."""
        self.secret.wipe()


def seal(key: bytes, plaintext: bytes, associated: bytes) -> bytes:
    """ChaCha20-Poly1305 with a nonce of zeros: for keys that are used once."""
    return ChaCha20Poly1305(key).encrypt(_ZERO_NONCE, plaintext, associated)


def unseal(key: bytes, sealed: bytes, associated: bytes) -> bytes:
    """The plaintext of :func:`seal`. Raises :class:`AuthenticationError`."""
    try:
        return ChaCha20Poly1305(key).decrypt(_ZERO_NONCE, sealed, associated)
    except InvalidTag:
        raise AuthenticationError("the message does not authenticate") from None


def hchacha20(key: bytes, nonce: bytes) -> bytes:
    """HChaCha20: a key of its own for each 16-byte nonce.

    It is ChaCha20's block function without the last addition, and of its 16 words the first and last four. The
    ``cryptography`` package computes it with the addition, which is subtracted again, as the block's input is known.
    """
    encryptor = Cipher(ChaCha20(key, nonce), None).encryptor()
    block = struct.unpack("<16I", encryptor.update(bytes(64)))
    first = (word - constant for word, constant in zip(block[:4], _CHACHA_CONSTANTS, strict=True))
    last = (word - given for word, given in zip(block[12:], struct.unpack("<4I", nonce), strict=True))
    return struct.pack("<8I", *(word & 0xFFFFFFFF for word in (*first, *last)))


def xseal(key: bytes, nonce: bytes, plaintext: bytes, associated: bytes) -> bytes:
    """XChaCha20-Poly1305, whose 24-byte nonces may be random."""
    derived = hchacha20(key, nonce[:16])
    return ChaCha20Poly1305(derived).encrypt(bytes(4) + nonce[16:], plaintext, associated)


def xunseal(key: bytes, nonce: bytes, sealed: bytes, associated: bytes) -> bytes:
    """The plaintext of :func:`xseal`. Raises :class:`AuthenticationError`."""
    derived = hchacha20(key, nonce[:16])
    try:
        return ChaCha20Poly1305(derived).decrypt(bytes(4) + nonce[16:], sealed, associated)
    except InvalidTag:
        raise AuthenticationError("the cookie reply does not authenticate") from None


def random_bytes(count: int) -> bytes:
    """Random bytes of the system's."""
    return secrets.token_bytes(count)
