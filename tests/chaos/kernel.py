"""Operations of the kernel and its users on interfaces of wild links: down and up, moved away, deleted, configured."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
import threading
from typing import TYPE_CHECKING

from engine import Skip, operation
from ledger import Wrong

import tunring

if TYPE_CHECKING:
    from collections.abc import Iterator

    from world import Actor

_RTM_NEWLINK, _RTM_DELLINK = 16, 17
_REQUEST_WITH_ACK = 1 | 4
_IFLA_NET_NS_FD = 28
_IFF_UP = 1
_MESSAGE = struct.Struct("=IHHIIBxHiII")

#: Threads that have a device of their own open, which a child of a fork in another thread rightly inherits.
handing_over: set[int] = set()

#: Errors of the kernel for an interface that is gone.
_GONE = (tunring.SessionClosed, tunring.NotFound, ValueError)


def _change_link(kind: int, index: int, flags: int = 0, change: int = 0, attribute: bytes = b"") -> None:
    """Make one netlink request; OSError if the kernel refuses."""
    message = _MESSAGE.pack(_MESSAGE.size + len(attribute), kind, _REQUEST_WITH_ACK, 1, 0, 0, 0, index, flags, change)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as route:  # NETLINK_ROUTE
        route.sendto(message + attribute, (0, 0))
        (code,) = struct.unpack_from("=i", route.recv(4096), 16)
    if code:
        raise OSError(-code, os.strerror(-code))


def _index(actor: Actor) -> int:
    """The name of a wild link's interface."""
    adapter = actor.random.choice(actor.world.wild_link(actor).ends).adapter
    index = adapter.ifindex
    if not index:
        raise Skip("gone")
    return index


@contextlib.contextmanager
def _it_may_be_gone() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != 19:  # ENODEV
            raise
        raise Skip("gone meanwhile") from error


@operation(*_GONE, libraries=["tun_linux"], weight=6)
def take_an_interface_down_and_up(actor: Actor) -> None:
    index = _index(actor)
    with _it_may_be_gone():
        _change_link(_RTM_NEWLINK, index, 0, _IFF_UP)
        _change_link(_RTM_NEWLINK, index, _IFF_UP, _IFF_UP)


@operation(*_GONE, libraries=["tun_linux"], weight=3)
def delete_an_interface(actor: Actor) -> None:
    index = _index(actor)
    with _it_may_be_gone():
        _change_link(_RTM_DELLINK, index)


@operation(*_GONE, libraries=["tun_linux"], weight=3)
def move_an_interface_away(actor: Actor) -> None:
    """Move an interface to a new namespace, which ends with this thread: the kernel then deletes its contents."""
    index = _index(actor)
    away = _new_namespace()
    try:
        with _it_may_be_gone():
            attribute = struct.pack("=HHi", 8, _IFLA_NET_NS_FD, away)
            _change_link(_RTM_NEWLINK, index, 0, 0, attribute)
        if actor.chance(0.7):
            end = actor.random.choice(actor.world.wild_link(actor).ends)
            repr((end.adapter.name, end.adapter.ifindex, end.session.stats()))
    finally:
        os.close(away)


def _new_namespace() -> int:
    from tunring._system.namespace_linux import CLONE_NEWNET, unshare

    made: list[int] = []

    def make() -> None:
        with contextlib.suppress(OSError):
            unshare(CLONE_NEWNET)
            made.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if not made:
        raise Skip("no namespace")
    return made[0]


@operation(*_GONE, tunring.AlreadyExists, libraries=["tun_linux"], weight=6)
def configure_an_interface(actor: Actor) -> None:
    adapter = actor.random.choice(actor.world.wild_link(actor).ends).adapter
    number = actor.random.randrange(256)
    try:
        adapter.configure(addresses=[f"172.16.{number}.1/24"], mtu=actor.random.choice([1280, 1400, 1500]))
        adapter.configuration()
    except (tunring.WintunError, NotImplementedError) as error:
        # The interface may go at any step, or another thread may change it again.
        if adapter.ifindex and "should have the" not in str(error):
            raise
        raise Skip("gone or changed meanwhile") from error


@operation(*_GONE, tunring.AdapterBusy, libraries=["tun_linux"], weight=4)
def hand_a_descriptor_over(actor: Actor) -> None:
    """Serve a copy of a foreign descriptor of an interface by an adapter and a session."""
    if sys.platform != "linux":
        raise Skip
    from fcntl import ioctl

    name = actor.world.name()
    handing_over.add(threading.get_ident())
    device = -1
    try:
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        ioctl(device, 0x400454CA, struct.pack("16sH", name.encode(), 0x0001 | 0x1000))  # IFF_TUN | IFF_NO_PI
        with tunring.Adapter.from_fd(device, library=actor.world.library) as adapter:
            if adapter.name != name:
                raise Wrong(f"{adapter.name} is not {name}")
            with adapter.start_session(tunring.MIN_CAPACITY) as session:
                session.receive(timeout=0.002).release()
    finally:
        if device >= 0:
            os.close(device)
        handing_over.discard(threading.get_ident())
