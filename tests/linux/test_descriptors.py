"""Descriptors of a TUN session: where they are, what becomes of them, and who else gets them."""

from __future__ import annotations

import os
import socket
import sys
import textwrap
import threading
import time
from typing import TYPE_CHECKING

import pytest
from datagrams import udp4
from netns import drain

import tunring
from running import check_program, eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from netns import Namespace

pytestmark = pytest.mark.root

#: One that the host takes without an answer.
PACKET = udp4(("10.9.0.9", 9), ("10.9.0.1", 9), b"")


def descriptors() -> dict[int, str]:
    found = {}
    for entry in os.listdir("/proc/self/fd"):
        try:
            found[int(entry)] = os.readlink(f"/proc/self/fd/{entry}")
        except FileNotFoundError:  # the listing's own
            continue
    return found


def run(namespace: Namespace, script: str) -> str:
    with namespace.entered():
        return check_program(sys.executable, "-W", "error", "-c", textwrap.dedent(script))


def run_without_standard_streams(namespace: Namespace, main: str) -> str:
    """Run main() in a program that has closed its standard streams, and return its answer.

    `used()` lists those of their numbers that are in use, and `redirect()` opens /dev/null by all of them.
    """
    return run(
        namespace,
        textwrap.dedent(
            """
            import os, traceback
            os.dup2(1, 200)
            for fd in (0, 1, 2):
                os.close(fd)

            def used():
                return [fd for fd in (0, 1, 2) if os.path.exists(f"/proc/self/fd/{fd}")]

            def redirect():
                null = os.open("/dev/null", os.O_RDWR)
                for fd in (0, 1, 2):
                    os.dup2(null, fd)
            """
        )
        + textwrap.dedent(main)
        + textwrap.dedent(
            """
            try:
                said = main()
            except BaseException:
                said = traceback.format_exc()
            os.write(200, said.encode())
            """
        ),
    )


def test_none_is_a_standard_stream(namespace: Namespace) -> None:
    """A program that was started without them redirects them later: the interface lives on."""
    said = run_without_standard_streams(
        namespace,
        """
        import socket, tunring

        def main():
            with tunring.Adapter.create("tun0") as adapter:
                adapter.configure(addresses=["10.9.0.1/24"])
                with adapter.start_session() as session:
                    session.receive(timeout=0.1).release()
                    before = used()
                    redirect()
                    session.receive(timeout=0.1).release()
                    adapter.configure(mtu=1400)
                    names = [name for _, name in socket.if_nameindex()]
                    return f"{before} {names} {session.closed}"
        """,
    )
    assert said == "[] ['lo', 'tun0'] False"


def test_none_of_a_tunnels_is_a_standard_stream(namespace: Namespace) -> None:
    said = run_without_standard_streams(
        namespace,
        """
        import tunring
        from tunring.wireguard import Device, Key

        def main():
            with tunring.Adapter.create("tun0") as adapter:
                with Device(adapter, private_key=Key.generate(), mark=7) as device:
                    before = used()
                    redirect()
                    device.mark = 8
                    device.listen_port = 0
                    device.set_interface_mtu(1400)
                    said = f"{before} {device.mark} {adapter.configuration().mtu}"
                names = [os.readlink(f"/proc/self/fd/{fd}") for fd in (0, 1, 2)]
                return f"{said} {names}"
        """,
    )
    assert said == "[] 8 1400 ['/dev/null', '/dev/null', '/dev/null']"


def test_a_child_has_none_of_a_tunnels(namespace: Namespace) -> None:
    """Neither the interface's nor the UDP socket's, nor those by which the device finds its network and its MTU."""
    said = run(
        namespace,
        """
        import os, warnings, tunring
        from tunring.wireguard import Device, Key
        warnings.simplefilter("ignore", DeprecationWarning)   # Python's own, of threads and fork

        def files():
            numbers = [fd for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")]
            return sorted(os.readlink(f"/proc/self/fd/{fd}") for fd in numbers)

        before = files()
        with tunring.Adapter.create("tun0") as adapter, Device(adapter, private_key=Key.generate()) as device:
            more = len(files()) - len(before)
            child = os.fork()
            if child == 0:
                left = [file for file in files() if file not in before]
                os._exit(len(left))
            _, status = os.waitpid(child, 0)
            print(more > 5, os.waitstatus_to_exitcode(status))
        """,
    )
    assert said == "True 0\n"


@pytest.mark.parametrize("offloads", [True, False], indirect=True)
def test_another_file_in_the_devices_place(session: tunring.Session) -> None:
    """It gives 0 bytes for ever, which no TUN descriptor does: the session ends, soon and without a busy loop."""
    [device] = [number for number, path in descriptors().items() if path == "/dev/net/tun"]
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, device)
    os.close(null)
    began = time.monotonic()
    with pytest.raises(tunring.SessionClosed) as caught:
        while True:
            session.receive(timeout=5).release()
    assert caught.value.reason == "removed"
    assert time.monotonic() - began < 2
    session.close()
    os.close(device)  # which was left alone: it is ours


def test_a_closed_device(session: tunring.Session) -> None:
    [device] = [number for number, path in descriptors().items() if path == "/dev/net/tun"]
    kept = os.dup(device)
    os.close(device)
    with pytest.raises(tunring.SessionClosed):
        session.send([PACKET])
        session.send([PACKET])
    with pytest.raises(tunring.SessionClosed):
        session.receive()
    os.dup2(kept, device)
    os.close(kept)


def test_a_closed_session_has_none(adapter: tunring.Adapter, namespace: Namespace) -> None:
    """Not the event's, nor those that read many packets at once: only memory stays while a slice of a packet lives."""
    kept = []
    counts = []
    namespace.set_up("tun0", "10.9.0.1/24")
    with namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        for turn in range(12):
            with adapter.start_session(tunring.MIN_CAPACITY) as session:
                drain(session)
                for _ in range(5):  # packet after packet makes it read in bursts
                    for number in range(40):
                        link.sendto(bytes([turn, number]), ("10.9.0.2", 9))
                    with session.receive(timeout=5) as batch:
                        assert batch[0][28] == turn
                while batch := session.receive(timeout=0.01):
                    batch.release()
                link.sendto(bytes([turn]), ("10.9.0.2", 9))
                kept.append(session.receive(timeout=5)[0][28:])
            counts.append(len(descriptors()))
    assert [bytes(view) for view in kept] == [bytes([turn]) for turn in range(12)]
    assert len(set(counts)) == 1, counts


def test_no_child_keeps_an_interface(create: Callable[..., tunring.Adapter], namespace: Namespace) -> None:
    """Whenever the fork was, the interface goes with its owner's close while the children live on."""
    children: list[int] = []
    stop = threading.Event()
    left: list[set[str]] = []

    def churn() -> None:
        with namespace.entered():
            while not stop.is_set():
                adapter = tunring.Adapter.create("tun7")
                adapter.close()
                # A child that was just made drops its copies when it first runs, which may be after this close.
                if not eventually(lambda: "tun7" not in namespace.interfaces(), 5):
                    left.append(namespace.interfaces())
                    return

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(60):
            child = os.fork()
            if child == 0:
                time.sleep(30)
                os._exit(0)
            children.append(child)
            time.sleep(0.005)
    finally:
        stop.set()
        thread.join()
        for child in children:
            os.kill(child, 9)
            os.waitpid(child, 0)
    assert not left, f"{len(left)} times an interface outlived its owner"
    assert eventually(lambda: "tun7" not in namespace.interfaces())
