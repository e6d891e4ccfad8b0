"""Fuzzing of the parsers of files, requests and messages: a little here, for ten minutes each in `.ci/run full`."""

from __future__ import annotations

import io
import os
import time
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunring import testing
from tunring.wireguard import ConfigError, Device, Key, parse_config
from tunring.wireguard._control import answer
from tunring.wireguard._control_stream import read_request
from tunring.wireguard._messages import MessageError, parse_cookie_reply, parse_initiation, parse_response

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Each is fuzzed for that long, and at least once.
SECONDS = float(os.environ.get("TUNRING_FUZZ_SECONDS", "0"))

SECRET = Key(bytes(range(32)))
KEYS = [Key(bytes([number]) * 32).public for number in (1, 2, 3)]


def for_a_while(examples: Callable[[], None]) -> int:
    """Run a test by hypothesis again and again. Returns how often."""
    until, rounds = time.monotonic() + SECONDS, 0
    while rounds == 0 or time.monotonic() < until:
        examples()
        rounds += 1
    return rounds


def mutated(text: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Such texts, and those with something put in or taken out anywhere."""

    @st.composite
    def change(draw: st.DrawFn) -> str:
        drawn = draw(text)
        for _ in range(draw(st.integers(1, 3))):
            at, length = draw(st.integers(0, len(drawn))), draw(st.integers(0, 4))
            drawn = drawn[:at] + draw(st.text(max_size=3)) + drawn[at + length :]
        return drawn

    return text | change()


# ---- Files

_ADDRESSES = ["10.0.0.1/24", "fd00::1/64", "0.0.0.0/0", "::/0", "10.0.0.1", "10.0.0.0/33", "::ffff:1.2.3.4/96", "", "x"]
_FILE_VALUES = st.one_of(
    st.sampled_from([SECRET.base64, *(key.base64 for key in KEYS), "0" * 43 + "=", "true", "off", "auto", "0x10"]),
    st.lists(st.sampled_from(_ADDRESSES), max_size=4).map(", ".join),
    st.sampled_from(["[2001:db8::1]:51820", "192.0.2.1:1", "a.example:65535", "host:0", "[::1", ":1", "51820"]),
    st.integers(-1, 1 << 33).map(str),
    st.text(max_size=12),
)
_FILE_NAMES = (
    "PrivateKey ListenPort FwMark Address DNS MTU Table PreUp PostUp PreDown PostDown SaveConfig "
    "PublicKey PresharedKey AllowedIPs Endpoint PersistentKeepalive Unknown"
).split()
_FILE_LINES = st.one_of(
    st.sampled_from(["[Interface]", "[Peer]", "[peer]", "[", "# comment", "", "="]),
    st.tuples(st.sampled_from(_FILE_NAMES), _FILE_VALUES).map(" = ".join),
)


def test_files() -> None:
    @given(mutated(st.lists(_FILE_LINES, max_size=20).map("\n".join)))
    def examples(text: str) -> None:
        try:
            config = parse_config(text)
        except ConfigError as error:
            assert 1 <= error.line <= len(text.splitlines())
            assert SECRET.base64 not in str(error)
        else:
            # Commands are shown as they are.
            assert SECRET.base64 not in repr(replace(config, pre_up=(), post_up=(), pre_down=(), post_down=()))
            assert parse_config(config.to_text()) == config

    print(for_a_while(examples))


# ---- The control socket

_REQUEST_VALUES = st.one_of(
    st.sampled_from([SECRET.hex, *(key.hex for key in KEYS), "0" * 64, "true", "false", "1"]),
    st.sampled_from(["10.0.0.0/8", "-10.0.0.0/8", "fd00::/64", "-fd00::/64", "0.0.0.0/0", "10.0.0.0/99"]),
    st.sampled_from(["[2001:db8::1]:51820", "192.0.2.1:1", "127.0.0.1:0", "[fe80::1%lo]:5", "[fe80::1%999]:5"]),
    st.integers(-1, 1 << 33).map(str),
    st.text(max_size=12),
)
_REQUEST_NAMES = (
    "private_key fwmark replace_peers public_key remove update_only preshared_key endpoint "
    "persistent_keepalive_interval replace_allowed_ips allowed_ip protocol_version unknown"
).split()
#: Ports are left alone: they are the machine's.
_REQUEST_LINES = st.tuples(st.sampled_from(_REQUEST_NAMES), _REQUEST_VALUES).map("=".join)
_PEERS = st.lists(
    st.tuples(st.sampled_from(KEYS), st.lists(_REQUEST_LINES, max_size=4)).map(
        lambda peer: [f"public_key={peer[0].hex}", *peer[1]]
    ),
    max_size=3,
).map(lambda peers: [line for peer in peers for line in peer])
_REQUESTS = st.one_of(
    _PEERS.map(lambda lines: ["set=1", *lines]),
    st.lists(_REQUEST_LINES, max_size=8).map(lambda lines: ["set=1", *lines]),
    st.lists(st.text(max_size=20), max_size=3),
)


@pytest.fixture
def device() -> Iterator[Device]:
    with ExitStack() as stack:
        host, session = testing.pair()
        stack.enter_context(host)
        stack.enter_context(session)
        # It is not started, so that nothing is sent and no counter moves.
        device = Device(session, private_key=None)
        stack.callback(device.close)
        yield device


def test_requests(device: Device) -> None:
    def shown() -> list[str]:
        said = answer(device, ["get=1"])
        assert said.endswith("\nerrno=0\n\n")
        return said.splitlines()[:-2]

    @given(_REQUESTS)
    def examples(request: list[str]) -> None:
        said = answer(device, request)
        assert said.endswith("\n\n")
        [last] = [line for line in said.splitlines() if line.startswith("errno=")]
        assert int(last.removeprefix("errno=")) <= 0
        # Lines that are shown can be set again, and change nothing.
        before = shown()
        told = [line for line in before if line.partition("=")[0] in {*_REQUEST_NAMES}]
        again = [line for line in told if "%" not in line]
        assert answer(device, ["set=1", *again]) == "errno=0\n\n"
        assert shown() == before

    print(for_a_while(examples))


def test_what_a_client_sends() -> None:
    pieces = st.sampled_from([b"set=1", b"get=1", b"\n", b"\n\n", b"\r", b"\0", b"\xff", b"fwmark=1"])

    @given(st.lists(pieces | st.binary(max_size=8), max_size=20).map(b"".join))
    def examples(data: bytes) -> None:
        lines = io.BytesIO(data)
        try:
            while (request := read_request(lines)) is not None:
                assert request
                assert all(line and "\n" not in line for line in request)
        except ValueError as error:
            assert any(byte > 127 for byte in data), error
        else:
            assert not lines.read(1)

    print(for_a_while(examples))


# ---- Messages of handshakes


def test_messages() -> None:
    sizes = st.sampled_from([148, 92, 64, 147, 149, 0, 3, 4])
    kinds = st.sampled_from([b"\1\0\0\0", b"\2\0\0\0", b"\3\0\0\0", b"\4\0\0\0", b"\1\0\0\1", b""])
    messages = st.tuples(kinds, sizes, st.randoms(use_true_random=False)).map(
        lambda parts: (parts[0] + parts[2].randbytes(150))[: parts[1]]
    )

    @given(messages | st.binary(max_size=160))
    def examples(data: bytes) -> None:
        taken = 0
        for kind, size, parse in ((1, 148, parse_initiation), (2, 92, parse_response), (3, 64, parse_cookie_reply)):
            right = len(data) == size and data[:4] == bytes([kind, 0, 0, 0])
            try:
                parsed = parse(data)
            except MessageError:
                assert not right
            else:
                assert right
                assert data.startswith(parsed.pack())
                taken += 1
        assert taken <= 1

    print(for_a_while(examples))
