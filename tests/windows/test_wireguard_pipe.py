"""The named pipe by which ``wg.exe`` finds a device, and what it says."""

from __future__ import annotations

import ctypes
import errno
import socket
import sys
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from running import Threads, eventually
from tunring import testing
from tunring.wireguard import Device, Key, _control_pipe_windows
from tunring.wireguard._control_client import ask
from tunring.wireguard._control_pipe_windows import ControlServer, connect, path_of

if TYPE_CHECKING:
    from collections.abc import Iterator

assert sys.platform == "win32"

PRIVATE, OTHER = (Key(bytes([number]) * 32) for number in (1, 2))


@pytest.fixture
def device() -> Iterator[Device]:
    host, session = testing.pair()
    with host, session, Device(session, private_key=PRIVATE) as made:
        yield made


@pytest.fixture
def server(device: Device, name: str) -> Iterator[ControlServer]:
    made = ControlServer(path_of(name))
    made.start(device)
    yield made
    made.close()


def test_several_requests_of_a_connection(server: ControlServer, device: Device, name: str) -> None:
    with connect(path_of(name)) as stream:
        stream.write(b"set=1\nfwmark=x\n\nset=1\npublic_key=" + OTHER.public.hex.encode())
        stream.write(b"\nallowed_ip=10.0.0.0/8\n\n")
        stream.flush()
        said = [stream.readline() for _ in range(4)]
    assert said == [b"errno=-22\n", b"\n", b"errno=0\n", b"\n"]
    status = ask(path_of(name))
    assert status["listen_port"] == device.listen_port
    assert status["public_key"] == PRIVATE.public.base64
    assert [(peer["public_key"], peer["allowed_ips"]) for peer in status["peers"]] == [
        (OTHER.public.base64, ["10.0.0.0/8"])
    ]
    assert server.is_there()


def test_marks_are_refused_before_anything_changes(server: ControlServer, device: Device, name: str) -> None:
    port = device.listen_port
    with connect(path_of(name)) as stream:
        stream.write(b"set=1\nlisten_port=1\nfwmark=5\n\nset=1\nfwmark=0\n\n")
        stream.flush()
        assert [stream.readline() for _ in range(4)] == [
            f"errno=-{errno.ENOSYS}\n".encode(),
            b"\n",
            b"errno=0\n",
            b"\n",
        ]
    assert device.listen_port == port


def test_a_long_request_and_a_long_answer(server: ControlServer, device: Device, name: str) -> None:
    networks = [f"10.{number >> 8}.{number & 255}.0/24" for number in range(20_000)]
    with connect(path_of(name)) as stream:
        lines = [f"allowed_ip={network}" for network in networks]
        stream.write("\n".join(["set=1", f"public_key={OTHER.public.hex}", *lines, "", ""]).encode())
        stream.flush()
        assert stream.readline() == b"errno=0\n"
    (peer,) = ask(path_of(name))["peers"]
    assert set(peer["allowed_ips"]) == set(networks)


def test_clients_side_by_side(server: ControlServer, name: str) -> None:
    with ExitStack() as stack:
        for _ in range(5):  # who say nothing
            stack.enter_context(connect(path_of(name)))
        with Threads() as threads:
            for _ in range(10):
                threads.start(ask, path_of(name))
        assert [status["peers"] for status in threads.results] == [[]] * 10


def test_what_is_not_text_ends_the_connection(server: ControlServer, name: str) -> None:
    with connect(path_of(name)) as stream:
        stream.write(b"\xff\xfe\n\n")
        stream.flush()
        assert stream.readline() == b""
    assert ask(path_of(name))["peers"] == []


def test_clients_that_come_and_go(server: ControlServer, name: str) -> None:
    for _ in range(50):
        connect(path_of(name)).close()
    assert ask(path_of(name))["peers"] == []


def test_the_pipe_lives_from_client_to_client(
    server: ControlServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner and rights are those of its first instance: were there none for a moment, they would be lost."""
    alive = []
    instance, following = _control_pipe_windows._instance, server._next

    def counted(*arguments: Any) -> int:
        alive.append(sum(not stream.closed for stream in server._streams))
        return instance(*arguments)

    def late() -> Any:
        time.sleep(0.05)  # in which a client that hung up is gone
        return following()

    monkeypatch.setattr(_control_pipe_windows, "_instance", counted)
    monkeypatch.setattr(server, "_next", late)
    for _ in range(10):
        connect(path_of(name)).close()
    assert eventually(lambda: len(alive) >= 10)
    assert min(alive) >= 1


def test_a_client_that_does_not_read_blocks_nobody(server: ControlServer, device: Device, name: str) -> None:
    networks = [f"10.{number >> 8}.{number & 255}.0/24" for number in range(20_000)]
    device.add_peer(OTHER.public, allowed_ips=networks)
    with connect(path_of(name)) as stream:
        stream.write(b"get=1\n\n" * 10)
        stream.flush()
        assert len(ask(path_of(name))["peers"][0]["allowed_ips"]) == 20_000
        server.close()
        assert eventually(lambda: not server._streams)


def test_the_server_outlives_a_lack_of_threads(
    server: ControlServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as lack:
        lack.setattr(threading.Thread, "start", refuse)
        with connect(path_of(name)) as stream:
            assert stream.read(1) == b""
    assert ask(path_of(name))["peers"] == []


@pytest.mark.parametrize("code", [5, 1307, 1314])
def test_a_process_that_is_not_elevated(name: str, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Windows has several codes for it."""

    def refuse(*_: object) -> int:
        raise ctypes.WinError(code)

    monkeypatch.setattr(_control_pipe_windows, "_instance", refuse)
    with pytest.raises(PermissionError, match="that needs an elevated process"):
        ControlServer(path_of(name))


def test_a_taken_port_is_explained_in_words(device: Device) -> None:
    with bound_socket() as taken, pytest.raises(OSError, match="can't listen on UDP port") as caught:
        device.listen_port = taken.getsockname()[1]
    assert caught.value.errno == errno.EADDRINUSE
    assert "Unknown error" not in str(caught.value)


def bound_socket() -> socket.socket:
    """A socket that has a port of both families."""
    made = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    made.bind(("::", 0))
    return made


def test_the_end_hangs_up_and_frees_the_name(device: Device, name: str) -> None:
    for _ in range(3):
        server = ControlServer(path_of(name))
        server.start(device)
        with connect(path_of(name)) as stream:
            server.close()
            assert stream.read(1) == b""
        server.close()
        with pytest.raises(OSError, match=r"WireGuard|cannot find|not found") as caught:
            connect(path_of(name))
        assert caught.value.errno == errno.ENOENT
    assert eventually(lambda: not any("control" in thread.name for thread in threading.enumerate()))


def test_a_server_that_never_started(name: str) -> None:
    ControlServer(path_of(name)).close()
    ControlServer(path_of(name)).close()


def test_a_server_whose_thread_could_not_start(device: Device, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    server = ControlServer(path_of(name))
    with monkeypatch.context() as lack, pytest.raises(RuntimeError):
        lack.setattr(threading.Thread, "start", refuse)
        server.start(device)
    server.close()
    ControlServer(path_of(name)).close()


def test_a_name_is_served_once(server: ControlServer, name: str) -> None:
    with pytest.raises(OSError, match="another process serves") as caught:
        ControlServer(path_of(name))
    assert caught.value.errno == errno.EADDRINUSE
    assert ask(path_of(name))["peers"] == []


def test_nobody_answers(device: Device, name: str) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        ask(path_of(name))
    assert caught.value.filename == path_of(name)


def test_the_privilege_to_name_another_owner_is_held_for_a_block() -> None:
    from tunring._system.privilege_windows import restore_privilege

    for _ in range(3):
        with restore_privilege():
            pass


@pytest.mark.parametrize("name", ["", "a/b", "a\\b", "a\0", "x" * 128])
def test_names_that_lead_elsewhere(name: str) -> None:
    with pytest.raises(ValueError, match="an interface's name must have 1 to 127 characters"):
        path_of(name)


def test_names_that_windows_allows() -> None:
    assert path_of("Büro 1") == r"\\.\pipe\ProtectedPrefix\Administrators\WireGuard\Büro 1"
