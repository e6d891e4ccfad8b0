"""Operations on the descriptors of TUN interfaces: lent, given away, taken over, and one for each of several queues."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import struct
import threading
from fcntl import ioctl
from typing import TYPE_CHECKING, Literal

from engine import Deadline, operation
from kernel import handing_over
from ledger import Wrong
from workers import Workers

import tunring

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from world import Actor

_TUNSETIFF, _TUNSETPERSIST, _TUNGETIFF = 0x400454CA, 0x400454CB, 0x800454D2
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000

LIBRARIES = ("tun_linux",)

PACKET = bytes([0x45]) + bytes(19)

#: What taking an interface over may raise while another thread's child still has it.
_HELD = (tunring.AlreadyExists, tunring.AdapterBusy)


@contextlib.contextmanager
def _handing() -> Iterator[None]:
    """In the block this thread has descriptors of its own, which another thread's child inherits."""
    handing_over.add(threading.get_ident())
    try:
        yield
    finally:
        handing_over.discard(threading.get_ident())


def _serve(session: tunring.Session) -> None:
    while True:
        session.send([PACKET] * 4, on_full="partial")
        session.receive(16, timeout=0.01).release()


def _start_servers(sessions: Sequence[tunring.Session]) -> Workers:
    return Workers(functools.partial(_serve, session) for session in sessions)


@operation(weight=5, libraries=LIBRARIES)
def serve_several_queues(actor: Actor) -> None:
    """A thread for each queue; sessions and adapter close in any order."""
    random = actor.random
    count = random.randint(2, 4)
    with tunring.Adapter.create(actor.world.name(), queues=count, library=actor.world.library) as adapter:
        sessions = adapter.start_sessions(count, tunring.MIN_CAPACITY, coalesce=random.choice(["all", "tcp", "none"]))
        servers = _start_servers(sessions)
        if actor.chance(0.5):
            adapter.configure(mtu=1400)
        try:
            adapter.start_sessions(count, tunring.MIN_CAPACITY)
        except tunring.AdapterBusy:
            pass
        else:
            raise Wrong("an adapter has more sessions than queues")
        things: list[tunring.Session | tunring.Adapter] = [*sessions, adapter]
        random.shuffle(things)
        for thing in things:
            thing.close()
        servers.end("a session goes on after its adapter")


@operation(ValueError, weight=5, libraries=LIBRARIES)
def borrow_a_descriptor(actor: Actor) -> None:
    """ValueError: a wild link's adapter may be closed, and its number another's by then."""
    with actor.world.use(actor) as end:
        try:
            descriptor = end.adapter.fileno()
            name = ioctl(descriptor, _TUNGETIFF, bytes(40))[:16].rstrip(b"\0").decode()
        except (ValueError, OSError):
            if end.link.proven:
                raise Wrong("the adapter of a proven link has no descriptor") from None
            raise ValueError("closed meanwhile") from None
        if end.link.proven and name != end.adapter.name:
            raise Wrong(f"the descriptor of {end.adapter.name} is that of {name}")


@operation(weight=4, libraries=LIBRARIES)
def detach_and_take_over(actor: Actor) -> None:
    """One adapter after the other serves an interface; what waits in the session of each one ends with it."""
    adapter = actor.world.bench.adapter()
    name = adapter.name
    try:
        with _handing():
            for _ in range(actor.random.randint(1, 3)):
                servers = _start_servers([adapter.start_session(tunring.MIN_CAPACITY)])
                descriptor = adapter.detach()
                try:
                    servers.end("a session goes on after its adapter")
                    if os.get_inheritable(descriptor) or not adapter.closed:
                        raise Wrong("a detached descriptor is inheritable, or its adapter open")
                    adapter = tunring.Adapter.from_fd(descriptor, library=actor.world.library)
                finally:
                    os.close(descriptor)
                if adapter.name != name:
                    raise Wrong(f"{adapter.name} is not {name}")
    finally:
        adapter.close()


@operation(ValueError, weight=4, libraries=LIBRARIES)
def detach_the_shared_adapter(actor: Actor) -> None:
    """Detach while other threads start sessions. ValueError: another thread has closed it."""
    adapter = actor.world.shared
    if adapter is None:
        adapter = actor.world.bench.adapter()
    actor.world.shared = None
    try:
        with _handing():
            os.close(adapter.detach())
    finally:
        adapter.close()
    try:
        adapter.start_session(tunring.MIN_CAPACITY)
    except tunring.SessionClosed:
        return
    raise Wrong("a session starts on a detached adapter")


@operation(*_HELD, weight=4, libraries=LIBRARIES)
def take_a_persistent_interface(actor: Actor) -> None:
    """An interface that no process uses is opened, or made anew."""
    library, name = actor.world.library, actor.world.name()
    with _handing():
        _persist(name, 1)
        try:
            policies: list[Literal["open", "recreate"]] = ["open", "recreate"]
            for policy in actor.random.choices(policies, k=2):
                with (
                    tunring.Adapter.create(name, if_exists=policy, library=library) as adapter,
                    adapter.start_session(tunring.MIN_CAPACITY) as session,
                ):
                    session.receive(timeout=0.002).release()
        finally:
            _persist(name, 0)


def _persist(name: str, whether: int) -> None:
    """Let an interface outlive its descriptors, or end it."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        # It is attached for a little longer where another thread has forked: until the child ends.
        if not Deadline(25).until(lambda: _attach(device, name)):
            raise Wrong(f"{name} is still attached")
        ioctl(device, _TUNSETPERSIST, whether)
    finally:
        os.close(device)


def _attach(device: int, name: str) -> bool:
    try:
        ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True
