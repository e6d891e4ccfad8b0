"""wg-quick up and down of two hosts, of which one or both run tunring; and how the process begins and ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from needed_programs import need_programs
from wireguard_hosts import PORT, SOCKETS, join, serving, socket_of, wireguard_go_in

from running import eventually
from tunring.wireguard import Key, parse_config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from netns import Namespace

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

SCRIPT = Path(sys.executable).with_name("tunring-wireguard")


@pytest.fixture
def name() -> Iterator[str]:
    """An interface's name that nobody else has; nothing of it is left at the end."""
    name = f"tq{os.getpid() % 1_000_000}x"
    yield name
    left = [what for number in (1, 2) for what in (socket_of(f"{name}{number}"), serving(f"{name}{number}")) if what]
    for number in (1, 2):  # not for the next test to find
        for process in serving(f"{name}{number}"):
            os.kill(process, signal.SIGKILL)
        (SOCKETS / f"{name}{number}.sock").unlink(missing_ok=True)
    assert not left


def quick(namespace: Namespace, verb: str, file: Path, implementation: str) -> None:
    with namespace.entered():
        done = subprocess.run(
            ["wg-quick", verb, str(file)],
            env={**os.environ, "WG_QUICK_USERSPACE_IMPLEMENTATION": implementation},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("kinds", [("tunring", "go"), ("go", "tunring"), ("tunring", "tunring")], ids="-".join)
def test_two_hosts(
    namespaces: tuple[Namespace, Namespace],
    kinds: tuple[str, str],
    name: str,
    tmp_path: Path,
    iperf3: str,
) -> None:
    need_programs("wg", "wg-quick")
    implementations = {"tunring": str(SCRIPT)}
    if "go" in kinds:
        implementations["go"] = wireguard_go_in(tmp_path)
    join(*namespaces)
    keys = [Key.generate(), Key.generate()]
    preshared = Key.generate()
    files = []
    for own, other in ((1, 2), (2, 1)):
        files.append(tmp_path / f"{name}{own}.conf")
        files[-1].write_text(
            f"[Interface]\nPrivateKey = {keys[own - 1].base64}\nListenPort = {PORT}\nMTU = 1400\n"
            f"Address = 10.8.{own}.1/24, fd08:{own}::1/64\n"
            f"[Peer]\nPublicKey = {keys[other - 1].public}\nPresharedKey = {preshared.base64}\n"
            f"AllowedIPs = 10.8.{other}.0/24, fd08:{other}::/64\nEndpoint = 192.0.2.{other}:{PORT}\n"
        )
        files[-1].chmod(0o600)
    for namespace, file, kind in zip(namespaces, files, kinds, strict=True):
        quick(namespace, "up", file, implementations[kind])
    here, there = namespaces
    for namespace, file in zip(namespaces, files, strict=True):
        said = namespace.ip(f"-d link show {file.stem}")
        assert "tun type tun" in said
        assert "mtu 1400" in said
    here.settle("10.8.1.1/24", "fd08:1::1/64")
    there.settle("10.8.2.1/24", "fd08:2::1/64")
    here.ping("10.8.2.1")
    there.ping("10.8.1.1")
    here.ping("fd08:2::1", "-s", "1352")
    for namespace, file in zip(namespaces, files, strict=True):
        said = namespace.run("wg", "show", file.stem)
        assert "latest handshake" in said
        assert "preshared key: (hidden)" in said
    there.run(iperf3, "-s", "-1", "-D", "-B", "10.8.2.1", "-I", str(tmp_path / "pid"))
    assert eventually(lambda: ":5201" in there.run("ss", "-Hltn"), 10)
    report = json.loads(here.run(iperf3, "-J", "-c", "10.8.2.1", "-t", "2", "--connect-timeout", "10000"))
    assert "error" not in report, report["error"]
    print(f"{kinds}: {report['end']['sum_received']['bits_per_second'] / 1e6:.0f} Mbit/s")
    assert report["end"]["sum_received"]["bytes"] > 1_000_000
    for namespace, file, kind in zip(namespaces, files, kinds, strict=True):
        quick(namespace, "down", file, implementations[kind])
        assert eventually(lambda file=file: not serving(file.stem), 5)
        assert file.stem not in namespace.interfaces()
        assert "10.8." not in namespace.ip("route")


# ---- How the process begins and ends ----------------------------------------------------------------------------


def start(namespace: Namespace, *arguments: str) -> subprocess.CompletedProcess[str]:
    with namespace.entered():
        return subprocess.run([str(SCRIPT), *arguments], capture_output=True, text=True, check=False, timeout=60)


def ended_within_a_second(name: str) -> bool:
    return eventually(lambda: not serving(name), 1.0 if not os.environ.get("CI") else 3.0)


@pytest.mark.parametrize("end", ["interface", "socket", "signal"])
def test_it_ends_at_once(namespace: Namespace, name: str, end: str) -> None:
    name += "1"
    done = start(namespace, name)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    path = SOCKETS / f"{name}.sock"
    assert path.stat().st_mode & 0o777 == 0o600
    # Down, and without addresses.
    assert "UP" not in namespace.flags(name)
    assert "inet" not in namespace.ip(f"address show dev {name}")
    [process] = serving(name)
    if end == "interface":
        namespace.ip(f"link delete {name}")
    elif end == "socket":
        path.unlink()
    else:
        os.kill(process, signal.SIGTERM)
    assert ended_within_a_second(name)
    assert not path.exists()
    assert name not in namespace.interfaces()


#: The command, which looks at its process when it forks.
AT_FORK = """
import os, sys, threading
from tunring.cli.wireguard_service import main

fork = os.fork

def looked_at():
    held = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
    print(len(os.listdir("/proc/self/task")), threading.active_count(), "/dev/net/tun" in held)
    return fork()

os.fork = looked_at
sys.exit(main(sys.argv[1:]))
"""


def test_it_forks_before_any_thread_exists(namespace: Namespace, name: str) -> None:
    """And before there is an interface: neither would be whole in the child."""
    name += "1"
    assert namespace.run(sys.executable, "-c", AT_FORK, name) == "1 1 False\n"
    assert name in namespace.interfaces()
    namespace.ip(f"link delete {name}")
    assert eventually(lambda: not serving(name))


def test_a_second_one_says_why_it_ends(namespace: Namespace, name: str) -> None:
    name += "1"
    assert start(namespace, name).returncode == 0
    done = start(namespace, name)
    assert done.returncode == 1
    assert "another process serves" in done.stderr
    assert len(serving(name)) == 1
    namespace.ip(f"link delete {name}")
    assert ended_within_a_second(name)


def test_an_interface_that_is_there(namespace: Namespace, name: str) -> None:
    name += "1"
    namespace.ip(f"link add {name} type veth peer name other")
    done = start(namespace, name)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert name in done.stderr
    assert not (SOCKETS / f"{name}.sock").exists()
    assert namespace.interfaces() == {"lo", name, "other"}


def test_a_socket_that_is_left_over(namespace: Namespace, name: str) -> None:
    name += "1"
    SOCKETS.mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(SOCKETS / f"{name}.sock"))
    assert start(namespace, name).returncode == 0
    namespace.ip(f"link delete {name}")
    assert ended_within_a_second(name)


def test_by_a_file(namespace: Namespace, name: str, tmp_path: Path) -> None:
    """Without wg-quick: addresses, MTU, routes and commands are the command's own work."""
    name += "1"
    key, other = Key.generate(), Key.generate()
    marks = [tmp_path / word for word in ("pre_up", "post_up", "pre_down", "post_down")]
    file = tmp_path / "tunnel.conf"
    file.write_text(
        f"[Interface]\nPrivateKey = {key.base64}\nAddress = 10.8.0.1/24\nMTU = 1380\n"
        f"PreUp = echo %i > {marks[0]}\nPostUp = touch {marks[1]}\n"
        f"PreDown = touch {marks[2]}\nPostDown = touch {marks[3]}\n"
        f"[Peer]\nPublicKey = {other.public}\nAllowedIPs = 10.8.0.2/32, 10.9.0.0/16\nEndpoint = 127.0.0.1:9\n"
    )
    command = [sys.executable, "-m", "tunring", "wireguard", name]
    with namespace.entered():
        process = subprocess.Popen(
            [*command, "--config", str(file), "--foreground", "--hooks", "--json"], stdout=subprocess.PIPE, text=True
        )
    try:
        assert eventually(marks[1].exists)
        assert marks[0].read_text().strip() == name
        assert not marks[2].exists()
        assert "10.9.0.0/16" in namespace.ip(f"route show dev {name}")
        assert "mtu 1380" in namespace.ip(f"link show {name}")
        status = json.loads(namespace.run(*command, "--status", "--json"))
        assert status["public_key"] == key.public.base64
        assert status["peers"][0]["allowed_ips"] == ["10.8.0.2/32", "10.9.0.0/16"]
        assert key.base64 not in str(status)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=20)
        assert time.monotonic() - began < 5
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()
    result = json.loads(said)
    assert (result["interface"], result["ended_by"]) == (name, "signal")
    assert result["peers"][0]["public_key"] == other.public.base64
    assert all(mark.exists() for mark in marks)
    assert key.base64 not in said


def test_a_table_and_the_file_that_is_saved(namespace: Namespace, name: str, tmp_path: Path) -> None:
    """Routes go to the table that the file names, and at the end the file has what wg has changed."""
    name += "1"
    key, other, third = Key.generate(), Key.generate(), Key.generate()
    file = tmp_path / "tunnel.conf"
    file.write_text(
        f"[Interface]\nPrivateKey = {key.base64}\nAddress = 10.8.0.1/24, fd08::1/64\nTable = 77\nSaveConfig = true\n"
        f"PostUp = true # a comment\n"
        f"[Peer]\nPublicKey = {other.public}\nAllowedIPs = 10.9.0.0/16, 0.0.0.0/0, ::/0\nEndpoint = 127.0.0.1:9\n"
    )
    file.chmod(0o600)
    command = [sys.executable, "-m", "tunring", "wireguard", name, "--config", str(file)]
    assert namespace.run(*command) == ""
    [process] = serving(name)
    assert {line.split()[0] for line in namespace.ip("route show table 77").splitlines()} == {"default", "10.9.0.0/16"}
    assert namespace.ip("-6 route show table 77").split()[0] == "default"
    assert "10.9.0.0/16" not in namespace.ip("route show table main")
    assert "lookup 77" not in namespace.ip("rule")
    namespace.run("wg", "set", name, "fwmark", "7", "peer", third.public.base64, "persistent-keepalive", "25")
    port = int(namespace.run("wg", "show", name, "listen-port"))
    os.kill(process, signal.SIGTERM)
    assert eventually(lambda: not serving(name))
    saved = parse_config(file.read_text())
    assert (saved.private_key, saved.listen_port, saved.mark, saved.table) == (key, port, 7, "77")
    assert [str(address) for address in saved.addresses] == ["10.8.0.1/24", "fd08::1/64"]
    assert (saved.post_up, saved.save_config) == (("true",), True)
    assert {peer.public_key for peer in saved.peers} == {other.public, third.public}
    [known] = [peer for peer in saved.peers if peer.public_key == other.public]
    assert (len(known.allowed_ips), known.endpoint) == (3, ("127.0.0.1", 9))
    assert file.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["tunnel.conf"]
    # The saved file serves another start.
    assert namespace.run(*command) == ""
    namespace.ip(f"link delete {name}")
    assert eventually(lambda: not serving(name))
    assert parse_config(file.read_text()).peers


def test_mistakes_on_the_command_line(namespace: Namespace, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tunring", "wireguard", "wg0"]
    wrong = tmp_path / "wrong.conf"
    wrong.write_text("[Interface]\nMTU = big\n")
    for arguments, code, words in (
        (["--hooks"], 2, "--hooks needs --config"),
        (["--json"], 2, "--json needs --foreground or --status"),
        (["--status", "--foreground"], 2, "--status takes neither"),
        (["--config", str(wrong)], 1, "line 2: MTU must be"),
        (["--config", str(tmp_path / "absent")], 1, "No such file"),
        (["--status"], 1, ".sock: No such file"),
    ):
        with namespace.entered():
            done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, done.stdout) == (code, ""), done.stderr
        assert words in done.stderr
