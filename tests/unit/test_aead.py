"""Sealers and Openers: round trips, refused arguments, their end."""

from __future__ import annotations

import copy
import gc
import hashlib
import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tunring import Batch, SessionClosed, testing
from tunring.aead import ALGORITHMS, Algorithm, Opener, Sealer, providers
from tunring.errors import LibraryNotFound

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = bytes(range(32))
HEADER = b"head"
OVERHEAD = 4 + 8 + 16


def ipv4(size: int) -> bytes:
    return bytes([0x45, 0]) + size.to_bytes(2, "big") + os.urandom(size - 4)


def pair(**options: Any) -> tuple[Sealer, Opener]:
    return Sealer("aes-256-gcm", KEY, header=HEADER), Opener("aes-256-gcm", KEY, header=HEADER, **options)


# ---- Libraries ---------------------------------------------------------------------------------------------------


def test_providers() -> None:
    found = providers()
    assert tuple(found) == ALGORITHMS
    for algorithm, provider in found.items():
        assert provider.name in {"libcrypto", "ipsec-mb"}
        assert provider.version
        assert Sealer(algorithm, KEY[: 16 if "128" in algorithm else 32]).library.version == provider.version


def test_python_own_libcrypto_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    import ssl

    monkeypatch.setenv("TUNRING_AEAD", "libcrypto")
    assert hashlib.sha256(b"").digest()
    for provider in providers().values():
        assert provider.name == "libcrypto"
        assert provider.version == ssl.OPENSSL_VERSION


def test_no_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    absent = tmp_path / "libcrypto.so"
    monkeypatch.setenv("TUNRING_AEAD", f"libcrypto:{absent}")
    with pytest.raises(LibraryNotFound) as caught:
        Sealer("aes-256-gcm", KEY)
    assert "no library serves aes-256-gcm; tried:" in str(caught.value)
    assert str(absent) in str(caught.value)
    provider = providers()["aes-256-gcm"]
    assert provider.name is None
    assert len(provider.others) == 1
    absent.write_bytes(b"no library")
    monkeypatch.setenv("TUNRING_AEAD", f"ipsec-mb:{absent}")
    with pytest.raises(LibraryNotFound, match="ipsec-mb"):
        Opener("chacha20-poly1305", KEY)


@pytest.mark.parametrize("setting", ["openssl", "libcrypto ", ":", ":/lib/libcrypto.so.3"])
def test_wrong_setting(monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    monkeypatch.setenv("TUNRING_AEAD", setting)
    with pytest.raises(ValueError, match="TUNRING_AEAD must be 'ipsec-mb', 'libcrypto' or 'boringssl',"):
        Sealer("aes-256-gcm", KEY)


def test_error_queue_stays_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forged messages leave nothing on the queue of errors that `ssl` reads."""
    import ssl

    monkeypatch.setenv("TUNRING_AEAD", "libcrypto")
    for algorithm in ALGORITHMS:
        opener = Opener(algorithm, KEY[: 16 if "128" in algorithm else 32])
        assert len(opener.open([bytes(100)] * 10)) == 0
        assert opener.rejected == 10
        one, two = ssl.MemoryBIO(), ssl.MemoryBIO()
        with pytest.raises(ssl.SSLWantReadError):
            ssl.create_default_context().wrap_bio(one, two, server_hostname="x").do_handshake()


# ---- Arguments ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Sealer, Opener])
@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        (("aes-192-gcm", KEY), {}, ValueError, "algorithm must be one of 'chacha20-poly1305', 'aes-256-gcm'"),
        ((7, KEY), {}, ValueError, "algorithm must be one of"),
        (("aes-256-gcm", KEY[:16]), {}, ValueError, "a key of aes-256-gcm has 32 bytes, not 16"),
        (("aes-128-gcm", KEY), {}, ValueError, "a key of aes-128-gcm has 16 bytes, not 32"),
        (("aes-256-gcm", "k" * 32), {}, TypeError, "key must be bytes-like and contiguous, not str"),
        (("aes-256-gcm", memoryview(KEY * 2)[::2]), {}, TypeError, "key must be bytes-like and contiguous"),
        (("aes-256-gcm", KEY), {"nonce": bytes(12)}, ValueError, "nonce must have 4 bytes, not 12"),
        (("aes-256-gcm", KEY), {"nonce": 4}, TypeError, "nonce must be bytes-like"),
        (("aes-256-gcm", KEY), {"header": bytes(129)}, ValueError, "a header has at most 128 bytes, not 129"),
        (("aes-256-gcm", KEY), {"header": "head"}, TypeError, "header must be bytes-like"),
        (
            ("aes-256-gcm", KEY),
            {"byteorder": "native"},
            ValueError,
            "byteorder must be 'little' or 'big', not 'native'",
        ),
    ],
)
def test_arguments(
    kind: type, arguments: tuple[Any, ...], options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as caught:
        kind(*arguments, **options)
    assert words in str(caught.value)
    assert "0, 1, 2" not in str(caught.value)
    assert repr(KEY) not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"counter": -1}, "counter must be 0 to 18446744073709551615, not -1"),
        ({"counter": 2**64}, "counter must be 0 to 18446744073709551615"),
        ({"pad_to": 0}, "pad_to must be 1 to 65535, not 0"),
        ({"pad_to": 65536}, "pad_to must be 1 to 65535, not 65536"),
        ({"pad_limit": -1}, "pad_limit must be 0 to 4294967295, not -1"),
    ],
)
def test_sealer_numbers(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError) as caught:
        Sealer("aes-256-gcm", KEY, **options)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"window": 0}, "window must be 1 to 1048576, not 0"),
        ({"window": 2**20 + 1}, "window must be 1 to 1048576, not 1048577"),
        ({"header_size": 129}, "header_size must be 0 to 128, not 129"),
        ({"header": b"head", "header_size": 5}, "header_size is 5, but the header has 4 bytes: pass only one of them"),
    ],
)
def test_opener_numbers(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError) as caught:
        Opener("aes-256-gcm", KEY, **options)
    assert words in str(caught.value)


@pytest.mark.parametrize("name", ["counter", "pad_to"])
def test_integers(name: str) -> None:
    with pytest.raises(TypeError, match=f"{name} must be an integer, not 1.5"):
        Sealer("aes-256-gcm", KEY, **{name: 1.5})  # type: ignore[arg-type]


def test_items() -> None:
    sealer, opener = pair()
    for call, verb in ((sealer.seal, "seal"), (opener.open, "open")):
        with pytest.raises(TypeError, match=f"{verb} takes an iterable of packets, not one bytes"):
            call(b"packet")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="packet 1: "):
            call([b"packet", "packet"])  # type: ignore[list-item]
        limit = 65535 if verb == "seal" else 65535 + 128 + 8 + 16
        with pytest.raises(ValueError, match=f"packet 2 has {limit + 1} bytes; at most {limit} are allowed"):
            call([b"", b"x", bytes(limit + 1)])
        with pytest.raises(ValueError, match="packet 0 must be one contiguous, live buffer"):
            call([memoryview(bytes(10))[::2]])
    assert sealer.counter == 0  # nothing was used up


# ---- Round trips -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_round_trip(algorithm: Algorithm) -> None:
    key = KEY[: 16 if "128" in algorithm else 32]
    sealer, opener = Sealer(algorithm, key), Opener(algorithm, key)
    packets: list[Any] = [b"", bytearray(b"x"), memoryview(b"yy"), os.urandom(65535)] + [
        os.urandom(size) for size in range(300)
    ]
    with sealer.seal(packets) as datagrams:
        assert type(datagrams) is Batch
        assert list(datagrams.lengths) == [len(packet) + 24 for packet in packets]
        with opener.open(datagrams) as opened:
            assert opened.tobytes() == [bytes(packet) for packet in packets]
    assert sealer.counter == len(packets)
    assert (opener.rejected, opener.replayed, opener.foreign) == (0, 0, 0)


def test_datagrams_lie_back_to_back() -> None:
    """So one system call sends them from one place: see tests/c/test_store.c for more of them than a chunk holds."""
    sealer, _ = pair()
    for sizes in ([1400] * 64, list(range(300)), [0] * 100, [65000]):
        with sealer.seal([bytes(size) for size in sizes]) as datagrams:
            starts = [np.frombuffer(packet, np.uint8).ctypes.data for packet in datagrams]
            ends = [start + int(length) for start, length in zip(starts, datagrams.lengths, strict=True)]
            assert starts[1:] == ends[:-1]
            packed = bytearray(datagrams.nbytes)
            assert datagrams.pack_into(packed) == len(packed) == ends[-1] - starts[0]
            assert b"".join(datagrams.tobytes()) == packed


def test_nothing() -> None:
    sealer, opener = pair()
    assert len(sealer.seal([])) == 0
    assert len(opener.open(())) == 0
    assert sealer.counter == 0
    with sealer.seal(iter([])) as empty:
        assert empty.nbytes == 0


def test_session_to_session() -> None:
    sealer, opener = pair(strip_padding=True)
    left, right = testing.pair()
    with left, right:
        sent = [ipv4(size) for size in (20, 33, 1400)]
        left.send(sent)
        with right.receive(timeout=5) as batch, sealer.seal(batch) as datagrams:
            with pytest.raises(TypeError, match="the batch holds sealed datagrams, which a session does not take"):
                right.send(datagrams)
            with opener.open(datagrams) as packets:
                assert right.send(packets) == 3
        with left.receive(timeout=5) as back:
            assert back.tobytes() == sent


def test_batch_that_is_released() -> None:
    sealer, opener = pair()
    datagrams = sealer.seal([b"x"])
    datagrams.release()
    for call in (sealer.seal, opener.open):
        with pytest.raises(ValueError, match="the batch was released"):
            call(datagrams)


def test_padding() -> None:
    sealer = Sealer("chacha20-poly1305", KEY, header=bytes(8), pad_to=16, pad_limit=100, authenticate_header=False)
    opener = Opener("chacha20-poly1305", KEY, header_size=8, authenticate_header=False)
    lengths = {0: 0, 1: 16, 16: 16, 17: 32, 95: 96, 97: 100, 100: 100, 101: 101, 120: 120}
    with sealer.seal([b"\x11" * size for size in lengths]) as datagrams:
        assert list(datagrams.lengths) == [32 + size for size in lengths.values()]
        with opener.open(datagrams) as packets:
            assert packets.tobytes() == [b"\x11" * size + bytes(padded - size) for size, padded in lengths.items()]


def test_stripped_padding() -> None:
    sealer = Sealer("aes-256-gcm", KEY, pad_to=64)
    opener = Opener("aes-256-gcm", KEY, strip_padding=True)
    good = [ipv4(30), b"", ipv4(64)]
    wrong = [b"\x45" + bytes(40), ipv4(90)[:50], b"hello, world, this is not IP"]
    assert opener.open(sealer.seal(good)).tobytes() == good
    assert len(opener.open(sealer.seal(wrong))) == 0
    assert opener.rejected == len(wrong)


# ---- Refused -----------------------------------------------------------------------------------------------------


def test_every_byte_matters() -> None:
    sealer, _ = pair()
    [datagram] = sealer.seal([b"a packet of some length"]).tobytes()
    opener = Opener("aes-256-gcm", KEY, header_size=4)
    forged = [
        datagram[:index] + bytes([datagram[index] ^ 1 << index % 8]) + datagram[index + 1 :]
        for index in range(len(datagram))
    ]
    truncated = [datagram[:length] for length in range(len(datagram))]
    assert len(opener.open(forged + truncated)) == 0
    assert opener.rejected == len(forged) + len(truncated)
    assert opener.open([datagram]).tobytes() == [b"a packet of some length"]
    assert (len(opener.open([datagram])), opener.replayed) == (0, 1)


def test_copies_are_opened() -> None:
    sealer, opener = pair()
    datagram = bytearray(sealer.seal([b"packet"]).tobytes()[0])
    before = bytes(datagram)
    assert opener.open([datagram]).tobytes() == [b"packet"]
    assert datagram == before


def test_foreign() -> None:
    one, two = (Sealer("aes-256-gcm", KEY, header=header) for header in (b"one.", b"two."))
    first, second = (Opener("aes-256-gcm", KEY, header=header) for header in (b"one.", b"two."))
    wire = one.seal([b"1"]).tobytes() + two.seal([b"2"]).tobytes() + [b"on"]
    assert first.open(wire).tobytes() == [b"1"]
    assert second.open(wire).tobytes() == [b"2"]
    assert (first.foreign, first.rejected) == (2, 0)
    assert (second.foreign, second.rejected) == (2, 0)


def test_window() -> None:
    opener = Opener("aes-256-gcm", KEY, window=100)
    wire = {
        counter: Sealer("aes-256-gcm", KEY, counter=counter).seal([b"%d" % counter]).tobytes()[0]
        for counter in (0, 1, 500, 401, 400, 600, 499, 501, 2**64 - 2)
    }
    assert opener.open([wire[1], wire[0], wire[1]]).tobytes() == [b"1", b"0"]
    assert opener.open([wire[500], wire[400], wire[401], wire[500]]).tobytes() == [b"500", b"401"]
    assert opener.open([wire[600], wire[499], wire[501]]).tobytes() == [b"600", b"501"]
    assert opener.replayed == 4
    assert opener.open([wire[2**64 - 2], wire[600]]).tobytes() == [b"%d" % (2**64 - 2)]


def test_counters_end() -> None:
    sealer = Sealer("aes-256-gcm", KEY, counter=2**64 - 4)
    with pytest.raises(OverflowError, match="4 packets need as many counters, and only 3 are left"):
        sealer.seal([b""] * 4)
    assert sealer.counter == 2**64 - 4
    assert [datagram[:8] for datagram in sealer.seal([b""] * 3).tobytes()] == [
        counter.to_bytes(8, "little") for counter in range(2**64 - 4, 2**64 - 1)
    ]
    for _ in range(2):
        with pytest.raises(OverflowError, match="only 0 are left"):
            sealer.seal([b""])
    assert sealer.counter == 2**64 - 1
    assert len(sealer.seal([])) == 0


# ---- Life --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_no_copies(copied: Callable[[object], object]) -> None:
    for thing in pair():
        with pytest.raises(TypeError, match="can't be copied or pickled"):
            copied(thing)


def test_close() -> None:
    sealer, opener = pair()
    datagrams = sealer.seal([b"packet"])
    packets = opener.open(sealer.seal([b"packet"]))
    for _ in range(2):
        sealer.close()
        opener.close()
    for call in (sealer.seal, opener.open):
        with pytest.raises(SessionClosed) as caught:
            call([b""])
        assert caught.value.reason == "closed"
    assert sealer.counter == 2
    assert opener.rejected == 0
    assert packets.tobytes() == [b"packet"]
    del sealer, opener
    gc.collect()
    assert len(datagrams.tobytes()[0]) == OVERHEAD + 6


def test_views_outlive_everything() -> None:
    sealer, _ = pair()
    batch = sealer.seal([b"packet"] * 3)
    kept = memoryview(batch[1])[:4]
    batch.release()
    del batch
    sealer.close()
    for _ in range(50):  # other datagrams use the chunk meanwhile
        pair()[0].seal([bytes(1000)] * 20).release()
    assert bytes(kept) == HEADER


def test_threads_never_share_a_counter() -> None:
    sealer, opener = pair()
    count, batches, size = 4, 50, 20

    def work(_: int) -> list[bytes]:
        wire = []
        for _ in range(batches):
            with sealer.seal([b"packet"] * size) as datagrams:
                wire += datagrams.tobytes()
        return wire

    with ThreadPoolExecutor(count) as pool:
        wire = [datagram for part in pool.map(work, range(count)) for datagram in part]
    assert len({datagram[4:12] for datagram in wire}) == len(wire) == count * batches * size
    assert sealer.counter == len(wire)
    with ThreadPoolExecutor(count) as pool:
        opened = sum(len(batch) for batch in pool.map(lambda _: opener.open(wire), range(count)))
    assert opened == len(wire)
    assert opener.replayed == (count - 1) * len(wire)


def test_close_while_threads_seal() -> None:
    sealer, _ = pair()
    started = threading.Barrier(5)

    def work(_: int) -> bool:
        started.wait()
        try:
            while True:
                sealer.seal([bytes(1400)] * 32)
        except SessionClosed:
            return True

    with ThreadPoolExecutor(4) as pool:
        results = pool.map(work, range(4))
        started.wait()
        sealer.close()
        assert all(results)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_child_never_seals() -> None:
    sealer, opener = pair()
    datagrams = sealer.seal([b"packet"])
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        results = []
        for call in (sealer.seal, opener.open):
            try:
                call([b""])
                results.append("done")
            except SessionClosed as error:
                results.append(error.reason)
        own = Sealer("aes-256-gcm", KEY, header=HEADER)  # with a key of its own it may
        results.append(str(own.seal([b"packet"]).tobytes() == datagrams.tobytes()))
        os.write(writer, " ".join(results).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        assert pipe.read() == b"forked forked True"
    assert os.waitpid(child, 0)[1] == 0
    assert opener.open(datagrams).tobytes() == [b"packet"]
