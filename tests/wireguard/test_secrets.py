"""A device's long-lived secrets: where they lie, when they are wiped, and that nothing of them is left elsewhere."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

import tunring
from memory import address_of, at, find, mappings
from running import SANITIZED, eventually
from tunring._core import Endpoint, Secret, wireguard_now
from tunring.errors import SessionClosed
from tunring.wireguard import Device, Key, _cookies, _noise
from tunring.wireguard._messages import CookieReply
from wireguard_ends import End

if TYPE_CHECKING:
    from tunring.wireguard import Peer

ZEROS = bytes(32)


def places(device: Device, peer: Peer) -> dict[str, int]:
    """The addresses of the device's secrets that concern a peer."""
    state: Any = peer._state
    found = {"private": address_of(device._engine.identity.private.secret)}  # type: ignore[union-attr]
    if state.preshared_key is not None:
        found["preshared"] = address_of(state.preshared_key)
    if state._remote:
        found["static-static"] = address_of(state._remote.static_static)
    if state.exchange._initiator:
        found["ephemeral"] = address_of(state.exchange._initiator._ephemeral.secret)
    return found


def with_everything(session: tunring.Session) -> tuple[Device, Peer, dict[str, int]]:
    """A device that waits for a response, and where its secrets lie."""
    device = Device(session, private_key=Key.generate())
    device.start()
    peer = device.add_peer(
        Key.generate().public, allowed_ips=[], endpoint=("127.0.0.1", 9), preshared_key=Key.generate()
    )
    peer.handshake()
    assert eventually(lambda: len(places(device, peer)) == 4)
    found = places(device, peer)
    assert ZEROS not in {at(address) for address in found.values()}
    return device, peer, found


def wiped(found: dict[str, int]) -> set[str]:
    return {name for name, address in found.items() if at(address) == ZEROS}


def test_they_lie_in_protected_memory(session: tunring.Session) -> None:
    device, _, found = with_everything(session)
    kept = [mapping for mapping in mappings() if mapping.keeps_secrets]
    for address in found.values():
        assert any(mapping.first <= address < mapping.end for mapping in kept)
    device.close()


@pytest.mark.skipif(SANITIZED, reason="the sanitizer's own mlock() does nothing, and succeeds")
def test_they_are_not_swapped_out(session: tunring.Session) -> None:
    if not Secret(b"any").protection["locked"]:
        pytest.skip("this process may lock no memory")
    device, _, _ = with_everything(session)
    # Droppable memory is glibc's, for random numbers.
    assert {"lo" in one.flags for one in mappings() if one.keeps_secrets and "dp" not in one.flags} == {True}
    device.close()


def test_closing_wipes_all(session: tunring.Session) -> None:
    device, peer, found = with_everything(session)
    public = device.public_key
    device.close()
    assert wiped(found) == set(found)
    assert device.public_key == public
    with pytest.raises(SessionClosed):
        device.private_key  # noqa: B018
    with pytest.raises(SessionClosed):
        device.private_key = Key.generate()
    with pytest.raises(SessionClosed):
        peer.preshared_key  # noqa: B018
    with pytest.raises(SessionClosed):
        peer.preshared_key = Key.generate()


def test_removing_a_peer_wipes_what_is_its(session: tunring.Session) -> None:
    device, peer, found = with_everything(session)
    key = device.private_key
    device.remove_peer(peer)
    assert wiped(found) == {"preshared", "static-static", "ephemeral"}
    with pytest.raises(SessionClosed):
        peer.preshared_key  # noqa: B018
    with pytest.raises(SessionClosed, match="the peer is removed"):
        peer.preshared_key = Key.generate()
    assert device.private_key == key
    device.close()


def test_a_cookie_for_a_removed_peer_is_wiped(session: tunring.Session) -> None:
    """The thread had taken the reply when the peer was removed."""
    device, peer, _ = with_everything(session)
    state: Any = peer._state
    cookies, cookie = state.exchange.cookies, bytes(range(16))
    nonce = bytes(24)
    sealed = _noise.xseal(_cookies.cookie_key(peer.public_key.raw), nonce, cookie, cookies._last_mac1)
    device.remove_peer(peer)
    device._engine._message(CookieReply(0, nonce, sealed).pack(), Endpoint("127.0.0.1", 9), state.core)
    assert cookies._last_mac1 is None
    assert cookies.current(wireguard_now()) is None
    device.close()


@pytest.mark.parametrize("new", [None, Key.generate()])
def test_another_private_key_wipes_the_old_one(session: tunring.Session, new: Key | None) -> None:
    device, peer, found = with_everything(session)
    preshared = peer.preshared_key
    # As a handshake has it that has not come to the lock yet.
    identity = device._engine.identity
    assert identity
    # The engine's thread must not make new secrets in their places.
    with device._engine.lock:
        device.private_key = new
        assert wiped(found) == {"private", "static-static", "ephemeral"}
    with pytest.raises(SessionClosed, match="it was wiped"):
        identity.private.exchange(bytes(32))
    assert device.private_key == new
    assert peer.preshared_key == preshared
    device.close()


def test_a_refused_private_key_is_wiped(session: tunring.Session) -> None:
    ours, theirs = Key.generate(), Key.generate()
    with Device(session, private_key=ours) as device:
        device.add_peer(theirs.public, allowed_ips=[])
        before = find_in_this_process(theirs)
        with pytest.raises(ValueError, match="its own peer"):
            device.private_key = theirs
        assert find_in_this_process(theirs) == before == 0
        assert device.private_key == ours
        assert find_in_this_process(ours) == 1


def find_in_this_process(key: Key) -> int:
    """How often it lies in memory for secrets."""
    return sum(
        at(mapping.first, mapping.end - mapping.first).count(key.raw) for mapping in mappings() if mapping.keeps_secrets
    )


def test_another_preshared_key_wipes_the_old_one(session: tunring.Session) -> None:
    with Device(session, private_key=Key.generate()) as device:
        first, second = Key.generate(), Key.generate()
        peer = device.add_peer(Key.generate().public, allowed_ips=[], preshared_key=first)
        assert (find_in_this_process(first), find_in_this_process(second)) == (1, 0)
        peer.preshared_key = second
        assert (find_in_this_process(first), find_in_this_process(second)) == (0, 1)
        assert peer.preshared_key == second
        peer.preshared_key = None
        assert (find_in_this_process(first), find_in_this_process(second)) == (0, 0)
        assert peer.preshared_key is None


def test_a_waiting_initiation_keeps_the_old_preshared_key(session: tunring.Session) -> None:
    device, peer, _ = with_everything(session)
    old, new = peer.preshared_key, Key.generate()
    assert old
    # Until it is given up, in which the engine's thread must not get ahead of us.
    with device._engine.lock:
        peer.preshared_key = new
        assert (find_in_this_process(old), find_in_this_process(new)) == (1, 1)
        peer._state.exchange.forget()
        assert (find_in_this_process(old), find_in_this_process(new)) == (0, 1)
    device.close()
    assert find_in_this_process(new) == 0


def test_a_handshake_begun_before_the_change_is_completed(stack: ExitStack) -> None:
    a, b = End(stack), End(stack)
    shared = Key.generate()
    at_a = a.add(b, "10.0.0.2", preshared_key=shared)
    at_b = b.add(a, "10.0.0.1", with_endpoint=False, preshared_key=shared)
    with a.device._engine.lock:
        at_a._state.timers.want(wireguard_now())
        a.device._engine._look(at_a._state)
        assert at_a._state.exchange.index is not None
        at_a.preshared_key = Key.generate()
    assert eventually(lambda: at_a.latest_handshake and at_b.latest_handshake)
    assert find_in_this_process(shared) == 1  # b's


_DEVICES = """
import sys
from tunring.wireguard import Device, Key
(first, one), (second, other) = (tunring.testing.pair() for _ in range(2))
ours, theirs, shared = (Key(line.strip()) for _, line in zip(range(3), sys.stdin))
def pause(word):
    print(word, flush=True)
    sys.stdin.readline()
pause("keys")
a, b = Device(one, private_key=ours), Device(other, private_key=theirs)
with a, b:
    at_b = b.add_peer(ours.public, allowed_ips=["10.0.0.1/32"], preshared_key=shared)
    at_a = a.add_peer(
        theirs.public, allowed_ips=["10.0.0.2/32"], endpoint=("127.0.0.1", b.listen_port), preshared_key=shared
    )
    first.send([bytes.fromhex("4500001400010000401100000a0000010a000002")])
    with second.receive(timeout=20) as batch:
        assert len(batch) == 1
    pause("open")
pause("closed")
for session in (first, one, second, other):
    session.close()
"""


def test_nothing_is_left_elsewhere() -> None:
    """Another process looks: then it can't be its own copies that it finds.

    Before there are devices, the private keys and the preshared one are in what this script has: base64 text, bytes,
    Keys. Devices must not add to that.
    """
    keys = [Key.generate() for _ in range(3)]
    ours, theirs, shared = keys
    public = X25519PublicKey.from_public_bytes(theirs.public.raw)
    static = X25519PrivateKey.from_private_bytes(ours.raw).exchange(public)
    needles = {"ours": ours.raw, "theirs": theirs.raw, "shared": shared.raw, "static-static": static}
    source = "import tunring, tunring.testing\n" + _DEVICES
    with subprocess.Popen([sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as script:
        assert script.stdin
        assert script.stdout

        def look(word: str) -> dict[str, tuple[int, int]]:
            assert script.stdin
            assert script.stdout
            assert script.stdout.readline().split() == [word.encode()]
            found = find(script.pid, needles)
            script.stdin.write(b"\n")
            script.stdin.flush()
            return found

        script.stdin.write(b"".join(key.base64.encode() + b"\n" for key in keys))
        script.stdin.flush()
        before, during, after = look("keys"), look("open"), look("closed")
    assert script.returncode == 0
    print(before, during, after, sep="\n")
    # Both devices have the last two.
    inside = {name: count for name, (count, _) in during.items()}
    assert inside == {"ours": 1, "theirs": 1, "shared": 2, "static-static": 2}
    assert {count for count, _ in (*before.values(), *after.values())} == {0}
    for name in needles:
        assert during[name][1] <= before[name][1], f"{name} was copied to other memory"
        assert after[name][1] <= before[name][1], f"{name} was copied to other memory"
    assert (before["static-static"], after["static-static"]) == ((0, 0), (0, 0))
