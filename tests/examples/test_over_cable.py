"""The cookbook's parts, over the cable; tests/linux runs the programs on real interfaces, as root."""

from __future__ import annotations

import argparse
import pkgutil
import re
import struct
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP
from scapy.utils import rdpcap

import tunring
import tunring.testing
from packets import packet
from running import NEVER, Threads, eventually, run_script
from tunring import examples
from tunring.examples import capture, count, icmp_echo
from tunring.examples import filter as filter_
from tunring.pcapng import Writer
from tunring.testing.checksum import checksum
from tunring.testing.responder import Responder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Pair = tuple[tunring.Session, tunring.Session]

# ---- icmp_echo


@given(st.integers(0, 65535), st.integers(0, 65535), st.binary(max_size=60), st.integers(0, 3))
def test_a_ping_becomes_its_answer(identifier: int, number: int, payload: bytes, words: int) -> None:
    options = b"\1\1\1\1" * words
    ping = bytes(IP(src="10.7.0.1", dst="10.7.0.2", options=options) / ICMP(id=identifier, seq=number) / payload)
    ours, theirs = bytearray(ping), bytearray(ping)
    assert icmp_echo.answer(memoryview(ours))
    assert Responder().respond(memoryview(theirs))
    # Zero has two forms in ones' complement, which are equivalent.
    at = 20 + 4 * words
    assert ours[:at] == theirs[:at]
    assert ours[at : at + 2] + ours[at + 4 :] == theirs[at : at + 2] + theirs[at + 4 :]
    assert checksum(ours[at:]) in (0, 0xFFFF)


@given(st.one_of(st.binary(min_size=20, max_size=80), st.binary(min_size=8, max_size=40).map(lambda x: b"E" + x * 3)))
def test_whatever_else_comes_is_left_alone(data: bytes) -> None:
    changed = bytearray(data)
    if not icmp_echo.answer(memoryview(changed)):
        assert changed == data


@pytest.mark.parametrize("changes", [{0: 0x65}, {0: 0x46}, {0: 0x44}, {6: 0x01}, {7: 1}, {9: 6}, {20: 0}, {20: 13}])
def test_what_is_no_ping_is_left_alone(changes: dict[int, int]) -> None:
    data = bytearray(bytes(IP(dst="10.7.0.2") / ICMP()))
    for at, value in changes.items():
        data[at] = value
    before = bytes(data)
    assert not icmp_echo.answer(memoryview(data))
    assert data == before


def test_pings_are_served(pair: Pair) -> None:
    with Threads() as threads:
        threads.start(icmp_echo.serve, pair[1])
        pair[0].send([bytes(IP(src="10.7.0.1", dst="10.7.0.2") / ICMP(seq=number)) for number in range(300)])
        answered: list[int] = []
        while len(answered) < 300:
            with pair[0].receive(timeout=NEVER) as batch:
                answered += [struct.unpack_from("!H", view, 26)[0] for view in batch]
        pair[1].close()
    assert answered == list(range(300))
    assert threads.results == [300]


# ---- count

PROTOCOLS = st.tuples(st.sampled_from([4, 6]), st.integers(0, 255), st.integers(40, 200))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PROTOCOLS, min_size=1, max_size=300))
def test_counts_are_those_of_each_packet(pair: Pair, kinds: list[tuple[int, int, int]]) -> None:
    packets: dict[int, int] = {}
    sizes: dict[int, int] = {}
    sent = []
    for version, protocol, size in kinds:
        data = bytearray(packet(size, version=version))
        data[9 if version == 4 else 6] = protocol
        sent.append(data)
        packets[protocol] = packets.get(protocol, 0) + 1
        sizes[protocol] = sizes.get(protocol, 0) + size
    pair[0].send(sent)
    counter = count.Counter()
    while counter.packets.sum() < len(sent):
        with pair[1].receive(100, timeout=NEVER) as batch:
            counter.add(batch)
    assert {protocol: n for protocol, n in enumerate(counter.packets.tolist()) if n} == packets
    assert {protocol: n for protocol, n in enumerate(counter.bytes.tolist()) if n} == sizes


def test_the_table_has_names_and_the_most_first(pair: Pair) -> None:
    counter = count.Counter()
    for protocol, size in ((17, 40), (6, 1000), (1, 500), (253, 20)):
        data = bytearray(packet(size))
        data[9] = protocol
        pair[0].send([data])
        with pair[1].receive(timeout=NEVER) as batch:
            counter.add(batch)
    rows = [line.split() for line in str(counter).splitlines()]
    assert rows[1:] == [["tcp", "1", "1,000"], ["icmp", "1", "500"], ["udp", "1", "40"], ["253", "1", "20"]]


def test_a_batch_that_is_larger_than_the_room(pair: Pair) -> None:
    counter = count.Counter()
    counter._room = counter._room[:30]
    pair[0].send([packet(100)] * 3)
    with pair[1].receive(timeout=NEVER) as batch:
        counter.add(batch)
    assert (counter.packets.sum(), counter.bytes.sum()) == (3, 300)


# ---- capture


def test_both_directions_are_captured(pair: Pair, tmp_path: Path) -> None:
    path = tmp_path / "pings.pcapng"
    with Threads() as threads, Writer(path) as writer:
        threads.start(capture.capture, pair[1], writer)
        pair[0].send([bytes(IP(src="10.7.0.1", dst="10.7.0.2") / ICMP(seq=number)) for number in range(5)])
        assert eventually(lambda: writer.packets == 10)
        pair[1].close()
        threads.join()
    found = rdpcap(str(path))
    assert sorted((each[ICMP].seq, each[ICMP].type) for each in found) == sorted(
        (number, kind) for number in range(5) for kind in (0, 8)
    )


# ---- filter


def headers(version: int, protocol: int, port: int, fragment: int, options: int) -> bytes:
    """A packet with ports, whose payload describes it."""
    ports = struct.pack("!HH", 7, port)
    if version == 6:
        return bytes([0x60, 0, 0, 0, 0, 4, protocol, 64]) + bytes(32) + ports
    return (
        struct.pack("!BBHHHBBH", 0x45 + options, 0, 24 + 4 * options, 1, fragment, 64, protocol, 0)
        + bytes(8 + 4 * options)
        + ports
    )


KINDS = st.tuples(
    st.sampled_from([4, 6]),
    st.sampled_from([1, 6, 17, 58]),
    st.sampled_from([0, 25, 53, 255, 256, 65535]),
    st.sampled_from([0, 1, 185, 0x2000, 0x2001, 0x4000]),
    st.integers(0, 10),
)
RULES = st.lists(st.tuples(st.sampled_from([1, 6, 17, 58]), st.sampled_from([None, 25, 53, 65535])), max_size=3)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(KINDS, min_size=1, max_size=50), RULES)
def test_rules_drop_what_they_say(
    pair: Pair, kinds: list[tuple[int, int, int, int, int]], rules: list[tuple[int, int | None]]
) -> None:
    expected = []
    for version, protocol, port, fragment, _ in kinds:
        has_port = version == 6 or fragment & 0x1FFF == 0
        expected.append(any(p == protocol and (n is None or (n == port and has_port)) for p, n in rules))
    pair[0].send([headers(*kind) for kind in kinds])
    seen: list[bool] = []
    while len(seen) < len(kinds):
        with pair[1].receive(timeout=NEVER) as batch:
            seen += filter_.dropped(batch, rules).tolist()
    assert seen == expected


def test_what_may_pass_passes_in_order(pair: Pair, make_pair: Callable[[], Pair]) -> None:
    other = make_pair()
    direction = filter_.Direction(pair[1], other[1], [filter_.rule("udp:53")])
    with Threads() as threads, other[0], other[1]:
        threads.start(direction.run)
        sent = [headers(4, 17, port, 0, 0) for port in (53, 54, 53, 53, 55, 56)]
        pair[0].send(sent)
        came: list[bytes] = []
        while len(came) < 3:
            with other[0].receive(timeout=NEVER) as batch:
                came += batch.tobytes()
        assert came == [sent[1], sent[4], sent[5]]
        other[1].close()
        pair[0].send(sent)  # it ends where it can't send any more
        threads.join()
        assert pair[1].closed
    assert (direction.passed, direction.dropped) == (6, 6)


@pytest.mark.parametrize("text", ["", "udp:", "udp:x", "udp:65536", "icmp:5", "sctp", "17", "tcp:-1", "tcp:²"])
def test_a_bad_rule_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=re.escape(repr(text))):
        filter_.rule(text)


def test_rules() -> None:
    assert [filter_.rule(text) for text in ("icmp", "udp", "tcp:25", "udp:65535")] == [
        (1, None),
        (17, None),
        (6, 25),
        (17, 65535),
    ]


# ---- What is missing, wrong or in the way


def test_without_a_package_the_error_says_what_to_install() -> None:
    example, package = "count", "numpy"
    done = run_script(f"import sys; sys.modules[{package!r}] = None\nimport tunring.examples.{example}")
    assert done.returncode == 1
    reason = f"this example needs {package}: pip install {package}"
    assert done.stderr.splitlines()[-1] == f"ImportError: {reason}"
    # As a program.
    run = f"import runpy; runpy.run_module('tunring.examples.{example}', run_name='__main__')"
    done = run_script(f"import sys; sys.modules[{package!r}] = None\n{run}")
    assert (done.returncode, done.stderr) == (1, f"tunring: {reason}\n")


def program(example: str, *arguments: str) -> tuple[int, str, str]:
    command = [sys.executable, "-W", "error", "-m", f"tunring.examples{example}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


def test_the_programs_are_listed() -> None:
    code, out, err = program("")
    assert (code, err) == (0, "")
    modules = {module.name for module in pkgutil.iter_modules(examples.__path__)}
    programs = {name for name in modules if not name.startswith("_")}
    assert examples.PROGRAMS.keys() == programs
    for name in programs:
        assert re.search(rf"^  python -m tunring\.examples\.{name}  +\w", out, re.MULTILINE)
        assert f"``{name}``" in (examples.__doc__ or "")
