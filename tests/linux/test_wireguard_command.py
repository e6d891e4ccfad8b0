"""``tunring wireguard --config``: a tunnel by a file alone, as wg-quick would make it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from wireguard_hosts import SOCKETS, join, serving, socket_of

from running import eventually
from tunring.wireguard import Key, parse_config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fake_resolved import FakeResolved
    from netns import Namespace

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

ELSEWHERE, ELSEWHERE6 = "203.0.113.9", "2001:db8:99::9"

OURS, THEIRS = Key.generate(), Key.generate()


@pytest.fixture
def name() -> Iterator[str]:
    """An interface's name that nobody else has; nothing of it, and of the one with a b, is left at the end."""
    name = f"tc{os.getpid() % 1_000_000}"
    names = (name, f"{name}b")
    yield name
    # A process takes a moment to end once its socket is gone.
    eventually(lambda: not any(serving(each) for each in names), 10)
    left = [what for each in names for what in (socket_of(each), serving(each)) if what]
    for each in names:  # not for the next test to find
        for process in serving(each):
            os.kill(process, signal.SIGKILL)
        (SOCKETS / f"{each}.sock").unlink(missing_ok=True)
    assert not left


def write(file: Path, allowed: str, *, extra: str = "", endpoint: str = "192.0.2.77:51820") -> list[str]:
    """Write a file with one address, of IPv4, and one peer; returns the command's options."""
    file.write_text(
        f"[Interface]\nPrivateKey = {OURS.base64}\nAddress = 10.2.0.2/32\n{extra}"
        f"[Peer]\nPublicKey = {THEIRS.public}\nAllowedIPs = {allowed}\nEndpoint = {endpoint}\n"
    )
    return ["--config", str(file)]


def command(name: str, *options: str) -> list[str]:
    return [sys.executable, "-m", "tunring", "wireguard", name, *options]


@dataclass
class Up:
    """A command in the foreground, and what it wrote to standard error by its end."""

    process: subprocess.Popen[str]
    said: str = ""


@contextmanager
def up(namespace: Namespace, name: str, *options: str) -> Iterator[Up]:
    """The command in the foreground while its tunnel stands; at the end it is to end well by SIGTERM."""
    with namespace.entered():
        process = subprocess.Popen(
            command(name, "--foreground", *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    with process:
        try:
            assert process.stdout
            assert "is ready" in process.stdout.readline()
            started = Up(process)
            yield started
            process.send_signal(signal.SIGTERM)
            _, started.said = process.communicate(timeout=20)
            assert process.returncode == 0, started.said
        finally:
            process.kill()


def way(namespace: Namespace, target: str, *options: str) -> str:
    """The interface that packets to a host leave by."""
    words = namespace.ip(f"route get {target} {' '.join(options)}").split()
    return words[words.index("dev") + 1]


# ---- The way of all packets -------------------------------------------------------------------------------------


def test_a_full_tunnel_of_both_families_by_one_address(uplink: Namespace, name: str, tmp_path: Path) -> None:
    """IPv6 goes into the tunnel, too, although the interface has no address of it."""
    with up(uplink, name, *write(tmp_path / "wg.conf", "0.0.0.0/0, ::/0")) as tunnel:
        for target in (ELSEWHERE, ELSEWHERE6):
            assert (way(uplink, target), way(uplink, target, "mark 51820")) == (name, "up0")
    assert tunnel.said == ""
    assert (way(uplink, ELSEWHERE), way(uplink, ELSEWHERE6)) == ("up0", "up0")


def test_a_file_that_is_not_utf_8(namespace: Namespace, name: str, tmp_path: Path) -> None:
    """A comment may be, and of anything else the file and the line are named."""
    file = tmp_path / "wg.conf"
    options = write(file, "10.9.0.0/16")
    file.write_bytes("# München\n".encode("latin-1") + file.read_bytes())
    with up(namespace, name, *options):
        pass
    file.write_bytes(file.read_bytes() + "Key = München\n".encode("latin-1"))
    done = subprocess.run(command(name, *options), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert str(file) in done.stderr
    assert "line 9" in done.stderr


def test_a_family_that_the_file_leaves_out_is_reported(uplink: Namespace, name: str, tmp_path: Path) -> None:
    words = "no default route of IPv6: such traffic goes by 'up0', outside the tunnel"
    options = write(tmp_path / "wg.conf", "0.0.0.0/0")
    with up(uplink, name, *options) as tunnel:
        assert way(uplink, ELSEWHERE6) == "up0"
    assert words in tunnel.said
    # In the background, too.
    with uplink.entered():
        done = subprocess.run(command(name, *options), capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, words in done.stderr) == (0, True), done.stderr
    uplink.ip(f"link delete {name}")
    assert eventually(lambda: not serving(name))


@pytest.mark.parametrize("strict", [("all",), ("default", "veth0"), ()], ids=["all", "uplink", "off"])
def test_replies_pass_a_strict_filter(
    namespaces: tuple[Namespace, Namespace], name: str, tmp_path: Path, strict: tuple[str, ...]
) -> None:
    """The tunnel's own datagrams have a mark, and replies to them have none."""
    here, there = namespaces
    join(here, there)
    there.ip(f"address add {ELSEWHERE}/32 dev lo")
    here.ip("route add default via 192.0.2.2")
    for scope in ("all", "default", "lo", "veth0"):
        here.write_sysctl(f"net/ipv4/conf/{scope}/rp_filter", str(int(scope in strict)))
    here.write_sysctl("net/ipv4/conf/all/src_valid_mark", "0")
    with up(there, f"{name}b", *server(tmp_path / "server.conf")):
        with up(here, name, *write(tmp_path / "wg.conf", "0.0.0.0/0", endpoint=f"{ELSEWHERE}:51820")):
            reach(here, "10.2.0.1")
            assert setting(here, "rp_filter") == ("2" if strict else "0")
        assert setting(here, "rp_filter") == str(int("all" in strict))
        assert setting(here, "src_valid_mark") == "0"


def server(file: Path) -> list[str]:
    """Write a file of the other end, which has 10.2.0.1; returns the command's options."""
    file.write_text(
        f"[Interface]\nPrivateKey = {THEIRS.base64}\nAddress = 10.2.0.1/24\nListenPort = 51820\n"
        f"[Peer]\nPublicKey = {OURS.public}\nAllowedIPs = 10.2.0.2/32\n"
    )
    return ["--config", str(file)]


def reach(namespace: Namespace, address: str) -> None:
    """Get an answer through a tunnel, whose handshake may take its time on a busy machine."""
    namespace.run("env", "-u", "LD_PRELOAD", "ping", "-c", "1", "-w", "20", address)


def setting(namespace: Namespace, name: str) -> str:
    with namespace.entered():
        return Path("/proc/sys/net/ipv4/conf/all", name).read_text().strip()


def test_a_link_local_endpoint(namespaces: tuple[Namespace, Namespace], name: str, tmp_path: Path) -> None:
    """It is on the link that its zone names, is shown with it, and saved with it."""
    here, there = namespaces
    join(here, there)
    here.ip("address add fe80::1/64 dev veth0 nodad")
    there.ip("address add fe80::99/64 dev veth0 nodad")
    there.settle("fe80::99/64")
    file, endpoint = tmp_path / "wg.conf", "[fe80::99%veth0]:51820"
    options = write(file, "10.2.0.0/24", extra="SaveConfig = true\n", endpoint=endpoint)
    with up(there, f"{name}b", *server(tmp_path / "server.conf")), up(here, name, *options):
        reach(here, "10.2.0.1")
        if shutil.which("wg"):
            assert here.run("wg", "show", name, "endpoints").split()[1] == endpoint
    [saved] = parse_config(file.read_text()).peers
    assert saved.endpoint == ("fe80::99%veth0", 51820)
    assert f"Endpoint = {endpoint}\n" in file.read_text()


# ---- The file's commands ----------------------------------------------------------------------------------------


def test_commands_run_when_wg_quick_runs_them(namespace: Namespace, name: str, tmp_path: Path) -> None:
    """PreUp and PostDown without the interface; the file is saved in between PreDown and PostDown."""
    look = "$(ip link show %i >/dev/null 2>&1 && echo there) $(grep -o ^ListenPort wg.conf)"
    kinds = ("PreUp", "PostUp", "PreDown", "PostDown")
    extra = "".join(f'{kind} = echo {kind} "{look}" >> log\n' for kind in kinds)
    options = write(tmp_path / "wg.conf", "10.0.0.0/8", extra=f"SaveConfig = true\n{extra}")
    # In the background, where files are still meant to be in the user's folder.
    with namespace.entered():
        done = subprocess.run(command(name, "--hooks", *options), cwd=tmp_path, check=False, timeout=60)
    assert done.returncode == 0
    [process] = serving(name)
    os.kill(process, signal.SIGTERM)
    assert eventually(lambda: not serving(name))
    lines = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert lines == [["PreUp"], ["PostUp", "there"], ["PreDown", "there"], ["PostDown", "ListenPort"]]


def test_a_name_that_is_taken_runs_no_command(
    namespaces: tuple[Namespace, Namespace], name: str, tmp_path: Path
) -> None:
    """By a device, which may be in another network namespace, or by an interface."""
    namespace, other = namespaces
    log = tmp_path / "log"
    options = write(tmp_path / "wg.conf", "10.0.0.0/8", extra=f"PreUp = echo up >> {log}\nPostDown = touch {log}\n")
    with up(namespace, name, *options), other.entered():
        assert subprocess.run(command(name, "--hooks", *options), check=False, timeout=60).returncode == 1
    namespace.ip(f"link add {name} type veth peer name other")
    with namespace.entered():
        assert subprocess.run(command(name, "--hooks", *options), check=False, timeout=60).returncode == 1
    assert not log.exists()


def test_a_command_that_fails(namespace: Namespace, name: str, tmp_path: Path) -> None:
    """Before there is an interface, or after: what was done is undone."""
    for kind, commands in (("PreUp", ["PreUp"]), ("PostUp", ["PreUp", "PostDown"])):
        log = tmp_path / kind
        extra = "".join(f"{each} = echo {each} >> {log}\n" for each in ("PreUp", "PostDown"))
        options = write(tmp_path / "wg.conf", "0.0.0.0/0", extra=f"{extra}{kind} = false\n")
        with namespace.entered():
            done = subprocess.run(
                command(name, "--hooks", *options), capture_output=True, text=True, check=False, timeout=60
            )
        assert (done.returncode, "failed with 1: false" in done.stderr) == (1, True), done.stderr
        assert log.read_text().split() == commands
        assert eventually(lambda: name not in namespace.interfaces())
        assert "51820" not in namespace.ip("rule")


def test_a_command_that_fails_at_the_end(namespace: Namespace, name: str, tmp_path: Path) -> None:
    """The rest is done nevertheless, and there is one JSON object."""
    file = tmp_path / "wg.conf"
    extra = f"SaveConfig = true\nPreDown = false\nPostDown = touch {tmp_path / 'down'}\n"
    options = write(file, "10.0.0.0/8", extra=extra)
    with namespace.entered():
        process = subprocess.Popen(
            command(name, "--foreground", "--json", "--hooks", *options),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    with process:
        try:
            assert process.stderr
            assert "is ready" in process.stderr.readline()
            process.send_signal(signal.SIGTERM)
            report, _ = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 1
    assert json.loads(report) == {"ok": False, "error": "a command of the file failed with 1: false"}
    assert "ListenPort" in file.read_text()
    assert (tmp_path / "down").exists()


@pytest.mark.parametrize("level", ["error", "silent", ""])
def test_the_log_of_the_background(namespace: Namespace, name: str, tmp_path: Path, level: str) -> None:
    """Nothing unless LOG_LEVEL asks for it: then standard error stays open, as wireguard-go's does."""
    options = write(tmp_path / "wg.conf", "10.0.0.0/8", extra="PostDown = false\n")
    with namespace.entered(), open(tmp_path / "log", "wb") as log:
        environment = {**os.environ, "LOG_LEVEL": level}
        done = subprocess.run(command(name, "--hooks", *options), stderr=log, env=environment, check=False, timeout=60)
    assert done.returncode == 0
    [process] = serving(name)
    os.kill(process, signal.SIGTERM)
    assert eventually(lambda: not serving(name))
    said = (tmp_path / "log").read_text()
    assert said == ("tunring: a command of the file failed with 1: false\n" if level == "error" else "")


# ---- Endpoints that are not known yet ---------------------------------------------------------------------------

#: The command, for which the resolver fails as often as the first argument says.
UNREADY = """
import socket, sys
from tunring.__main__ import main
find, left = socket.getaddrinfo, [None] * int(sys.argv[1])

def later(host, *arguments, **options):
    if host == "vpn.example":
        if left:
            left.pop()
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        host = "192.0.2.77"
    return find(host, *arguments, **options)

socket.getaddrinfo = later
sys.exit(main(["wireguard", *sys.argv[2:]]))
"""


def unready(times: int, name: str, *options: str) -> list[str]:
    return [sys.executable, "-c", UNREADY, str(times), name, *options]


def test_an_endpoint_is_looked_up_again(uplink: Namespace, name: str, tmp_path: Path) -> None:
    options = write(tmp_path / "wg.conf", "0.0.0.0/0, ::/0", endpoint="vpn.example:51820")
    with uplink.entered():
        done = subprocess.run(unready(2, name, *options), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    words = "can't find the endpoint vpn.example: Temporary failure in name resolution; trying again in"
    assert done.stderr.splitlines() == [f"tunring: {words} {pause} s" for pause in ("1.0", "1.2")]
    assert json.loads(uplink.run(*command(name, "--status", "--json")))["peers"][0]["endpoint"] == "192.0.2.77:51820"
    uplink.ip(f"link delete {name}")
    assert eventually(lambda: not serving(name))


@pytest.mark.parametrize("foreground", [True, False])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_look_up(
    namespace: Namespace, name: str, tmp_path: Path, foreground: bool, number: signal.Signals
) -> None:
    marks = tmp_path / "up", tmp_path / "down"
    extra = f"PreUp = touch {marks[0]}\nPostDown = touch {marks[1]}\n"
    options = write(tmp_path / "wg.conf", "10.0.0.0/8", extra=extra, endpoint="vpn.example:51820")
    options += ["--hooks", *(["--foreground"] if foreground else [])]
    with namespace.entered():
        process = subprocess.Popen(unready(1000, name, *options), stderr=subprocess.PIPE, text=True)
    with process:
        try:
            assert process.stderr
            assert "trying again" in process.stderr.readline()
            assert marks[0].exists()
            process.send_signal(number)
            _, said = process.communicate(timeout=20)
        finally:
            process.kill()
    assert (process.returncode, said.splitlines()[-1]) == (130, "tunring: interrupted")
    assert eventually(lambda: not serving(name))
    assert marks[1].exists()
    assert name not in namespace.interfaces()


# ---- Names ------------------------------------------------------------------------------------------------------


def test_all_names_go_to_the_file_s_servers(
    namespace: Namespace, resolved: FakeResolved, name: str, tmp_path: Path
) -> None:
    options = write(tmp_path / "wg.conf", "10.0.0.0/8", extra="DNS = 10.2.0.1, corp.example\n")
    with up(namespace, name, *options):
        assert [packed for _, packed in resolved.links[2]] == [bytes((10, 2, 0, 1))]
        assert resolved.domains[2] == [("corp.example", False), (".", True)]
        assert resolved.default_routes[2] is True
    assert (resolved.links[2], resolved.domains[2], resolved.default_routes[2]) == ([], [], False)
    # Domains alone have no server for all names. The second interface in the namespace has another index.
    resolved.links[3] = []
    with up(namespace, name, *write(tmp_path / "wg.conf", "10.0.0.0/8", extra="DNS = corp.example\n")):
        assert resolved.domains[3] == [("corp.example", False)]
