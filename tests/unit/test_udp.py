"""UDP sockets over the loopback interface: runs, sources, refused arguments, and every way a wait ends."""

from __future__ import annotations

import array
import gc
import os
import pickle
import re
import socket
import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

import tunring
from running import check_script
from tunring import _udp

#: Runs leave and arrive datagram by datagram where the system has no offloads, as Wine has none.
WINDOWS = os.name == "nt"

if TYPE_CHECKING:
    from collections.abc import Iterator

    Pair = tuple[tunring.UdpSocket, tunring.UdpSocket]


@pytest.fixture(params=["127.0.0.1", "::1"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    try:
        with tunring.UdpSocket.bind((request.param, 0)) as left, tunring.UdpSocket.bind((request.param, 0)) as right:
            yield left, right
    except OSError:
        if request.param != "::1":
            raise
        pytest.skip("this machine has no IPv6")


def receive_all(udp: tunring.UdpSocket, count: int) -> list[bytes]:
    datagrams: list[bytes] = []
    while len(datagrams) < count:
        with udp.receive(timeout=10) as batch:
            assert batch, f"only {len(datagrams)} of {count} came"
            datagrams += batch.tobytes()
    return datagrams


def test_runs_arrive_as_their_datagrams(pair: Pair) -> None:
    left, right = pair
    datagrams = [bytes([n % 256]) * 1200 for n in range(200)] + [b"", b"", b"short", bytes(65507), b"x" * 1200, b""]
    assert left.send(datagrams, right.address) == len(datagrams)
    assert receive_all(right, len(datagrams)) == datagrams
    assert left.stats().runs_sent >= (3 if left.stats().segment else 0)
    assert left.stats().sent_packets == right.stats().received_packets == len(datagrams)
    assert right.stats().pinned_packets == 0


def test_where_they_came_from(pair: Pair) -> None:
    left, right = pair
    left.send([b"a"] * 3, right.address, ecn=2)
    right.send([b"b"] * 2, right.address)
    left.send([b"c"], right.address)
    with right.receive(min_packets=6, linger=5) as batch:
        own, other = tunring.Endpoint(*right.address[:2]), tunring.Endpoint(*left.address[:2])
        assert batch.sources == [other, own]
        assert list(batch.source_index) == [0, 0, 0, 1, 1, 0]
        assert list(batch.ecn) in ([2, 2, 2, 0, 0, 0], *([[0] * 6] if WINDOWS else []))  # Wine reports none
        assert [(endpoint, len(part)) for endpoint, part in batch.runs()] == [(other, 3), (own, 2), (other, 1)]
        part = batch[2:5]
        assert (part.sources, list(part.source_index)) == ([other, own], [0, 1, 1])
        assert [len(run) for _, run in part.runs()] == [1, 2]
        assert batch[6:].sources == []
        assert batch.sources[0].local == right.address[0]
        assert batch.source_index.format == "I"
        assert batch.ecn.format == "B"


def test_a_reply_to_a_source(pair: Pair) -> None:
    left, right = pair
    left.send([b"question"], right.address)
    with right.receive(timeout=10) as batch:
        assert right.send(batch, batch.sources[0]) == 1
    assert receive_all(left, 1) == [b"question"]


def test_several_destinations(pair: Pair) -> None:
    left, right = pair
    sent = left.send([b"r", b"l", b"r"], [right.address, left.address], index=array.array("I", [0, 1, 0]))
    assert sent == 3
    assert receive_all(right, 2) == [b"r", b"r"]
    assert receive_all(left, 1) == [b"l"]
    assert left.send_many([(right.address, [b"1"]), (left.address, [b"2", b"3"])]) == [1, 2]
    assert left.send_packed(b"abcd", [1, 3], right.address) == 2
    assert receive_all(right, 3) == [b"1", b"a", b"bcd"]
    assert receive_all(left, 2) == [b"2", b"3"]


@pytest.mark.parametrize("code", "bBhHiIlLqQ")
def test_index_and_ecn_in_arrays(pair: Pair, code: str) -> None:
    left, right = pair
    index, ecn = array.array(code, [0, 1, 0]), array.array(code, [0, 3, 3])
    assert left.send([b"r", b"l", b"r"], [right.address, left.address], index=index, ecn=ecn) == 3
    assert receive_all(right, 2) == [b"r", b"r"]
    assert receive_all(left, 1) == [b"l"]
    wrong = -1 if code.islower() else 2
    with pytest.raises(ValueError, match=rf"index\[1\] must be .*, not {wrong}"):
        left.send([b"a", b"b"], [right.address, left.address], index=array.array(code, [0, wrong]))
    with pytest.raises(ValueError, match=rf"ecn\[1\] must be .*, not {wrong * 2}"):
        left.send([b"a", b"b"], right.address, ecn=array.array(code, [0, wrong * 2]))


class IndexedOnce:
    """A number that can be asked for once."""

    def __init__(self, number: int) -> None:
        self.numbers = [number]

    def __index__(self) -> int:
        return self.numbers.pop()


class Agreeable(int):
    """An integer that says it is within all limits."""

    def __le__(self, other: object) -> bool:
        return True

    __lt__ = __ge__ = __gt__ = __le__


def test_send_many_asks_everything_once(pair: Pair) -> None:
    left, right = pair
    host, port, *_ = right.address
    items = [((host, IndexedOnce(port)), [b"1", b"2"]), ((host, IndexedOnce(port)), [b"3", b"4"])]
    assert left.send_many(items, ecn=iter([1, IndexedOnce(2)])) == [2, 2]
    assert receive_all(right, 4) == [b"1", b"2", b"3", b"4"]


def test_send_many_checks_all_before_the_first_is_sent(pair: Pair) -> None:
    left, right = pair
    for last, ecn in (((right.address[0], 65536), 0), (right.address, [0, 1, 2]), (right.address, 4)):
        with pytest.raises(ValueError, match="must"):
            left.send_many([(right.address, [b"1", b"2"]), (last, [b"3", b"4"])], ecn=ecn)
    assert left.stats().sent_packets == 0


def test_ecn_that_compares_as_it_likes_is_checked(pair: Pair) -> None:
    left, right = pair
    with pytest.raises(ValueError, match="ecn must be 0 to 3, not 200"):
        left.send([b"x"], right.address, ecn=Agreeable(200))
    assert left.stats().sent_packets == 0


@pytest.mark.parametrize(
    ("packets", "to", "options", "error", "words"),
    [
        ([bytes(65508)], ("127.0.0.1", 9), {}, ValueError, "packet 0 has 65508 bytes; at most 65507 are allowed"),
        ([b"x", 5], ("127.0.0.1", 9), {}, TypeError, "packet 1"),
        (b"x", ("127.0.0.1", 9), {}, TypeError, "not one bytes"),
        ([b"x"], ("localhost", 9), {}, ValueError, "an address such as"),
        ([b"x"], ("127.0.0.1", 65536), {}, ValueError, "0 to 65535"),
        ([b"x"], "127.0.0.1:9", {}, TypeError, "Endpoint"),
        ([b"x"], ("::1", 9), {}, ValueError, "IPv6 address, and the socket is of IPv4"),
        ([b"x"], [("127.0.0.1", 9)], {}, TypeError, "takes index"),
        ([b"x"], ("127.0.0.1", 9), {"index": [0]}, TypeError, "list of endpoints"),
        ([b"x"], [("127.0.0.1", 9)], {"index": [1]}, ValueError, r"index\[0\] must be 0 to 0, not 1"),
        ([b"x"], [("127.0.0.1", 9)], {"index": []}, ValueError, "one number per packet"),
        ([b"x"], ("127.0.0.1", 9), {"ecn": 4}, ValueError, "ecn must be 0 to 3, not 4"),
        ([b"x"], ("127.0.0.1", 9), {"ecn": [0, 1]}, ValueError, "one value per packet"),
        ([b"x"], ("127.0.0.1", 9), {"on_full": "block"}, ValueError, "on_full"),
    ],
)
def test_what_send_refuses(
    packets: object, to: object, options: dict[str, object], error: type[Exception], words: str
) -> None:
    with tunring.UdpSocket.bind(("127.0.0.1", 0)) as udp:
        with pytest.raises(error, match=words):
            udp.send(packets, to, **options)
        assert udp.stats().sent_packets == 0


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"address": ("localhost", 0)}, ValueError),
        ({"address": "127.0.0.1"}, TypeError),
        ({"address": ("127.0.0.1", -1)}, ValueError),
        ({"pinned_limit": 1}, ValueError),
        ({"receive_buffer": "1"}, TypeError),
        ({"segment": 1}, TypeError),
        ({"address": ("127.0.0.1", Agreeable(65536))}, ValueError),
        ({"address": ("::1", 0, 2**40, 0)}, ValueError),
        ({"address": ("::1", 0, 0, 2**32)}, ValueError),
        ({"address": ("::1", 0, 0, "lo")}, TypeError),
    ],
)
def test_what_bind_refuses(arguments: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        tunring.UdpSocket.bind(**arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        *(({"mark": mark}, ValueError, f"mark must be 0 to 4294967295 or None, not {mark}") for mark in (2**40, -1)),
        ({"mark": Agreeable(2**40)}, ValueError, "mark must be"),
        *(({"mark": mark}, TypeError, "mark must be 0 to 4294967295 or None, not") for mark in ("x", b"abcd", 1.0)),
        *(({"interface": name}, TypeError, "interface must be") for name in (5, b"lo", True)),
        *(({"interface": name}, ValueError, "1 to 15 bytes") for name in ("", "lo\0", "a" * 16)),
    ],
)
def test_what_bind_refuses_of_a_mark_and_an_interface(
    monkeypatch: pytest.MonkeyPatch, arguments: dict[str, object], error: type[Exception], words: str
) -> None:
    monkeypatch.setattr(socket, "socket", None)  # they are checked before there is a socket
    with pytest.raises(error, match=words):
        tunring.UdpSocket.bind(**arguments)


def test_a_taken_address_is_an_oserror() -> None:
    with tunring.UdpSocket.bind(("127.0.0.1", 0)) as udp, pytest.raises(OSError, match=r"in use|10048"):
        tunring.UdpSocket.bind(udp.address)


def test_refused_datagrams_are_counted_and_end_nothing() -> None:
    with tunring.UdpSocket.bind(("127.0.0.1", 0)) as udp:
        datagrams = [b"before"] * 2
        assert udp.send(datagrams, ("127.0.0.1", 0)) == 2
        assert udp.send(datagrams, ("255.255.255.255", 9)) == 2
        assert udp.send(datagrams, udp.address) == 2
        stats = udp.stats()
        assert (stats.refused_other, stats.refused_unreachable, stats.sent_packets) == (2, 2, 2)
        assert receive_all(udp, 2) == datagrams


def test_without_offloads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNRING_UDP_OFFLOADS", "0")
    with tunring.UdpSocket.bind(("127.0.0.1", 0)) as udp:
        assert not udp.stats().segment
        assert not udp.stats().coalesce
        udp.send([bytes(100)] * 20, udp.address)
        assert receive_all(udp, 20) == [bytes(100)] * 20
        assert udp.stats().runs_sent == udp.stats().coalesced_reads == 0


def test_what_is_pinned_is_bounded() -> None:
    with tunring.UdpSocket.bind(("127.0.0.1", 0), pinned_limit=512 * 1024) as udp:
        kept = []
        for _ in range(9):
            udp.send([bytes(60000)], udp.address)
            kept.append(udp.receive(timeout=0))
        assert [len(batch) for batch in kept] == [1] * 8 + [0]
        assert udp.stats().pinned_bytes == 480000
        waiting = threading.Thread(target=lambda: kept.append(udp.receive(timeout=10)))
        waiting.start()
        time.sleep(0.05)
        for batch in kept[:8]:
            batch.release()
        waiting.join()
        assert len(kept[-1]) == 1
        kept[-1].release()


def test_close_ends_every_wait() -> None:
    udp = tunring.UdpSocket.bind(("127.0.0.1", 0))
    outcomes: list[type[BaseException]] = []

    def wait() -> None:
        try:
            udp.receive()
        except tunring.SessionClosed as error:
            assert error.reason == "closed"
            outcomes.append(type(error))

    threads = [threading.Thread(target=wait) for _ in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    udp.close()
    for thread in threads:
        thread.join(10)
    assert outcomes == [tunring.SessionClosed] * 8
    assert udp.closed
    udp.close()
    for call in (udp.receive, lambda: udp.read_event, lambda: udp.send([b"x"], ("127.0.0.1", 9))):
        with pytest.raises(tunring.SessionClosed):
            call()
    assert list(udp.batches()) == []
    assert udp.stats().received_packets == 0


def test_a_view_outlives_its_socket() -> None:
    with tunring.UdpSocket.bind(("127.0.0.1", 0)) as udp:
        udp.send([b"kept"], udp.address)
        kept = udp.receive(timeout=10)[0][1:]
    gc.collect()
    assert bytes(kept) == b"ept"


def test_a_tick(pair: Pair) -> None:
    for batch in pair[0].batches(timeout=0.01):
        assert not batch
        assert batch.sources == []
        break


def test_readable_when_a_receive_would_return(pair: Pair) -> None:
    import select

    left, right = pair
    poll = select.poll()
    poll.register(right, select.POLLIN)
    assert not poll.poll(0)
    left.send([bytes(100)] * 10, right.address)
    for _ in range(5):
        assert poll.poll(1000)
        right.receive(2).release()  # the rest of a coalesced read is readable too
    assert not poll.poll(0)


def test_a_socket_that_was_taken_over() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        options = [(socket.IPPROTO_IP, 19)] if WINDOWS else [(socket.IPPROTO_UDP, 104), (socket.IPPROTO_IP, 8)]
        before = [sock.getsockopt(*option) for option in options]
        with tunring.UdpSocket.from_socket(sock) as udp:
            assert udp.address == sock.getsockname()
            udp.send([b"x"] * 3, udp.address)
            assert receive_all(udp, 3) == [b"x"] * 3
        assert [sock.getsockopt(*option) for option in options] == before
        sock.sendto(b"still open", sock.getsockname())
        assert sock.recv(100) == b"still open"
    with pytest.raises(TypeError):
        tunring.UdpSocket.from_socket(5)
    with socket.socket() as stream, pytest.raises(ValueError, match="UDP"):
        tunring.UdpSocket.from_socket(stream)


def test_a_socket_that_tells_lies_of_itself() -> None:
    # In a process of its own: this once read memory that isn't the tuple's, and sent by another descriptor.
    check_script(
        """
import socket
import tunring

class Liar(socket.socket):
    def getsockname(self):
        return ()

    def fileno(self):
        return super().fileno() + 2**32

with Liar(socket.AF_INET, socket.SOCK_DGRAM) as liar:
    liar.bind(("127.0.0.1", 0))
    with tunring.UdpSocket.from_socket(liar) as udp:
        assert udp.address == socket.socket.getsockname(liar)
        assert f"127.0.0.1:{udp.address[1]}, open" in repr(udp)
        assert udp.send([b"x"], udp.address) == 1
        with udp.receive(timeout=10) as batch:
            assert batch.tobytes() == [b"x"]
"""
    )


@pytest.mark.parametrize("address", [(), ("127.0.0.1",), (1, "127.0.0.1"), ["127.0.0.1", 1], None, ("::1", 1, 0)])
def test_a_socket_without_an_address(monkeypatch: pytest.MonkeyPatch, address: object) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        monkeypatch.setattr(socket.socket, "getsockname", lambda self: address)
        with pytest.raises(ValueError, match=r"must be \(host, port\)"):
            tunring.UdpSocket.from_socket(sock)


@pytest.mark.parametrize(
    ("really", "said"),
    [
        ((socket.AF_INET, socket.SOCK_STREAM), (socket.AF_INET, socket.SOCK_DGRAM)),
        ((socket.AF_INET6, socket.SOCK_DGRAM), (socket.AF_INET, socket.SOCK_DGRAM)),
        ((getattr(socket, "AF_UNIX", 1), socket.SOCK_DGRAM), (socket.AF_INET, socket.SOCK_DGRAM)),
        ((socket.AF_INET, socket.SOCK_DGRAM, 136), (socket.AF_INET, socket.SOCK_DGRAM)),  # UDP-Lite
    ],
)
def test_a_descriptor_of_another_kind_is_not_taken_over(really: tuple[int, ...], said: tuple[int, ...]) -> None:
    try:
        other = socket.socket(*really)
    except OSError:
        pytest.skip("this machine has no such sockets")
    with (
        other,
        socket.socket(*said, fileno=os.dup(other.fileno())) as sock,
        pytest.raises(ValueError, match="its descriptor is one"),
    ):
        tunring.UdpSocket.from_socket(sock)


def test_tuples_that_are_too_short_are_not_read_behind_their_end() -> None:
    # In a process of its own, for what was there might be no object.
    check_script(
        """
from tunring import _core

for routes in ([()], [(4, bytes(4), 0)]):
    try:
        _core.Routes().set(routes)
    except IndexError:
        continue
    raise AssertionError(routes)
"""
    )


def test_a_child_has_no_socket() -> None:
    with tunring.UdpSocket.bind(("127.0.0.1", 0)) as udp:
        child = os.fork()
        if child == 0:
            try:
                udp.send([b"x"], udp.address)
            except tunring.SessionClosed as error:
                os._exit(0 if error.reason == "forked" else 1)
            os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
        assert not udp.receive(timeout=0)


def test_endpoints() -> None:
    endpoint = tunring.Endpoint("::ffff:192.0.2.1", 5)
    assert endpoint == tunring.Endpoint("192.0.2.1", 5)
    assert hash(endpoint) == hash(tunring.Endpoint("192.0.2.1", 5))
    assert (endpoint.host, endpoint.port, endpoint.interface, endpoint.local) == ("192.0.2.1", 5, 0, None)
    assert endpoint != tunring.Endpoint("192.0.2.1", 6)
    assert tunring.Endpoint("fe80::1", 5, interface=3) != tunring.Endpoint("fe80::1", 5)
    assert pickle.loads(pickle.dumps(endpoint)) == endpoint
    assert repr(endpoint) == "tunring.Endpoint('192.0.2.1', 5)"
    for arguments in (("fe80::1%lo", 1), ("name", 1), ("192.0.2.1", -1)):
        with pytest.raises(ValueError, match="must"):
            tunring.Endpoint(*arguments)
    for number in (2**32, 2**63, -(2**63) - 1, 10**400):
        with pytest.raises(ValueError, match=f"port must be 0 to 65535, not {number}"):
            tunring.Endpoint("192.0.2.1", number)
        with pytest.raises(ValueError, match=f"interface must be 0 to 4294967295, not {number}"):
            tunring.Endpoint("fe80::1", 1, interface=number)
    with pytest.raises(TypeError, match="port must be an integer, not '1'"):
        tunring.Endpoint("192.0.2.1", "1")
    with pytest.raises(ValueError, match="link-local"):
        tunring.Endpoint("192.0.2.1", 1, interface=1)
    with pytest.raises(TypeError):
        tunring.Endpoint(5, 1)


def test_batches_of_sockets_and_sessions_go_either_way() -> None:
    import tunring.testing

    left, right = tunring.testing.pair()
    packets = [bytes([0x45]) + bytes([n]) * 99 for n in range(50)]
    with left, right, tunring.UdpSocket.bind(("127.0.0.1", 0)) as udp:
        left.send(packets)
        with right.receive(timeout=5) as batch:
            assert udp.send(batch, udp.address) == 50
        with udp.receive(timeout=5, min_packets=50, linger=5) as datagrams:
            assert right.send(datagrams) == 50
        with left.receive(timeout=5) as batch:
            assert batch.tobytes() == packets
            np.testing.assert_array_equal(batch.lengths, 100)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("min_packets", 0),
        ("min_packets", 65537),
        ("linger", -1),
        ("linger", float("nan")),
        pytest.param("linger", 10**400, id="linger-huge"),
    ],
)
def test_linger_and_min_packets_are_checked(pair: Pair, name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        pair[0].receive(timeout=0, **{name: value})


@pytest.mark.parametrize(
    ("name", "value", "neutral"), [("mark", 5, "None"), ("interface", "eth0", "None"), ("reuse_port", True, "False")]
)
def test_windows_names_what_is_allowed(monkeypatch: pytest.MonkeyPatch, name: str, value: object, neutral: str) -> None:
    monkeypatch.setattr(_udp, "_WINDOWS", True)
    expected = f"{name} must be {neutral} on Windows, not {value!r}: only Linux has that"
    with pytest.raises(NotImplementedError, match=re.escape(expected)):
        tunring.UdpSocket.bind(("127.0.0.1", 0), **{name: value})
