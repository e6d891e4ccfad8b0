"""Addresses with a peer, addresses that others gave, and a kernel without IPv6."""

from __future__ import annotations

import socket
from ipaddress import ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING, Any

import pytest

import tunring
from running import eventually
from tunring._system.netlink_linux import Netlink

if TYPE_CHECKING:
    from collections.abc import Callable

    from netns import Namespace

pytestmark = pytest.mark.root

GIVEN = ["10.8.0.1 peer 10.8.0.2/32", ("fd08::1", "fd08::2/128"), (ip_address("10.7.0.1"), ip_network("10.7.1.0/24"))]


def shown(namespace: Namespace) -> set[str]:
    """The addresses as ``ip`` writes them, without what is counted down."""
    lines = namespace.ip("-o address show dev tun0").splitlines()
    return {" ".join(line.split("valid_lft")[0].split()[2:]).rstrip("\\ ") for line in lines}


def test_given_in_each_form(adapter: tunring.Adapter, namespace: Namespace) -> None:
    for _ in range(2):
        found = adapter.configure(GIVEN)  # type: ignore[arg-type]
        assert found.peers == {
            ip_address("10.8.0.1"): ip_network("10.8.0.2/32"),
            ip_address("fd08::1"): ip_network("fd08::2/128"),
            ip_address("10.7.0.1"): ip_network("10.7.1.0/24"),
        }
        assert set(found.addresses) == {ip_interface(text) for text in ("10.8.0.1", "fd08::1", "10.7.0.1")}
    assert {line.partition(" scope")[0] for line in shown(namespace)} == {
        "inet 10.8.0.1 peer 10.8.0.2/32",
        "inet 10.7.0.1 peer 10.7.1.0/24",
        "inet6 fd08::1 peer fd08::2/128",
    }
    assert "dev tun0" in namespace.ip("route get 10.8.0.2")
    assert "dev tun0" in namespace.ip("route get 10.7.1.9")
    # One without the peer is another address, of IPv4 only.
    assert len(adapter.configure(["10.8.0.1/24"]).addresses) == 4
    with pytest.raises(tunring.WintunError, match=r"can't add fd08::1/64 .*: it exists as fd08::1 peer fd08::2/128"):
        adapter.configure(["fd08::1/64"])


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ("10.8.0.1 peer", ValueError, r"looks like '10\.8\.0\.1 peer 10\.8\.0\.2/32', not '10\.8\.0\.1 peer'"),
        ("10.8.0.1 to 10.8.0.2", ValueError, "an address with a peer looks like"),
        ("10.8.0.1/24 peer 10.8.0.2", ValueError, "no network of its own: 10.8.0.1, not 10.8.0.1/24"),
        ("10.8.0.1 peer fd08::2", ValueError, "the peer of 10.8.0.1 must be an IPv4 address"),
        ("10.8.0.1 peer 10.8.0.1", ValueError, "must be another address"),
        ("10.8.0.1 peer router", ValueError, "a peer must look like"),
        ("10.8.0.1 peer 224.0.0.1", ValueError, "multicast"),
        (("10.8.0.1",), ValueError, r"is \(local, peer\)"),
        (("10.8.0.1", 7), TypeError, "a peer must be a str"),
        ((7, "10.8.0.1"), TypeError, "an address must be a str"),
    ],
)
def test_refused(adapter: tunring.Adapter, given: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        adapter.configure([given])


def test_what_others_gave_comes_back_as_it_was(namespace: Namespace, tun: tunring.Library) -> None:
    namespace.ip("tuntap add dev tun0 mode tun")
    namespace.ip("link set tun0 up")
    namespace.ip("address add 10.8.0.1 peer 10.8.0.2/32 dev tun0")
    namespace.ip("address add 10.5.0.1/24 brd 10.5.0.255 dev tun0 label tun0:five noprefixroute")
    namespace.ip("address add fd08::1 peer fd08::2/128 dev tun0 nodad")
    namespace.ip("address add fd05::1/64 dev tun0 valid_lft 4000 preferred_lft 2000 nodad")
    namespace.ip("-6 route add fd77::/64 dev tun0 metric 77 mtu lock 1300 proto static")
    before, routes = shown(namespace), namespace.ip("-6 route show dev tun0")
    with namespace.entered():
        adapter = tunring.Adapter.open("tun0", library=tun)
    with adapter:
        adapter.configure(mtu=1000)  # takes IPv6 away
        adapter.configure(["10.8.0.1 peer 10.8.0.2/32"], metric=50)
        adapter.configure(up=False)
        adapter.configure(mtu=1500)
    assert shown(namespace) == before
    assert eventually(lambda: namespace.ip("-6 route show dev tun0") == routes)


def test_a_secondary_address_survives_its_primary(namespace: Namespace, tun: tunring.Library) -> None:
    """The kernel removes it with the first address of its network, which was ours."""
    namespace.ip("tuntap add dev tun0 mode tun")
    with namespace.entered():
        adapter = tunring.Adapter.open("tun0", library=tun)
    with adapter:
        adapter.configure(["10.5.0.1/24"])
        namespace.ip("address add 10.5.0.2/24 dev tun0")
    assert [line.split()[1] for line in shown(namespace)] == ["10.5.0.2/24"]


# ---- A kernel without IPv6: it answers a question of a family it lacks with what all others have


@pytest.fixture
def without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the way to the kernel, IPv6 becomes a family that this kernel does lack."""
    send = Netlink._send

    def send_of_another_family(self: Netlink, requests: list[tuple[int, int, bytes]]) -> int:
        decnet = bytes((12,))
        return send(self, [(k, f, decnet + b[1:] if b[0] == socket.AF_INET6 else b) for k, f, b in requests])

    monkeypatch.setattr(Netlink, "_send", send_of_another_family)


@pytest.mark.usefixtures("without_ipv6")
def test_without_ipv6_nothing_is_made_up(
    adapter: tunring.Adapter, namespace: Namespace, recwarn: pytest.WarningsRecorder
) -> None:
    namespace.ip("link add up0 type veth peer name up1")
    namespace.set_up("up0", "192.0.2.2/24")
    namespace.ip("route add default via 192.0.2.1")
    found = adapter.configure(["10.9.0.2/24"], routes=["10.0.0.0/8"], default=True)
    assert [str(route) for route in found.routes] == ["10.0.0.0/8"]
    assert [str(address) for address in found.addresses] == ["10.9.0.2/24"]
    assert found.default == (4,)
    adapter.close()
    assert not recwarn.list


@pytest.mark.usefixtures("without_ipv6")
@pytest.mark.parametrize("given", [{"addresses": ["fd09::1/64"]}, {"routes": ["fd10::/16"]}, {"default": 6}])
def test_without_ipv6_it_is_said(adapter: tunring.Adapter, given: dict[str, Any]) -> None:
    before = adapter.configuration()
    with pytest.raises(tunring.FamilyDisabled, match=r"the kernel has no IPv6 \(ipv6\.disable=1\)") as caught:
        adapter.configure(**given)
    assert caught.value.version == 6
    assert adapter.configuration() == before


# ---- IPv6's own actions


@pytest.fixture
def eager(namespace: Namespace, create: Callable[..., tunring.Adapter]) -> tunring.Adapter:
    """An adapter whose interface is as the kernel makes one: with an address of its own, and looking for routers."""
    for scope in ("all", "default"):
        namespace.write_sysctl(f"net/ipv6/conf/{scope}/addr_gen_mode", "0")
        namespace.write_sysctl(f"net/ipv6/conf/{scope}/router_solicitations", "-1")
    return create()


def link_local(adapter: tunring.Adapter) -> list[str]:
    return [str(address) for address in adapter.configuration().addresses if address.ip.is_link_local]


def test_nothing_of_ipv6_arrives(eager: tunring.Adapter) -> None:
    with eager.start_session() as session:
        eager.configure(["10.9.0.1/24"], ipv6=False)
        assert link_local(eager) == []
        with session.receive(timeout=3) as batch:
            assert [packet[0] >> 4 for packet in batch] == []


def test_by_default_it_does(eager: tunring.Adapter) -> None:
    """By default the kernel sends packets of its own, which the test above would find."""
    with eager.start_session() as session:
        eager.configure(["10.9.0.1/24"])
        with session.receive(timeout=20) as batch:
            assert batch[0][0] >> 4 == 6


def test_the_address_goes_and_comes_back(eager: tunring.Adapter) -> None:
    with eager.start_session():
        eager.configure(["10.9.0.1/24"])
        assert eventually(lambda: link_local(eager))
        made = link_local(eager)
        eager.configure(ipv6=False)
        assert link_local(eager) == []
        eager.configure(ipv6=None, mtu=1400)
        assert link_local(eager) == []
        eager.configure(ipv6=True)
        assert eventually(lambda: link_local(eager) == made)
        eager.configure(["fd09::1/64"])


def test_it_comes_back_at_close(namespace: Namespace, tun: tunring.Library) -> None:
    namespace.ip("tuntap add dev tun0 mode tun")
    namespace.write_sysctl("net/ipv6/conf/tun0/addr_gen_mode", "3")
    namespace.ip("link set tun0 up")
    with namespace.entered():
        adapter = tunring.Adapter.open("tun0", library=tun)
    with adapter:
        with adapter.start_session():
            assert eventually(lambda: link_local(adapter))
        before = link_local(adapter)
        adapter.configure(["10.9.0.1/24"], ipv6=False)
        assert link_local(adapter) == []
    assert [line.split()[1] for line in shown(namespace)] == before
    with namespace.entered(), open("/proc/sys/net/ipv6/conf/tun0/addr_gen_mode") as file:
        assert file.read() == "3\n"


@pytest.mark.parametrize("given", [{"addresses": ["fd09::1/64"]}, {"routes": ["fd10::/16"]}, {"default": 6}])
def test_ipv6_and_none_of_it(adapter: tunring.Adapter, given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="ipv6=False excludes"):
        adapter.configure(ipv6=False, **given)
    adapter.configure(["fd09::1/64"])
    with pytest.raises(ValueError, match="ipv6=False excludes fd09::1/64"):
        adapter.configure(ipv6=False)


# ---- The queue


def test_queue_length(adapter: tunring.Adapter, namespace: Namespace) -> None:
    assert adapter.configuration().queue_length == 500
    assert adapter.configure(queue_length=6000).queue_length == 6000
    assert "qlen 6000" in namespace.ip("link show dev tun0")
    assert adapter.configure(mtu=1400).queue_length == 6000
    for length in (0, 65537):
        with pytest.raises(ValueError, match=f"queue_length must be 1 to 65536 packets, not {length}"):
            adapter.configure(queue_length=length)


def test_the_queue_length_comes_back(namespace: Namespace, tun: tunring.Library) -> None:
    namespace.ip("tuntap add dev tun0 mode tun")
    with namespace.entered(), tunring.Adapter.open("tun0", library=tun) as adapter:
        adapter.configure(queue_length=1)
    assert "qlen 500" in namespace.ip("link show dev tun0")


def test_the_carrier_is_reported(adapter: tunring.Adapter) -> None:
    assert adapter.configure().carrier is False
    with adapter.start_session():
        assert adapter.configuration().carrier is True
