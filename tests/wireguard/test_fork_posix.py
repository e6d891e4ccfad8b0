"""A child that is forked while another thread works for a device."""

from __future__ import annotations

from forks import BEGIN
from running import check_script


def test_a_child_makes_stamps_of_its_own() -> None:
    """The lock of the process's stamps may be another thread's at the fork."""
    check_script(
        BEGIN
        + """
from tunring.wireguard._tai64n import STAMPS
inside, go_on = threading.Event(), threading.Event()
clock = STAMPS._clock
def slow():
    inside.set()
    go_on.wait()
    return clock()
STAMPS._clock = slow
thread = threading.Thread(target=STAMPS.next, args=[bytes(32)], daemon=True)
thread.start()
inside.wait()
STAMPS._clock = clock
child(lambda: STAMPS.next(bytes(32)))
go_on.set()
thread.join()
left.close(); right.close()
"""
    )


def test_a_child_that_closes_a_device_waits_for_nobody() -> None:
    check_script(
        BEGIN
        + """
from tunring.wireguard import Device, Key
with Device(left, private_key=Key.generate()) as device:
    def close():
        began = time.monotonic()
        device.close()
        assert device.closed and device.wait(0)
        assert time.monotonic() - began < 3, "it waits for its parent's threads"
    child(close)
    assert not device.closed
left.close(); right.close()
"""
    )


def test_devices_import_nothing() -> None:
    """In a child that was forked while another thread imported a module, CPython waits for that module without end."""
    out = check_script("""
import sys
from tunring.wireguard import Device, Key
left, right = tunring.testing.pair()
before = set(sys.modules)
with left, right, Device(left, private_key=Key.generate()) as device:
    device.add_peer(Key.generate().public, allowed_ips=["10.0.0.0/8"], endpoint=("127.0.0.1", 9))
    right.send([packet()])
    device.listen_port = 0
    device.private_key = Key.generate()
print(*sorted(set(sys.modules) - before))
""")
    assert out.split() == []


def test_a_child_has_none_of_a_devices_secrets() -> None:
    check_script(
        BEGIN
        + """
from tunring._core import Secret
from tunring.wireguard import Device, Key
ours, theirs, shared = (Key.generate() for _ in range(3))
with Device(left, private_key=ours) as device:
    peer = device.add_peer(theirs.public, allowed_ips=[], preshared_key=shared)
    secret = device._engine.identity.private.secret
    views = [memoryview(secret), memoryview(peer._state.preshared_key)]
    def look():
        for call in (
            lambda: device.private_key, lambda: setattr(device, "private_key", Key.generate()),
            lambda: setattr(device, "private_key", None), lambda: setattr(device, "private_key", ours),
            lambda: peer.preshared_key, lambda: setattr(peer, "preshared_key", shared),
            lambda: bytes(secret), lambda: Secret(secret), lambda: secret == Secret(ours.raw),
            lambda: peer._state.remote_for(device._engine.identity),
        ):
            forked(call)
        assert secret.wiped
        if secret.protection["empty_in_child"]:
            assert [bytes(view) for view in views] == [bytes(32)] * 2
        secret.wipe()
        device.close()
        for view in views:
            view.release()
        own = Secret(theirs.raw)
        assert bytes(own) == theirs.raw
    child(look)
    assert [bytes(view) for view in views] == [ours.raw, shared.raw]
    for view in views:
        view.release()
    assert (device.private_key, peer.preshared_key) == (ours, shared)
left.close(); right.close()
"""
    )


def test_keys_outlive_a_fork_until_there_is_a_device() -> None:
    """A file is read before the command goes to the background."""
    check_script(
        BEGIN
        + """
from tunring.wireguard import Device, Key, parse_config
config = parse_config("[Interface]\\nPrivateKey = AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHk8=")
def use():
    session, host = tunring.testing.pair()
    with session, host, Device(session, private_key=config.private_key) as device:
        assert device.private_key == config.private_key
        assert device.public_key == config.private_key.public
child(use)
left.close(); right.close()
"""
    )
