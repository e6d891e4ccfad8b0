"""A signal handler closes a device, whatever the main thread is in the middle of."""

from __future__ import annotations

import pytest

from lines import BEGIN
from running import check_script

SCRIPT = """
import contextlib
from tunring.wireguard import Device, Key

key = Key.generate()
ends = []

def make(started):
    while ends:
        ends.pop().close()
    host, session = tunring.testing.pair(tunring.MIN_CAPACITY)
    device = Device(session, private_key=key)
    if started:
        device.start()
    ends.extend([host, session, device])
    return device

def set_port(device):
    device.listen_port = 0

def perform(device):
    with contextlib.suppress(tunring.SessionClosed):
        {operation}(device)

def close(device):
    device.close()
    assert device.closed and device.wait(0)

print(at_each_line(lambda: make({started}), perform, close))
make(False).close()
"""


@pytest.mark.parametrize(
    ("operation", "started"),
    [
        ("(lambda device: device.wait(0.001))", True),
        ("Device.start", False),
        ("Device.close", True),
        ("set_port", True),
    ],
)
def test_close_at_each_line(operation: str, started: bool) -> None:
    assert int(check_script(BEGIN + SCRIPT.format(operation=operation, started=started))) > 3
