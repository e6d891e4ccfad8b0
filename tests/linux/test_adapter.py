"""An adapter's life: the interface comes, is found, changes, and goes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from datagrams import udp4
from nobody import BECOME_NOBODY, NOBODY

import tunring
from running import Threads, eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from netns import Namespace

pytestmark = pytest.mark.root

#: /dev/net/tun is there for all users, as most systems have it, in a mount namespace of the process's own.
TUN_FOR_ALL = "mount -t tmpfs none /dev/net && mknod -m 666 /dev/net/tun c 10 200"
NO_TUN = "mount -t tmpfs none /dev/net"


def run_python(namespace: Namespace, source: str, mounts: str = "true") -> str:
    """Run a script in the namespace, after a shell command that changes what is mounted, for the script alone."""
    shell = f'{mounts} && exec "$0" -W error -c "$1"'
    return namespace.run("unshare", "--mount", "sh", "-c", shell, sys.executable, textwrap.dedent(source)).strip()


def test_create_makes_the_interface_and_close_removes_it(namespace: Namespace, tun: tunring.Library) -> None:
    with namespace.entered():
        adapter = tunring.Adapter.create("tun0", library=tun)
    assert namespace.interfaces() == {"lo", "tun0"}
    adapter.close()
    assert namespace.interfaces() == {"lo"}
    adapter.close()


def test_close_removes_it_with_session_and_packets_alive(
    session: tunring.Session, adapter: tunring.Adapter, namespace: Namespace
) -> None:
    with namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.sendto(b"kept", ("10.9.0.9", 9))
    batch = session.receive(timeout=10)
    packet = batch[-1]
    adapter.close()
    assert namespace.interfaces() == {"lo"}
    assert session.closed
    assert bytes(packet[-4:]) == b"kept"
    batch.release()


def test_many_adapters(namespace: Namespace, create: Callable[..., tunring.Adapter]) -> None:
    adapters = [create(f"tun{number}") for number in range(20)]
    sessions = [adapter.start_session(tunring.MIN_CAPACITY) for adapter in adapters]
    assert len(namespace.interfaces()) == 21
    for session in sessions:
        session.close()


def test_taken_name(adapter: tunring.Adapter, namespace: Namespace, create: Callable[..., tunring.Adapter]) -> None:
    for name in (adapter.name, "lo"):
        with pytest.raises(FileExistsError, match=name) as caught:
            create(name)
        assert caught.value.winerror == 183
    assert namespace.interfaces() == {"lo", "tun0"}


@pytest.mark.parametrize(
    "name",
    ["t%d", "%", "a/b", "a:1", "a b", "a\tb", "a\n", "\u00a0", ".", "..", "a" * 16, "é" * 8, "€€€€€€", "", "a\0b"],
)
def test_bad_names(namespace: Namespace, create: Callable[..., tunring.Adapter], name: str) -> None:
    with pytest.raises(ValueError):
        create(name)
    assert namespace.interfaces() == {"lo"}


@pytest.mark.parametrize("name", ["a", "a" * 15, "é" * 7, "Office-Net_1", "..."])
def test_good_names(namespace: Namespace, create: Callable[..., tunring.Adapter], name: str) -> None:
    assert create(name).name == name
    assert name in namespace.interfaces()


def test_identity_is_the_systems(adapter: tunring.Adapter, namespace: Namespace) -> None:
    with namespace.entered():
        index = socket.if_nametoindex("tun0")
    assert adapter.ifindex == index
    # A NET_LUID has the index at bits 24 to 47, and IF_TYPE_TUNNEL's like above.
    assert adapter.luid >> 24 & 0xFFFFFF == index
    assert adapter.name == "tun0"


def test_rename_is_followed(session: tunring.Session, adapter: tunring.Adapter, namespace: Namespace) -> None:
    index, luid = adapter.ifindex, adapter.luid
    namespace.ip("link set tun0 down")
    namespace.ip("link set tun0 name other")
    namespace.ip("link set other up")
    assert (adapter.name, adapter.ifindex, adapter.luid) == ("other", index, luid)
    assert session.send([udp4(("10.9.0.9", 9), ("10.9.0.1", 9), b"")]) == 1
    assert session.stats().write_errors == 0


def test_moved_to_another_namespace(
    adapter: tunring.Adapter, namespaces: tuple[Namespace, Namespace], create: Callable[..., tunring.Adapter]
) -> None:
    here, there = namespaces
    with adapter.start_session() as session:
        here.ip(f"link set tun0 netns /proc/{os.getpid()}/fd/{there.fileno()}")
        there.set_up("tun0", "10.9.0.1/24")
        with there.entered():
            assert adapter.ifindex == socket.if_nametoindex("tun0")
        with there.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
            link.sendto(b"there", ("10.9.0.9", 9))
        with session.receive(timeout=10) as batch:
            assert batch.tobytes()[-1].endswith(b"there")
    assert create("tun0").name == "tun0"
    adapter.close()
    assert there.interfaces() == {"lo"}


def test_carrier_is_up_while_a_session_lives(adapter: tunring.Adapter, namespace: Namespace) -> None:
    namespace.ip("link set tun0 up")
    for _ in range(3):
        assert "NO-CARRIER" in namespace.flags("tun0")
        with adapter.start_session():
            assert {"UP", "LOWER_UP"} <= namespace.flags("tun0")
    assert "NO-CARRIER" in namespace.flags("tun0")


def test_second_session(session: tunring.Session, adapter: tunring.Adapter) -> None:
    with pytest.raises(tunring.AdapterBusy) as caught:
        adapter.start_session()
    assert caught.value.winerror == 1247
    session.close()
    with adapter.start_session() as second:
        assert second.send([udp4(("10.9.0.9", 9), ("10.9.0.1", 9), b"")]) == 1


def test_packets_from_before_the_session_are_gone(adapter: tunring.Adapter, namespace: Namespace) -> None:
    with namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        with adapter.start_session():
            namespace.set_up("tun0", "10.9.0.1/24")
            link.sendto(b"old", ("10.9.0.9", 9))
        with adapter.start_session() as session:
            link.sendto(b"new", ("10.9.0.9", 9))
            received = []
            while not received or not received[-1].endswith(b"new"):
                with session.receive(timeout=10) as batch:
                    assert batch
                    received += batch.tobytes()
    assert not any(packet.endswith(b"old") for packet in received)


# ---- Existing interfaces ----


def persistent(namespace: Namespace, *, owner: int | None = None) -> None:
    namespace.ip("tuntap add dev kept mode tun" + (f" user {owner}" if owner else ""))
    namespace.set_up("kept", "10.9.0.1/24")


def test_open_attaches_and_close_leaves_it(namespace: Namespace, tun: tunring.Library) -> None:
    persistent(namespace)
    for _ in range(2):
        with namespace.entered():
            adapter = tunring.Adapter.open("kept", library=tun)
        with adapter, adapter.start_session() as session:
            assert "LOWER_UP" in namespace.flags("kept")
            with namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
                link.sendto(b"to python", ("10.9.0.9", 9))
            with session.receive(timeout=10) as batch:
                assert batch.tobytes()[-1].endswith(b"to python")
        assert namespace.interfaces() == {"lo", "kept"}
        assert "NO-CARRIER" in namespace.flags("kept")


def test_open_by_the_owner_needs_no_privilege(namespace: Namespace) -> None:
    persistent(namespace, owner=NOBODY)
    script = """
        with tunring.Adapter.open("kept") as adapter, adapter.start_session() as session:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
                link.sendto(b"from nobody", ("10.9.0.9", 9))
            with session.receive(timeout=10) as batch:
                index = socket.if_nametoindex("kept")
                print(os.geteuid(), adapter.name, adapter.ifindex == index, bytes(batch[-1][28:]))
    """
    said = run_python(namespace, BECOME_NOBODY + textwrap.dedent(script), TUN_FOR_ALL)
    assert said == f"{NOBODY} kept True b'from nobody'"
    assert namespace.interfaces() == {"lo", "kept"}


def test_open_by_somebody_else_is_refused(namespace: Namespace) -> None:
    persistent(namespace, owner=NOBODY - 1)
    script = """
        try:
            tunring.Adapter.open("kept")
        except PermissionError as error:
            print(error.winerror, error)
    """
    said = run_python(namespace, BECOME_NOBODY + textwrap.dedent(script), TUN_FOR_ALL)
    assert said.startswith("5 ")
    assert "owner" in said


def test_open_errors(namespace: Namespace, tun: tunring.Library) -> None:
    with namespace.entered():
        with pytest.raises(FileNotFoundError, match="nothere"):
            tunring.Adapter.open("nothere", library=tun)
        with pytest.raises(ValueError):
            tunring.Adapter.open("lo", library=tun)
        with pytest.raises(ValueError):
            tunring.Adapter.open("a" * 16, library=tun)
    assert namespace.interfaces() == {"lo"}


def test_open_of_what_another_process_uses(namespace: Namespace, tun: tunring.Library) -> None:
    with other_process(namespace, "adapter.start_session()"), namespace.entered():
        with pytest.raises(tunring.AdapterBusy):
            tunring.Adapter.open("tun0", library=tun)
        with pytest.raises(FileExistsError):
            tunring.Adapter.create("tun0", library=tun)


# ---- Privileges and the device file ----


@pytest.mark.parametrize("mounts", [TUN_FOR_ALL, TUN_FOR_ALL.replace("666", "600")])
def test_not_root(namespace: Namespace, mounts: str) -> None:
    script = """
        try:
            tunring.Adapter.create("tun0")
        except PermissionError as error:
            print(error.winerror, error.errno, error)
    """
    said = run_python(namespace, BECOME_NOBODY + textwrap.dedent(script), mounts)
    # The system's own number: the kernel's for want of the capability, and for want of the file's permission.
    assert said.startswith("5 1 " if "666" in mounts else "5 13 ")
    assert ("CAP_NET_ADMIN" if "666" in mounts else "/dev/net/tun may not be opened by this user") in said
    assert namespace.interfaces() == {"lo"}


def test_no_device_file(namespace: Namespace) -> None:
    script = """
        import tunring
        for call in (lambda: tunring.Adapter.create("tun0"), tunring.running_driver_version):
            try:
                call()
            except FileNotFoundError as error:
                print(error.winerror, "/dev/net/tun" in str(error))
    """
    assert run_python(namespace, script, NO_TUN).splitlines() == ["2 True", "2 True"]


def test_driver_version_is_the_kernels(tun: tunring.Library) -> None:
    assert os.uname().release.startswith(str(tunring.running_driver_version(tun)) + ".")


def test_delete_driver(adapter: tunring.Adapter, tun: tunring.Library) -> None:
    with pytest.raises(tunring.WintunError):
        tunring.delete_driver(tun)
    adapter.close()
    tunring.delete_driver(tun)


# ---- Processes ----


class other_process:  # noqa: N801 - used as a function
    """A process that creates the adapter tun0, runs a statement, reports that and waits."""

    def __init__(self, namespace: Namespace, statement: str) -> None:
        source = f'import sys, os, tunring\nadapter = tunring.Adapter.create("tun0")\nkept = {statement}\n'
        with namespace.entered():
            self.process = subprocess.Popen(
                [sys.executable, "-c", source + 'print("ready", flush=True)\nsys.stdin.read()'],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )

    def __enter__(self) -> subprocess.Popen[str]:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"
        return self.process

    def __exit__(self, *exception: object) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()
        self.process.communicate(timeout=10)


def test_killed_process_leaves_nothing(namespace: Namespace) -> None:
    with other_process(namespace, "adapter.start_session()") as process:
        assert "tun0" in namespace.interfaces()
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        assert eventually(lambda: namespace.interfaces() == {"lo"}, 5)


def test_process_that_forgets_to_close_leaves_nothing(namespace: Namespace) -> None:
    # With two names for everything, so that the interpreter chooses the order of destruction.
    source = 'import tunring; a = b = tunring.Adapter.create("tun0"); s = t = a.start_session(); a.me = s; print("ok")'
    assert namespace.run(sys.executable, "-c", source) == "ok\n"
    assert eventually(lambda: namespace.interfaces() == {"lo"}, 5)


@pytest.mark.parametrize("with_session", [False, True])
def test_fork_doesnt_keep_the_interface(namespace: Namespace, tun: tunring.Library, with_session: bool) -> None:
    with namespace.entered():
        adapter = tunring.Adapter.create("tun0", library=tun)
    session = adapter.start_session() if with_session else None
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writing)
        os.read(reading, 1)  # until the parent is done
        os._exit(0)
    try:
        os.close(reading)
        if session:
            session.close()
        adapter.close()
        # The child may not have run yet.
        assert eventually(lambda: namespace.interfaces() == {"lo"}, 5)
        assert os.waitpid(child, os.WNOHANG) == (0, 0)
    finally:
        os.close(writing)
        os.waitpid(child, 0)


def test_fork_child_refuses_and_parent_goes_on(
    session: tunring.Session, adapter: tunring.Adapter, namespace: Namespace
) -> None:
    with namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.sendto(b"before", ("10.9.0.9", 9))
    batch = session.receive(timeout=10)
    packet = batch[-1]
    with Threads() as threads:
        threads.start(lambda: session.receive(timeout=2))
        child = os.fork()
        if child == 0:
            code = 1
            try:
                assert bytes(packet[-6:]) == b"before"
                for call in (session.receive, lambda: session.send([bytes(packet)]), adapter.start_session):
                    try:
                        call()
                    except OSError:
                        continue
                    os._exit(2)
                batch.release()
                session.close()
                adapter.close()
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        batch.release()
        with namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
            link.sendto(b"after", ("10.9.0.9", 9))
    with threads.results[0] as received:
        assert received.tobytes()[-1].endswith(b"after")
    assert adapter.name in namespace.interfaces()
