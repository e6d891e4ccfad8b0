"""The cross-platform protocol: what wg asks and changes, what is refused, and the socket it comes by."""

from __future__ import annotations

import errno
import socket
import sys
import threading
import time
from contextlib import ExitStack, suppress
from ipaddress import IPv4Network
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import tunring
from running import Threads, eventually
from tunring import testing
from tunring.errors import SessionClosed
from tunring.wireguard import Device, Key, Peer
from tunring.wireguard._control import Change, ControlError, answer, describe, parse_set

if TYPE_CHECKING:
    from collections.abc import Iterator

PRIVATE, OTHER, THIRD = (Key(bytes([number]) * 32) for number in (1, 2, 3))
SECRET = Key(bytes(range(32)))


@pytest.fixture
def device() -> Iterator[Device]:
    with ExitStack() as stack:
        host, session = testing.pair()
        stack.enter_context(host)
        stack.enter_context(session)
        yield stack.enter_context(Device(session, private_key=None))


def told(device: Device, *lines: str) -> int:
    """Return the answer to a set request, as an error number."""
    said = answer(device, ["set=1", *lines])
    assert said.startswith("errno=")
    assert said.endswith("\n\n")
    return -int(said.removeprefix("errno="))


def shown(device: Device) -> list[str]:
    said = answer(device, ["get=1"])
    assert said.endswith("\nerrno=0\n\n")
    return said.splitlines()[:-2]


def test_a_device_without_anything(device: Device) -> None:
    assert shown(device) == [f"listen_port={device.listen_port}"]


def test_everything_is_set_and_shown(device: Device) -> None:
    port = device.listen_port
    lines = [
        f"private_key={PRIVATE.hex}",
        "fwmark=0",
        "replace_peers=true",
        f"public_key={OTHER.public.hex}",
        "protocol_version=1",
        f"preshared_key={SECRET.hex}",
        "endpoint=[2001:db8::1]:51820",
        "persistent_keepalive_interval=25",
        "replace_allowed_ips=true",
        "allowed_ip=10.0.0.0/8",
        "allowed_ip=fd00::7/64",
        f"public_key={THIRD.public.hex}",
        "endpoint=192.0.2.1:1",
    ]
    assert told(device, *lines) == 0
    said = shown(device)  # once: a keepalive may ask for a handshake at any moment, which counts
    assert said == [
        f"private_key={Key.from_hex(PRIVATE.hex).hex}",
        f"listen_port={port}",
        f"public_key={OTHER.public.hex}",
        f"preshared_key={SECRET.hex}",
        "protocol_version=1",
        "endpoint=[2001:db8::1]:51820",
        "last_handshake_time_sec=0",
        "last_handshake_time_nsec=0",
        *[line for line in said if line.startswith("tx_bytes")][:1],
        "rx_bytes=0",
        "persistent_keepalive_interval=25",
        "allowed_ip=10.0.0.0/8",
        "allowed_ip=fd00::/64",
        f"public_key={THIRD.public.hex}",
        f"preshared_key={'0' * 64}",
        "protocol_version=1",
        "endpoint=192.0.2.1:1",
        "last_handshake_time_sec=0",
        "last_handshake_time_nsec=0",
        "tx_bytes=0",
        "rx_bytes=0",
        "persistent_keepalive_interval=0",
    ]


def test_peers_are_changed_and_removed(device: Device) -> None:
    other, third = f"public_key={OTHER.public.hex}", f"public_key={THIRD.public.hex}"
    assert told(device, other, "allowed_ip=10.0.0.0/8", third, "allowed_ip=10.1.0.0/16") == 0
    peer = device.peers[OTHER.public]
    assert told(device, other, "allowed_ip=10.1.0.0/16", "preshared_key=" + SECRET.hex) == 0
    assert {str(network) for network in peer.allowed_ips} == {"10.0.0.0/8", "10.1.0.0/16"}
    assert device.peers[THIRD.public].allowed_ips == ()
    assert told(device, other, "allowed_ip=-10.0.0.0/8", "preshared_key=" + "0" * 64) == 0
    assert [str(network) for network in peer.allowed_ips] == ["10.1.0.0/16"]
    assert peer.preshared_key is None
    assert told(device, other, "replace_allowed_ips=true") == 0
    assert peer.allowed_ips == ()
    assert told(device, third, "remove=true") == 0
    assert told(device, third, "remove=true") == 0
    assert told(device, third, "update_only=true", "allowed_ip=10.0.0.0/8") == 0
    assert list(device.peers) == [OTHER.public]
    # Replacing everything leaves a peer that stays its sessions, but none of its settings.
    assert told(device, other, "allowed_ip=10.9.0.0/16", "persistent_keepalive_interval=9") == 0
    assert told(device, "replace_peers=true", other, third) == 0
    assert device.peers[OTHER.public] is peer
    assert (peer.allowed_ips, peer.persistent_keepalive) == ((), None)
    assert told(device, "replace_peers=true") == 0
    assert device.peers == {}


def test_a_peer_twice_in_one_request(device: Device) -> None:
    """As `wg setconf` sends two sections of one peer: the second one changes what the first has set."""
    other = f"public_key={OTHER.public.hex}"
    assert told(device, other, "allowed_ip=10.9.0.0/16") == 0
    for _ in range(2):
        lines = [other, f"preshared_key={SECRET.hex}", "persistent_keepalive_interval=9", "allowed_ip=10.0.0.0/8"]
        assert told(device, "replace_peers=true", *lines, other, "endpoint=192.0.2.1:1", "allowed_ip=10.1.0.0/16") == 0
        [peer] = device.peers.values()
        assert (peer.preshared_key, peer.persistent_keepalive) == (SECRET, 9)
        assert peer.endpoint == tunring.Endpoint("192.0.2.1", 1)
        # The networks from before the request are gone.
        assert {str(network) for network in peer.allowed_ips} == {"10.0.0.0/8", "10.1.0.0/16"}
    lines.append("replace_allowed_ips=true")
    assert told(device, "replace_peers=true", *lines, other, "replace_allowed_ips=true", "allowed_ip=10.1.0.0/16") == 0
    assert [str(network) for network in peer.allowed_ips] == ["10.1.0.0/16"]


def test_the_zone_of_a_link_local_endpoint(device: Device) -> None:
    peer = f"public_key={OTHER.public.hex}"
    for zone in ("1", socket.if_indextoname(1)):
        assert told(device, peer, "remove=true", peer, f"endpoint=[fe80::99%{zone}]:51820") == 0
        assert device.peers[OTHER.public].endpoint == tunring.Endpoint("fe80::99", 51820, interface=1)
        assert "endpoint=[fe80::99%1]:51820" in shown(device)


def test_nobody_is_their_own_peer(device: Device) -> None:
    own = f"public_key={PRIVATE.public.hex}"
    assert told(device, own) == 0
    assert told(device, f"private_key={PRIVATE.hex}") == 0
    assert device.peers == {}
    assert told(device, own, "allowed_ip=10.0.0.0/8") == 0
    assert device.peers == {}
    assert told(device, f"private_key={'0' * 64}") == 0
    assert device.private_key is None


@pytest.mark.parametrize(
    "lines",
    [
        ["private_key=00"],
        ["listen_port=65536"],
        ["listen_port="],
        ["listen_port=\N{SUPERSCRIPT TWO}"],
        ["fwmark=0x10"],
        ["fwmark=4294967296"],
        ["replace_peers=false"],
        ["allowed_ip=10.0.0.0/8"],
        ["public_key=" + "g" * 64],
        ["nothing"],
        [""],
        *(
            [f"public_key={OTHER.public.hex}", line]
            for line in (
                "private_key=" + "0" * 64,
                "remove=1",
                "protocol_version=2",
                "endpoint=192.0.2.1",
                "endpoint=192.0.2.1:0",
                "endpoint=192.0.2.256:1",
                "endpoint=2001:db8::1:1",
                "endpoint=[2001:db8::g]:1",
                "endpoint=[fe80::1%nothere]:1",
                "endpoint=[fe80::1%4294967296]:1",
                f"endpoint=[fe80::1%{1 << 64}]:1",
                "endpoint=[2001:db8::1%1]:1",
                "endpoint=example.org:1",
                "persistent_keepalive_interval=65536",
                "persistent_keepalive_interval=off",
                "allowed_ip=10.0.0.0/33",
                "allowed_ip=",
            )
        ),
    ],
)
def test_mistakes_change_nothing(device: Device, lines: list[str]) -> None:
    before = shown(device)
    assert told(device, f"private_key={PRIVATE.hex}", *lines) == errno.EINVAL
    assert shown(device) == before


def test_what_is_no_request(device: Device) -> None:
    for request in ([], ["get=2"], ["set=1 "], ["get=1", "set=1"]):
        assert answer(device, request) == f"errno={-errno.EINVAL}\n\n"


def test_a_port_that_is_taken(device: Device) -> None:
    with tunring.UdpSocket.bind(("0.0.0.0", 0)) as taken:
        assert told(device, f"listen_port={taken.address[1]}") == errno.EADDRINUSE


def test_two_clients_add_the_same_peer(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2)
    add = device.add_peer

    def add_together(*arguments: Any, **options: Any) -> Any:
        # Whoever is alone here goes on after a while.
        with suppress(threading.BrokenBarrierError):
            both.wait(0.5)
        return add(*arguments, **options)

    monkeypatch.setattr(device, "add_peer", add_together)
    with Threads() as threads:
        for number in (1, 2):
            threads.start(told, device, f"public_key={OTHER.public.hex}", f"allowed_ip=10.{number}.0.0/16")
    assert threads.results == [0, 0]
    [peer] = device.peers.values()
    assert {str(network) for network in peer.allowed_ips} == {"10.1.0.0/16", "10.2.0.0/16"}


class SlowRemoval:
    """Removing a peer of a device takes until :attr:`go_on` is set."""

    def __init__(self, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
        self.began, self.go_on = threading.Event(), threading.Event()
        self._remove = device.remove_peer
        monkeypatch.setattr(device, "remove_peer", self._slowly)

    def _slowly(self, key: Any) -> None:
        self.began.set()
        self.go_on.wait(20)
        self._remove(key)


def test_an_answer_waits_for_the_request_before(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    device.add_peer(OTHER.public, allowed_ips=[])
    removal = SlowRemoval(device, monkeypatch)
    with Threads() as threads:
        threads.start(told, device, f"public_key={OTHER.public.hex}", "remove=true", f"public_key={THIRD.public.hex}")
        assert removal.began.wait(20)
        threads.start(shown, device)
        time.sleep(0.3)
        assert threads.ended == [0.0, 0.0]
        removal.go_on.set()
    assert [line for line in threads.results[1] if "public_key" in line] == [f"public_key={THIRD.public.hex}"]


def test_closing_waits_for_no_request(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a request that waits for another one is refused then."""
    device.add_peer(OTHER.public, allowed_ips=[])
    removal = SlowRemoval(device, monkeypatch)
    with Threads() as threads:
        threads.start(told, device, f"public_key={OTHER.public.hex}", "remove=true")
        assert removal.began.wait(20)
        threads.start(answer, device, ["get=1"])
        device.close()
        assert eventually(lambda: bool(threads.ended[1]))
        assert threads.results[1] == f"errno={-errno.ESHUTDOWN}\n\n"
        assert threads.ended[0] == 0.0
        removal.go_on.set()


def test_a_peer_costs_the_same_among_many(device: Device) -> None:
    def cost(count: int) -> float:
        """Seconds per peer of a request that adds that many, and of one that changes them."""
        peers = [f"public_key={number.to_bytes(32, 'big').hex()}" for number in range(1, count + 1)]
        assert told(device, "replace_peers=true") == 0
        began = time.perf_counter()
        assert told(device, *peers) == told(device, *peers) == 0
        return (time.perf_counter() - began) / count

    few, many = 250, 2000
    # The least of three: others use the processors, too.
    ratios = [cost(many) / cost(few) for _ in range(3)]
    assert min(ratios) < 3, ratios


def test_a_new_peer_costs_the_same_among_many_networks(device: Device) -> None:
    """As `wg setconf` sends it: networks to replace are not looked for where there are none."""
    lines = []
    for number in range(1, 257):
        lines += [f"public_key={number.to_bytes(32, 'big').hex()}", "replace_allowed_ips=true"]
        lines.append(f"allowed_ip=192.0.2.{number - 1}/32")

    def cost() -> float:
        """Seconds of a request that adds the peers: the least of three, as others use the processors, too."""
        times = []
        for _ in range(3):
            began = time.perf_counter()
            assert told(device, *lines) == 0
            times.append(time.perf_counter() - began)
            for peer in list(device.peers.values())[-256:]:
                device.remove_peer(peer)
        return min(times)

    before = cost()
    device.add_peer(OTHER.public, allowed_ips=[IPv4Network((0x0A000000 + 256 * n, 24)) for n in range(60_000)])
    assert cost() < 3 * before


def test_a_peer_that_is_removed_meanwhile_is_left_out(device: Device) -> None:
    """By the program, which waits for no request."""
    for key in (OTHER, THIRD):
        device.add_peer(key.public, allowed_ips=[], preshared_key=SECRET)
    lines = describe(device)
    assert next(lines).startswith("listen_port=")
    assert next(lines) == f"public_key={OTHER.public.hex}"
    device.remove_peer(THIRD.public)
    assert not [line for line in lines if line.startswith("public_key=")]
    lines = describe(device)
    next(lines)
    device.close()
    with pytest.raises(SessionClosed):
        next(lines)


def test_a_program_adds_the_same_peer(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that did not find it finds it then, or the program does."""
    add = device.add_peer
    refused = []

    def add_by_program() -> None:
        try:
            add(OTHER.public, allowed_ips=["10.1.0.0/16"])
        except ValueError as error:
            refused.append(str(error))

    def add_later(*arguments: Any, **options: Any) -> Any:
        threads.start(add_by_program)
        time.sleep(0.3)
        return add(*arguments, **options)

    monkeypatch.setattr(device, "add_peer", add_later)
    with Threads() as threads:
        assert told(device, f"public_key={OTHER.public.hex}", "allowed_ip=10.0.0.0/8") == 0
    assert ["has the peer" in text for text in refused] == [True]
    assert [str(network) for network in device.peers[OTHER.public].allowed_ips] == ["10.0.0.0/8"]


def test_a_program_removes_a_peer_that_a_request_changes(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    def remove_first(peer: Peer, network: Any) -> None:
        device.remove_peer(peer)
        add(peer, network)

    add = Peer.add_allowed_ip
    monkeypatch.setattr(Peer, "add_allowed_ip", remove_first)
    other, third = (f"public_key={key.public.hex}" for key in (OTHER, THIRD))
    # The rest of the request is carried out.
    assert told(device, other, "allowed_ip=10.0.0.0/8", third) == 0
    assert list(device.peers) == [THIRD.public]


KEYS = st.sampled_from(
    "private_key listen_port fwmark replace_peers public_key remove update_only preshared_key endpoint"
    " persistent_keepalive_interval replace_allowed_ips allowed_ip protocol_version x".split()
)
VALUES = st.sampled_from(
    ["true", "1", "0", PRIVATE.hex, OTHER.public.hex, "10.0.0.0/8", "-10.0.0.0/8", "::/0", "[::1]:5", "127.0.0.1:5", ""]
)


@given(st.lists(st.tuples(KEYS, VALUES | st.text(max_size=8)).map("=".join) | st.text(max_size=80), max_size=12))
@example(["fwmark=1"])
def test_any_request_is_read_or_refused(lines: list[str]) -> None:
    try:
        assert isinstance(parse_set(lines), Change)
    except ControlError as error:
        no_marks = sys.platform == "win32" and str(error).startswith("mark ")
        assert error.number == (errno.ENOSYS if no_marks else errno.EINVAL)
        assert PRIVATE.hex not in str(error)
