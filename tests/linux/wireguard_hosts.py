"""Hosts with WireGuard interfaces, served by tunring or by wireguard-go, controlled by wg and joined by a cable."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from needed_programs import need_programs

from running import eventually
from tunring.wireguard import Key

if TYPE_CHECKING:
    from netns import Namespace

#: The release of wireguard-go that is built.
WIREGUARD_GO = "golang.zx2c4.com/wireguard@v0.0.0-20260522210424-ecfc5a8d5446"

SOCKETS = Path("/var/run/wireguard")
PORT = 51820

_numbers = itertools.count()


def wireguard_go_in(folder: Path) -> str:
    """The path of wireguard-go: TUNRING_WIREGUARD_GO, or else the program built from its registry package."""
    if given := os.environ.get("TUNRING_WIREGUARD_GO"):
        return given
    need_programs("go")
    environment = {**os.environ, "GOBIN": str(folder)}
    subprocess.run(["go", "install", WIREGUARD_GO], env=environment, check=True, timeout=600)
    return str(folder / "wireguard")


def join(here: Namespace, there: Namespace, mtu: int = 1500) -> None:
    """A cable: 192.0.2.1 and fd77::1 here, 192.0.2.2 and fd77::2 there."""
    descriptor = there.fileno()
    peer = ["peer", "name", "veth0", "netns", f"/proc/self/fd/{descriptor}"]
    with here.entered():
        subprocess.run(["ip", "link", "add", "veth0", "type", "veth", *peer], check=True, pass_fds=[descriptor])
    for number, host in enumerate((here, there), 1):
        host.set_up("veth0", f"192.0.2.{number}/24", f"fd77::{number}/64", mtu=mtu)


def listens(name: str) -> bool:
    """True once wg can reach an interface's socket: its file is there a moment before that."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(SOCKETS / f"{name}.sock"))
        except OSError:
            return False
    return True


def socket_of(name: str) -> Path | None:
    """The file of an interface's control socket, if it is there."""
    path = SOCKETS / f"{name}.sock"
    return path if path.exists() else None


def serving(name: str) -> list[int]:
    """The processes that serve an interface."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if name.encode() in words:
                found.append(int(folder.name))
    return found


@dataclass
class Host:
    """One end: 10.8.0.N and fd08::N inside."""

    namespace: Namespace
    number: int
    kind: str
    #: The command, less the interface's name.
    command: list[str]
    key: Key = field(default_factory=Key.generate)
    process: subprocess.Popen[bytes] | None = None
    name: str = ""

    def start(self) -> None:
        self.name = f"{self.kind[:2]}{os.getpid() % 100000}x{next(_numbers)}"
        with self.namespace.entered():
            self.process = subprocess.Popen([*self.command, self.name])
        assert eventually(lambda: listens(self.name) and self.name in self.namespace.interfaces())
        self.wg("set", self.name, "private-key", "/dev/stdin", "listen-port", str(PORT), secret=self.key.base64)
        self.namespace.set_up(self.name, f"10.8.0.{self.number}/24", f"fd08::{self.number}/64", mtu=1420)

    @property
    def socket(self) -> Path:
        return SOCKETS / f"{self.name}.sock"

    def wg(self, *arguments: str, secret: str = "") -> str:
        """Run wg; /dev/stdin as an argument is the secret."""
        with self.namespace.entered():
            done = subprocess.run(
                ["wg", *arguments], input=secret, capture_output=True, text=True, check=False, timeout=30
            )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def add(
        self, other: Host, *, endpoint: str | None = None, preshared: Key | None = None, keepalive: int = 0
    ) -> None:
        arguments = ["set", self.name, "peer", other.key.public.base64]
        arguments += ["allowed-ips", f"10.8.0.{other.number}/32,fd08::{other.number}/128"]
        if endpoint:
            arguments += ["endpoint", endpoint]
        if preshared:
            arguments += ["preshared-key", "/dev/stdin"]
        if keepalive:
            arguments += ["persistent-keepalive", str(keepalive)]
        self.wg(*arguments, secret=preshared.base64 if preshared else "")

    def shown(self, other: Host, what: str) -> str:
        """Return the output of `wg show` for a peer."""
        lines = [line.split("\t", 1) for line in self.wg("show", self.name, what).splitlines()]
        [found] = [value for key, value in lines if key == other.key.public.base64]
        return found

    def transferred(self, other: Host) -> tuple[int, int]:
        received, sent = self.shown(other, "transfer").split("\t")
        return int(received), int(sent)

    def stop(self) -> None:
        """Delete the interface: the process ends by itself, and takes its socket along."""
        if self.process is None:
            return
        try:
            if self.name in self.namespace.interfaces():
                self.namespace.ip(f"link delete {self.name}")
            # wireguard-go's own code at this is not tunring's business.
            code = self.process.wait(timeout=10)
            assert code == 0 or self.kind != "tunring"
            assert not self.socket.exists()
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self.process = None


def tunring_command() -> list[str]:
    return [sys.executable, "-m", "tunring.cli.wireguard_service", "-f"]
