"""Operations on WireGuard devices: pairs of them, which any thread sends through, reconfigures, takes apart and closes.

A tunnel may lose packets, as keys, peers, ports and networks change under them, and threads may overtake each other.
A packet that arrives must do so once and unchanged.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import threading
from typing import TYPE_CHECKING, Any

from engine import Skip, operation
from ledger import MIN_SIZE, Direction, Route, Wrong
from loops import run_in_loop

import tunring
from tunring import testing
from tunring.wireguard import Device, Key, Peer
from tunring.wireguard._control import answer
from tunring.wireguard.peer import describe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine import Engine
    from world import Actor

#: Tunnels that are open at once: each has eight threads.
TUNNELS = 2

#: Peers besides the one that answers.
STRANGERS = 30

#: Windows has none.
MARKS = [None, 1, 51820] if sys.platform == "linux" else [None]

LIBRARIES = ("loopback",)
SYSTEMS = ("linux", "win32")


class FaultsOfThreads(logging.Handler):
    """An exception that a device's thread logs fails the run: nobody else sees it."""

    def __init__(self, engine: Engine[Any]) -> None:
        super().__init__(logging.ERROR)
        self._engine = engine

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if error is None or not self._engine.explained_by_shortage(error, self._engine.shortages - 1):
            self._engine.fail(f"a device logged: {record.getMessage()}", error)


class Side:
    """One end: a device, its host, and the accounts of what the host sends and receives."""

    def __init__(self, number: int, outgoing: Direction, incoming: Direction) -> None:
        self.network = f"10.9.0.{number}/32"
        self.outgoing = outgoing
        self.incoming = incoming
        self.key = Key.generate()
        self.host, self.session = testing.pair(tunring.MIN_CAPACITY)
        try:
            self.device = Device(self.session, private_key=self.key)
        except BaseException:
            self.session.close()
            self.host.close()
            raise

    def things(self) -> list[Any]:
        return [self.device, self.session, self.host]

    def peer(self) -> Peer:
        """The peer at the other end."""
        for peer in self.device.peers.values():
            if peer.persistent_keepalive == 1:
                return peer
        raise Skip("no peer at present")


class Tunnel:
    """Two devices that are each other's peers."""

    def __init__(self, actor: Actor) -> None:
        self.number = actor.world.new_number()
        one, other = bytes([10, 9, 0, 1]), bytes([10, 9, 0, 2])
        there = Direction(actor.world.new_direction(), Route(one, other))
        back = Direction(actor.world.new_direction(), Route(other, one))
        with contextlib.ExitStack() as undo:
            first = Side(1, there, back)
            undo.callback(_close, first.things())
            second = Side(2, back, there)
            undo.callback(_close, second.things())
            self.sides = (first, second)
            for side in self.sides:
                side.device.start()
                self.introduce(side)
            undo.pop_all()

    def other(self, side: Side) -> Side:
        return self.sides[side is self.sides[0]]

    def introduce(self, side: Side) -> None:
        """Make the other side its peer; the keepalive's second tells it from others."""
        there = self.other(side)
        side.device.add_peer(
            there.key.public,
            allowed_ips=[there.network],
            endpoint=("127.0.0.1", there.device.listen_port),
            persistent_keepalive=1,
        )

    def close(self) -> None:
        for side in self.sides:
            _close(side.things())

    def check(self) -> int:
        """Returns how many packets have arrived."""
        return sum(side.incoming.check(complete=False) for side in self.sides)


def _close(things: list[Any]) -> None:
    for thing in things:
        thing.close()


@contextlib.contextmanager
def use(actor: Actor) -> Iterator[tuple[Tunnel, Side]]:
    """A side of some tunnel, which another thread may close meanwhile."""
    world = actor.world
    if len(world.tunnels) < TUNNELS:
        log = logging.getLogger("tunring.wireguard")
        if not log.handlers:
            log.addHandler(FaultsOfThreads(actor.engine))
        world.tunnels.append(Tunnel(actor))
    tunnel = actor.random.choice(list(world.tunnels) or [Tunnel(actor)])
    side = actor.random.choice(tunnel.sides)
    actor.note(f"tunnel {tunnel.number}", "there" if side is tunnel.sides[0] else "back")
    yield tunnel, side


# ---- Packets


@operation(tunring.SessionClosed, tunring.RingFull, weight=25, libraries=LIBRARIES, systems=SYSTEMS)
def send_through_a_tunnel(actor: Actor) -> None:
    with use(actor) as (_, side):
        account = side.outgoing
        if account not in actor.flows:
            actor.flows[account] = account.new_flow()
        sizes = [actor.random.randint(MIN_SIZE, 1400) for _ in range(actor.random.choice([1, 5, 60, 150]))]
        with account.offer(actor.flows[account], sizes, "a tunnel") as offered:
            offered.accept(None)
            side.host.send(offered.packets, on_full="partial", timeout=0.02)


@operation(tunring.SessionClosed, weight=25, libraries=LIBRARIES, systems=SYSTEMS)
def receive_from_a_tunnel(actor: Actor) -> None:
    with use(actor) as (_, side), side.host.receive(256, timeout=0.02) as batch:
        actor.note(f"{len(batch)} packets")
        side.incoming.receive(actor.number, batch.tobytes(), ordered=False)


@operation(tunring.SessionClosed, weight=8, libraries=LIBRARIES, systems=SYSTEMS)
def look_at_a_device(actor: Actor) -> None:
    with use(actor) as (_, side):
        side.device.stats()
        repr(side.device)
        for peer in side.device.peers.values():
            shown = str(describe(peer)) + repr(peer)
            if side.key.base64 in shown:
                raise Wrong("a private key is shown")


# ---- Changes


@operation(tunring.SessionClosed, weight=8, libraries=LIBRARIES, systems=SYSTEMS)
def add_and_remove_peers(actor: Actor) -> None:
    """Nobody answers for them."""
    with use(actor) as (_, side):
        device, random = side.device, actor.random
        for _ in range(random.randint(1, 5)):
            strangers = [peer for peer in device.peers.values() if peer.persistent_keepalive != 1]
            if len(strangers) < STRANGERS and actor.chance(0.6):
                device.add_peer(
                    Key.generate().public,
                    allowed_ips=[f"10.{random.randint(10, 20)}.0.0/16", "fd00::/64"],
                    endpoint=random.choice([None, ("127.0.0.1", 9)]),
                    preshared_key=random.choice([None, Key.generate()]),
                    persistent_keepalive=random.choice([None, 2]),
                )
            elif strangers:
                with contextlib.suppress(KeyError):  # another thread has removed it
                    device.remove_peer(random.choice(strangers))


@operation(tunring.SessionClosed, weight=6, libraries=LIBRARIES, systems=SYSTEMS)
def replace_a_peer(actor: Actor) -> None:
    """Its keys go, in the middle of whatever they are used for."""
    with use(actor) as (tunnel, side):
        with contextlib.suppress(KeyError):
            side.device.remove_peer(side.peer())
        if actor.chance(0.5):
            side.device.stats()
        with contextlib.suppress(ValueError):  # another thread has added it
            tunnel.introduce(side)


@operation(tunring.SessionClosed, weight=8, libraries=LIBRARIES, systems=SYSTEMS)
def change_a_peer(actor: Actor) -> None:
    with use(actor) as (tunnel, side):
        peer, there = side.peer(), tunnel.other(side)
        kind = actor.random.choice(["networks", "one network", "endpoint", "preshared", "handshake"])
        actor.note(kind)
        if kind == "networks":
            peer.allowed_ips = ["10.30.0.0/16"]
            peer.allowed_ips = [there.network, f"10.{actor.random.randint(30, 40)}.0.0/16"]
        elif kind == "one network":
            peer.add_allowed_ip(there.network)
        elif kind == "endpoint":
            peer.endpoint = actor.random.choice([None, ("127.0.0.1", 9)])
            peer.endpoint = ("127.0.0.1", there.device.listen_port)
        elif kind == "preshared":
            peer.preshared_key = Key.generate()
            peer.handshake()
            peer.preshared_key = None
        else:
            peer.handshake()


@operation(tunring.SessionClosed, weight=4, libraries=LIBRARIES, systems=SYSTEMS)
def change_a_private_key(actor: Actor) -> None:
    with use(actor) as (tunnel, side):
        there = tunnel.other(side)
        old, new = side.key, Key.generate()
        if actor.chance(0.2):
            side.device.private_key = None
        side.device.private_key = side.key = new
        with contextlib.suppress(KeyError):
            there.device.remove_peer(old.public)
        with contextlib.suppress(ValueError):
            tunnel.introduce(there)


@operation(tunring.SessionClosed, PermissionError, weight=5, libraries=LIBRARIES, systems=SYSTEMS)
def change_a_port_or_mark(actor: Actor) -> None:
    """While datagrams come and go by the old one. Marks take a privilege."""
    with use(actor) as (tunnel, side):
        if actor.chance(0.3):
            side.device.mark = actor.random.choice(MARKS)
            return
        side.device.listen_port = 0
        tunnel.other(side).peer().endpoint = ("127.0.0.1", side.device.listen_port)


@operation(tunring.SessionClosed, weight=5, libraries=LIBRARIES, systems=SYSTEMS)
def control_a_device(actor: Actor) -> None:
    """As wg does."""
    with use(actor) as (_, side):
        stranger = Key.generate().public.hex
        requests = [
            ["get=1"],
            ["set=1", f"public_key={stranger}", "allowed_ip=10.50.0.0/16", "endpoint=127.0.0.1:9"],
            ["set=1", f"public_key={stranger}", "remove=true"],
            ["set=1", "fwmark=x"],
        ]
        for request in actor.random.sample(requests, 2):
            answer(side.device, request)


@operation(tunring.SessionClosed, weight=4, libraries=LIBRARIES, systems=SYSTEMS)
def hook_into_a_device(actor: Actor) -> None:
    """Hooks that change what they are called about."""
    with use(actor) as (_, side):
        device = side.device

        def remove(peer: Peer) -> None:
            with contextlib.suppress(KeyError, tunring.SessionClosed):
                device.remove_peer(peer)

        def admit(key: Any, _: object) -> None:
            with contextlib.suppress(ValueError, tunring.SessionClosed):
                device.add_peer(key, allowed_ips=[])

        device.on_handshake = actor.random.choice([None, None, remove])
        device.on_unknown_peer = actor.random.choice([None, admit])
        device.on_endpoint_change = actor.random.choice([None, lambda peer, endpoint: repr((peer, endpoint))])


# ---- Life


@operation(tunring.SessionClosed, weight=3, libraries=LIBRARIES, systems=SYSTEMS)
def close_a_tunnel_under_its_users(actor: Actor) -> None:
    """Its parts, in any order and in two threads."""
    tunnels = list(actor.world.tunnels)
    if not tunnels:
        raise Skip("no tunnel")
    tunnel = actor.random.choice(tunnels)
    with contextlib.suppress(ValueError):  # another thread has closed it
        actor.world.tunnels.remove(tunnel)
        things = [thing for side in tunnel.sides for thing in side.things()]
        actor.random.shuffle(things)
        helper = threading.Thread(target=_close, args=(things[::2],))
        helper.start()
        _close(things[1::2])
        helper.join()
        actor.world.arrived += tunnel.check()


@operation(weight=3, libraries=LIBRARIES, systems=SYSTEMS)
def open_devices_for_a_moment(actor: Actor) -> None:
    """By every way there is, with peers that are about to be tried."""
    host, session = testing.pair(tunring.MIN_CAPACITY)
    with host, session:
        device = Device(session, private_key=actor.random.choice([None, Key.generate()]))
        try:
            for _ in range(3):
                device.add_peer(Key.generate().public, allowed_ips=["10.0.0.0/8"], endpoint=("127.0.0.1", 9))
            if actor.chance(0.4):
                with device:
                    host.send([bytes([0x45]) + bytes(19)])
            elif actor.chance(0.5):
                timer = threading.Timer(actor.random.random() * 0.02, device.close)
                timer.start()
                device.run()
                timer.join()
            else:

                async def main() -> None:
                    async with device:
                        await asyncio.sleep(actor.random.random() * 0.01)

                run_in_loop(actor, main)
        except tunring.SessionClosed:
            if not device.closed:
                raise
        finally:
            device.close()


def in_child(tunnels: list[Tunnel]) -> None:
    """Check in a forked child that no device of its parent's works."""
    for tunnel in tunnels:
        for side in tunnel.sides:
            device = side.device
            for call in (
                device.start,
                lambda device=device: device._core.add_peer(),
                lambda device=device: device._core.take(0),
            ):
                try:
                    call()
                except tunring.SessionClosed:
                    continue
                raise Wrong("a parent's device works in a child")
            device.close()
