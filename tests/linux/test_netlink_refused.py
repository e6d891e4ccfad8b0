"""Calls are refused by seccomp filters: netlink sockets, as by systemd's RestrictAddressFamilies=, and events."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from netns import Namespace

pytestmark = pytest.mark.root

#: socket(AF_NETLINK, ...) fails with this number from here on, whatever else is asked for.
REFUSE = """
import ctypes, errno, os, struct, tunring
AF_NETLINK, LOAD, EQUALS, RETURN, ALLOW, FAIL = 16, 0x20, 0x15, 6, 0x7FFF0000, 0x50000
socket_call = {{"x86_64": 41, "aarch64": 198}}[os.uname().machine]
code = [(LOAD, 0, 0, 0), (EQUALS, 0, 3, socket_call), (LOAD, 0, 0, 16), (EQUALS, 0, 1, AF_NETLINK)]
code += [(RETURN, 0, 0, FAIL | {number}), (RETURN, 0, 0, ALLOW)]
program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in code))
def refuse():
    libc = ctypes.CDLL(None)
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.prctl(22, 2, struct.pack("HxxxxxxP", len(code), ctypes.addressof(program)), 0, 0) == 0
def show(call):
    try:
        call()
    except OSError as error:
        print(error.errno, type(error).__name__, *error.strerror.splitlines(), sep="; ")
"""

CREATE = "refuse(); show(lambda: tunring.Adapter.create('tun0'))"
CONFIGURE = "a = tunring.Adapter.create('tun0'); refuse(); show(lambda: a.configure(['10.9.0.1/24'])); a.close()"


@pytest.mark.parametrize("script", [CREATE, CONFIGURE], ids=["create", "configure"])
@pytest.mark.parametrize(("number", "words"), [(97, "Address family not supported"), (1, "Operation not permitted")])
def test_what_the_system_says_is_kept(namespace: Namespace, script: str, number: int, words: str) -> None:
    program = REFUSE.format(number=number) + script
    printed = namespace.run(sys.executable, "-W", "ignore::ResourceWarning", "-c", program)
    assert printed.startswith(f"{number}; ")
    assert words in printed
    assert "RestrictAddressFamilies= have AF_NETLINK" in printed


@pytest.mark.parametrize(
    ("call", "numbers"),
    [("eventfd", {"x86_64": 290, "aarch64": 19}), ("epoll_create1", {"x86_64": 291, "aarch64": 20})],
)
def test_a_refused_event_is_named(namespace: Namespace, call: str, numbers: dict[str, int]) -> None:
    number = numbers[os.uname().machine]
    program = REFUSE.format(number=1) + (
        f"code = [(LOAD, 0, 0, 0), (EQUALS, 0, 1, {number}), (RETURN, 0, 0, FAIL | 1), (RETURN, 0, 0, ALLOW)]\n"
        'program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in code))\n'
        "a = tunring.Adapter.create('tun0'); refuse(); show(a.start_session); a.close()"
    )
    printed = namespace.run(sys.executable, "-W", "ignore::ResourceWarning", "-c", program)
    assert f"by {call}() failed" in printed
