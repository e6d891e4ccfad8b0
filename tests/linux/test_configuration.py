"""Configuration of real interfaces, read back with ``ip``."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from ipaddress import ip_interface
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import tunring

if TYPE_CHECKING:
    from netns import Namespace

pytestmark = pytest.mark.root


def link(namespace: Namespace, name: str = "tun0") -> dict[str, Any]:
    """The output of ``ip`` for an interface."""
    found: dict[str, Any] = json.loads(namespace.ip(f"-json address show dev {name}"))[0]
    return found


def addresses(namespace: Namespace, name: str = "tun0") -> set[str]:
    return {f"{info['local']}/{info['prefixlen']}" for info in link(namespace, name)["addr_info"]}


def state(namespace: Namespace) -> tuple[set[str], int, bool]:
    found = link(namespace)
    return addresses(namespace), found["mtu"], "UP" in found["flags"]


def test_everything_at_once_and_again(adapter: tunring.Adapter, namespace: Namespace) -> None:
    wanted = ["10.6.7.7/24", ip_interface("fd00::7/64"), "10.9.9.9", "fd01::9"]
    for _ in range(2):
        adapter.configure(wanted, 1420)
        assert state(namespace) == ({"10.6.7.7/24", "fd00::7/64", "10.9.9.9/32", "fd01::9/128"}, 1420, True)
    adapter.configure(["10.6.8.7/24"], 1280)
    assert state(namespace)[1] == 1280
    assert "10.6.8.7/24" in addresses(namespace)
    assert len(addresses(namespace)) == 5


@pytest.mark.parametrize("mtu", [68, 1279, 1280, 65535])
def test_mtu(adapter: tunring.Adapter, namespace: Namespace, mtu: int) -> None:
    adapter.configure(mtu=mtu)
    assert state(namespace) == (set(), mtu, True)


def test_up_and_down(adapter: tunring.Adapter, namespace: Namespace) -> None:
    adapter.configure(["10.6.7.7/24"])
    assert state(namespace) == ({"10.6.7.7/24"}, 1500, True)
    adapter.configure(["fd00::7/64"], up=False)
    assert state(namespace) == ({"10.6.7.7/24", "fd00::7/64"}, 1500, False)
    adapter.configure()
    assert state(namespace) == ({"10.6.7.7/24", "fd00::7/64"}, 1500, True)


def test_ipv6_works_at_once(adapter: tunring.Adapter, namespace: Namespace) -> None:
    adapter.configure(["fd00::7/64"])
    (info,) = link(namespace)["addr_info"]
    assert "tentative" not in info
    with namespace.socket(socket.AF_INET6, socket.SOCK_DGRAM) as bound:
        bound.bind(("fd00::7", 0))


@pytest.mark.parametrize(
    ("wanted", "mtu"),
    [(["10.6.7.8/24", "10.0.0.1/33"], 1400), (["10.6.7.8/24", "fd00::8/64"], 1279), (["10.6.7.8/24"], 65536)],
)
def test_bad_input_changes_nothing(adapter: tunring.Adapter, namespace: Namespace, wanted: list[str], mtu: int) -> None:
    adapter.configure(["10.6.7.7/24"], 1420, up=False)
    before = state(namespace)
    with pytest.raises(ValueError):
        adapter.configure(wanted, mtu)
    assert state(namespace) == before


def test_what_the_kernel_refuses_is_undone(adapter: tunring.Adapter, namespace: Namespace) -> None:
    adapter.configure(["10.6.7.7/24", "fd00::7/64"], 1420, up=False)
    before = state(namespace)
    with pytest.raises(tunring.WintunError, match="can't add ::1/128 on adapter 'tun0': the kernel reports"):
        adapter.configure(["10.6.7.8/24", "fd00::8/64", "::1"], 1400)
    assert state(namespace) == before
    with pytest.raises(tunring.WintunError, match=r"can't add fd00::7/48 .* it exists as fd00::7/64"):
        adapter.configure(["10.6.7.8/24", "fd00::7/48"], 1400)
    assert state(namespace) == before


def test_from_another_namespace(adapter: tunring.Adapter, namespaces: tuple[Namespace, Namespace]) -> None:
    home, other = namespaces
    with other.entered():
        adapter.configure(["10.6.7.7/24", "fd00::7/64"], 1420)
        assert other.interfaces() == {"lo"}
        assert os.path.samestat(os.stat("/proc/thread-self/ns/net"), os.fstat(other.fileno()))
    assert state(home) == ({"10.6.7.7/24", "fd00::7/64"}, 1420, True)


def test_after_the_interface_has_moved(adapter: tunring.Adapter, namespaces: tuple[Namespace, Namespace]) -> None:
    home, other = namespaces
    # So that it has another index there.
    for number in range(5):
        other.ip(f"link add veth{number} type veth peer name peer{number}")
    home.ip(f"link set tun0 netns /proc/{os.getpid()}/fd/{other.fileno()}")
    adapter.configure(["10.6.7.7/24"], 1420)
    assert home.interfaces() == {"lo"}
    assert state(other) == ({"10.6.7.7/24"}, 1420, True)


def test_inside_a_running_event_loop(adapter: tunring.Adapter, namespace: Namespace) -> None:
    async def configure() -> None:
        adapter.configure(["10.6.7.7/24"])

    asyncio.run(configure())
    assert addresses(namespace) == {"10.6.7.7/24"}


def test_with_ipv6_switched_off(adapter: tunring.Adapter, namespace: Namespace) -> None:
    namespace.write_sysctl("net/ipv6/conf/tun0/disable_ipv6", "1")
    with pytest.raises(tunring.WintunError, match="can't add fd00::7/64 on adapter 'tun0': IPv6 is disabled"):
        adapter.configure(["10.6.7.7/24", "fd00::7/64"], 1420)
    assert state(namespace) == (set(), 1500, False)
    adapter.configure(["10.6.7.7/24"], 1420)


def test_a_removed_interface(adapter: tunring.Adapter, namespace: Namespace) -> None:
    namespace.ip("link del tun0")
    with pytest.raises((tunring.NotFound, NotImplementedError)):
        adapter.configure(["10.6.7.7/24"])


def test_without_the_privilege(namespace: Namespace) -> None:
    """The owner of a persistent interface may attach to it, but not configure it."""
    namespace.ip("tuntap add dev tun0 mode tun user 0")
    script = """
import tunring
with tunring.Adapter.open("tun0") as adapter:
    try:
        adapter.configure(["10.6.7.7/24"], 1420)
    except tunring.AccessDenied as error:
        print(isinstance(error, PermissionError), error.strerror)
"""
    command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-W", "error", "-c", script]
    printed = namespace.run(*command)
    assert printed.startswith("True can't set MTU 1420 and bring it up on adapter 'tun0'")
    assert "CAP_NET_ADMIN" in printed
    assert state(namespace) == (set(), 1500, False)


def test_reading_takes_no_privilege(namespace: Namespace) -> None:
    namespace.ip("tuntap add dev tun0 mode tun user 0")
    namespace.set_up("tun0", "10.6.7.7/24", mtu=1400)
    script = "import tunring\nwith tunring.Adapter.open('tun0') as adapter: print(adapter.configuration())"
    command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-W", "error", "-c", script]
    printed = namespace.run(*command)
    assert "IPv4Interface('10.6.7.7/24')" in printed
    assert "mtu=1400" in printed


def test_pyroute2_is_imported_only_when_used() -> None:
    script = "import sys, tunring, tunring.configuration, tunring.__main__; print('pyroute2' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", script], text=True, timeout=60) == "False\n"


@pytest.mark.parametrize(("package", "given"), [("pyroute2", "mtu=1400"), ("jeepney", "dns=['9.9.9.9']")])
def test_a_package_that_cannot_be_imported(namespace: Namespace, tmp_path: Path, package: str, given: str) -> None:
    """As in a Python without a part of its library, or in a frozen program: it is installed, which is not the fault."""
    (tmp_path / f"{package}.py").write_text("import a_module_that_this_python_lacks")
    script = f"""
import tunring
with tunring.Adapter.create("tun0") as adapter:
    try:
        adapter.configure({given})
    except (tunring.WintunError, NotImplementedError) as error:
        print(error, repr(error.__cause__))
"""
    printed = namespace.run("env", f"PYTHONPATH={tmp_path}", sys.executable, "-W", "error", "-c", script)
    assert f"needs {package}, which is installed but can't be imported: No module named 'a_module" in printed
    assert "ModuleNotFoundError" in printed
    assert "pip install" not in printed
