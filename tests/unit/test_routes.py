"""RouteTable: prefixes and batches against a search by the ipaddress module."""

from __future__ import annotations

import copy
import ipaddress
import pickle
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tunring
import tunring.testing

if TYPE_CHECKING:
    from collections.abc import Iterator

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def packet(source: str, destination: str) -> bytes:
    addresses = b"".join(ipaddress.ip_address(address).packed for address in (source, destination))
    return (bytes([0x45]) + bytes(11) if len(addresses) == 8 else bytes([0x60]) + bytes(7)) + addresses


@pytest.fixture
def sessions() -> Iterator[tuple[tunring.Session, tunring.Session]]:
    left, right = tunring.testing.pair()
    with left, right:
        yield left, right


def expected(model: dict[Network, int], address: Address) -> int:
    containing = [net for net in model if net.version == address.version and address in net]
    return model[max(containing, key=lambda net: net.prefixlen)] if containing else -1


# Near each other, so that prefixes lie inside each other and part anywhere.
few_bytes = st.sampled_from([0, 1, 2, 128, 192, 255])
addresses = st.one_of(
    st.tuples(*[few_bytes] * 4).map(lambda data: ipaddress.IPv4Address(bytes(data))),
    st.tuples(*[few_bytes] * 3).map(lambda data: ipaddress.IPv6Address(bytes([*data[:2], *bytes(12), data[2], 0]))),
)


def network_of(address: Address, bits: int) -> Network:
    length = bits % (address.max_prefixlen + 1)
    return ipaddress.ip_network((address, length), strict=False)


networks = st.builds(network_of, addresses, st.integers(0, 128))


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(networks, st.integers(-3, 20))), st.lists(addresses, max_size=40))
def test_it_finds_what_a_search_finds(changes: list[tuple[Network, int]], asked: list[Address]) -> None:
    table = tunring.RouteTable()
    model: dict[Network, int] = {}
    for network, value in changes:
        if value >= 0:
            table[network] = model[network] = value
        elif model:
            gone = sorted(model, key=str)[value % len(model)]
            assert table.pop(gone) == model.pop(gone)
    assert dict(table) == {str(network): value for network, value in model.items()}
    assert tunring.RouteTable(model) == table
    for address in [*asked, *(net.network_address for net in model), *(net.broadcast_address for net in model)]:
        if getattr(address, "ipv4_mapped", None) is None:
            assert table.lookup_address(address) == expected(model, address)


def test_lookup_gives_one_number_per_packet(sessions: tuple[tunring.Session, tunring.Session]) -> None:
    left, right = sessions
    table = tunring.RouteTable({"10.30.0.0/16": 7, "10.30.1.0/24": 2**31 - 1, "fd00::/8": 0})
    left.send([
        packet("10.30.0.1", "10.30.1.1"),
        packet("10.30.1.1", "10.30.2.1"),
        packet("fd00::1", "2001:db8::1"),
        packet("fd00::1", "::ffff:10.30.0.1"),
    ])  # fmt: skip
    with right.receive() as batch:
        numbers = table.lookup(batch)
        assert (numbers.format, numbers.itemsize, numbers.shape, numbers.readonly) == ("i", 4, (4,), True)
        assert numbers.tolist() == [2**31 - 1, 7, -1, -1]
        assert table.lookup_sources(batch).tolist() == [7, 2**31 - 1, 0, 0]
        assert table.lookup(batch[1:3]).tolist() == [7, -1]
        assert [(number, len(part)) for number, part in batch.split(numbers)] == [(2**31 - 1, 1), (7, 1), (-1, 2)]
    assert numbers.tolist() == [2**31 - 1, 7, -1, -1]
    with pytest.raises(ValueError, match="released"):
        table.lookup(batch)
    with right.receive(timeout=0) as empty:
        assert table.lookup(empty).tolist() == []


def test_what_is_not_ip_has_no_number() -> None:
    table = tunring.RouteTable({"0.0.0.0/0": 1, "::/0": 2})
    with tunring.UdpSocket.bind(("127.0.0.1", 0)) as one, tunring.UdpSocket.bind(("127.0.0.1", 0)) as other:
        strange = [b"", b"\x45" + bytes(18), b"\x60" + bytes(38), b"\x75" + bytes(60)]
        one.send([*strange, packet("::1", "::2")], other.address)
        with other.receive(min_packets=5, linger=5) as batch:
            assert table.lookup(batch).tolist() == [-1, -1, -1, -1, 2]


def test_numpy_takes_the_numbers(sessions: tuple[tunring.Session, tunring.Session]) -> None:
    numpy = pytest.importorskip("numpy")
    left, right = sessions
    left.send([packet("10.0.0.1", f"10.0.{third}.1") for third in range(4)])
    table = tunring.RouteTable({f"10.0.{third}.0/24": third * 10 for third in range(3)})
    with right.receive() as batch:
        numbers = numpy.asarray(table.lookup(batch))
        assert numbers.dtype == numpy.int32
        assert numbers.tolist() == [0, 10, 20, -1]
        assert len(batch.select(numbers >= 10)) == 2


def test_it_is_a_dict() -> None:
    table = tunring.RouteTable([("10.1.0.0/16", 1), ("fd00::/64", 2)])
    assert table["10.1.0.0/16"] == table[ipaddress.ip_network("10.1.0.0/16")] == 1
    assert "fd00::/64" in table
    assert "fd00::/65" not in table
    assert table.get("10.0.0.0/8") is None
    assert table.setdefault("10.2.0.0/16", 3) == 3
    table["10.1.0.0/16"] = 5
    assert list(table) == ["10.1.0.0/16", "10.2.0.0/16", "fd00::/64"]
    assert list(table.values()) == [5, 3, 2]
    assert table == dict(table) == dict(table.items())
    del table["10.2.0.0/16"]
    with pytest.raises(KeyError):
        del table["10.2.0.0/16"]
    assert table.pop("10.2.0.0/16", None) is None
    for again in (copy.copy(table), copy.deepcopy(table), pickle.loads(pickle.dumps(table))):
        assert again == table
        again["10.3.0.0/16"] = 1
        assert "10.3.0.0/16" not in table
    assert len(table) == 2
    assert "2 prefixes" in repr(table)
    table.clear()
    assert not table


def test_mapped_addresses_are_those_of_ipv4() -> None:
    table = tunring.RouteTable({"::ffff:10.30.0.0/112": 7, "::/0": 1})
    assert list(table) == ["10.30.0.0/16", "::/0"]
    assert table.lookup_address(ipaddress.ip_address("::ffff:10.30.1.1")) == 7
    assert table.lookup_address("::ffff:10.31.1.1") == -1
    assert table.lookup_address("::fffe:10.31.1.1") == 1


@pytest.mark.parametrize(
    ("prefix", "value", "error", "words"),
    [
        ("10.30.0.1/16", 1, ValueError, "host bits"),
        ("10.30.0.0/33", 1, ValueError, "10.30.0.0/33"),
        ("10.30.0/16", 1, ValueError, "10.30.0/16"),
        ("fe80::%eth0/64", 1, ValueError, "interface"),
        ("example.org", 1, ValueError, "example.org"),
        ("10.30.0.0/16", -1, ValueError, "0 to 2147483647, not -1"),
        ("10.30.0.0/16", 2**31, ValueError, "not 2147483648"),
        ("10.30.0.0/16", 1.0, TypeError, "integer, not 1.0"),
        ("10.30.0.0/16", "7", TypeError, "integer, not '7'"),
        ("10.30.0.0/16", None, TypeError, "integer, not None"),
        (b"10.30.0.0/16", 1, TypeError, "must be a str"),
        (167772160, 1, TypeError, "must be a str"),
        (None, 1, TypeError, "must be a str"),
    ],
)
def test_bad_input_changes_nothing(prefix: Any, value: Any, error: type[Exception], words: str) -> None:
    table = tunring.RouteTable({"10.0.0.0/8": 1})
    with pytest.raises(error, match=words):
        table[prefix] = value
    with pytest.raises(error, match=words):
        table.update([("10.2.0.0/16", 2), (prefix, value)])
    with pytest.raises(error, match=words):
        tunring.RouteTable({prefix: value})
    assert dict(table) == {"10.0.0.0/8": 1}


def test_a_prefix_that_comes_twice_is_refused() -> None:
    table = tunring.RouteTable()
    twice: list[tuple[str, int]] = [("10.0.0.0/8", 1), ("10.0.0.0/255.0.0.0", 2)]
    with pytest.raises(ValueError, match="twice"):
        table.update(twice)
    assert not table
    table.update([("10.0.0.0/8", 1), ("10.0.0.0/8", 1)])
    assert len(table) == 1


@pytest.mark.parametrize("address", ["10.0.0.0/8", "nowhere", 5, None, b"\x0a\0\0\1"])
def test_bad_addresses(address: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="address"):
        tunring.RouteTable().lookup_address(address)


@pytest.mark.parametrize("batch", [None, [], [b"E" + bytes(19)]])
def test_only_batches_are_looked_up(batch: Any) -> None:
    with pytest.raises(TypeError):
        tunring.RouteTable().lookup(batch)


def test_it_changes_while_others_look_up(sessions: tuple[tunring.Session, tunring.Session]) -> None:
    left, right = sessions
    table = tunring.RouteTable({"10.0.0.0/8": 1})
    left.send([packet("10.0.0.1", f"10.0.{i}.1") for i in range(200)])
    stop = threading.Event()
    wrong: list[object] = []
    with right.receive() as batch:

        def look_up() -> None:
            while not stop.is_set():
                numbers = table.lookup(batch).tolist()
                wrong.extend(number for i, number in enumerate(numbers) if number not in (1, 1000 + i))

        threads = [threading.Thread(target=look_up) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(20):
                table.update({f"10.0.{i}.0/24": 1000 + i for i in range(200)})
                assert table.lookup(batch).tolist() == [1000 + i for i in range(200)]
                for i in range(0, 200, 7):
                    assert table.remove_value(1000 + i) == 1
                for i in range(200):
                    table.pop(f"10.0.{i}.0/24", None)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    assert not wrong
    assert dict(table) == {"10.0.0.0/8": 1}
