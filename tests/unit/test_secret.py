"""Secrets in memory of their own: what they take and give, and when they are wiped."""

from __future__ import annotations

import copy
import ctypes
import hashlib
import hmac
import os
import pickle
import sys
import threading
from typing import Any

import pytest

from memory import address_of, at, mappings
from running import SANITIZED, Threads
from tunring._core import Secret, wireguard_exchange, wireguard_public_key
from tunring.errors import SessionClosed

BYTES = bytes(range(1, 33))


def is_refused(secret: Secret) -> bool:
    """Each use raises."""
    other = Secret(BYTES)
    uses: list[Any] = [bytes, memoryview, hashlib.sha256, lambda it: it == other, lambda it: other == it]
    for use in uses:
        with pytest.raises(SessionClosed, match="can't use a secret: it was wiped") as caught:
            use(secret)
        assert caught.value.reason == "closed"
    return True


@pytest.mark.parametrize("size", [1, 16, 31, 32])
def test_it_is_a_buffer(size: int) -> None:
    value = BYTES[:size]
    for given in (value, bytearray(value), memoryview(value), Secret(value)):
        secret = Secret(given)
        assert len(secret) == size
        assert bytes(secret) == value
    assert hashlib.sha256(secret).digest() == hashlib.sha256(value).digest()
    assert hmac.digest(b"key", secret, "sha256") == hmac.digest(b"key", value, "sha256")
    view = memoryview(secret)
    assert view.readonly
    with pytest.raises(TypeError):
        view[0] = 1
    with pytest.raises((BufferError, TypeError)):
        (ctypes.c_char * 1).from_buffer(secret)
    # A refused buffer leaves no user behind: it is wiped at once.
    view.release()
    address = address_of(secret)
    secret.wipe()
    assert at(address, size) == bytes(size)


def test_it_is_a_copy() -> None:
    value = bytearray(BYTES)
    secret = Secret(value)
    value[:] = bytes(32)
    assert bytes(secret) == BYTES


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (b"", ValueError, "1 to 32 bytes, not 0"),
        (bytes(33), ValueError, "1 to 32 bytes, not 33"),
        ("text", TypeError, "bytes-like and contiguous, not str"),
        (None, TypeError, "bytes-like and contiguous, not NoneType"),
        (memoryview(bytes(8))[::2], TypeError, "bytes-like and contiguous, not memoryview"),
    ],
)
def test_what_is_not_a_secret(value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Secret(value)


def test_it_shows_nothing() -> None:
    secret = Secret(b"a plain text")
    for shown in (repr(secret), str(secret), f"{secret}", repr([secret])):
        assert "plain" not in shown
    assert repr(secret) == "<tunring._core.Secret of 12 bytes>"
    for way in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="copied or pickled"):
            way(secret)
    secret.wipe()
    assert repr(secret) == "<tunring._core.Secret of 12 bytes, wiped>"
    for way in (pickle.dumps, copy.copy):
        with pytest.raises(TypeError, match="copied or pickled"):
            way(secret)


def test_equality() -> None:
    secret = Secret(BYTES)
    assert secret == Secret(BYTES)
    for other in (Secret(BYTES[:-1]), Secret(BYTES[:-1] + b"\0"), Secret(b"\0" + BYTES[1:]), BYTES, None):
        assert secret != other
    with pytest.raises(TypeError, match="unhashable"):
        hash(secret)


def test_wiping() -> None:
    secret = Secret(BYTES)
    address = address_of(secret)
    assert at(address) == BYTES
    assert not secret.wiped
    secret.wipe()
    assert secret.wiped
    assert at(address) == bytes(32)
    assert is_refused(secret)
    # Another one may have its place.
    other = Secret(BYTES[::-1])
    secret.wipe()
    del secret
    assert bytes(other) == BYTES[::-1]


def test_what_is_dropped_is_wiped() -> None:
    secret = Secret(BYTES)
    address = address_of(secret)
    del secret
    assert at(address) == bytes(32)


def test_a_view_delays_the_wiping() -> None:
    secret = Secret(BYTES)
    address = address_of(secret)
    views = [memoryview(secret), memoryview(secret)]
    secret.wipe()
    assert secret.wiped
    assert is_refused(secret)
    for view in views:
        assert bytes(view) == BYTES
        view.release()
    assert at(address) == bytes(32)
    # A view keeps the object.
    view = memoryview(Secret(BYTES))
    assert bytes(view) == BYTES
    address = address_of(view)
    view.release()
    assert at(address) == bytes(32)


def test_many() -> None:
    values = [os.urandom(32) for _ in range(1000)]
    secrets = [Secret(value) for value in values]
    addresses = [address_of(secret) for secret in secrets]
    assert len(set(addresses)) == len(secrets)
    # Those that go leave the others alone.
    del secrets[::2]
    assert list(map(bytes, secrets)) == values[1::2]
    assert all(at(address) == bytes(32) for address in addresses[::2])


def test_wiping_while_threads_use_it() -> None:
    """Each use has the whole secret or raises."""
    for _ in range(20):
        secret = Secret(BYTES)
        address = address_of(secret)
        ready = threading.Barrier(4)

        def use(secret: Secret = secret, ready: threading.Barrier = ready) -> None:
            expected = hashlib.sha256(BYTES).digest()
            ready.wait()
            while True:
                try:
                    assert hashlib.sha256(secret).digest() == expected
                except SessionClosed:
                    return

        with Threads() as threads:
            for _ in range(3):
                threads.start(use)
            ready.wait()
            secret.wipe()
        assert at(address) == bytes(32)


@pytest.mark.skipif(sys.platform != "linux", reason="the flags are in Linux's /proc")
def test_its_memory_is_protected() -> None:
    secret = Secret(BYTES)
    address = address_of(secret)
    [mapping] = [one for one in mappings() if one.first <= address < one.end]
    protection = secret.protection
    assert protection["empty_in_child"] == ("wf" in mapping.flags)
    assert protection["not_dumped"] == ("dd" in mapping.flags)
    # The sanitizer's own mlock() does nothing, and succeeds.
    assert SANITIZED or protection["locked"] == ("lo" in mapping.flags)
    # Every kernel that is still maintained has both; locking has a limit.
    assert protection["empty_in_child"]
    assert protection["not_dumped"]


def test_protection_elsewhere() -> None:
    assert set(Secret(BYTES).protection) == {"empty_in_child", "not_dumped", "locked"}


# ---- X25519 -----------------------------------------------------------------------------------------------------

#: RFC 7748, 6.1: each side's private and public key, and what they share.
ALICE = "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"
ALICE_PUBLIC = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
BOB = "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"
BOB_PUBLIC = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
SHARED = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"


def test_published_keys() -> None:
    publics = bytes.fromhex(ALICE_PUBLIC), bytes.fromhex(BOB_PUBLIC)
    for private, own, other in ((ALICE, *publics), (BOB, *publics[::-1])):
        secret = Secret(bytes.fromhex(private))
        assert wireguard_public_key(secret) == own
        shared = wireguard_exchange(secret, own, other)
        assert shared is not None
        assert bytes(shared).hex() == SHARED


def x25519(private: bytes, public: bytes) -> bytes:
    """RFC 7748, 5, with no care for time."""
    prime = 2**255 - 19
    scalar = int.from_bytes(private, "little") & ~(7 | 1 << 255) | 1 << 254
    point = int.from_bytes(public, "little") & (1 << 255) - 1
    x2, z2, x3, z3 = 1, 0, point, 1
    for bit in range(254, -1, -1):
        if scalar >> bit & 1:
            x2, z2, x3, z3 = x3, z3, x2, z2
        total, difference = pow(x2 + z2, 2, prime), pow(x2 - z2, 2, prime)
        one, other = (x3 - z3) * (x2 + z2), (x3 + z3) * (x2 - z2)
        x3, z3 = pow(one + other, 2, prime), point * pow(one - other, 2, prime) % prime
        z2 = (total - difference) * (total + 121665 * (total - difference)) % prime
        x2 = total * difference % prime
        if scalar >> bit & 1:
            x2, z2, x3, z3 = x3, z3, x2, z2
    return (x2 * pow(z2, -1, prime) % prime).to_bytes(32, "little")


def test_another_implementation_agrees() -> None:
    """Private keys of any bits, and public keys that nobody has."""
    for _ in range(20):
        private, public = os.urandom(32), os.urandom(32)
        secret = Secret(private)
        own = wireguard_public_key(secret)
        assert own == x25519(private, b"\t" + bytes(31))
        shared = wireguard_exchange(secret, own, public)
        assert shared is not None
        assert bytes(shared) == x25519(private, public)


def test_refused_exchanges() -> None:
    secret, public = Secret(bytes.fromhex(ALICE)), bytes.fromhex(ALICE_PUBLIC)
    for small in (bytes(32), b"\1" + bytes(31)):
        assert wireguard_exchange(secret, public, small) is None
    with pytest.raises(ValueError, match="public_key must have 32 bytes, not 31"):
        wireguard_exchange(secret, public, bytes(31))
    with pytest.raises(ValueError, match="own_public must have 32 bytes, not 33"):
        wireguard_exchange(secret, bytes(33), public)
    for call in (wireguard_public_key, lambda it: wireguard_exchange(it, public, public)):
        with pytest.raises(ValueError, match="a private key must have 32 bytes, not 16"):
            call(Secret(bytes(16)))
        with pytest.raises(TypeError):
            call(bytes(32))  # type: ignore[arg-type]
    secret.wipe()
    for call in (wireguard_public_key, lambda it: wireguard_exchange(it, public, public)):
        with pytest.raises(SessionClosed, match="it was wiped"):
            call(secret)


def test_an_exchange_lets_go_of_the_key() -> None:
    secret = Secret(bytes.fromhex(ALICE))
    address = address_of(secret)
    public = wireguard_public_key(secret)
    assert wireguard_exchange(secret, public, bytes(32)) is None
    secret.wipe()
    assert at(address) == bytes(32)
