"""Operations: receiving, sending and reserving."""

from __future__ import annotations

import array
import gc
import select
from typing import TYPE_CHECKING, Any

import numpy
from engine import Skip, operation
from ledger import MIN_SIZE, Identity, Wrong, build, identify
from world import Kept

import tunring

if TYPE_CHECKING:
    from ledger import Direction, Offer
    from world import Actor, End


def sizes(actor: Actor, maximum: int = 64) -> list[int]:
    """Choose the sizes of packets to send."""
    random = actor.random
    largest = actor.world.bench.largest
    if actor.chance(0.03):
        return [random.randint(MIN_SIZE, largest)]
    count = random.randint(1, maximum)
    if actor.chance(0.5):  # as they can be merged into superpackets
        return [random.randint(MIN_SIZE, min(largest, 1400))] * count
    return [random.randint(MIN_SIZE, min(largest, 1400)) for _ in range(count)]


def flow(actor: Actor, direction: Direction) -> int:
    """The flow that the thread sends in this direction."""
    if direction not in actor.flows:
        if len(actor.flows) > 64:
            actor.flows.clear()  # of links that are gone
        actor.flows[direction] = direction.new_flow()
    return actor.flows[direction]


def offer(actor: Actor, end: End, maximum: int = 64) -> Offer:
    """Make packets to send from an end."""
    made = end.outgoing.offer(flow(actor, end.outgoing), sizes(actor, maximum), actor.history[-1][1])
    if not made.packets:
        with made:
            pass
        raise Skip("the window is full")
    actor.note(f"{len(made.packets)} packets")
    return made


def how_full(actor: Actor) -> dict[str, Any]:
    """The policies for a full ring."""
    on_full = actor.random.choice(["wait", "wait", "partial", "drop", "raise"])
    actor.note(on_full)
    return {"on_full": on_full, "timeout": actor.random.choice([0, 0.001, 0.05, 0.2])}


def how_patient(actor: Actor) -> dict[str, Any]:
    """Wait now and then for several packets, and not long."""
    more = {"min_packets": actor.random.choice([2, 100]), "linger": 0.002}
    return more if actor.chance(0.2) else {}


def receive(actor: Actor, end: End, maximum: int | None = None, timeout: float | None = None) -> tunring.Batch:
    """Receive a batch, and enter our packets of it."""
    if timeout is None:
        timeout = actor.random.choice([0, 0, 0.001, 0.02, 0.1])
    most = maximum or actor.random.choice([1, 2, 16, 256, 65536])
    batch = end.session.receive(most, timeout, **how_patient(actor))
    end.incoming.receive(actor.number, batch.tobytes())
    actor.note(f"{len(batch)} packets")
    return batch


# ---- Receiving


@operation(tunring.SessionClosed, weight=60)
def receive_packets(actor: Actor) -> None:
    with actor.world.use(actor) as end, receive(actor, end):
        pass


@operation(tunring.SessionClosed, weight=20)
def receive_until_there_are_some(actor: Actor) -> None:
    with actor.world.use(actor) as end:
        batch = receive(actor, end, timeout=0.3)
        batch.release()
        batch.release()
        if not batch.released:
            raise Wrong("a released batch is not released")


@operation(tunring.SessionClosed)
def look_at_a_batch_in_every_way(actor: Actor) -> None:
    with actor.world.use(actor) as end, receive(actor, end, 64) as batch:
        packets = batch.tobytes()
        count = len(packets)
        if [bytes(view) for view in batch] != packets or [bytes(batch[i]) for i in range(count)] != packets:
            raise Wrong("iteration gives something else")
        step = actor.random.choice([1, 2, 3, -1])
        if [bytes(view) for view in batch[::step]] != packets[::step]:
            raise Wrong("slices give something else")
        if list(batch.lengths) != [len(packet) for packet in packets] or batch.nbytes != sum(map(len, packets)):
            raise Wrong("the lengths are others")
        buffer = numpy.zeros(batch.nbytes + 7, "u1") if actor.chance(0.5) else bytearray(batch.nbytes)
        batch.pack_into(buffer)
        for offset, packet in zip(batch.offsets, packets, strict=True):
            if bytes(buffer[offset : offset + len(packet)]) != packet:
                raise Wrong("pack_into gives something else")
        arrays = [numpy.frombuffer(view, "u1") for view in batch]
        if [one.tobytes() for one in arrays] != packets:
            raise Wrong("numpy gets something else")


@operation(tunring.SessionClosed)
def write_into_received_packets(actor: Actor) -> None:
    with actor.world.use(actor) as end, receive(actor, end) as batch:
        for view in batch:
            view[:] = bytes(len(view))


@operation(tunring.SessionClosed, tunring.RingFull, weight=15)
def send_a_batch_back(actor: Actor) -> None:
    """Send a batch on, each of whose packets was replaced in place."""
    with actor.world.use(actor) as end, receive(actor, end) as batch:
        views = [view for view in batch if identify(bytes(view))]
        if len(views) != len(batch) or not views:
            raise Skip("nothing of ours alone")
        with end.outgoing.offer(flow(actor, end.outgoing), [len(view) for view in views], "a batch") as offered:
            if len(offered.packets) < len(views):
                raise Skip("the window is full")
            for view, packet in zip(views, offered.packets, strict=True):
                view[:] = packet
            # All that is merged must be in order and once there: of what is sent twice the account would know.
            offered.accept(end.session.send(batch, **how_full(actor)))


@operation(tunring.SessionClosed, weight=6, systems=["linux", "darwin"])
def receive_from_a_descriptor_that_is_ready(actor: Actor) -> None:
    with actor.world.use(actor) as end:
        try:
            ready = select.select([end.session], [], [], 0.05)[0]
        except (OSError, ValueError) as error:
            # Of a session that is closed meanwhile the number is nobody's, or somebody else's; select() takes none
            # above 1023.
            if end.session.closed or isinstance(error, ValueError):
                raise Skip("closed meanwhile") from error
            raise
        with receive(actor, end, timeout=0) as batch:
            actor.note(f"ready {bool(ready)}, got {bool(batch)}")


# ---- What is kept


def _views(batch: tunring.Batch) -> list[bytes]:
    return batch.tobytes()


def _buffers(what: list[Any]) -> list[bytes]:
    return [bytes(one) for one in what]


@operation(tunring.SessionClosed)
def keep_something(actor: Actor) -> None:
    with actor.world.use(actor) as end:
        batch = receive(actor, end, actor.random.choice([1, 4, 32]))
        if not batch:
            raise Skip("nothing came")
        packets = batch.tobytes()
        label = actor.random.choice(["batch", "slices", "arrays", "casts", "views", "iterator"])
        actor.note(label)
        if label == "batch":
            actor.world.keep(Kept(end.link, batch, packets, _views, label))
            return
        if label == "slices":
            what: list[Any] = [view[:] for view in batch]
        elif label == "arrays":
            what = [numpy.frombuffer(view, "u1")[::1] for view in batch]
        elif label == "casts":
            what = [view.cast("c").cast("B").toreadonly() for view in batch]
        elif label == "views":
            what = list(batch)
        else:
            iterator = iter(batch)
            what = [next(iterator), iterator]
            actor.world.keep(Kept(end.link, what, packets[:1], lambda some: [bytes(some[0])], label))
            return
        actor.world.keep(Kept(end.link, what, packets, _buffers, label))
        if label in ("slices", "arrays", "casts") and actor.chance(0.5):
            batch.release()


@operation(weight=12)
def look_at_what_is_kept(actor: Actor) -> None:
    kept = actor.world.take(actor)
    actor.note(kept.label, f"of link {kept.link.number}")
    actor.world.look(kept)
    if actor.chance(0.5):
        actor.world.keep(kept)
    else:
        actor.world.let_go(kept)


@operation(tunring.SessionClosed, ValueError, weight=6)
def release_a_batch_under_others(actor: Actor) -> None:
    """Several threads read and release a batch at the same time: each finds it whole or released."""
    batches = [kept for kept in list(actor.world.shelf) if isinstance(kept.what, tunring.Batch)]
    if not batches:
        with actor.world.use(actor) as end, offer(actor, end, 4) as offered:
            offered.accept(end.session.send(offered.packets, on_full="partial"))
        with actor.world.use(actor) as end:
            if batch := receive(actor, end, 4):
                actor.world.keep(Kept(end.link, batch, batch.tobytes(), _views, "batch"))
        raise Skip("no batch was kept")
    kept = actor.random.choice(batches)
    batch, expected = kept.what, kept.expected
    if not isinstance(batch, tunring.Batch):
        raise Skip("let go meanwhile")
    with kept.lock:
        kept.read = lambda _: expected  # other threads must not expect it to be whole
    if actor.chance(0.5):
        gc.collect(0)
    if batch.tobytes() != expected:
        raise Wrong("a batch has changed")
    batch.release()


# ---- Sending


def forms(actor: Actor, packets: list[bytes]) -> Any:
    """Return the packets in some form that can be sent."""
    kind = actor.random.choice(["list", "tuple", "generator", "arrays", "mixed", "slices", "memoryviews"])
    actor.note(kind)
    if kind == "tuple":
        return tuple(packets)
    if kind == "generator":
        return (packet for packet in packets)
    if kind == "arrays":
        return [numpy.frombuffer(packet, "u1") for packet in packets]
    if kind == "mixed":
        return [bytearray(packet) if i % 2 else packet for i, packet in enumerate(packets)]
    if kind == "slices":
        return [memoryview(b"x" + packet)[1:] for packet in packets]
    if kind == "memoryviews":
        return [memoryview(bytearray(packet)) for packet in packets]
    return packets


@operation(tunring.SessionClosed, tunring.RingFull, weight=60)
def send_packets(actor: Actor) -> None:
    with actor.world.use(actor) as end, offer(actor, end) as offered:
        offered.accept(end.session.send(forms(actor, offered.packets), **how_full(actor)))


@operation(tunring.SessionClosed, tunring.RingFull, weight=20)
def send_packed_packets(actor: Actor) -> None:
    with actor.world.use(actor) as end, offer(actor, end) as offered:
        packed: Any = b"".join(offered.packets)
        lengths: Any = offered.sizes
        if actor.chance(0.5):
            packed = numpy.frombuffer(packed, "u1")
        if actor.chance(0.5):
            lengths = actor.random.choice([numpy.array(lengths, "u4"), array.array("L", lengths), tuple(lengths)])
        offered.accept(end.session.send_packed(packed, lengths, **how_full(actor)))


@operation(tunring.SessionClosed, tunring.RingFull, weight=3)
def send_very_many_packets(actor: Actor) -> None:
    with actor.world.use(actor) as end, offer(actor, end, 1500) as offered:
        offered.accept(end.session.send(offered.packets, **how_full(actor)))


@operation(tunring.SessionClosed, weight=4)
def send_what_is_refused(actor: Actor) -> None:
    with actor.world.use(actor) as end, offer(actor, end) as offered:
        bad = actor.random.choice([b"", bytes(20), b"\x45", None, 5, "text", memoryview(bytes(64))[::2], [b""]])
        packets: list[Any] = list(offered.packets)
        packets.insert(actor.random.randrange(len(packets) + 1), bad)
        try:
            end.session.send(packets, timeout=0.1)
        except (TypeError, ValueError) as error:
            actor.note(type(error).__name__)
        else:
            raise Wrong(f"{bad!r} was sent")


# ---- Reserving


class _OnPurpose(Exception):
    """Raised to end a block."""


@operation(tunring.SessionClosed, tunring.RingFull, weight=15)
def reserve_and_send(actor: Actor) -> None:
    with actor.world.use(actor) as end, offer(actor, end, 16) as offered:
        wait = actor.random.choice([{}, {"on_full": "wait", "timeout": 0.05}])
        # Some slots are larger than their packets, where those arrive as they are, and some are for none.
        more = [0] if end.session.adapter.library.official else [0, 0, 1, 4, 700]
        room = [size + actor.random.choice(more) for size in offered.sizes]
        spare = [actor.random.randrange(len(room) + 1) for _ in range(actor.random.choice([0, 0, 1, 3]))]
        packets: list[bytes | None] = list(offered.packets)
        for at in sorted(spare):
            room.insert(at, MIN_SIZE)
            packets.insert(at, None)
        # Where another thread closes a wild session, whatever touches the reservation raises SessionClosed; only a view
        # itself raises Python's own ValueError, which the end of the block turns into that.
        with end.session.reserve([min(size, 65535) for size in room], **wait) as slots:
            for i, packet in enumerate(packets):
                if packet is None:
                    slots.drop(i)
                    continue
                slots[i][: len(packet)] = packet
                slots.shrink(i, len(packet))
            if actor.chance(0.1):
                _refuse_to_send(end, offered.packets)
        offered.accept(len(offered.packets))


def _refuse_to_send(end: End, packets: list[bytes]) -> None:
    try:
        end.session.send(packets, timeout=0)
    except RuntimeError:
        return
    except tunring.SessionClosed:
        if end.link.proven:
            raise
        return
    if not end.session.closed:
        raise Wrong("a thread may send although its reservation is open")


@operation(tunring.SessionClosed, tunring.RingFull)
def reserve_and_abandon(actor: Actor) -> None:
    with actor.world.use(actor) as end:
        reservation = end.session.reserve(sizes(actor, 16))
        way = actor.random.choice(["never entered", "abandon", "exception", "kept slice", "dropped", "not a packet"])
        actor.note(way)
        kept: list[memoryview] = []
        try:
            if way == "abandon":
                with reservation as slots:
                    reservation.abandon()
                    reservation.abandon()
            elif way == "exception":
                with reservation as slots:
                    slots[0][0] = 0x45
                    raise _OnPurpose
            elif way == "kept slice":
                with reservation as slots:
                    for slot in slots:
                        slot[:] = build(end.outgoing.route, Identity(0, 0, 0), len(slot))
                    kept.append(slots[0][1:])
            elif way == "dropped":
                reservation.__enter__()
                del reservation
            elif way == "not a packet":
                with reservation as slots:
                    slots[-1][0] = 0x15
        except _OnPurpose:
            pass
        except BufferError:
            if way != "kept slice":
                raise
        except ValueError:
            # Of the slot that is no packet. The views of a session that was closed meanwhile end in SessionClosed.
            if way != "not a packet":
                raise


# ---- State


@operation(weight=10)
def ask_for_figures(actor: Actor) -> None:
    with actor.world.use(actor) as end:
        session, adapter = end.session, end.adapter
        before, after = session.stats(), session.stats()
        if after.received_packets < before.received_packets or after.sent_packets < before.sent_packets:
            raise Wrong(f"figures go back: {before} {after}")
        repr(session), repr(adapter), repr(before), session.capacity, session.closed
        repr((adapter.name, adapter.luid))
