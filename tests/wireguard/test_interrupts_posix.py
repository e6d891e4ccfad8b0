"""Ctrl-C at any line of a change: it has happened whole or not at all."""

from __future__ import annotations

from lines import BEGIN
from running import check_script

SCRIPT = """
import linecache
import sys
import threading
import time
import tunring.testing
from tunring.wireguard import Device, Key

host, session = tunring.testing.pair()
device = Device(session, private_key=Key.generate())
stranger, old, new = (Key.generate() for _ in range(3))

inside = False

def press(_):
    # Where a block begins or ends, the trace shows a line at which Python delivers no signal.
    frame = sys._getframe()
    while "lines.py" in frame.f_code.co_filename or frame.f_code.co_name in ("press", "<lambda>"):
        frame = frame.f_back
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
    if inside and not line.lstrip().startswith(("with ", "try:")):
        raise KeyboardInterrupt

def interrupted(change):
    global inside
    try:
        inside = True
        change()
        inside = False
    except KeyboardInterrupt:
        inside = False
    other = threading.Thread(target=lambda: device.peers, daemon=True)
    other.start()
    other.join(5)
    assert not other.is_alive(), "the lock is held"
"""

END = """
device.close()
host.close()
session.close()
"""


def test_a_preshared_key_that_is_shown_is_the_one_used() -> None:
    out = check_script(f"""{BEGIN}{SCRIPT}
def make():
    for peer in device.peers:
        device.remove_peer(peer)
    peer = device.add_peer(stranger.public, allowed_ips=[], preshared_key=old)
    peer._state.remote_for(device._engine.identity)
    return peer

shown = set()
def change(peer):
    interrupted(lambda: setattr(peer, "preshared_key", new))
    used = bytes(peer._state.remote_for(device._engine.identity).preshared_key)
    assert used == peer.preshared_key.raw
    shown.add(used)

print(at_each_line(make, change, press))
assert shown == {{old.raw, new.raw}}
{END}""")
    assert int(out) > 20


def test_a_peer_is_added_whole_or_not_at_all() -> None:
    out = check_script(f"""{BEGIN}{SCRIPT}
def make():
    for peer in device.peers:
        device.remove_peer(peer)
    device.add_peer(new.public, allowed_ips=["10.0.0.2/32"])

def add(_):
    networks, endpoint = ["10.0.0.2/32"], ("127.0.0.1", 9)
    interrupted(lambda: device.add_peer(
        stranger.public, allowed_ips=networks, preshared_key=old, endpoint=endpoint))
    for peer in sorted(device.peers.values(), key=lambda peer: peer.public_key != stranger.public):
        if peer.public_key == stranger.public:
            assert [str(network) for network in peer.allowed_ips] == ["10.0.0.2/32"], peer.allowed_ips
            assert peer.preshared_key == old and peer.endpoint and peer._state in device._engine._pokes
            break
        # Nothing was taken from another one.
        assert [str(network) for network in peer.allowed_ips] == ["10.0.0.2/32"], peer.allowed_ips

print(at_each_line(make, add, press))
{END}""")
    assert int(out) > 40


def test_a_private_key_that_is_shown_is_the_one_used() -> None:
    out = check_script(f"""{BEGIN}{SCRIPT}
class Recording:
    let_in = [None]

    def __init__(self, core):
        self._core = core
        self.set_identity = lambda *keys: (core.set_identity(*keys), self.let_in.append(keys[0]))

    def __getattr__(self, name):
        return getattr(self._core, name)

device._engine.core = Recording(device._engine.core)
device.add_peer(stranger.public, allowed_ips=[])
shown = set()

def make():
    device.private_key = None
    device.private_key = old
    device._engine._pokes.clear()

def change(_):
    interrupted(lambda: setattr(device, "private_key", new))
    identity = device._engine.identity
    shown.add(device.private_key)
    if identity:
        assert device.private_key in (old, new)
        assert Recording.let_in[-1] == identity.mac1_key
    if device.private_key == new:
        assert device._engine._pokes
    device.private_key = new
    assert device.private_key == new

print(at_each_line(make, change, press))
assert shown == {{old, new, None}}
{END}""")
    assert int(out) > 20


def test_a_keepalive_that_is_shown_is_on_its_way() -> None:
    out = check_script(f"""{BEGIN}{SCRIPT}
peer = device.add_peer(stranger.public, allowed_ips=[])

def make():
    peer.persistent_keepalive = None
    device._engine._pokes.clear()

def change(_):
    interrupted(lambda: setattr(peer, "persistent_keepalive", 25))
    assert not peer.persistent_keepalive or device._engine._pokes

print(at_each_line(make, change, press))
{END}""")
    assert int(out) > 3


def test_the_port_that_is_shown_is_listened_at() -> None:
    out = check_script(f"""{BEGIN}{SCRIPT}
import socket

ports = set()

def make():
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as free:
        free.bind(("::", 0))
        return free.getsockname()[1]

def change(port):
    interrupted(lambda: setattr(device, "listen_port", port))
    assert device._core.socket is device._own_socket.udp
    assert not device._own_socket.udp.closed
    assert device._own_socket.udp.address[1] == device.listen_port
    ports.add(device.listen_port)

print(at_each_line(make, change, press))
assert len(ports) > 2
{END}""")
    assert int(out) > 20


#: Python's own start of a thread does not outlive Ctrl-C at each of its lines.
PRESS_IN_DEVICE = """
def press_in_device(_):
    frame = sys._getframe()
    while frame and "tunring/wireguard/device.py" not in frame.f_code.co_filename:
        if "threading.py" in frame.f_code.co_filename or frame.f_code.co_name == "__del__":
            return
        frame = frame.f_back
    if frame and not linecache.getline(frame.f_code.co_filename, frame.f_lineno).endswith("return self\\n"):
        press(_)

made = []

def make():
    while made:
        made.pop().close()
    made.extend(tunring.testing.pair(tunring.MIN_CAPACITY))
    made.append(Device(made[1], private_key=old))
    return made[-1]
"""


def test_a_start_that_was_interrupted_is_made_up_for() -> None:
    out = check_script(f"""{BEGIN}{SCRIPT}{PRESS_IN_DEVICE}
def start(device):
    interrupted(device.start)
    device.start()
    end = time.monotonic() + 10
    while len(device._working) < 3:
        assert time.monotonic() < end, device._working
        time.sleep(0.001)

print(at_each_line(make, start, press_in_device))
for each in (*made, device, host, session):
    each.close()
""")
    assert int(out) > 20


def test_a_device_whose_block_was_not_entered_is_closed() -> None:
    out = check_script(f"""{BEGIN}{SCRIPT}{PRESS_IN_DEVICE}
closed = set()

def enter(device):
    interrupted(device.__enter__)
    assert device.closed or all(thread.ident for thread in device._threads)
    closed.add(device.closed)

print(at_each_line(make, enter, press_in_device))
assert closed == {{True, False}}
for each in (*made, device, host, session):
    each.close()
""")
    assert int(out) > 20
