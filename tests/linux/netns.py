"""Network namespaces for tests: nothing outside of them is touched, and they go with their last user."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from running import eventually
from tunring._system.namespace_linux import CLONE_NEWNET, enter_network, unshare

if TYPE_CHECKING:
    from collections.abc import Iterator

    import tunring

_HERE = "/proc/thread-self/ns/net"

#: Counters that must stay at 0: the kernel found a packet damaged.
_DAMAGE = re.compile(r"CsumErrors$|InErrors$|InErrs$|InHdrErrors$")


def may_make_namespaces() -> bool:
    """True if this process is root, and the system lets it make network namespaces."""
    if os.geteuid() != 0:
        return False
    try:
        Namespace().close()
    except OSError:
        return False
    return True


def drain(session: tunring.Session) -> None:
    """Take the packets that the kernel sends by itself when an interface comes up."""
    while batch := session.receive(timeout=0.05):
        batch.release()


class Namespace:
    """A network namespace with nothing but a loopback interface that is up. It has no name that could be left over."""

    def __init__(self) -> None:
        self._descriptor = -1
        self._failure: OSError | None = None
        # The thread that makes it is in it for good.
        maker = threading.Thread(target=self._make)
        maker.start()
        maker.join()
        if self._failure:
            raise self._failure

    def _make(self) -> None:
        try:
            unshare(CLONE_NEWNET)
            self._descriptor = os.open(_HERE, os.O_RDONLY | os.O_CLOEXEC)
            self.ip("link set lo up")
            # Otherwise the kernel's own questions for routers and neighbours would be among the packets.
            for scope in ("all", "default"):
                self.write_sysctl(f"net/ipv6/conf/{scope}/router_solicitations", "0")
                self.write_sysctl(f"net/ipv6/conf/{scope}/addr_gen_mode", "1")
            # Ping sockets are open to nobody in a new namespace.
            self.write_sysctl("net/ipv4/ping_group_range", "0 0")
        except OSError as failure:
            self._failure = failure

    def fileno(self) -> int:
        """A descriptor that stands for the namespace."""
        return self._descriptor

    def close(self) -> None:
        """Let it go; what still runs or is open in it keeps it."""
        os.close(self._descriptor)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """The calling thread is in the namespace, and so are the processes, sockets and adapters that it makes."""
        before = os.open(_HERE, os.O_RDONLY | os.O_CLOEXEC)
        try:
            enter_network(self._descriptor)
            try:
                yield
            finally:
                enter_network(before)
        finally:
            os.close(before)

    def run(self, *command: str) -> str:
        """Run a program in it; returns what it prints."""
        with self.entered():
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
        return done.stdout

    def ip(self, arguments: str) -> str:
        """Run ``ip``, without a preloaded sanitizer, which would report faults of iproute2's own."""
        return self.run("env", "-u", "LD_PRELOAD", "ip", *arguments.split())

    def ping(self, address: str, *options: str) -> None:
        """Ping three times from it, and get three answers."""
        command = ["env", "-u", "LD_PRELOAD", "ping", "-c", "3", "-i", "0.2", "-W", "10", *options, address]
        said = self.run(*command)
        assert "3 received" in said, said

    def write_sysctl(self, name: str, value: str) -> None:
        with self.entered():
            Path("/proc/sys", name).write_text(value)

    def set_up(self, interface: str, *addresses: str, mtu: int = 1500) -> None:
        """Give an interface addresses, and bring it up."""
        for address in addresses:
            self.ip(f"address add {address} dev {interface}" + (" nodad" if ":" in address else ""))
        self.ip(f"link set {interface} mtu {mtu} up")
        self.settle(*addresses)

    def settle(self, *addresses: str) -> None:
        """Wait until packets to these addresses arrive: for IPv6 the kernel sees to it a little after it has them."""
        for address in addresses:
            host = address.partition("/")[0]
            assert eventually(lambda host=host: "local" in self.ip(f"route get {host}").split()), address

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket in it, which no test waits on for long."""
        with self.entered():
            made = socket.socket(family, kind, protocol)
        made.settimeout(10)
        return made

    def interfaces(self) -> set[str]:
        with self.entered():
            return {name for _, name in socket.if_nameindex()}

    def flags(self, interface: str) -> set[str]:
        """The interface's flags as ``ip`` has them: UP, LOWER_UP, NO-CARRIER, ..."""
        found = re.search(r"<(.*?)>", self.ip(f"link show dev {interface}"))
        assert found
        return set(found[1].split(","))

    def counters(self) -> dict[str, int]:
        """The kernel's counters, named as ``nstat`` does."""
        with self.entered():
            folder = Path("/proc/thread-self/net")
            lines = [line.split() for name in ("snmp", "netstat") for line in (folder / name).read_text().splitlines()]
            values = [line.split() for line in (folder / "snmp6").read_text().splitlines()]
        result = {name: int(value) for name, value in values}
        for names, numbers in zip(lines[::2], lines[1::2], strict=True):
            kind = names[0].rstrip(":")
            result |= {kind + name: int(number) for name, number in zip(names[1:], numbers[1:], strict=True)}
        return result

    def damage(self) -> dict[str, int]:
        """The counters of damaged packets that are not 0."""
        return {name: value for name, value in self.counters().items() if value and _DAMAGE.search(name)}
