"""Name servers of an interface, by a stand-in for systemd-resolved on a D-Bus of the test's own."""

from __future__ import annotations

import os
import socket
import sys
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

import tunring

if TYPE_CHECKING:
    from fake_resolved import FakeResolved

pytestmark = pytest.mark.root

SERVERS = (ip_address("10.6.7.1"), ip_address("fd00::1"))
PACKED = [(socket.AF_INET, SERVERS[0].packed), (socket.AF_INET6, SERVERS[1].packed)]


def nothing(adapter: tunring.Adapter) -> bool:
    return adapter.configuration() == tunring.Configuration(
        (), 1500, None, (), (), False, queue_length=500, carrier=False
    )


def test_set_read_and_undone(adapter: tunring.Adapter, resolved: FakeResolved) -> None:
    assert adapter.ifindex == 2
    for _ in range(2):
        assert adapter.configure(["10.6.7.7/24"], dns=["10.6.7.1", "fd00::1"]).dns == SERVERS
        assert resolved.links[2] == PACKED
    assert resolved.calls.count("SetLinkDNS") == 1
    assert adapter.configure(mtu=1400).dns == SERVERS
    assert adapter.configure(dns=["9.9.9.9"]).dns == (ip_address("9.9.9.9"),)
    adapter.close()
    assert resolved.links[2] == []


def test_what_it_had_comes_back(adapter: tunring.Adapter, resolved: FakeResolved) -> None:
    resolved.links[2] = PACKED[:1]
    adapter.configure(dns=["9.9.9.9"])
    adapter.close()
    assert resolved.links[2] == PACKED[:1]


def test_domains(adapter: tunring.Adapter, resolved: FakeResolved) -> None:
    resolved.domains[2] = [("old.example", False)]
    wanted = ["Corp.example.", "~lab.example", "bücher.example"]
    for _ in range(2):
        found = adapter.configure(dns=SERVERS, domains=wanted)
        assert found.domains == ("corp.example", "~lab.example", "xn--bcher-kva.example")
    assert resolved.domains[2] == [("corp.example", False), ("lab.example", True), ("xn--bcher-kva.example", False)]
    assert resolved.calls.count("SetLinkDomains") == 1
    assert "SetLinkDefaultRoute" not in resolved.calls
    assert adapter.configure(dns=["9.9.9.9"]).domains == found.domains
    adapter.close()
    assert (resolved.links[2], resolved.domains[2]) == ([], [("old.example", False)])


def test_the_domain_of_everything(adapter: tunring.Adapter, resolved: FakeResolved) -> None:
    assert adapter.configure(dns=SERVERS, domains=["~."]).domains == ("~.",)
    assert (resolved.domains[2], resolved.default_routes[2]) == ([(".", True)], True)
    adapter.configure(domains=["corp.example"])
    assert resolved.default_routes[2] is False
    adapter.configure(domains=["~."])
    adapter.close()
    assert (resolved.domains[2], resolved.default_routes[2]) == ([], False)


@pytest.mark.parametrize("domain", ["", ".", "~", "a..b", "-a.example", "a" * 64, "a.b c", "x." * 127 + "xx", "~~a"])
def test_refused_domains(adapter: tunring.Adapter, domain: str) -> None:
    with pytest.raises(ValueError, match=r"a DNS domain must look like 'corp\.example', '~corp\.example' or '~\.'"):
        adapter.configure(domains=[domain])


def test_domains_of_the_wrong_type(adapter: tunring.Adapter) -> None:
    with pytest.raises(TypeError, match=r"a list of domains, not 'corp\.example' alone"):
        adapter.configure(domains="corp.example")
    with pytest.raises(TypeError, match="a DNS domain must be a str, not 7"):
        adapter.configure(domains=[7])  # type: ignore[list-item]


def test_a_new_interface_is_waited_for(adapter: tunring.Adapter, resolved: FakeResolved) -> None:
    resolved.late = 20
    assert adapter.configure(dns=SERVERS).dns == SERVERS


@pytest.mark.parametrize("forgetful", [False, True])
def test_a_refusal_is_undone(adapter: tunring.Adapter, resolved: FakeResolved, forgetful: bool) -> None:
    resolved.forgetful = forgetful
    if not forgetful:
        resolved.errors["SetLinkDNS"] = "org.freedesktop.resolve1.LinkBusy"
    expected = "should have the DNS servers" if forgetful else "systemd-resolved refuses .*: it says no"
    with pytest.raises(tunring.WintunError, match=expected):
        adapter.configure(["10.6.7.7/24"], 1400, dns=SERVERS, routes=["0.0.0.0/0"])
    assert nothing(adapter)


@pytest.mark.parametrize("name", ["AccessDenied", "InteractiveAuthorizationRequired"])
def test_without_the_privilege(adapter: tunring.Adapter, resolved: FakeResolved, name: str) -> None:
    resolved.errors["SetLinkDNS"] = f"org.freedesktop.DBus.Error.{name}"
    with pytest.raises(PermissionError, match="refuses to change an interface's DNS: it says no"):
        adapter.configure(dns=SERVERS)


@pytest.mark.parametrize(
    ("process", "expected"),
    [
        (None, "no systemd-resolved is running"),
        (os.getpid(), "systemd-resolved serves another network namespace than the adapter is in"),
        (2**22 + 1, "can't find out the network namespace of systemd-resolved"),
    ],
)
def test_no_resolver_for_this_namespace(
    adapter: tunring.Adapter, resolved: FakeResolved, process: int | None, expected: str
) -> None:
    resolved.process = process
    with pytest.raises(NotImplementedError, match=f"requires systemd-resolved on Linux: {expected}"):
        adapter.configure(["10.6.7.7/24"], dns=SERVERS)
    assert nothing(adapter)
    assert adapter.configure(["10.6.7.7/24"]).dns == ()


@pytest.mark.parametrize("address", ["unix:path=/nonexistent/bus", "tcp:host=localhost", "nonsense"])
def test_no_bus(adapter: tunring.Adapter, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
    with pytest.raises(NotImplementedError, match=r"there is no D-Bus system bus \(.*\)"):
        adapter.configure(["10.6.7.7/24"], dns=SERVERS)
    assert nothing(adapter)


def test_without_jeepney(adapter: tunring.Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jeepney", None)
    with pytest.raises(NotImplementedError, match=r"needs jeepney: pip install jeepney"):
        adapter.configure(["10.6.7.7/24"], dns=SERVERS)
    assert nothing(adapter)


@pytest.mark.parametrize("answers", [0, 1, 2, 3])
@pytest.mark.parametrize("silent", [False, True])
def test_a_resolver_that_stops(
    adapter: tunring.Adapter, resolved: FakeResolved, monkeypatch: pytest.MonkeyPatch, answers: int, silent: bool
) -> None:
    """It hangs up or goes silent after `answers` answers, of which the first is the bus's greeting."""
    from tunring.configuration import _resolved_linux as resolved_linux

    monkeypatch.setattr(resolved_linux, "_ANSWER_SECONDS", 0.2)
    resolved.answers, resolved.silent = answers, silent
    with pytest.raises((NotImplementedError, tunring.WintunError)):
        adapter.configure(["10.6.7.7/24"], dns=SERVERS)
    resolved.answers = None
    assert nothing(adapter)


def test_reading_needs_nothing(adapter: tunring.Adapter, resolved: FakeResolved) -> None:
    resolved.links[2] = PACKED
    assert adapter.configuration().dns == SERVERS
    changing: list[Any] = [call for call in resolved.calls if call.startswith("Set")]
    assert changing == []
