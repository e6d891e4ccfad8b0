"""Operations on UDP sockets, Sealers and Openers: pairs of sockets that any thread uses, takes apart and closes.

The system may lose a datagram, and threads may overtake each other in it. A datagram that arrives must do so once and
unchanged.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import threading
from typing import TYPE_CHECKING, Any

import numpy
from engine import Skip, operation
from ledger import MIN_SIZE, Direction, Route, Wrong, identify
from loops import run_in_loop
from traffic import how_patient
from world import Kept

import tunring
import tunring.pcapng
from tunring.aead import Opener, Sealer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ledger import Offer
    from world import Actor

#: Pairs that are open at once.
PAIRS = 3

#: The first bytes of sealed datagrams.
MARK = b"SEAL"

LIBRARIES = ("loopback", "tun_linux")
SYSTEMS = ("linux", "win32")


class Flight:
    """One direction of a pair: the account of its datagrams, and their Sealer."""

    def __init__(self, number: int) -> None:
        self.account = Direction(number, Route(bytes([127, 0, 0, 1]), bytes([127, 0, 0, 1])))
        key = os.urandom(32)
        self.sealer = Sealer("aes-256-gcm", key, header=MARK)
        self.opener = Opener("aes-256-gcm", key, header=MARK)

    def enter(self, actor: Actor, datagrams: list[bytes]) -> None:
        """Enter what came, sealed or not."""
        plain = [data for data in datagrams if not data.startswith(MARK)]
        if sealed := [data for data in datagrams if data.startswith(MARK)]:
            with self.opener.open(sealed) as opened:
                plain += opened.tobytes()
        for data in plain:
            if data and identify(data) is None:
                raise Wrong(f"a datagram that nobody has sent: {data.hex()}")
        self.account.receive(actor.number, plain, ordered=False)


class Side:
    """One end of a pair."""

    def __init__(self, pair: Pair, udp: tunring.UdpSocket, outgoing: Flight, incoming: Flight) -> None:
        self.link = pair
        self.udp = udp
        self.outgoing = outgoing
        self.incoming = incoming
        self.address: tuple[str, int] = udp.address[:2]


class Pair:
    """Two sockets that send to each other. Things kept of it have it as their `link`."""

    def __init__(self, actor: Actor) -> None:
        world = actor.world
        self.number = -world.new_number()
        sockets = [_open(actor), _open(actor)]
        there, back = Flight(world.new_direction()), Flight(world.new_direction())
        self.sides = (Side(self, sockets[0], there, back), Side(self, sockets[1], back, there))

    def other(self, side: Side) -> Side:
        return self.sides[side is self.sides[0]]

    def close(self) -> None:
        for side in self.sides:
            side.udp.close()


def _open(actor: Actor) -> tunring.UdpSocket:
    random = actor.random
    options = {"segment": random.choice([None, False]), "coalesce": random.choice([None, False])}
    if actor.chance(0.3):
        options["pinned_limit"] = 512 * 1024
    if actor.chance(0.2):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            return tunring.UdpSocket.from_socket(sock)
    return tunring.UdpSocket.bind(("127.0.0.1", 0), **options)


@contextlib.contextmanager
def use(actor: Actor) -> Iterator[Side]:
    """A side of some pair, which another thread may close meanwhile."""
    pairs = list(actor.world.pairs)
    if len(pairs) < PAIRS:
        made = Pair(actor)
        actor.world.pairs.append(made)
        pairs.append(made)
    pair = actor.random.choice(pairs)
    side = actor.random.choice(pair.sides)
    actor.note(f"pair {-pair.number}")
    yield side


def offer(actor: Actor, side: Side) -> Offer:
    """Make datagrams to send from a side."""
    random = actor.random
    count = random.choice([1, 3, 64, 100])
    size = random.randint(MIN_SIZE, 1400)
    sizes = [size] * count if actor.chance(0.7) else [random.randint(MIN_SIZE, 1400) for _ in range(count)]
    account = side.outgoing.account
    if account not in actor.flows:
        if len(actor.flows) > 64:
            actor.flows.clear()
        actor.flows[account] = account.new_flow()
    return account.offer(actor.flows[account], sizes, actor.history[-1][1])


def how(actor: Actor) -> dict[str, Any]:
    """Choose how to send."""
    random = actor.random
    on_full = random.choice(["wait", "partial", "drop", "raise"])
    return {"on_full": on_full, "timeout": random.choice([0, 0.01, 0.1]), "ecn": random.choice([0, 0, 1, 2])}


def receive(actor: Actor, side: Side, timeout: float | None = None) -> tunring.Batch:
    random = actor.random
    if timeout is None:
        timeout = random.choice([0, 0, 0.001, 0.02])
    batch = side.udp.receive(random.choice([1, 7, 256, 65536]), timeout, **how_patient(actor))
    actor.note(f"{len(batch)} datagrams")
    return batch


# ---- Receiving and sending


@operation(tunring.SessionClosed, weight=25, libraries=LIBRARIES, systems=SYSTEMS)
def receive_datagrams(actor: Actor) -> None:
    with use(actor) as side, receive(actor, side) as batch:
        packets = batch.tobytes()
        side.incoming.enter(actor, packets)
        if len(batch.source_index) != len(packets) or len(batch.ecn) != len(packets):
            raise Wrong("origins do not fit the datagrams")
        if actor.chance(0.3) and batch:
            parts = [part.tobytes() for _, part in batch.runs()]
            if [data for part in parts for data in part] != packets:
                raise Wrong("runs are something else")


@operation(tunring.SessionClosed, tunring.RingFull, weight=25, libraries=LIBRARIES, systems=SYSTEMS)
def send_datagrams(actor: Actor) -> None:
    """Send datagrams in every form."""
    with use(actor) as side, offer(actor, side) as offered:
        to = side.link.other(side).address
        packets = offered.packets
        kind = actor.random.choice(["items", "packed", "index", "many", "partly empty"])
        actor.note(kind)
        options = how(actor)
        if kind == "packed":
            offered.accept(side.udp.send_packed(b"".join(packets), offered.sizes, to, **options))
        elif kind == "index":
            endpoints = [tunring.Endpoint(*to), tunring.Endpoint(*to)]
            index = numpy.arange(len(packets), dtype="u4") % 2
            offered.accept(side.udp.send(packets, endpoints, index=index, **options))
        elif kind == "many":
            half = len(packets) // 2
            offered.accept(None)  # an exception says nothing of the first half
            offered.accept(sum(side.udp.send_many([(to, packets[:half]), (to, packets[half:])], **options)))
        elif kind == "partly empty":
            side.udp.send([b"", b"", b""], to, **options)
            offered.accept(side.udp.send(packets, to, **options))
        else:
            offered.accept(side.udp.send(packets, to, **options))


@operation(tunring.SessionClosed, tunring.RingFull, weight=25, libraries=LIBRARIES, systems=SYSTEMS)
def send_sealed_datagrams(actor: Actor) -> None:
    with use(actor) as side, offer(actor, side) as offered:
        offered.accept(None)
        with side.outgoing.sealer.seal(offered.packets) as sealed:
            if len(sealed) != len(offered.packets):
                raise Wrong("a Sealer makes another number of datagrams")
            offered.accept(side.udp.send(sealed, side.link.other(side).address, **how(actor)))


@operation(tunring.SessionClosed, BufferError, weight=15, libraries=LIBRARIES, systems=SYSTEMS)
def open_datagrams_in_place(actor: Actor) -> None:
    """Open datagrams while views of some may be alive, or another thread sends them on."""
    with use(actor) as side, receive(actor, side, 0.02) as batch:
        packets = batch.tobytes()
        sealed = numpy.array([data.startswith(MARK) for data in packets], dtype="?")
        part, rest = batch.select(sealed), batch.select(~sealed)
        if not part:
            side.incoming.enter(actor, packets)
            raise Skip("nothing is sealed")
        kept = part[0][2:] if actor.chance(0.2) else None
        sending = threading.Thread(target=_send_elsewhere, args=(batch,)) if actor.chance(0.2) else None
        if sending:
            sending.start()
        try:
            opened = side.incoming.opener.open(part)
        except BufferError:
            if kept is None and sending is None:
                raise Wrong("a batch that nobody uses is in use") from None
            side.incoming.enter(actor, packets)  # nothing has changed
            raise
        finally:
            if sending:
                sending.join()
            if kept is not None:
                kept.release()
        if kept is not None:
            raise Wrong("a datagram of which a view is alive was opened")
        side.incoming.account.receive(actor.number, opened.tobytes(), ordered=False)
        side.incoming.enter(actor, rest.tobytes())
        if actor.chance(0.3) and opened:
            keep(actor, side, opened)


def _send_elsewhere(batch: tunring.Batch) -> None:
    with contextlib.suppress(ValueError), tunring.UdpSocket.bind(("127.0.0.1", 0)) as udp:  # it was opened or released
        udp.send(batch, udp.address, on_full="partial")


# ---- Parts, and what is kept


def keep(actor: Actor, side: Side, batch: tunring.Batch) -> None:
    """Keep a part of a batch for other threads; the batch itself may end before."""
    expected = batch.tobytes()
    if actor.chance(0.5):
        views = [batch[i][:] for i in range(len(batch))]
        kept = Kept(side.link, views, expected, lambda what: [bytes(view) for view in what], "views")
    else:
        arrays = [numpy.frombuffer(batch[i], "u1") for i in range(len(batch))]
        kept = Kept(
            side.link, arrays, expected, lambda what: [array.tobytes() for array in what], "arrays of datagrams"
        )
    actor.world.keep(kept)


@operation(tunring.SessionClosed, weight=12, libraries=LIBRARIES, systems=SYSTEMS)
def take_datagrams_apart(actor: Actor) -> None:
    with use(actor) as side, receive(actor, side, 0.02) as batch:
        packets = batch.tobytes()
        side.incoming.enter(actor, packets)
        if not packets:
            raise Skip("nothing came")
        chosen = numpy.array([actor.chance(0.5) for _ in packets], dtype="?")
        if batch.select(chosen).tobytes() != [data for data, taken in zip(packets, chosen, strict=True) if taken]:
            raise Wrong("a selection has something else")
        keys = numpy.array([len(data) % 3 for data in packets], dtype="u4")
        groups = {int(key): part.tobytes() for key, part in batch.split(keys)}
        for key, found in groups.items():
            if found != [data for data in packets if len(data) % 3 == key]:
                raise Wrong("a group has something else")
        headers = numpy.asarray(batch.headers(40))
        if [row.tobytes() for row in headers] != [data[:40].ljust(40, b"\0") for data in packets]:
            raise Wrong("headers are something else")
        if actor.chance(0.5):
            keep(actor, side, batch[len(batch) // 2 :])


@operation(tunring.SessionClosed, weight=6, libraries=LIBRARIES, systems=("linux",))  # Windows selects no events
def wait_for_a_sockets_descriptor(actor: Actor) -> None:
    """Wait for a socket by select(), which a close ends."""
    with use(actor) as side:
        try:
            ready = select.select([side.udp], [], [], actor.random.choice([0, 0.05]))[0]
        except (OSError, ValueError):  # closed before the wait began
            if not side.udp.closed:
                raise
            raise Skip("closed") from None
        if ready:
            with side.udp.receive(timeout=0) as batch:
                side.incoming.enter(actor, batch.tobytes())


@operation(tunring.SessionClosed, tunring.RingFull, RuntimeError, weight=5, libraries=LIBRARIES, systems=SYSTEMS)
def capture_a_socket(actor: Actor) -> None:
    with use(actor) as side, tunring.pcapng.Writer(actor.world.path(".pcapng")) as writer, side.udp.capture(writer):
        with offer(actor, side) as offered:
            offered.accept(side.udp.send(offered.packets, side.link.other(side).address, **how(actor)))
        with receive(actor, side) as batch:
            side.incoming.enter(actor, batch.tobytes())


# ---- Loops


@operation(tunring.SessionClosed, weight=6, libraries=LIBRARIES, systems=SYSTEMS)
def let_tasks_share_a_socket(actor: Actor) -> None:
    """Tasks receive, linger, send, and are cancelled."""
    with use(actor) as side:

        async def take() -> None:
            more = {"min_packets": 5, "linger": 0.005} if actor.chance(0.5) else {}
            with await side.udp.receive_async(64, timeout=0.02, **more) as batch:
                side.incoming.enter(actor, batch.tobytes())

        async def send() -> None:
            flow = side.outgoing.account.new_flow()
            with side.outgoing.account.offer(flow, [200] * 20, "a task") as offered:
                offered.accept(None)
                to = side.link.other(side).address
                if actor.chance(0.5):
                    sent = await side.udp.send_async(offered.packets, to, **how(actor))
                else:
                    sent = await side.udp.send_packed_async(b"".join(offered.packets), offered.sizes, to, **how(actor))
                offered.accept(sent)

        async def job() -> None:
            with contextlib.suppress(tunring.SessionClosed, tunring.RingFull, asyncio.CancelledError):
                for _ in range(10):
                    await (take() if actor.chance(0.6) else send())

        async def main() -> None:
            tasks = [asyncio.create_task(job()) for _ in range(actor.random.randint(1, 4))]
            await asyncio.sleep(actor.random.random() * 0.05)
            if actor.chance(0.5):
                actor.random.choice(tasks).cancel()
            await asyncio.wait(tasks, timeout=5)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks)

        run_in_loop(actor, main)


# ---- Life


@operation(tunring.SessionClosed, weight=4, libraries=LIBRARIES, systems=SYSTEMS)
def close_sockets_under_their_users(actor: Actor) -> None:
    pairs = list(actor.world.pairs)
    if not pairs:
        raise Skip("no pair")
    pair = actor.random.choice(pairs)
    with contextlib.suppress(ValueError):  # another thread has closed it
        actor.world.pairs.remove(pair)
        pair.close()
        actor.world.clear_shelf(pair)


@operation(weight=4, libraries=LIBRARIES, systems=SYSTEMS)
def close_a_socket_that_others_wait_in(actor: Actor) -> None:
    udp = _open(actor)
    outcomes: list[object] = []

    def wait() -> None:
        try:
            udp.receive()
        except tunring.SessionClosed as error:
            outcomes.append(error.reason)

    threads = [threading.Thread(target=wait, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    if actor.chance(0.5):
        threads[0].join(0.002)
    udp.close()
    for thread in threads:
        thread.join(20)
    if outcomes != ["closed"] * 3:
        raise Wrong(f"threads that waited in a closed socket: {outcomes}")


@operation(weight=5, libraries=LIBRARIES, systems=SYSTEMS)
def ask_a_socket_for_figures(actor: Actor) -> None:
    """A closed socket still has them."""
    with use(actor) as side:
        before, after = side.udp.stats(), side.udp.stats()
        if after.received_packets < before.received_packets or after.sent_packets < before.sent_packets:
            raise Wrong(f"figures go back: {before} {after}")
        if side.udp.address[:2] != side.address:
            raise Wrong(f"a socket has moved from {side.address} to {side.udp.address}")
        repr((side.udp, side.udp.closed, side.outgoing.sealer, side.outgoing.sealer.counter, side.incoming.opener))


@operation(weight=4, libraries=LIBRARIES, systems=SYSTEMS)
def close_ciphers_under_their_users(actor: Actor) -> None:
    """A thread seals and opens; what it gets is right until its cipher is closed."""
    key = os.urandom(32)
    sealer, opener = Sealer("aes-256-gcm", key), Opener("aes-256-gcm", key)
    outcomes: list[object] = []

    def work() -> None:
        try:
            while True:
                # A thread that lags far behind the other finds its datagrams too old.
                if set(opener.open(sealer.seal([b"text"] * 20)).tobytes()) - {b"text"}:
                    outcomes.append("something else")
        except tunring.SessionClosed as error:
            outcomes.append(error.reason)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    threads[0].join(actor.random.random() * 0.01)
    ciphers: list[Sealer | Opener] = [sealer, opener]
    actor.random.shuffle(ciphers)
    for cipher in ciphers:
        cipher.close()
    for thread in threads:
        thread.join(20)
    if outcomes != ["closed"] * 2:
        raise Wrong(f"threads that used closed ciphers: {outcomes}")


@operation(weight=3, libraries=LIBRARIES, systems=SYSTEMS)
def drop_sockets_and_ciphers(actor: Actor) -> None:
    """Drop a socket while a batch of it lives on, which may still be opened."""
    key = os.urandom(32)
    udp = _open(actor)
    udp.send(Sealer("chacha20-poly1305", key).seal([b"kept"] * 3), udp.address[:2])
    batch = udp.receive(timeout=5, min_packets=3, linger=5)
    del udp  # and with it the last reference but the batch's
    if batch and Opener("chacha20-poly1305", key).open(batch).tobytes() != [b"kept"] * len(batch):
        raise Wrong("what was kept of a dropped socket is something else")


def in_child(pairs: list[Pair]) -> None:
    """Check in a forked child that nothing of the parent's works, above all no Sealer."""
    for pair in pairs:
        for side in pair.sides:
            for call in (
                lambda side=side: side.udp.receive(timeout=0),
                lambda side=side: side.udp.send([b"x"], side.address),
                lambda side=side: side.outgoing.sealer.seal([b"x"]),
            ):
                try:
                    call()
                except tunring.SessionClosed:
                    continue
                raise Wrong("a parent's socket or Sealer works in a child")
            side.udp.close()
