"""tunring's WireGuard and wireguard-go, both controlled by wg: each begins, over IPv4 and IPv6, and each roams."""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from needed_programs import need_programs
from wireguard_hosts import PORT, Host, join, tunring_command, wireguard_go_in

from running import eventually
from tunring.wireguard import Key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from netns import Namespace

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

Hosts = tuple[Host, Host]


@pytest.fixture(scope="session")
def wireguard_go(tmp_path_factory: pytest.TempPathFactory) -> str:
    return wireguard_go_in(tmp_path_factory.mktemp("go"))


@pytest.fixture(scope="session", autouse=True)
def _tools() -> None:
    need_programs("wg", "ip", "ping")


@pytest.fixture
def make(namespaces: tuple[Namespace, Namespace], request: pytest.FixtureRequest) -> Iterator[Callable[..., Hosts]]:
    """Makes two running hosts of the named kinds, without peers."""
    join(*namespaces)
    with ExitStack() as stack:

        def hosts(*kinds: str) -> Hosts:
            made = []
            for number, (namespace, kind) in enumerate(zip(namespaces, kinds, strict=True), 1):
                command = tunring_command() if kind == "tunring" else [request.getfixturevalue("wireguard_go"), "-f"]
                host = Host(namespace, number, kind, command)
                stack.callback(host.stop)
                host.start()
                made.append(host)
            return made[0], made[1]

        yield hosts


KINDS = [("tunring", "go"), ("go", "tunring"), ("tunring", "tunring")]


@pytest.mark.parametrize("outside", ["192.0.2.2", "[fd77::2]"])
@pytest.mark.parametrize("kinds", KINDS, ids="-".join)
def test_packets_of_both_families(make: Callable[..., Hosts], kinds: tuple[str, str], outside: str) -> None:
    """The first named begins."""
    here, there = make(*kinds)
    preshared = Key.generate()
    here.add(there, endpoint=f"{outside}:{PORT}", preshared=preshared)
    there.add(here, preshared=preshared)
    assert "tun type tun" in here.namespace.ip(f"-d link show {here.name}")
    here.namespace.ping("10.8.0.2")
    there.namespace.ping("10.8.0.1", "-s", "1372")
    here.namespace.ping("fd08::2")
    there.namespace.ping("fd08::1", "-s", "1352")
    for one, other in ((here, there), (there, here)):
        assert abs(time.time() - int(one.shown(other, "latest-handshakes"))) < 60
        assert min(one.transferred(other)) > 4000
    outer = outside.replace("2]", "1]") if ":" in outside else "192.0.2.1"
    assert there.shown(here, "endpoints") == f"{outer}:{PORT}"
    # The bytes that wg reads of one side are those that the other side counts.
    assert here.transferred(there) == there.transferred(here)[::-1]


@pytest.mark.parametrize("kinds", KINDS[:2], ids="-".join)
def test_a_wrong_preshared_key(make: Callable[..., Hosts], kinds: tuple[str, str]) -> None:
    here, there = make(*kinds)
    here.add(there, endpoint=f"192.0.2.2:{PORT}", preshared=Key.generate())
    there.add(here, preshared=Key.generate())
    with pytest.raises(AssertionError):
        here.namespace.run("ping", "-c", "1", "-W", "2", "10.8.0.2")
    assert here.shown(there, "latest-handshakes") == "0"


@pytest.mark.parametrize("kinds", KINDS[:2], ids="-".join)
def test_roaming(make: Callable[..., Hosts], kinds: tuple[str, str]) -> None:
    """The second named moves to another address: the first one follows, without a new handshake."""
    here, there = make(*kinds)
    here.add(there, endpoint=f"192.0.2.2:{PORT}")
    there.add(here, endpoint=f"192.0.2.1:{PORT}")
    here.namespace.ping("10.8.0.2")
    handshake = here.shown(there, "latest-handshakes")
    # The first address would take the second along.
    there.namespace.ip("address del 192.0.2.2/24 dev veth0")
    there.namespace.set_up("veth0", "192.0.2.77/24")
    there.namespace.ping("10.8.0.1")
    assert here.shown(there, "endpoints") == f"192.0.2.77:{PORT}"
    here.namespace.ping("10.8.0.2")
    assert here.shown(there, "latest-handshakes") == handshake


@pytest.mark.parametrize("kinds", KINDS[:2], ids="-".join)
def test_persistent_keepalive(make: Callable[..., Hosts], kinds: tuple[str, str]) -> None:
    """The first named begins by itself, and goes on."""
    here, there = make(*kinds)
    there.add(here)
    here.add(there, endpoint=f"192.0.2.2:{PORT}", keepalive=1)
    assert eventually(lambda: there.shown(here, "latest-handshakes") != "0")
    before = there.transferred(here)[0]
    assert eventually(lambda: there.transferred(here)[0] >= before + 3 * 32)
    assert here.shown(there, "persistent-keepalive") == "1"


@pytest.mark.parametrize("kinds", KINDS[:2], ids="-".join)
def test_the_far_end_restarts(make: Callable[..., Hosts], kinds: tuple[str, str]) -> None:
    """Its keys are gone: a peer that has data for it notices after 15 s, or at once if the far end begins."""
    here, there = make(*kinds)
    here.add(there, endpoint=f"192.0.2.2:{PORT}")
    there.add(here, endpoint=f"192.0.2.1:{PORT}")
    here.namespace.ping("10.8.0.2")
    there.stop()
    there.start()
    there.add(here, endpoint=f"192.0.2.1:{PORT}")
    there.namespace.ping("10.8.0.1")
    here.namespace.ping("10.8.0.2")


@pytest.mark.parametrize("kinds", KINDS[:2], ids="-".join)
def test_tcp(make: Callable[..., Hosts], kinds: tuple[str, str], iperf3: str, tmp_path: Path) -> None:
    here, there = make(*kinds)
    here.add(there, endpoint=f"192.0.2.2:{PORT}")
    there.add(here)
    here.namespace.ping("10.8.0.2")
    there.namespace.run(iperf3, "-s", "-1", "-D", "-B", "10.8.0.2", "-I", str(tmp_path / "pid"))
    said = here.namespace.run(iperf3, "-c", "10.8.0.2", "-t", "2", "--connect-timeout", "10000")
    assert "iperf Done" in said
    assert here.transferred(there)[1] > 1_000_000
    assert not here.namespace.damage().keys() - {"UdpInErrors"}
    assert not there.namespace.damage().keys() - {"UdpInErrors"}


@pytest.mark.skipif(
    os.environ.get("HYPOTHESIS_PROFILE") != "full", reason="takes 200 s: .ci/run full sets HYPOTHESIS_PROFILE=full"
)
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kinds", KINDS[:2], ids="-".join)
@pytest.mark.parametrize("seconds", [130, 200])
def test_data_crosses_a_rekey(make: Callable[..., Hosts], kinds: tuple[str, str], seconds: int) -> None:
    """The clocks are real: keys are renewed after 120 s, and no ping is lost meanwhile."""
    here, there = make(*kinds)
    here.add(there, endpoint=f"192.0.2.2:{PORT}")
    there.add(here)
    here.namespace.ping("10.8.0.2")
    first = int(here.shown(there, "latest-handshakes"))
    with here.namespace.entered():
        done = subprocess.run(
            ["ping", "-q", "-i", "0.2", "-w", str(seconds), "10.8.0.2"], capture_output=True, text=True, check=False
        )
    assert " 0% packet loss" in done.stdout, done.stdout
    assert int(here.shown(there, "latest-handshakes")) >= first + 119
