"""Ctrl-C at any line of a change that takes a privilege; tests/wireguard/test_interrupts_posix.py has the others."""

from __future__ import annotations

import pytest

from lines import BEGIN
from running import check_script


@pytest.mark.root
def test_a_mark_that_is_shown_is_the_one_used() -> None:
    out = check_script(f"""{BEGIN}
import tunring.testing
from tunring.wireguard import Device

host, session = tunring.testing.pair()
device = Device(session, private_key=None)
inside = False
shown = set()

def press(_):
    if inside:
        raise KeyboardInterrupt

def make():
    device.mark = None

def change(_):
    global inside
    try:
        inside = True
        device.mark = 7
        inside = False
    except KeyboardInterrupt:
        inside = False
    shown.add(device.mark)
    assert device._own_socket.udp._mark == (device.mark or 0)

print(at_each_line(make, change, press))
assert shown == {{None, 7}}
device.close()
host.close()
session.close()
""")
    assert int(out) > 8
