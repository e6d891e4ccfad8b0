"""A default route beside another one: by rules and a table, looked at with ``ip route get`` and with datagrams."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import tunring
from running import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from netns import Namespace

pytestmark = pytest.mark.root

SERVER, SERVER6 = "198.51.100.1", "2001:db8:51::1"
ELSEWHERE, ELSEWHERE6 = "203.0.113.9", "2001:db8:99::9"

SETTINGS = Path("/proc/sys/net/ipv4/conf")


@pytest.fixture
def pristine(uplink: Namespace) -> Iterator[Namespace]:
    """The namespace, whose rules, routes and settings are at the end what they were."""
    before = everything(uplink)
    yield uplink
    assert everything(uplink) == before


def everything(namespace: Namespace) -> set[str]:
    """All rules and routes, and the settings that come with them."""
    shown = [namespace.ip(f"-{version} {what}") for version in (4, 6) for what in ("rule", "route show table all")]
    with namespace.entered():
        shown += [f"{name} {(SETTINGS / 'all' / name).read_text()}" for name in ("src_valid_mark", "rp_filter")]
    # A link's state, and routes that the kernel adds a moment later, are not configuration.
    lines = {line.replace("linkdown", "").strip() for text in shown for line in text.splitlines()}
    return {line for line in lines if not line.startswith("multicast")}


def rules(namespace: Namespace, version: int = 4) -> list[str]:
    """The rules but the kernel's own."""
    lines = [line.split(":\t")[1].strip() for line in namespace.ip(f"-{version} rule").splitlines()]
    return [
        line
        for line in lines
        if line not in ("from all lookup local", "from all lookup main", "from all lookup default")
    ]


def way(namespace: Namespace, target: str, *options: str) -> str:
    """The interface that packets to a host leave by."""
    words = namespace.ip(f"route get {target} {' '.join(options)}").split()
    return words[words.index("dev") + 1]


def test_everything_but_the_bypass(uplink: Namespace, create: Callable[..., tunring.Adapter]) -> None:
    before = everything(uplink)
    adapter = create("tun0")
    found = adapter.configure(["10.9.0.2/24", "fd09::2/64"], default=True, bypass=[SERVER, "2001:db8:51::/48"])
    assert (found.default, found.mark, found.table) == ((4, 6), 51820, 51820)
    assert found.routes == (), "what is in its own table is no route of the main one"
    assert rules(uplink) == [
        f"from all to {SERVER} lookup main proto 116",
        "from all lookup main suppress_prefixlength 0 proto 116",
        "not from all fwmark 0xca6c lookup 51820 proto 116",
    ]
    for target, tunnelled in ((SERVER, False), (ELSEWHERE, True), (SERVER6, False), (ELSEWHERE6, True)):
        assert way(uplink, target) == ("tun0" if tunnelled else "up0")
        assert way(uplink, target, "mark 51820") == "up0"
    for neighbour in ("192.0.2.7", "2001:db8:2::7"):
        assert way(uplink, neighbour) == "up0", "more specific routes of the main table count"
    assert adapter.configure(mtu=1400).default == (4, 6)
    adapter.close()
    assert everything(uplink) == before


def test_what_bypasses_follows_the_uplink(pristine: Namespace, adapter: tunring.Adapter) -> None:
    adapter.configure(["10.9.0.2/24"], default=True, bypass=[SERVER])
    pristine.ip("link add other0 type veth peer name other1")
    pristine.set_up("other0", "198.18.0.2/24")
    pristine.ip("link set other1 up")
    pristine.ip("route replace default via 198.18.0.1")
    assert (way(pristine, SERVER), way(pristine, ELSEWHERE)) == ("other0", "tun0")
    pristine.ip("link del other0")
    pristine.ip("route add default via 192.0.2.1")
    adapter.close()


def test_a_bypass_that_comes_later(pristine: Namespace, adapter: tunring.Adapter) -> None:
    adapter.configure(["10.9.0.2/24"], default=4)
    assert way(pristine, SERVER) == "tun0"
    adapter.configure(bypass=[SERVER])
    adapter.configure(bypass=["198.51.100.64/26"])
    assert (way(pristine, SERVER), way(pristine, "198.51.100.65"), way(pristine, ELSEWHERE)) == ("up0", "up0", "tun0")
    adapter.close()


def test_a_socket_that_bypasses(pristine: Namespace, adapter: tunring.Adapter) -> None:
    with adapter.start_session() as session, pristine.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        with pytest.raises(RuntimeError, match=r"configure\(default=True\)"):
            adapter.bypass(sock)
        adapter.configure(["10.9.0.2/24"], default=True, mark=77, table=1234)
        sock.sendto(b"in", (ELSEWHERE, 9))
        with session.receive(timeout=10) as batch:
            assert bytes(batch[0][28:]) == b"in"
        adapter.bypass(sock)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) == 77
        before = int(pristine.ip("-s -json link show up0").partition('"tx":{"bytes":')[2].split(",")[1].split(":")[1])
        pristine.ip("neighbour replace 192.0.2.1 lladdr 02:00:00:00:00:01 dev up0")
        sock.sendto(b"beside", (ELSEWHERE, 9))
        after = int(pristine.ip("-s -json link show up0").partition('"tx":{"bytes":')[2].split(",")[1].split(":")[1])
        assert after > before
        assert not session.receive(timeout=0.1)
    pristine.ip("neighbour del 192.0.2.1 dev up0")
    adapter.close()


@pytest.mark.parametrize("number", [0x7FFFFFFF, 0x80000001, 0xFFFFFFFF])
def test_marks_and_tables_of_32_bits(pristine: Namespace, adapter: tunring.Adapter, number: int) -> None:
    found = adapter.configure(["10.9.0.2/24", "fd09::2/64"], default=True, mark=number, table=number)
    assert (found.mark, found.table) == (number, number)
    assert adapter.configuration().default == (4, 6)
    assert (way(pristine, ELSEWHERE), way(pristine, ELSEWHERE, f"mark {number}")) == ("tun0", "up0")
    for family in (socket.AF_INET, socket.AF_INET6):
        with pristine.socket(family, socket.SOCK_DGRAM) as sock:
            adapter.bypass(sock)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) & 0xFFFFFFFF == number
    adapter.close()


def test_a_mark_that_is_the_tables_number(pristine: Namespace, adapter: tunring.Adapter) -> None:
    assert adapter.configure(["10.9.0.2/24"], default=True, table=0xFFFFFFFF).mark == 0xFFFFFFFF
    with pristine.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        adapter.bypass(sock)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) & 0xFFFFFFFF == 0xFFFFFFFF
    adapter.close()


def test_replies_pass_the_reverse_path_filter(pristine: Namespace, adapter: tunring.Adapter) -> None:
    """A peer's answer arrives at the sender although the reverse path filter is strict."""
    for name in ("all", "up0"):
        pristine.write_sysctl(f"net/ipv4/conf/{name}/rp_filter", "1")
    adapter.configure(["10.9.0.2/24"], default=True, bypass=[SERVER])
    reply = f"route get from {SERVER} to 192.0.2.2 iif up0"
    assert "local 192.0.2.2 from 198.51.100.1" in pristine.ip(reply)
    for name in ("all", "up0"):
        pristine.write_sysctl(f"net/ipv4/conf/{name}/rp_filter", "0")
    adapter.close()


def filter_of(namespace: Namespace, scope: str = "all") -> str:
    with namespace.entered():
        return (SETTINGS / scope / "rp_filter").read_text().strip()


@pytest.mark.parametrize(
    ("strict", "default", "meanwhile"),
    [
        ({"all": "1"}, 4, "2"),
        ({"up0": "1"}, True, "2"),
        ({"default": "1"}, (4, 6), "2"),
        ({"all": "2", "up0": "1"}, 4, "2"),
        ({}, 4, "0"),
        ({"all": "1"}, 6, "1"),
    ],
)
def test_a_strict_filter_is_loose_meanwhile(
    uplink: Namespace, create: Callable[..., tunring.Adapter], strict: dict[str, str], default: Any, meanwhile: str
) -> None:
    for scope in ("all", "default", "lo", "up0", "up1"):
        uplink.write_sysctl(f"net/ipv4/conf/{scope}/rp_filter", strict.get(scope, "0"))
    adapter = create("tun0")
    adapter.configure(["10.9.0.2/24"], default=default)
    assert filter_of(uplink) == meanwhile
    adapter.configure(mtu=1400)
    adapter.close()
    assert [filter_of(uplink, scope) for scope in ("all", "up0")] == [strict.get(s, "0") for s in ("all", "up0")]


def test_a_filter_that_somebody_else_has_set_stays(uplink: Namespace, adapter: tunring.Adapter) -> None:
    uplink.write_sysctl("net/ipv4/conf/all/rp_filter", "1")
    adapter.configure(["10.9.0.2/24"], default=True)
    assert filter_of(uplink) == "2"
    uplink.write_sysctl("net/ipv4/conf/all/rp_filter", "0")
    adapter.close()
    assert filter_of(uplink) == "0"


def test_one_family_and_a_warning(
    pristine: Namespace, adapter: tunring.Adapter, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "tunring"):
        assert adapter.configure(["10.9.0.2/24", "fd09::2/64"], default=4).default == (4,)
    assert "no default route of IPv6: such traffic goes by 'up0'" in caplog.text
    assert (way(pristine, ELSEWHERE), way(pristine, ELSEWHERE6)) == ("tun0", "up0")
    caplog.clear()
    adapter.configure(default=6)
    assert caplog.text == ""
    assert (way(pristine, ELSEWHERE), way(pristine, ELSEWHERE6)) == ("tun0", "tun0")
    adapter.close()


def test_only_families_that_have_addresses(pristine: Namespace, adapter: tunring.Adapter) -> None:
    with pytest.raises(ValueError, match="adapter 'tun0' has none"):
        adapter.configure(default=True)
    assert adapter.configure(["10.9.0.2/24"], default=True).default == (4,)
    assert way(pristine, ELSEWHERE6) == "up0"
    assert adapter.configure(["fd09::2/64"]).default == (4, 6)
    assert way(pristine, ELSEWHERE6) == "tun0"
    adapter.close()


def test_both_families_without_an_address_of_one(pristine: Namespace, adapter: tunring.Adapter) -> None:
    """A version that is asked for is covered even without an address: no packet goes beside the tunnel."""
    assert adapter.configure(["10.9.0.2/24"], default=(4, 6), mark=77).default == (4, 6)
    for target in (ELSEWHERE, ELSEWHERE6):
        assert (way(pristine, target), way(pristine, target, "mark 77")) == ("tun0", "up0")
    assert len(rules(pristine, 6)) == 2
    adapter.close()


def test_a_second_one_is_refused(pristine: Namespace, create: Callable[..., tunring.Adapter]) -> None:
    first, second = create("tun0"), create("tun1")
    first.configure(["10.9.0.2/24"], default=True)
    second.configure(["10.8.0.2/24"])
    before, state = everything(pristine), second.configuration()
    with pytest.raises(tunring.AlreadyExists, match=r"'tun1' can't have the default route of IPv4: 'tun0' has it"):
        second.configure(["10.7.0.2/24"], default=True)
    assert (everything(pristine), second.configuration()) == (before, state)
    first.close()
    assert second.configure(default=True).default == (4,)
    second.close()


def test_the_first_table_that_is_free(pristine: Namespace, adapter: tunring.Adapter) -> None:
    pristine.ip("route add 192.0.2.128/25 dev up0 table 51820")
    pristine.ip("rule add from 192.0.2.200 lookup 51821")
    pristine.ip("-6 route add 2001:db8:7::/48 dev up0 table 51822")
    assert adapter.configure(["10.9.0.2/24"], default=True).table == 51823
    pristine.ip("route del 192.0.2.128/25 dev up0 table 51820")
    pristine.ip("rule del from 192.0.2.200 lookup 51821")
    pristine.ip("-6 route del 2001:db8:7::/48 dev up0 table 51822")
    adapter.close()


def test_down_and_up_again(pristine: Namespace, adapter: tunring.Adapter) -> None:
    before = adapter.configure(["10.9.0.2/24", "fd09::2/64"], default=True, bypass=[SERVER])
    adapter.configure(up=False)
    assert way(pristine, ELSEWHERE) == "up0"
    assert adapter.configure() == before
    assert (way(pristine, ELSEWHERE), way(pristine, ELSEWHERE6), way(pristine, SERVER)) == ("tun0", "tun0", "up0")
    adapter.close()


def test_a_refusal_is_undone(pristine: Namespace, adapter: tunring.Adapter) -> None:
    adapter.configure(["10.9.0.2/24"])
    before, state = everything(pristine), adapter.configuration()
    with pytest.raises(tunring.WintunError):
        adapter.configure(["::1"], default=True, bypass=[SERVER])
    pristine.ip("route add default dev up0 table 1234")
    with pytest.raises(tunring.AlreadyExists, match="'up0' has it"):
        adapter.configure(default=True, table=1234)
    pristine.ip("route del default dev up0 table 1234")
    assert (everything(pristine), adapter.configuration()) == (before, state)
    adapter.close()


def test_values_that_are_refused(adapter: tunring.Adapter) -> None:
    given: list[tuple[dict[str, Any], str]] = [
        ({"default": 5}, r"default must be True, False, 4, 6 or \(4, 6\), not 5"),
        ({"bypass": [SERVER]}, "bypass is for a default route"),
        ({"mark": 5}, "mark is for a default route"),
        ({"table": 77}, "table is for routes"),
        ({"default": 4, "mark": 0}, "mark must be 1 to 0xffffffff, not 0"),
        ({"default": 4, "table": 254}, "table must be .* not 254"),
        ({"default": 4, "bypass": ["0.0.0.0/0"]}, "is everything"),
        ({"default": 4, "bypass": ["10.1.2.3/8"]}, "host bits"),
        ({"default": 4, "up": False}, "up must be True for a default route"),
    ]
    for values, words in given:
        with pytest.raises(ValueError, match=words):
            adapter.configure(**values)
    with pytest.raises(TypeError, match=r"a list of hosts and networks, not .* alone"):
        adapter.configure(default=4, bypass=SERVER)
    adapter.configure(["10.9.0.2/24"], default=4)
    with pytest.raises(ValueError, match="mark is 51820 since an earlier call, and can't become 7"):
        adapter.configure(default=4, mark=7)


def test_the_route_that_somebody_has_is_named(uplink: Namespace, adapter: tunring.Adapter) -> None:
    adapter.configure(["10.9.0.2/24"])
    with pytest.raises(tunring.AlreadyExists, match=r"0\.0\.0\.0/0 .*: 'up0' has it .*; default=True lets both"):
        adapter.configure(routes=["0.0.0.0/0"])


def test_a_gateway_behind_another_interface(uplink: Namespace, adapter: tunring.Adapter) -> None:
    """The tunnel's own datagrams would loop into it, without an error."""
    adapter.configure(["10.9.0.2/24"])
    before = adapter.configuration()
    halves = ["0.0.0.0/1", "128.0.0.0/1"]
    for routes in ([*halves, (f"{SERVER}/32", "192.0.2.1")], [(f"{SERVER}/32", ELSEWHERE)]):
        with pytest.raises(tunring.InvalidArgument, match="its gateway is not on the adapter, but behind 'up0'"):
            adapter.configure(routes=routes)
        assert adapter.configuration() == before
    # A gateway on the adapter is accepted: in one of its networks, or behind its most specific route.
    adapter.configure(
        routes=[*halves, ("198.51.100.0/24", "10.9.0.1"), "172.16.0.1/32", ("172.17.0.0/16", "172.16.0.1")]
    )
    assert way(uplink, "172.17.0.1") == "tun0"


def test_a_read_only_proc_is_a_warning(
    pristine: Namespace,
    adapter: tunring.Adapter,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    from tunring.configuration import _full_tunnel_linux

    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "src_valid_mark").symlink_to("/sys/kernel/uevent_seqnum")  # which is read-only
    monkeypatch.setattr(_full_tunnel_linux, "_SETTINGS", tmp_path)
    adapter.configure(["10.9.0.2/24"], default=True)
    assert "can't be set to 1" in caplog.text
    assert way(pristine, ELSEWHERE) == "tun0"
    adapter.close()


KILLED = """
import os, signal, tunring
adapter = tunring.Adapter.{how}("tun0")
adapter.configure(["10.9.0.2/24", "fd09::2/64"], 1300, default=True, bypass=["198.51.100.1"], routes=["172.16.0.0/12"])
os.kill(os.getpid(), signal.SIGKILL)
"""


def kill_one(namespace: Namespace, how: str) -> None:
    with namespace.entered():
        done = subprocess.run([sys.executable, "-c", KILLED.format(how=how)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL


def test_rules_of_a_process_that_was_killed(
    uplink: Namespace, create: Callable[..., tunring.Adapter], tun: tunring.Library
) -> None:
    """Its interface is gone with it, and its rules lead nowhere: the next adapter that is configured removes them."""
    plain = rules(uplink)
    kill_one(uplink, "create")
    assert eventually(lambda: "tun0" not in uplink.interfaces())
    assert len(rules(uplink)) == 3
    create("tun1").configure(["10.8.0.2/24"])
    assert (rules(uplink), rules(uplink, 6)) == (plain, plain)
    kill_one(uplink, "create")
    adapter = create("tun2")
    adapter.configure(["10.7.0.2/24"], default=True)
    assert len(rules(uplink)) == 2
    adapter.close()
    assert rules(uplink) == plain


@pytest.mark.parametrize("configures", [True, False])
def test_what_a_killed_process_left_on_an_interface(uplink: Namespace, tun: tunring.Library, configures: bool) -> None:
    uplink.ip("tuntap add dev tun0 mode tun")
    uplink.set_up("tun0", "10.1.1.1/24")
    uplink.ip("route add 192.168.0.0/16 dev tun0 proto static")
    kill_one(uplink, "open")
    left = uplink.ip("address show dev tun0")
    assert "10.9.0.2/24" in left
    assert "fd09::2/64" in left
    with uplink.entered():
        adapter = tunring.Adapter.open("tun0", library=tun)
    if configures:
        found = adapter.configure(["10.9.0.3/24"])
        assert [str(address) for address in found.addresses] == ["10.1.1.1/24", "10.9.0.3/24"]
        assert [str(route) for route in found.routes] == ["192.168.0.0/16"]
        assert found.mtu == 1300, "documented: it stays"
    adapter.close()
    shown = json.loads(uplink.ip("-json address show dev tun0"))[0]
    assert [info["local"] for info in shown["addr_info"]] == ["10.1.1.1"]
    assert "192.168.0.0/16" in uplink.ip("route show dev tun0")
    assert "172.16.0.0/12" not in uplink.ip("route show table all dev tun0")
    assert (rules(uplink), rules(uplink, 6)) == ([], [])


def test_what_others_may_be_using_stays(uplink: Namespace, tun: tunring.Library) -> None:
    """On an interface of several queues the process that made it may be alive."""
    from tunring._system.netlink_linux import Netlink
    from tunring.configuration import _snapshot_linux
    from tunring.configuration._interface_linux import LinuxInterface

    uplink.ip("tuntap add dev tun0 mode tun multi_queue")
    uplink.set_up("tun0")
    with uplink.entered(), Netlink() as netlink:
        index = socket.if_nametoindex("tun0")
        address = _snapshot_linux.InterfaceAddress(_snapshot_linux.ip_interface("10.9.0.2/24"))
        assert netlink.run([_snapshot_linux.add_address(index, address, None)]) == []
        assert _snapshot_linux.read_link(netlink, index).multi_queue
        LinuxInterface(netlink, "tun0", index).sweep(interface=True)
        assert address in _snapshot_linux.read_addresses(netlink, index, 4)


def test_a_deleted_interface_leaves_no_rules(pristine: Namespace, adapter: tunring.Adapter) -> None:
    adapter.configure(["10.9.0.2/24"], default=True, bypass=[SERVER])
    pristine.ip("link del tun0")
    adapter.close()


def test_a_program_that_ends_without_closing(pristine: Namespace) -> None:
    script = KILLED.format(how="create").replace("os.kill(os.getpid(), signal.SIGKILL)", "raise SystemExit")
    pristine.run(sys.executable, "-W", "ignore::ResourceWarning", "-c", script)


def test_a_forked_child_leaves_the_rules(uplink: Namespace, adapter: tunring.Adapter) -> None:
    import warnings

    adapter.configure(["10.9.0.2/24"], default=True)
    before = rules(uplink)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        try:
            adapter.close()
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert rules(uplink) == before
