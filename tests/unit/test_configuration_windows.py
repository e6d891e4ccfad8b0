"""Configuration over the IP Helper API, of which a stand-in keeps the tables; it runs on every system."""

from __future__ import annotations

import itertools
import socket
import sys
from ipaddress import ip_address, ip_interface
from typing import Any

import pytest

import tunring
from iphelper_fake import ACCESS_DENIED, INVALID, LUID, NOT_FOUND, OTHER_LUID, FakeIpHelper
from tunring import Route
from tunring._system.iphelper_windows import AF_INET, AF_INET6, DAD_DUPLICATE
from tunring.configuration import _dns_windows, _interface_windows
from tunring.configuration._windows import bind_beside
from windows_tunnel import Tunnel, tunnel


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Time that passes only in sleep(): waits end at once, after the same number of looks on every machine."""
    now = [0.0]

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return now[0]

        @staticmethod
        def sleep(seconds: float) -> None:
            now[0] += seconds

    for module in (_interface_windows, _dns_windows):
        monkeypatch.setattr(module, "time", Clock)
    return now


EVERYTHING: dict[str, Any] = {
    "addresses": ["10.6.7.7/24", "fd00::7/64"],
    "mtu": 1420,
    "metric": 9,
    "dns": ["9.9.9.9", "2620:fe::fe", "149.112.112.112"],
    "routes": ["0.0.0.0/0", ("10.0.0.0/8", "10.6.7.1"), Route("fd00::/8", metric=3)],
}


def test_everything_at_once_and_again(clock: list[float]) -> None:
    made = tunnel()
    for _ in range(2):
        found = made.configure(**EVERYTHING)
        assert found == tunring.Configuration(
            (ip_interface("10.6.7.7/24"), ip_interface("fd00::7/64")),
            1420,
            9,
            (ip_address("9.9.9.9"), ip_address("149.112.112.112"), ip_address("2620:fe::fe")),
            (Route("0.0.0.0/0"), Route("10.0.0.0/8", "10.6.7.1"), Route("fd00::/8", metric=3)),
            True,
            default=(4,),
            carrier=True,
        )
        assert [made.api.interface(family).mtu for family in (AF_INET, AF_INET6)] == [1420, 1420]
        assert [made.api.interface(family).dad_transmits for family in (AF_INET, AF_INET6)] == [0, 0]
        assert made.api.servers == {AF_INET: "9.9.9.9,149.112.112.112", AF_INET6: "2620:fe::fe"}
    # The second time there was nothing to do, and another interface was never touched.
    assert made.api.calls.count("CreateUnicastIpAddressEntry") == 2
    assert made.api.calls.count("CreateIpForwardEntry2") == 3
    assert made.api.calls.count("SetIpInterfaceEntry") == 2
    assert made.api.calls.count("SetInterfaceDnsSettings") == 2
    assert [made.api.interface(family, OTHER_LUID).mtu for family in (AF_INET, AF_INET6)] == [65535, 65535]


def test_a_second_call_adjusts(clock: list[float]) -> None:
    made = tunnel()
    made.configure(**EVERYTHING)
    found = made.configure(["10.9.9.9"], 1300, metric=20, dns=["10.6.7.1"], routes=[Route("fd00::/8", "fd00::1")])
    assert [str(address) for address in found.addresses] == ["10.6.7.7/24", "fd00::7/64", "10.9.9.9/32"]
    assert (found.mtu, found.metric, found.dns) == (1300, 20, (ip_address("10.6.7.1"),))
    assert set(found.routes) == {
        Route("0.0.0.0/0"),
        Route("10.0.0.0/8", "10.6.7.1"),
        Route("fd00::/8", "fd00::1"),
    }
    assert made.configure() == found


def test_undone(clock: list[float]) -> None:
    made = tunnel(stays=True)
    made.api.servers[AF_INET] = "192.0.2.53"
    made.api.give_address("10.1.1.1/24", LUID)
    before = made.api.state()
    made.configure(**EVERYTHING)
    made.configure(["10.9.9.9"], 1300, metric=20, dns=["10.6.7.1"], routes=["0.0.0.0/0"])
    assert made.api.state() != before
    assert made.close() is None
    assert made.api.state() == before


def test_an_adapter_that_goes_away_leaves_its_dns_servers_to_undo(clock: list[float]) -> None:
    made = tunnel()
    made.configure(**EVERYTHING)
    configured = made.api.state()
    made.api.calls.clear()
    assert made.close() is None
    assert made.api.servers == {AF_INET: "", AF_INET6: ""}
    assert made.api.state()[:3] == configured[:3]  # which go with it


def test_undo_that_is_refused(clock: list[float]) -> None:
    made = tunnel(stays=True)
    before = made.api.state()
    made.configure(**EVERYTHING)
    made.api.failures["DeleteUnicastIpAddressEntry"] = [ACCESS_DENIED]
    failure = made.close()
    assert isinstance(failure, tunring.AccessDenied)
    assert "can't remove 10.6.7.7/24" in str(failure)
    assert [str(address) for address in made.interface.read().addresses] == ["10.6.7.7/24"]
    assert made.api.state()[2:] != before[2:]  # its network's route
    assert made.api.servers == before[3]


def functions_of(made: Tunnel) -> list[str]:
    changing = (
        "SetIpInterfaceEntry",
        "CreateUnicastIpAddressEntry",
        "CreateIpForwardEntry2",
        "SetInterfaceDnsSettings",
    )
    return [name for name in made.api.calls if name in changing]


def test_a_failure_at_every_step_is_undone(clock: list[float]) -> None:
    complete = tunnel()
    complete.configure(**EVERYTHING)
    steps = functions_of(complete)
    assert len(steps) == 9
    for number, name in enumerate(steps):
        made = tunnel()
        made.api.give_address("10.1.1.1/24", LUID)
        before = made.api.state()
        made.api.failures[name] = [0] * steps[:number].count(name) + [ACCESS_DENIED]
        with pytest.raises(tunring.AccessDenied, match="'OfficeNet': that needs an elevated process") as caught:
            made.configure(**EVERYTHING)
        assert isinstance(caught.value, PermissionError)
        assert caught.value.winerror == 5
        assert made.api.state() == before, name


@pytest.mark.parametrize("name", ["GetIpInterfaceTable", "GetUnicastIpAddressTable", "GetIpForwardTable2"])
def test_unreadable_tables(clock: list[float], name: str) -> None:
    for skipped in itertools.count():
        made = tunnel()
        before = made.api.state()
        made.api.failures[name] = [0] * skipped + [8]
        try:
            made.configure(**EVERYTHING)
        except tunring.WintunError as error:
            assert "Windows reports error 8" in str(error)
            assert made.api.state() == before
        else:
            assert skipped > 1
            break


def test_the_interface_appears_late(clock: list[float]) -> None:
    made = tunnel()
    made.api.late[AF_INET] = 500
    made.api.late[AF_INET6] = 700
    assert made.configure(["fd00::7/64"], 1420).mtu == 1420
    assert [made.api.interface(family).mtu for family in (AF_INET, AF_INET6)] == [1420, 1420]
    assert 5 < clock[0] < 10


def test_the_interface_never_appears(clock: list[float]) -> None:
    made = tunnel()
    made.api.late.update({AF_INET: 10**9, AF_INET6: 10**9})
    before = made.api.state()
    with pytest.raises(tunring.NotFound, match="'OfficeNet' has had no IP interface for 10 s"):
        made.configure(["10.6.7.7/24"])
    assert 10 <= clock[0] < 11
    assert made.api.state() == before
    with pytest.raises(tunring.NotFound):
        made.interface.read()


def test_ipv6_off_is_fine_without_it(clock: list[float]) -> None:
    made = tunnel(absent={AF_INET6})
    found = made.configure(["10.6.7.7/24"], 1420, metric=9, routes=["0.0.0.0/0"])
    assert (found.mtu, found.metric, found.routes) == (1420, 9, (Route("0.0.0.0/0"),))
    assert clock[0] < 1


@pytest.mark.parametrize(("absent", "version"), [(AF_INET6, 6), (AF_INET, 4)])
def test_a_family_that_is_off_and_needed(clock: list[float], absent: int, version: int) -> None:
    for wanted in ({"addresses": ["10.6.7.7/24", "fd00::7/64"]}, {"routes": ["0.0.0.0/0", "::/0"]}):
        made = tunnel(absent={absent})
        before = made.api.state()
        with pytest.raises(tunring.FamilyDisabled, match=f"has no IPv{version}: it is switched off") as caught:
            made.configure(mtu=1420, **wanted)
        assert caught.value.version == version
        assert made.api.state() == before


@pytest.mark.parametrize(("name", "skipped"), [("CreateUnicastIpAddressEntry", 1), ("CreateIpForwardEntry2", 2)])
def test_a_family_that_goes_away(clock: list[float], name: str, skipped: int) -> None:
    made = tunnel()
    before = made.api.state()
    made.api.failures[name] = [0] * skipped + [50]
    with pytest.raises(tunring.FamilyDisabled, match="has no IPv6") as caught:
        made.configure(**EVERYTHING)
    assert caught.value.version == 6
    assert made.api.state() == before


def test_a_system_without_interface_tables(clock: list[float]) -> None:
    made = tunnel()
    made.api.failures["GetIpInterfaceTable"] = [50]
    with pytest.raises(NotImplementedError, match="'OfficeNet': this system does not implement that"):
        made.configure(**EVERYTHING)


def test_an_address_of_another_interface(clock: list[float]) -> None:
    made = tunnel()
    made.api.give_address("10.6.7.7/24")
    before = made.api.state()
    with pytest.raises(tunring.AlreadyExists, match=r"can't add 10\.6\.7\.7/16 .*: it exists on another interface"):
        made.configure(["10.6.7.8/24", "10.6.7.7/16"], 1420)
    assert made.api.state() == before


def test_an_address_with_another_prefix(clock: list[float]) -> None:
    made = tunnel()
    made.configure(["10.6.7.7/24"])
    with pytest.raises(tunring.AlreadyExists, match=r"can't add 10\.6\.7\.7/16 .*: it exists as 10\.6\.7\.7/24"):
        made.configure(["10.6.7.7/16"])


def test_a_route_that_somebody_made_with_another_metric(clock: list[float]) -> None:
    made = tunnel()
    made.configure(routes=[Route("10.0.0.0/8", metric=5)])
    made.restart()
    with pytest.raises(tunring.AlreadyExists, match="there is one with another metric"):
        made.configure(routes=["10.0.0.0/8"])


def test_an_mtu_that_is_not_taken(clock: list[float]) -> None:
    made = tunnel(ignored_mtu=1420)
    before = made.api.state()
    with pytest.raises(tunring.WintunError, match=r"should have MTU 1420 .* for IPv4, but has MTU 65535"):
        made.configure(["10.6.7.7/24"], 1420)
    assert made.api.state() == before


def test_an_mtu_that_is_refused(clock: list[float]) -> None:
    made = tunnel()
    made.api.failures["SetIpInterfaceEntry"] = [0, INVALID]
    before = made.api.state()
    with pytest.raises(tunring.WintunError, match=r"can't set MTU 1420 and metric for .*: Windows reports error 87"):
        made.configure(mtu=1420)
    assert made.api.state() == before


def test_a_small_mtu_is_for_ipv4(clock: list[float]) -> None:
    made = tunnel()
    assert made.configure(["10.6.7.7/24"], 576).mtu == 576
    assert [made.api.interface(family).mtu for family in (AF_INET, AF_INET6)] == [576, 65535]


def test_addresses_that_become_usable(clock: list[float]) -> None:
    made = tunnel(tentative=100)
    made.configure(["10.6.7.7/24"])
    assert made.api.tentative == 0
    assert 0.5 < clock[0] < 5


def test_addresses_that_never_become_usable(clock: list[float]) -> None:
    made = tunnel(tentative=-1)
    with pytest.raises(tunring.WintunError, match=r"10\.6\.7\.7/24 on adapter 'OfficeNet' can't be used after 5 s"):
        made.configure(["10.6.7.7/24"])
    assert made.api.addresses == []


def test_an_address_that_another_host_has(clock: list[float]) -> None:
    made = tunnel(tentative=10, final_state=DAD_DUPLICATE)
    with pytest.raises(tunring.WintunError, match="another host has it"):
        made.configure(["10.6.7.7/24"])
    assert made.api.addresses == []


def test_without_a_link_nothing_is_waited_for(clock: list[float]) -> None:
    made = tunnel(connected=False)
    assert not made.configure(["10.6.7.7/24", "fd00::7/64"]).up
    assert clock[0] == 0


def test_dns_settings_that_come_late(clock: list[float]) -> None:
    made = tunnel()
    made.api.failures["GetInterfaceDnsSettings"] = [2] * 20
    made.api.failures["SetInterfaceDnsSettings"] = [NOT_FOUND] * 20
    assert made.configure(dns=["9.9.9.9"]).dns == (ip_address("9.9.9.9"),)


def test_dns_settings_that_never_come(clock: list[float]) -> None:
    made = tunnel()
    made.api.failures["SetInterfaceDnsSettings"] = [2] * 10**6
    before = made.api.state()
    with pytest.raises(
        tunring.NotFound, match=r"can't set the DNS servers 9\.9\.9\.9 on adapter 'OfficeNet': .* not complete"
    ):
        made.configure(["10.6.7.7/24"], dns=["9.9.9.9"])
    made.api.failures.clear()
    assert made.api.state() == before


def test_an_older_windows_has_no_dns_functions(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    def lack(*_: object) -> int:
        raise NotImplementedError("this Windows has no GetInterfaceDnsSettings")

    monkeypatch.setattr(FakeIpHelper, "GetInterfaceDnsSettings", lack)
    made = tunnel()
    assert made.configure(["10.6.7.7/24"]).dns == ()
    before = made.api.state()
    with pytest.raises(NotImplementedError, match="no GetInterfaceDnsSettings"):
        made.configure(["10.6.8.8/24"], dns=["9.9.9.9"])
    assert made.api.state() == before


def test_down_is_not_for_windows(clock: list[float]) -> None:
    made = tunnel()
    with pytest.raises(NotImplementedError, match="'OfficeNet' can't be brought down: on Windows it is up while"):
        made.configure(["10.6.7.7/24"], up=False)
    assert made.api.calls == []


def test_an_interface_that_goes_away_in_the_middle(clock: list[float]) -> None:
    made = tunnel()
    made.api.failures["CreateIpForwardEntry2"] = [0, NOT_FOUND]
    with pytest.raises(tunring.NotFound, match=r"the route to 10\.0\.0\.0/8 by 10\.6\.7\.1 .*: the interface is gone"):
        made.configure(**EVERYTHING)


def test_undo_after_the_interface_is_gone(clock: list[float]) -> None:
    made = tunnel(stays=True)
    made.configure(**EVERYTHING)
    made.api.interfaces, made.api.addresses, made.api.routes = [], [], []
    # Its name servers can't be asked for any more either.
    made.api.failures["ConvertInterfaceLuidToGuid"] = [NOT_FOUND] * 2
    assert made.close() is None


# ---- A default route beside another one


UPLINK = {"0.0.0.0/0": "192.0.2.1", "::/0": "fe80::1"}


def with_uplink(**options: Any) -> Tunnel:
    made = tunnel(**options)
    for network, hop in UPLINK.items():
        made.api.give_route(network, hop)
    return made


def hops(made: Tunnel, network: str) -> list[tuple[int, str]]:
    """The routes to a network, as (interface, next hop)."""
    return [
        (row.luid, str(row.next_hop.host))
        for row in made.api.routes
        if f"{row.destination.prefix.host}/{row.destination.length}" == network
    ]


def test_a_default_route_by_metric(clock: list[float]) -> None:
    made = with_uplink(stays=True)
    before = made.api.state()
    for _ in range(2):
        found = made.configure(["10.6.7.7/24", "fd00::7/64"], default=True, bypass=["198.51.100.1", "2001:db8::/32"])
        assert (found.default, found.mark, found.table, found.metric) == ((4, 6), None, None, 1)
    assert hops(made, "0.0.0.0/0") == [(OTHER_LUID, "192.0.2.1"), (LUID, "0.0.0.0")]
    assert hops(made, "::/0") == [(OTHER_LUID, "fe80::1"), (LUID, "::")]
    assert hops(made, "198.51.100.1/32") == [(OTHER_LUID, "192.0.2.1")]
    assert hops(made, "2001:db8::/32") == [(OTHER_LUID, "fe80::1")]
    # Later, when everything leads into the tunnel already.
    made.configure(bypass=["203.0.113.0/24"])
    assert hops(made, "203.0.113.0/24") == [(OTHER_LUID, "192.0.2.1")]
    assert made.close() is None
    assert made.api.state() == before


def test_what_bypasses_outlives_the_interface(clock: list[float]) -> None:
    made = with_uplink()
    made.configure(["10.6.7.7/24"], default=4, bypass=["198.51.100.1"])
    assert made.close() is None
    assert hops(made, "198.51.100.1/32") == []


def test_a_route_that_somebody_has_made_stays(clock: list[float]) -> None:
    made = with_uplink(stays=True)
    made.api.give_route("198.51.100.1/32", "192.0.2.1")
    before = made.api.state()
    made.configure(["10.6.7.7/24"], default=4, bypass=["198.51.100.1"])
    made.close()
    assert made.api.state() == before


def test_only_one_family(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    made = with_uplink()
    assert made.configure(["10.6.7.7/24"], default=True).default == (4,)
    assert "no default route of IPv6: such traffic goes by 'Ethernet'" in caplog.text
    assert [made.api.interface(family).automatic_metric for family in (AF_INET, AF_INET6)] == [0, 1]
    caplog.clear()
    assert made.configure(["fd00::7/64"]).default == (4, 6)
    assert caplog.text == ""


def test_a_default_route_that_would_lose(clock: list[float]) -> None:
    made = with_uplink()
    before = made.api.state()
    with pytest.raises(
        tunring.AlreadyExists, match=r"of IPv4: 'Ethernet' has it with the metric 5, which 7 does not beat"
    ):
        made.configure(["10.6.7.7/24"], default=True, metric=7)
    assert made.api.state() == before
    assert made.configure(["10.6.7.7/24"], default=True, metric=4).metric == 4


def test_default_takes_an_address(clock: list[float]) -> None:
    made = with_uplink()
    with pytest.raises(ValueError, match="adapter 'OfficeNet' has none"):
        made.configure(default=True)
    assert made.configure(default=6).default == (6,)


def test_both_default_routes_without_an_address_of_one(clock: list[float]) -> None:
    made = with_uplink()
    assert made.configure(["10.6.7.7/24"], default=(4, 6)).default == (4, 6)


def test_nothing_to_bypass_by(clock: list[float]) -> None:
    made = tunnel()
    before = made.api.state()
    with pytest.raises(tunring.NotFound, match=r"198\.51\.100\.1/32 can't bypass .*: no other interface leads there"):
        made.configure(["10.6.7.7/24"], default=True, bypass=["198.51.100.1"])
    assert made.api.state() == before


def test_a_full_tunnel_that_fails_is_undone(clock: list[float]) -> None:
    given: dict[str, Any] = {"addresses": ["10.6.7.7/24"], "default": True, "bypass": ["198.51.100.1"]}
    complete = with_uplink()
    complete.configure(**given)
    steps = functions_of(complete)
    assert len(steps) == 4
    for number, name in enumerate(steps):
        made = with_uplink()
        before = made.api.state()
        made.api.failures[name] = [0] * steps[:number].count(name) + [ACCESS_DENIED]
        with pytest.raises(tunring.AccessDenied):
            made.configure(**given)
        assert made.api.state() == before, name


class Socket:
    """The options that a socket is given."""

    def __init__(self, family: int) -> None:
        self.family = family
        self.options: list[tuple[int, int, bytes]] = []

    def setsockopt(self, level: int, option: int, value: bytes) -> None:
        self.options.append((level, option, value))


def test_sockets_are_bound_to_the_uplink(clock: list[float]) -> None:
    made = with_uplink()
    made.configure(["10.6.7.7/24", "fd00::7/64"], default=True)
    index = OTHER_LUID >> 24 & 0xFFFF
    four, six = Socket(socket.AF_INET), Socket(socket.AF_INET6)
    bind_beside(made.interface, four)
    bind_beside(made.interface, six)
    # IP_UNICAST_IF is in network byte order, IPV6_UNICAST_IF in the host's.
    ipv4 = (socket.IPPROTO_IP, 31, index.to_bytes(4, "big"))
    assert four.options == [ipv4]
    assert six.options == [(socket.IPPROTO_IPV6, 31, index.to_bytes(4, sys.byteorder)), ipv4]
    made.api.routes = [row for row in made.api.routes if row.luid == LUID]
    with pytest.raises(tunring.NotFound, match="nothing but adapter 'OfficeNet' has a default route of IPv4"):
        bind_beside(made.interface, four)


def test_a_gateway_behind_another_interface(clock: list[float]) -> None:
    made = with_uplink()
    made.api.give_route("192.0.2.0/24", "0.0.0.0")
    made.configure(["10.6.7.7/24"])
    before = made.api.state()
    for routes in (
        ["0.0.0.0/1", "128.0.0.0/1", ("198.51.100.1/32", "192.0.2.1")],
        [("198.51.100.1/32", "203.0.113.1")],
    ):
        with pytest.raises(tunring.InvalidArgument, match="its gateway is not on the adapter, but behind 'Ethernet'"):
            made.configure(routes=routes)
        assert made.api.state() == before
    made.configure(routes=["172.16.0.1/32", ("172.17.0.0/16", "172.16.0.1"), ("172.18.0.0/16", "10.6.7.1")])


# ---- Missing and different on Windows


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"addresses": ["10.8.0.1 peer 10.8.0.2/32"]}, r"no addresses with a peer; .* routes=\['10\.8\.0\.2/32'\]"),
        ({"domains": ["~corp.example"]}, r"'~corp\.example': Windows routes names by a policy table"),
        ({"queue_length": 1000}, r"the session's ring is the queue, start_session\(capacity=\.\.\.\)"),
        ({"default": 4, "mark": 7}, "mark=7: Windows has no marks"),
        ({"default": 4, "table": 7}, "table=7: Windows has no marks and no routing tables"),
    ],
)
def test_not_on_windows(clock: list[float], given: dict[str, Any], words: str) -> None:
    made = tunnel()
    with pytest.raises(NotImplementedError, match=f"'OfficeNet' can't have .*{words}"):
        made.configure(**given)
    assert made.api.calls == []


def test_search_domains(clock: list[float]) -> None:
    made = tunnel()
    made.api.domains[AF_INET] = "old.example"
    before = made.api.state()
    for _ in range(2):
        assert made.configure(domains=["Corp.example", "lab.example."]).domains == ("corp.example", "lab.example")
    assert made.api.domains == {AF_INET: "corp.example,lab.example", AF_INET6: "corp.example,lab.example"}
    assert made.api.calls.count("SetInterfaceDnsSettings") == 2
    assert made.configure(dns=["9.9.9.9"]).domains == ("corp.example", "lab.example")
    assert made.close() is None
    assert made.api.state() == before


def test_ipv6_quiet_and_back(clock: list[float]) -> None:
    made = tunnel(stays=True)
    before = made.api.state()
    made.configure(["10.6.7.7/24"], ipv6=False)
    row = made.api.interface(AF_INET6)
    assert (row.router_discovery, row.dad_transmits) == (0, 0)
    assert made.api.interface(AF_INET).router_discovery == 2
    made.configure(mtu=1400)
    assert made.api.interface(AF_INET6).router_discovery == 0
    made.configure(ipv6=True)
    row = made.api.interface(AF_INET6)
    assert (row.router_discovery, row.dad_transmits) == (1, 1)
    made.configure(ipv6=False)
    assert made.close() is None
    assert made.api.state() == before


def test_tables_are_read_once(clock: list[float]) -> None:
    """The number of calls does not grow with the request."""
    made = tunnel(stays=True)
    addresses = [f"10.{i}.0.1/24" for i in range(100)]
    routes = [f"172.16.{i}.0/24" for i in range(100)]
    made.configure(addresses, routes=routes)
    assert made.api.calls.count("GetUnicastIpAddressTable") <= 3
    assert made.api.calls.count("GetIpForwardTable2") <= 2
    made.api.calls.clear()
    assert made.close() is None
    assert made.api.calls.count("GetUnicastIpAddressTable") == 1
    assert made.api.calls.count("GetIpForwardTable2") == 1


def test_configured_by_a_signal_handler_meanwhile(clock: list[float]) -> None:
    """A nested call's request counts as well, and is undone as well."""
    made = tunnel(stays=True)
    before = made.api.state()
    wait = made.interface._wait_for_addresses

    def interrupted(addresses: Any) -> None:
        made.interface._wait_for_addresses = wait  # type: ignore[method-assign]
        made.configure(["10.9.9.9/24"], routes=["172.16.0.0/12"])
        wait(addresses)

    made.interface._wait_for_addresses = interrupted  # type: ignore[method-assign]
    made.configure(["10.6.7.7/24"], routes=["10.0.0.0/8"])
    # Replaced, since it was made by a call of this adapter.
    found = made.configure(routes=[("172.16.0.0/12", "10.6.7.1")])
    assert Route("172.16.0.0/12") not in found.routes
    assert made.close() is None
    assert made.api.state() == before
