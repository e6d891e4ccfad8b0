"""The part of WireGuard that is done per packet: two devices over loopback UDP, with keys installed by hand."""

from __future__ import annotations

import gc
import hashlib
import os
import pickle
import struct
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest

import tunring
from tunring import _core
from tunring.errors import NotFound, SessionClosed
from wireguard_joined import DEVICE, LEFT, RIGHT, Joined, data_message, eventually, ipv4

if TYPE_CHECKING:
    from collections.abc import Iterator

NEVER = 2**63 - 1


@pytest.fixture
def joined() -> Iterator[Joined]:
    result = Joined()
    yield result
    result.close()


def test_packets_cross_both_ways(joined: Joined) -> None:
    joined.install()
    joined.right.flags(DEVICE.CONFIRMED | DEVICE.ENDPOINT)  # by the keepalive that the initiator sends at once
    assert joined.to_left.endpoint == tunring.Endpoint(*joined.left.socket.address)
    there = [ipv4(LEFT, RIGHT, size) for size in (20, 21, 1400, 1420, 1420, 60)]
    back = [ipv4(RIGHT, LEFT, size) for size in (1420, 28)]
    joined.left.host.send(there)
    assert joined.right.receive(len(there)) == there
    joined.right.host.send(back)
    assert joined.left.receive(len(back)) == back
    # The keepalive has 32 bytes, and packets are padded.
    sizes = [32, *(32 + len(packet) + -len(packet) % 16 for packet in there)]
    assert eventually(lambda: joined.to_right.state().sent_bytes == sum(sizes))
    assert joined.to_left.state().received_bytes == sum(sizes)


def test_packets_wait_for_a_key_and_go_before_others(joined: Joined) -> None:
    packets = [ipv4(LEFT, RIGHT) for _ in range(200)]
    joined.left.host.send(packets)
    joined.left.flags(DEVICE.WANT_HANDSHAKE)
    joined.left.counted("staged_dropped", 200 - 128)
    assert joined.to_right.staged == 128
    joined.install()
    assert joined.right.receive(128) == packets[-128:]
    assert joined.to_right.staged == 0
    assert joined.left.device.stats()["staged_bytes"] == 0
    joined.left.host.send(packets[:3])
    assert joined.right.receive(3) == packets[:3]


def test_dropping_staged_packets_gives_their_memory_back(joined: Joined) -> None:
    joined.left.host.send([ipv4(LEFT, RIGHT)] * 5)
    joined.left.flags(DEVICE.WANT_HANDSHAKE)
    joined.to_right.drop_staged()
    assert joined.to_right.staged == 0
    assert joined.left.device.stats()["staged_bytes"] == 0


def test_the_responder_sends_under_a_new_key_only_once_it_is_confirmed(joined: Joined) -> None:
    joined.install()
    joined.right.flags(DEVICE.CONFIRMED)
    born = joined.to_left.state().current_born
    ours, theirs = joined.left.device.new_index(joined.to_right), joined.right.device.new_index(joined.to_left)
    joined.to_left.install(theirs, ours, bytes(32), bytes(31) + b"1", initiator=False)
    joined.right.host.send([ipv4(RIGHT, LEFT)])
    joined.left.receive()  # by the old key: the initiator has no other
    state = joined.to_left.state()
    assert state.has_next
    assert state.current_born == born < state.newest_born
    joined.to_right.install(ours, theirs, bytes(31) + b"1", bytes(32), initiator=True)
    joined.right.flags(DEVICE.CONFIRMED)
    assert not joined.to_left.state().has_next
    joined.right.host.send([ipv4(RIGHT, LEFT)])
    joined.left.receive()


def test_nothing_is_believed_before_it_is_authentic(joined: Joined) -> None:
    sent, _ = joined.install()
    joined.right.flags(DEVICE.CONFIRMED)
    index = joined.indices[1]
    packet = ipv4(LEFT, RIGHT)
    good = data_message(sent, index, 1000, packet)
    with tunring.UdpSocket.bind(("127.0.0.1", 0)) as stranger:
        to = joined.right.socket.address
        for at in (8, 15, 16, 60, len(good) - 1):  # counter, ciphertext, tag
            stranger.send([good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]], to)
        stranger.send([good[:4] + struct.pack("<I", index ^ 1) + good[8:], b"", b"\4\0\0\0", good[:31]], to)
        joined.right.counted("rejected", 5)
        joined.right.counted("unknown_index", 1)
        joined.right.counted("malformed", 3)
        assert joined.to_left.endpoint == tunring.Endpoint(*joined.left.socket.address)
        stranger.send([good, good], to)
        assert joined.right.receive() == [packet]
        joined.right.counted("replayed", 1)
        # The endpoint has followed, and what is older than the window does not move it back.
        assert joined.to_left.endpoint == tunring.Endpoint(*stranger.address)
        joined.left.socket.send([data_message(sent, index, 1000, packet)], to)
        joined.right.counted("replayed", 2)
        assert joined.to_left.endpoint == tunring.Endpoint(*stranger.address)
        joined.right.host.send([ipv4(RIGHT, LEFT)])
        with stranger.receive(timeout=10) as batch:
            assert struct.unpack_from("<I", batch[0])[0] == 4


def test_the_window_has_8128_counters(joined: Joined) -> None:
    sent, _ = joined.install()
    to, index, packet = joined.right.socket.address, joined.indices[1], ipv4(LEFT, RIGHT)
    counters = [20000, 20000 - 8127, 20000 - 8128, 19999]
    joined.left.socket.send([data_message(sent, index, counter, packet) for counter in counters], to)
    assert len(joined.right.receive(3)) == 3
    joined.right.counted("replayed", 1)


def test_a_key_s_last_counters_are_refused_before_they_move_the_window(joined: Joined) -> None:
    sent, _ = joined.install()
    to, index, packet = joined.right.socket.address, joined.indices[1], ipv4(LEFT, RIGHT)
    reject_after = 2**64 - 2**13 - 1
    late = [data_message(sent, index, counter, packet) for counter in (reject_after, reject_after + 1, 2**64 - 2)]
    joined.left.socket.send(late, to)
    joined.right.counted("rejected", len(late))
    joined.left.socket.send([data_message(sent, index, 100, packet)], to)
    joined.left.socket.send([data_message(sent, index, reject_after - 1, packet)], to)
    assert joined.right.receive(2) == [packet, packet]
    joined.right.device.set_limits(reject_messages=9)
    joined.to_left.wipe_keys()
    sent, _ = joined.install()
    index = joined.indices[1]
    joined.left.socket.send([data_message(sent, index, counter, packet) for counter in (9, 8)], to)
    assert joined.right.receive() == [packet]
    joined.right.counted("rejected", len(late) + 1)


def test_a_peer_sends_only_from_its_networks(joined: Joined) -> None:
    joined.install()
    allowed = ipv4(LEFT, RIGHT)
    joined.left.host.send([ipv4(bytes((10, 0, 0, 3)), RIGHT), ipv4(LEFT, bytes((10, 0, 0, 9))), allowed])
    assert joined.right.receive(1) == [allowed]
    joined.right.counted("wrong_source", 1)
    joined.left.counted("no_peer", 1)


def test_what_is_inside_must_be_a_whole_packet(joined: Joined) -> None:
    sent, _ = joined.install()
    packet = ipv4(LEFT, RIGHT, 100)
    longer = packet[:2] + struct.pack(">H", 4000) + packet[4:]
    inside = [b"\0" * 16, longer, packet[:16], packet + bytes(60)]
    messages = [data_message(sent, joined.indices[1], 10 + i, data) for i, data in enumerate(inside)]
    joined.left.socket.send(messages, joined.right.socket.address)
    assert joined.right.receive() == [packet]
    joined.right.counted("malformed", 3)


def test_padding_stops_at_the_mtu(joined: Joined) -> None:
    joined.install()
    with tunring.UdpSocket.bind(("127.0.0.1", 0)) as far:
        joined.to_right.endpoint = far.address  # type: ignore[assignment]
        sizes = []
        for mtu in (65535, 1420, 1421, 0):
            joined.left.device.set_mtu(mtu)
            joined.left.host.send([ipv4(LEFT, RIGHT, 1420)])
            with far.receive(timeout=10) as batch:
                sizes += list(batch.lengths)
    assert sizes == [1424 + 32, 1420 + 32, 1421 + 32, 1420 + 32]


def test_limits_of_a_key(joined: Joined) -> None:
    device = joined.left.device
    sent, _ = joined.install()
    device.set_limits(rekey_messages=1)
    joined.left.host.send([ipv4(LEFT, RIGHT)])
    joined.right.receive()
    joined.left.flags(DEVICE.WANT_HANDSHAKE)
    device.set_limits(rekey_messages=3, reject_messages=2)
    joined.left.host.send([ipv4(LEFT, RIGHT)])
    assert eventually(lambda: joined.to_right.staged == 1)
    assert not joined.to_right.send_keepalive()
    joined.right.device.set_limits(reject_after=0)
    joined.left.socket.send([data_message(sent, joined.indices[1], 9, ipv4(LEFT, RIGHT))], joined.right.socket.address)
    joined.right.counted("expired", 1)


def test_the_initiator_wants_a_handshake_when_data_comes_late(joined: Joined) -> None:
    joined.install()
    joined.right.flags(DEVICE.CONFIRMED)
    joined.left.device.set_limits(rekey_on_receive=0)
    joined.right.device.set_limits(rekey_after=0, rekey_on_receive=0)
    joined.right.host.send([ipv4(RIGHT, LEFT)])
    joined.left.flags(DEVICE.WANT_HANDSHAKE)
    _, events = joined.right.device.take(0)
    assert not any(flags & DEVICE.WANT_HANDSHAKE for _, flags in events)


def test_stamps_and_what_is_watched(joined: Joined) -> None:
    joined.install()
    joined.right.flags(DEVICE.CONFIRMED)
    now = _core.wireguard_now()
    joined.left.host.send([ipv4(LEFT, RIGHT)])
    joined.right.receive()
    joined.left.flags(DEVICE.ACTIVE)
    left, right = joined.to_right.state(), joined.to_left.state()
    assert now < left.unanswered_since == left.last_data_sent == left.last_sent
    assert left.unacknowledged_since == 0 == right.unanswered_since
    assert now < right.unacknowledged_since <= right.last_received
    assert joined.to_left.send_keepalive()
    assert eventually(lambda: not joined.to_right.state().unanswered_since)
    assert joined.to_left.state().unacknowledged_since == 0
    joined.left.device.take(0)
    joined.to_right.watch_until(_core.wireguard_now() + 5 * 10**9)
    joined.left.host.send([ipv4(LEFT, RIGHT)])
    joined.right.receive()
    assert joined.left.device.take(0.1) == ([], [])
    joined.to_right.watch_until(NEVER)
    joined.left.flags(DEVICE.ACTIVE)


def test_a_look_in_time_needs_no_other(joined: Joined) -> None:
    """Packets back and forth wake nobody while somebody looks within the times of their actions."""
    joined.install()
    joined.right.flags(DEVICE.CONFIRMED)
    now = _core.wireguard_now()
    for end, peer in ((joined.left, joined.to_right), (joined.right, joined.to_left)):
        peer.watch_until(now + 10 * 10**9)
        end.device.take(0)
    for _ in range(3):
        joined.left.host.send([ipv4(LEFT, RIGHT)])
        joined.right.receive()
        joined.right.host.send([ipv4(RIGHT, LEFT)])
        joined.left.receive()
    assert joined.left.device.take(0.1) == joined.right.device.take(0.1) == ([], [])


def test_networks_move_between_peers(joined: Joined) -> None:
    device = joined.left.device
    other = device.add_peer("other")
    six = bytes.fromhex("fd00") + bytes(14)
    other.set_allowed_ips([(six, 16), (RIGHT, 32), (bytes(4), 0)])
    assert joined.to_right.allowed_ips() == []
    assert other.allowed_ips() == [(bytes(4), 0), (RIGHT, 32), (six, 16)]
    joined.to_right.add_allowed_ip(RIGHT, 32)
    assert other.allowed_ips() == [(bytes(4), 0), (six, 16)]
    other.set_allowed_ips([(six, 16)])
    assert other.allowed_ips() == [(six, 16)]
    many = [(bytes((10, 1, i, 0)), 24) for i in range(100)]
    other.set_allowed_ips(many)
    assert other.allowed_ips() == many
    for wrong in ([(b"\n\0\0\1", 24)], [(b"\n\0\0", 8)], [(bytes(4), 33)]):
        with pytest.raises(ValueError, match=r"\w"):
            other.set_allowed_ips(wrong)
    assert other.allowed_ips() == many
    other.remove()
    with pytest.raises(SessionClosed):
        other.allowed_ips()


MAC1, COOKIE = hashlib.blake2s(b"mac1----" + bytes(32)).digest(), hashlib.blake2s(b"cookie--" + bytes(32)).digest()


def handshake(kind: int, size: int, index: int = 0, mac2: bytes = bytes(16)) -> bytes:
    body = struct.pack("<II", kind, 77) + struct.pack("<I", index) + os.urandom(size - 44)
    body += hashlib.blake2s(body, key=MAC1, digest_size=16).digest()
    return body + mac2


def test_handshake_messages_are_let_through_by_their_mac(joined: Joined) -> None:
    device, to = joined.right.device, joined.right.socket.address
    first = handshake(1, 148)
    joined.left.socket.send([first], to)
    joined.right.counted("wrong_mac", 1)  # it has no identity yet
    device.set_identity(MAC1, COOKIE)
    index = device.new_index(joined.to_left)
    response, stray = handshake(2, 92, index), handshake(2, 92, index ^ 1)
    cookie = struct.pack("<II", 3, index) + os.urandom(56)
    broken = first[:60] + bytes([first[60] ^ 1]) + first[61:]
    joined.left.socket.send([broken, stray, first + b"\0", first, response, cookie], to)
    got: list[Any] = []
    while len(got) < 3:
        got += device.take(10)[0]
    source = tunring.Endpoint(*joined.left.socket.address)
    assert got == [(first, source, None), (response, source, joined.to_left), (cookie, source, joined.to_left)]
    assert got[0][1].local == "127.0.0.1"
    joined.right.counted("wrong_mac", 2)
    joined.right.counted("unknown_index", 1)
    joined.right.counted("malformed", 1)
    device.free_index(index)
    joined.left.socket.send([response], to)
    joined.right.counted("unknown_index", 2)


def hchacha20(key: bytes, nonce: bytes) -> bytes:
    """By the Internet draft on XChaCha (draft-irtf-cfrg-xchacha, 2.2)."""
    x = list(struct.unpack("<16I", b"expand 32-byte k" + key + nonce))

    def half(a: int, b: int, c: int, d: int, one: int, other: int) -> None:
        x[a] = x[a] + x[b] & 0xFFFFFFFF
        x[d] = (x[d] ^ x[a]) << one & 0xFFFFFFFF | (x[d] ^ x[a]) >> 32 - one
        x[c] = x[c] + x[d] & 0xFFFFFFFF
        x[b] = (x[b] ^ x[c]) << other & 0xFFFFFFFF | (x[b] ^ x[c]) >> 32 - other

    for _ in range(10):
        for shift in (0, 1):
            for a in range(4):
                columns = a, 4 + (a + shift) % 4, 8 + (a + 2 * shift) % 4, 12 + (a + 3 * shift) % 4
                half(*columns, 16, 12)
                half(*columns, 8, 7)
    return struct.pack("<8I", *x[:4], *x[12:])


def open_cookie(reply: bytes, message: bytes) -> bytes:
    nonce, sealed = reply[8:32], reply[32:]
    key = hchacha20(COOKIE, nonce[:16])
    mac1 = message[-32:-16]
    cookie = _core.aead_message("chacha20-poly1305", key, bytes(4) + nonce[16:], mac1, sealed[:16], sealed[16:])
    assert cookie
    return cookie


def test_under_load_only_those_with_a_cookie_pass_and_not_too_many(joined: Joined) -> None:
    device, to, udp = joined.right.device, joined.right.socket.address, joined.left.socket
    joined.left.device.set_socket(None)  # the replies are for this test
    device.set_identity(MAC1, COOKIE)
    udp.send([handshake(1, 148) for _ in range(150)], to)
    assert eventually(lambda: device.stats()["cookies_sent"] == 150 - 128)
    assert device.stats()["under_load"]
    first = handshake(1, 148)
    udp.send([first], to)
    replies: list[bytes] = []
    while len(replies) < 150 - 128 + 1:
        with udp.receive(timeout=10) as batch:
            assert batch
            replies += batch.tobytes()
    assert {(len(reply), reply[:8]) for reply in replies} == {(64, struct.pack("<II", 3, 77))}
    cookie = open_cookie(replies[-1], first)
    messages = []
    for _ in range(100):
        body = handshake(1, 148)[:-16]
        messages.append(body + hashlib.blake2s(body, key=cookie, digest_size=16).digest())
    udp.send(messages, to)
    assert eventually(lambda: device.stats()["limited"] > 0)
    got: list[bytes] = []
    while taken := device.take(0.2)[0]:
        got += [data for data, _, _ in taken]
    assert len(got) == 128 + 100 - device.stats()["limited"] >= 128 + 5
    assert got[128:133] == messages[:5]


def test_waits_end(joined: Joined) -> None:
    device = joined.left.device
    assert device.take(0) == ([], [])
    assert device.take(0.01) == ([], [])
    threading.Timer(0.05, device.wake).start()
    assert device.take(10) == ([], [])
    threading.Timer(0.05, device.close).start()
    with pytest.raises(SessionClosed) as caught:
        device.take(10)
    assert caught.value.reason == "closed"
    for call in (lambda: device.take(0), device.add_peer, lambda: device.set_mtu(1), joined.to_right.allowed_ips):
        with pytest.raises(SessionClosed):
            call()
    assert joined.to_right.state().sent_bytes == 0
    joined.to_right.remove()
    device.close()


def test_the_session_s_end_is_the_device_s(joined: Joined) -> None:
    threading.Timer(0.05, joined.left.session.close).start()
    with pytest.raises(SessionClosed, match="the session is over"):
        joined.left.device.take(10)
    for thread in joined.left.threads:
        thread.join(10)
    assert joined.left.ended == ["closed", "closed"]
    assert joined.left.device.closed


def test_the_socket_changes_while_data_flows(joined: Joined) -> None:
    joined.install()
    for _ in range(5):
        with tunring.UdpSocket.bind(("127.0.0.1", 0)) as other:
            joined.left.device.set_socket(other)
            joined.left.host.send([ipv4(LEFT, RIGHT)])
            joined.right.receive()
            assert joined.to_left.endpoint == tunring.Endpoint(*other.address)
            joined.right.host.send([ipv4(RIGHT, LEFT)])
            joined.left.receive()
    before = joined.left.device.stats()["unsent"]
    joined.left.device.set_socket(None)
    joined.left.host.send([ipv4(LEFT, RIGHT)])
    joined.left.counted("unsent", before + 1)


def test_a_loop_takes_one_thread(joined: Joined) -> None:
    joined.install()
    joined.right.flags(DEVICE.CONFIRMED)
    joined.to_left.send_keepalive()
    joined.right.host.send([ipv4(RIGHT, LEFT)])
    joined.left.receive()  # both loops run
    for loop in (joined.left.device.run_incoming, joined.right.device.run_outgoing):
        with pytest.raises(RuntimeError):
            loop()


def test_wrong_arguments(joined: Joined) -> None:
    device, peer = joined.left.device, joined.to_right
    index = device.new_index(peer)
    for call in (
        lambda: peer.install(index, 1, b"short", bytes(32), initiator=True),
        lambda: device.set_identity(bytes(32), b""),
        lambda: device.set_mtu(-1),
        lambda: device.send_to(bytes(149), ("127.0.0.1", 1)),
        lambda: peer.send_handshake(b""),
        lambda: setattr(peer, "endpoint", ("127.0.0.1", 0)),
    ):
        with pytest.raises(ValueError, match=r"\w"):
            call()
    with pytest.raises(NotFound):
        peer.install(index ^ 1, 1, bytes(32), bytes(32), initiator=True)
    with pytest.raises(NotFound):
        device.add_peer().install(index, 1, bytes(32), bytes(32), initiator=True)
    for what in (device, peer):
        with pytest.raises(TypeError):
            pickle.dumps(what)
    with pytest.raises(TypeError):
        _core._WireGuardPeer()
    assert not peer.send_keepalive()
    assert not device.add_peer().send_handshake(b"x")


def test_keys_are_wiped_and_peers_removed(joined: Joined) -> None:
    joined.install()
    joined.to_right.wipe_keys()
    assert joined.to_right.state().current_born == 0
    joined.left.host.send([ipv4(LEFT, RIGHT)])
    joined.left.flags(DEVICE.WANT_HANDSHAKE)
    joined.to_right.remove()
    joined.left.host.send([ipv4(LEFT, RIGHT)])
    joined.left.counted("no_peer", 1)
    with pytest.raises(SessionClosed, match="removed"):
        joined.left.device.new_index(joined.to_right)
    assert joined.left.device.stats()["staged_bytes"] == 0


def test_a_child_process_can_do_nothing(joined: Joined) -> None:
    if not hasattr(os, "fork"):
        pytest.skip("no fork here")
    joined.install()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for call in (joined.to_right.send_keepalive, lambda: joined.left.device.take(0), joined.to_right.wipe_keys):
                try:
                    call()
                except SessionClosed as error:
                    assert error.reason == "forked"
                else:
                    raise AssertionError
            joined.left.device.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    joined.left.host.send([ipv4(LEFT, RIGHT)])
    joined.right.receive()


def test_devices_and_peers_go() -> None:
    joined = Joined()
    joined.install()
    gone = [weakref.ref(end.device) for end in (joined.left, joined.right)]
    joined.close()
    del joined
    gc.collect()
    assert [ref() for ref in gone] == [None, None]
