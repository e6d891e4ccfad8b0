"""BoringSSL beside OpenSSL, whose functions have the same names; its queue of errors; files that are something else.

Wherever it is installed, tests/unit/test_aead_vectors.py compares what it computes.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from running import SANITIZED, check_program
from tunring import aead
from tunring.aead import ALGORITHMS, Algorithm, Opener, Sealer, providers
from tunring.errors import LibraryNotFound

SYSTEMS = next((candidate.path for candidate in aead._candidates("boringssl")), "")
KEY = bytes(range(32))

needs_boringssl = pytest.mark.skipif(not Path(SYSTEMS).is_file(), reason="this system has no BoringSSL")


def key_of(algorithm: Algorithm) -> bytes:
    return KEY[: 16 if "128" in algorithm else 32]


# ---- Other files -------------------------------------------------------------------------------------------------

FUNCTIONS = (
    "ERR_set_mark",
    "ERR_pop_to_mark",
    "EVP_aead_chacha20_poly1305",
    "EVP_aead_aes_256_gcm",
    "EVP_aead_aes_128_gcm",
    "EVP_AEAD_CTX_new",
    "EVP_AEAD_CTX_free",
    "EVP_AEAD_CTX_seal_scatter",
    "EVP_AEAD_CTX_open_gather",
)


def faults(path: str, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Why a file serves no algorithm."""
    monkeypatch.setenv("TUNRING_AEAD", f"boringssl:{path}")
    with pytest.raises(LibraryNotFound, match="no library serves"):
        Sealer("aes-256-gcm", KEY)
    return {line for provider in providers().values() for line in provider.others}


def built(folder: Path, version: str, functions: tuple[str, ...] = FUNCTIONS) -> str:
    """A library with a version, whose functions do nothing. Each has another path: a library is never unloaded."""
    lines = [f"const char *OpenSSL_version(int what) {{ (void)what; return {version}; }}"]
    lines += [f"void *{name}(void) {{ return 0; }}" for name in functions]
    (folder / "stub.c").write_text("\n".join(lines) + "\n")
    compiler = shlex.split(os.environ.get("CC", "cc"))
    subprocess.run([*compiler, "-shared", "-fPIC", "-o", folder / "stub.so", folder / "stub.c"], check=True)
    return str(folder / "stub.so")


def test_openssl_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNRING_AEAD", "libcrypto")
    found = providers()["aes-256-gcm"]
    (fault,) = faults(found.path, monkeypatch)
    assert fault.endswith(f"it is {found.version}, neither BoringSSL nor AWS-LC")


@pytest.mark.parametrize(
    ("version", "words"),
    [('"LibreSSL 3.8.2"', "it is LibreSSL 3.8.2, neither BoringSSL nor AWS-LC"), ("0", "it is something nameless")],
)
def test_others_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str, words: str) -> None:
    (fault,) = faults(built(tmp_path, version), monkeypatch)
    assert words in fault


@pytest.mark.parametrize("absent", FUNCTIONS)
def test_a_function_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, absent: str) -> None:
    path = built(tmp_path, '"BoringSSL"', tuple(name for name in FUNCTIONS if name != absent))
    (fault,) = faults(path, monkeypatch)
    assert fault.endswith(f"BoringSSL lacks {absent}")


@pytest.mark.parametrize(
    ("version", "shown"),
    [
        ("BoringSSL", "BoringSSL"),
        ("AWS-LC 5.12.0", "AWS-LC 5.12.0"),
        ("OpenSSL 1.1.1 (compatible; AWS-LC 1.18.0)", "AWS-LC 1.18.0"),
    ],
)
def test_versions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str, shown: str) -> None:
    """The known-answer test finds that there is nothing behind them."""
    found = faults(built(tmp_path, f'"{version}"'), monkeypatch)
    assert {fault.rpartition(": ")[2] for fault in found} == {f"{shown} lacks {name}" for name in ALGORITHMS}


def test_it_is_taken_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for setting in ("", "libcrypto", "ipsec-mb"):
        assert "boringssl" not in {candidate.kind for candidate in aead._candidates(setting)}
    monkeypatch.delenv("TUNRING_AEAD", raising=False)
    assert "boringssl" not in {provider.name for provider in providers().values()}


# ---- Its queue of errors -----------------------------------------------------------------------------------------


@needs_boringssl
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("forged", [1, 15, 16, 100])
def test_the_queue_stays_as_it_was(monkeypatch: pytest.MonkeyPatch, algorithm: Algorithm, forged: int) -> None:
    """Forged messages add nothing to it, and take away nothing that was there. It has room for 16."""
    monkeypatch.setenv("TUNRING_AEAD", "boringssl")
    opener = Opener(algorithm, key_of(algorithm))
    library: Any = ctypes.CDLL(SYSTEMS)
    library.ERR_clear_error()
    library.ERR_put_error(30, 0, 101, b"here", 7)
    before = library.ERR_peek_error()
    assert before
    assert len(opener.open([bytes(100)] * forged)) == 0
    assert opener.rejected == forged
    assert library.ERR_get_error() == before
    assert library.ERR_get_error() == 0
    assert len(opener.open([bytes(100)] * forged)) == 0
    assert library.ERR_get_error() == 0


# ---- Beside OpenSSL ----------------------------------------------------------------------------------------------

ROUND_TRIP = """
import os, sys
import tunring.aead
from tunring.aead import ALGORITHMS, Opener, Sealer

def sealed_by(library):
    os.environ["TUNRING_AEAD"] = library
    found = []
    for algorithm in ALGORITHMS:
        key = bytes(range(16 if "128" in algorithm else 32))
        sealer, opener = Sealer(algorithm, key), Opener(algorithm, key)
        assert sealer.library.name == opener.library.name == library
        wire = sealer.seal([bytes(size) for size in range(0, 3000, 100)]).tobytes()
        assert len(opener.open(wire)) == len(wire)
        assert len(opener.open([datagram[:-1] + b"?" for datagram in wire])) == 0
        found.append(wire)
    return found
"""

#: Python's own OpenSSL and that of `cryptography` compute what is known, by functions that BoringSSL has, too.
OPENSSL_WORKS = """
import hashlib, hmac, ssl
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
assert ssl.OPENSSL_VERSION.startswith("OpenSSL ")
assert hashlib.sha256(b"abc").hexdigest().startswith("ba7816bf8f01cfea")
assert hashlib.new("sha512_256", b"abc").hexdigest().startswith("53048e2681941ef9")
assert hmac.digest(b"key", b"text", "sha256").hex().startswith("6afa9046a9579cad")
hashlib.scrypt(b"password", salt=b"salt", n=16, r=8, p=1)
context = ssl.create_default_context()
assert context.get_ciphers()
try:
    context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="x").do_handshake()
except ssl.SSLWantReadError:
    pass
assert AESGCM(bytes(16)).decrypt(bytes(12), AESGCM(bytes(16)).encrypt(bytes(12), b"text", b""), b"") == b"text"
assert X25519PrivateKey.from_private_bytes(bytes(range(32))).public_key().public_bytes_raw()[:2].hex() == "8f40"
"""

WIREGUARD = """
from contextlib import ExitStack
from wireguard_ends import End, ipv4
with ExitStack() as stack:
    one, two = End(stack), End(stack)
    one.add(two, "10.0.0.2/32")
    two.add(one, "10.0.0.1/32")
    for size in (100, 1400):
        there, back = ipv4("10.0.0.1", "10.0.0.2", size), ipv4("10.0.0.2", "10.0.0.1", size)
        one.host.send([there])
        assert two.received() == [there]
        two.host.send([back])
        assert one.received() == [back]
from tunring.aead import providers
assert providers()["chacha20-poly1305"].name == "boringssl"
"""


def openssl() -> str:
    """The file of the OpenSSL that Python uses."""
    code = "import _hashlib; print(next(l.split()[-1] for l in open('/proc/self/maps') if '/libcrypto' in l))"
    return check_program(sys.executable, "-c", code).strip()


def run(source: str, **environment: str) -> None:
    assert check_program(sys.executable, "-c", ROUND_TRIP + source, env={**os.environ, **environment}) == ""


SAME_RESULTS = "assert sealed_by('boringssl') == sealed_by('libcrypto')\n"
REFUSED = """
from tunring.errors import LibraryNotFound
try:
    sealed_by("boringssl")
except LibraryNotFound as error:
    assert "its calls may go to an OpenSSL that this process has loaded for all to use" in str(error), error
else:
    raise AssertionError("it was taken")
sealed_by("libcrypto")
"""
#: The sanitizers allow no library that is bound to itself first.
WITH_OPENSSL_FOR_ALL = REFUSED if SANITIZED else SAME_RESULTS

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="macOS binds every library to those it was linked with")


@needs_boringssl
@on_linux
def test_openssl_was_loaded_for_all() -> None:
    run(f"import ctypes; ctypes.CDLL({openssl()!r}, ctypes.RTLD_GLOBAL)\n" + WITH_OPENSSL_FOR_ALL + OPENSSL_WORKS)


@needs_boringssl
@on_linux
def test_openssl_was_preloaded() -> None:
    preloaded = " ".join(filter(None, (os.environ.get("LD_PRELOAD"), openssl())))
    run(WITH_OPENSSL_FOR_ALL + OPENSSL_WORKS, LD_PRELOAD=preloaded)


@needs_boringssl
@on_linux
def test_somebody_else_loaded_it_so_that_it_calls_openssl() -> None:
    """It would crash, or compute something else."""
    loads = f"import ctypes; ctypes.CDLL({openssl()!r}, ctypes.RTLD_GLOBAL); ctypes.CDLL({SYSTEMS!r})\n"
    run(loads + REFUSED + OPENSSL_WORKS)


@needs_boringssl
@on_linux
def test_somebody_else_loaded_it() -> None:
    run(f"import ctypes; ctypes.CDLL({SYSTEMS!r})\n" + SAME_RESULTS + OPENSSL_WORKS)


@needs_boringssl
@on_linux
def test_openssl_is_loaded_for_all_later() -> None:
    """It is found again for another setting: the module that this process has is bound to itself."""
    again = f"import ctypes; ctypes.CDLL({openssl()!r}, ctypes.RTLD_GLOBAL)\nassert sealed_by('boringssl') == first\n"
    run("first = sealed_by('boringssl')\nsealed_by('libcrypto')\n" + again + SAME_RESULTS + OPENSSL_WORKS)


@needs_boringssl
@on_linux
def test_openssl_comes_after_it() -> None:
    run("first = sealed_by('boringssl')\n" + OPENSSL_WORKS + "assert first == sealed_by('libcrypto')\n")


@needs_boringssl
def test_a_tunnel_of_wireguard() -> None:
    """Its hashes and exchanges stay OpenSSL's: the setting is for ciphers alone."""
    run(WIREGUARD, PYTHONPATH=str(Path(__file__).parents[1] / "support"), TUNRING_AEAD="boringssl")


@needs_boringssl
def test_one_opens_what_the_other_sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNRING_AEAD", "boringssl")
    for algorithm in ALGORITHMS:
        cipher = (ChaCha20Poly1305 if algorithm.startswith("chacha") else AESGCM)(key_of(algorithm))
        (datagram,) = Sealer(algorithm, key_of(algorithm)).seal([b"a packet"]).tobytes()
        assert cipher.decrypt(bytes(4) + datagram[:8], datagram[8:], datagram[:8]) == b"a packet"
