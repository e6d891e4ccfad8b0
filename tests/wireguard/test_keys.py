"""Keys: what is one, what it shows of itself, what it equals."""

from __future__ import annotations

import copy
import logging
import pickle
import shutil
import subprocess

import pytest

from tunring.wireguard import Key, PublicKey

TEXT = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHk8="


def test_forms() -> None:
    key = Key(TEXT)
    assert key.base64 == TEXT
    assert Key(key.raw) == key == Key(key) == Key.from_hex(key.hex) == Key.from_hex(key.hex.upper())
    assert hash(Key(key.raw)) == hash(key)
    assert key != Key.generate()
    assert key != TEXT
    assert not Key(bytes(32))
    assert Key.generate()


def test_generated_keys_are_clamped() -> None:
    for _ in range(50):
        raw = Key.generate().raw
        assert raw[0] & 7 == 0
        assert raw[31] & 0xC0 == 0x40


def test_public_keys_as_wg_has_them() -> None:
    wg = shutil.which("wg")
    if not wg:
        pytest.skip("wireguard-tools are not installed")
    key = Key.generate()
    said = subprocess.run([wg, "pubkey"], input=key.base64, capture_output=True, text=True, check=True).stdout
    assert key.public.base64 == said.strip()


def test_no_secret_is_shown() -> None:
    key = Key.generate()
    for shown in (repr(key), str(key), f"{key}", repr([key]), repr({"key": key})):
        for form in (key.base64, key.hex, repr(key.raw)):
            assert form not in shown
    record = logging.LogRecord("x", 0, "", 0, "%s %r", (key, key), None)
    assert key.base64 not in record.getMessage()
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(key)
    with pytest.raises(TypeError, match="pickled"):
        copy.copy(key)


def test_public_keys_are_shown() -> None:
    public = Key(TEXT).public
    assert isinstance(public, PublicKey)
    assert public.base64 in repr(public)
    assert str(public) == public.base64
    assert pickle.loads(pickle.dumps(public)) == public
    with pytest.raises(TypeError):
        PublicKey.generate()
    with pytest.raises(TypeError):
        public.public  # noqa: B018


@pytest.mark.parametrize(
    "text",
    ["", TEXT[:-1], TEXT + "=", TEXT + "\n", " " + TEXT[:-1], TEXT.replace("A", "*"), TEXT[:-2] + "9=", "é" * 44],
)
def test_what_is_not_a_key(text: str) -> None:
    with pytest.raises(ValueError, match="44 characters of base64") as caught:
        Key(text)
    assert not text or text not in str(caught.value)


@pytest.mark.parametrize("data", [b"", bytes(31), bytes(33)])
def test_bytes_of_another_length(data: bytes) -> None:
    with pytest.raises(ValueError, match=f"not {len(data)} bytes"):
        Key(data)


@pytest.mark.parametrize("text", ["", "00" * 31, "0" * 65, "0x" + "0" * 62, "g" * 64, " " * 64])
def test_what_is_not_hex(text: str) -> None:
    with pytest.raises(ValueError, match="64 hexadecimal digits"):
        Key.from_hex(text)


def test_other_types() -> None:
    with pytest.raises(TypeError, match="not of type int"):
        Key(5)  # type: ignore[arg-type]
