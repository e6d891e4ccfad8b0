"""The Unix socket by which ``wg`` finds a device."""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from running import Threads, check_script, eventually
from tunring import Endpoint
from tunring.wireguard import Device, Key
from tunring.wireguard._control_client import ask
from tunring.wireguard._control_socket import ControlServer, path_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import tunring

PRIVATE, OTHER = (Key(bytes([number]) * 32) for number in (1, 2))
SECRET = Key(bytes(range(32)))


@pytest.fixture
def device(session: tunring.Session) -> Iterator[Device]:
    with Device(session, private_key=None) as made:
        yield made


@pytest.fixture
def server(device: Device, tmp_path: Path) -> Iterator[tuple[ControlServer, Path]]:
    path = tmp_path / "wireguard" / "wg0.sock"
    made = ControlServer(path)
    made.start(device)
    yield made, path
    made.close()


def test_several_requests_of_a_connection(server: tuple[ControlServer, Path], device: Device) -> None:
    _, path = server
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with socket.socket(socket.AF_UNIX) as client, client.makefile("rb") as lines:
        client.settimeout(10)
        client.connect(str(path))
        client.sendall(b"get=1\n\nset=1\nfwmark=x\n\nset=1\npublic_key=" + OTHER.public.hex.encode())
        client.sendall(b"\nallowed_ip=10.0.0.0/8\n\n")
        said = [lines.readline() for _ in range(7)]
    assert said[0] == f"listen_port={device.listen_port}\n".encode()
    assert said[1:] == [b"errno=0\n", b"\n", b"errno=-22\n", b"\n", b"errno=0\n", b"\n"]
    status = ask(path)
    assert status["listen_port"] == device.listen_port
    assert [(peer["public_key"], peer["allowed_ips"]) for peer in status["peers"]] == [
        (OTHER.public.base64, ["10.0.0.0/8"])
    ]


def test_bytes_that_are_no_text(server: tuple[ControlServer, Path]) -> None:
    _, path = server
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        client.sendall(b"\xff\xfe\n\n")
        assert client.recv(10) == b""
    assert ask(path)["peers"] == []


def test_a_status_has_no_secret(server: tuple[ControlServer, Path], device: Device) -> None:
    _, path = server
    device.private_key = PRIVATE
    device.add_peer(OTHER.public, allowed_ips=[], preshared_key=SECRET)
    text = repr(ask(path))
    assert PRIVATE.public.base64 in text
    for key in (PRIVATE, SECRET):
        assert key.hex not in text
        assert key.base64 not in text


def test_a_status_has_zones_as_wg_has_them(server: tuple[ControlServer, Path], device: Device) -> None:
    _, path = server
    name = socket.if_indextoname(1)
    peer = device.add_peer(OTHER.public, allowed_ips=[])
    for interface, shown in ((1, f"[fe80::99%{name}]:9"), (0xFFFFFF, "[fe80::99%16777215]:9"), (0, "[fe80::99]:9")):
        peer.endpoint = Endpoint("fe80::99", 9, interface=interface)
        assert ask(path)["peers"][0]["endpoint"] == shown


def test_the_end_of_the_socket(server: tuple[ControlServer, Path]) -> None:
    made, path = server
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        made.close()
        # Whoever was not answered yet is refused, which is as good.
        with suppress(ConnectionResetError):
            assert client.recv(10) == b""
    assert not path.exists()
    made.close()


def test_a_file_that_is_another_ones_stays(device: Device, tmp_path: Path) -> None:
    path = tmp_path / "wg0.sock"
    first = ControlServer(path)
    first.start(device)
    assert first.is_there()
    path.unlink()
    assert not first.is_there()
    second = ControlServer(path)
    second.start(device)
    assert not first.is_there()
    first.close()
    assert second.is_there()
    second.close()


def test_only_a_socket_that_nobody_serves_is_replaced(device: Device, tmp_path: Path) -> None:
    path = tmp_path / "wg0.sock"
    path.write_text("something else")
    with pytest.raises(OSError, match="is not a socket"):
        ControlServer(path)
    assert path.read_text() == "something else"
    path.unlink()
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(path))
    server = ControlServer(path)
    with pytest.raises(OSError, match="another process serves") as caught:
        ControlServer(path)
    assert caught.value.errno == errno.EADDRINUSE
    server.start(device)
    assert ask(path)["peers"] == []
    server.close()
    assert eventually(lambda: threading.active_count() < 20)


@pytest.mark.parametrize(("owner", "slow"), [(socket.socket, "listen"), (Path, "unlink")], ids=["new", "left over"])
def test_of_two_that_begin_at_once_one_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: type, slow: str
) -> None:
    """Neither takes the other's new socket for one that is left over."""
    path = tmp_path / "wg0.sock"
    if slow == "unlink":
        with socket.socket(socket.AF_UNIX) as left_over:
            left_over.bind(str(path))
    function = getattr(owner, slow)

    def slowly(*arguments: Any, **options: Any) -> None:
        time.sleep(0.1)
        function(*arguments, **options)

    def begin() -> ControlServer | int | None:
        try:
            return ControlServer(path)
        except OSError as error:
            return error.errno

    monkeypatch.setattr(owner, slow, slowly)
    with Threads() as threads:
        for _ in range(4):
            threads.start(begin)
    monkeypatch.undo()
    servers = [made for made in threads.results if isinstance(made, ControlServer)]
    assert [server.is_there() for server in servers] == [True]
    assert [made for made in threads.results if made not in servers] == [errno.EADDRINUSE] * 3
    # Nothing is left over that wg would take for an interface, or at all.
    assert list(tmp_path.iterdir()) == [path]
    servers[0].close()
    assert not list(tmp_path.iterdir())


def test_files_of_a_process_that_was_killed(device: Device, tmp_path: Path) -> None:
    """It was about to listen: they are in nobody's way."""
    path = tmp_path / "wg0.sock"
    path.with_suffix(".lock").touch()
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(path.with_suffix(".new")))
    server = ControlServer(path)
    server.start(device)
    assert ask(path)["peers"] == []
    assert list(tmp_path.iterdir()) == [path]
    server.close()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "x" * 16, "a\n"])
def test_names_that_lead_elsewhere(name: str) -> None:
    with pytest.raises(ValueError, match="an interface's name must have"):
        path_of(name)
    assert os.fspath(path_of("wg0")).endswith("/wireguard/wg0.sock")


def test_nobody_answers(tmp_path: Path) -> None:
    path = tmp_path / "wg0.sock"
    with pytest.raises(FileNotFoundError) as caught:
        ask(path)
    assert caught.value.filename == str(path)
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(path))
    with pytest.raises(ConnectionRefusedError) as refused:
        ask(path)
    assert refused.value.filename == str(path)


@pytest.mark.skipif(sys.platform != "linux", reason="a folder where root can't make a socket")
def test_a_socket_that_cannot_be_made() -> None:
    path = Path("/proc/wg0.sock")
    with pytest.raises(OSError, match=str(path)) as caught:
        ControlServer(path)
    assert caught.value.filename == str(path)


def test_a_path_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"path too long$"):
        ControlServer(tmp_path / ("x" * 200))


def test_a_client_that_does_not_read_blocks_nobody(server: tuple[ControlServer, Path], device: Device) -> None:
    made, path = server
    networks = [f"10.{number >> 8}.{number & 255}.0/24" for number in range(20_000)]
    device.add_peer(OTHER.public, allowed_ips=networks)
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        client.sendall(b"get=1\n\n" * 10)
        assert eventually(lambda: control_threads(made) == 1)
        assert len(ask(path)["peers"][0]["allowed_ips"]) == 20_000
        device.private_key = PRIVATE
        assert eventually(lambda: control_threads(made) == 1)  # the one that answered ask() is on its way out
        made.close()
        assert eventually(lambda: control_threads(made) == 0)


def control_threads(server: ControlServer) -> int:
    """How many clients the server talks to."""
    return sum(getattr(thread, "_target", None) == server._answer for thread in threading.enumerate())


def test_the_server_outlives_a_lack_of_threads(
    server: tuple[ControlServer, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, path = server

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as lack, socket.socket(socket.AF_UNIX) as client:
        lack.setattr(threading.Thread, "start", refuse)
        client.settimeout(10)
        client.connect(str(path))
        assert client.recv(10) == b""
    assert made.is_there()
    assert ask(path)["peers"] == []


def test_the_server_waits_for_a_descriptor_without_haste(tmp_path: Path) -> None:
    """A client that can't be taken stays in the line: to ask again at once would take a whole processor."""
    check_script(f"""
import os, resource, socket, time
from pathlib import Path
from tunring.wireguard import Device
from tunring.wireguard import _control_socket
from tunring.wireguard._control_client import ask

calls = 0
accept = _control_socket.accept

def counted(listening):
    global calls
    calls += 1
    return accept(listening)

_control_socket.accept = counted
path = Path({str(tmp_path)!r}, "wg0.sock")
server = _control_socket.ControlServer(path)
host, session = tunring.testing.pair()
with host, session, Device(session, private_key=None) as device:
    server.start(device)
    client = socket.socket(socket.AF_UNIX)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    taken = []
    try:
        while True:
            taken.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        pass
    client.connect(str(path))
    time.sleep(1)
    for descriptor in taken:
        os.close(descriptor)
    client.close()
    assert ask(path)["peers"] == []
    server.close()
assert 2 <= calls < 50, calls
""")
