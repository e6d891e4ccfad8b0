"""Operations on parts of a session's batches, which other threads have released or still keep."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy
from engine import Skip, operation
from ledger import Wrong, identify
from traffic import flow, how_full, receive
from world import Kept

import tunring

if TYPE_CHECKING:
    from ledger import Offer
    from world import Actor, End


def _some(actor: Actor, end: End) -> tunring.Batch:
    """A batch that is not empty."""
    batch = receive(actor, end, 64, timeout=0.05)
    if not batch:
        raise Skip("nothing came")
    return batch


def _choose(actor: Actor, batch: tunring.Batch) -> tuple[tunring.Batch, list[int]]:
    """A part of a batch, made by some means, and the indexes of its packets."""
    every = range(len(batch))
    kind = actor.random.choice(["slice", "mask", "indexes", "group", "part of a part"])
    actor.note(kind)
    if kind == "slice":
        start, stop = sorted(actor.random.choices(range(len(batch) + 1), k=2))
        return batch[start:stop], list(every[start:stop])
    if kind == "indexes":
        indexes = [i for i in every if actor.chance(0.5)]
        return batch.select(indexes), indexes
    if kind == "group":
        keys = [i % 3 for i in every]
        key, part = actor.random.choice(batch.split(keys))
        return part, [i for i in every if keys[i] == key]
    mask = numpy.array([actor.chance(0.7) for _ in every], dtype="?")
    part, indexes = batch.select(mask), [i for i in every if mask[i]]
    return (part, indexes) if kind == "mask" else (part[1:], indexes[1:])


@operation(tunring.SessionClosed, weight=12)
def take_a_batch_apart(actor: Actor) -> None:
    with actor.world.use(actor) as end, _some(actor, end) as batch:
        packets = batch.tobytes()
        part, indexes = _choose(actor, batch)
        if part.tobytes() != [packets[i] for i in indexes]:
            raise Wrong("a part has something else")
        keys = numpy.array([len(data) % 3 for data in packets], dtype="u4")
        for key, group in batch.split(keys):
            if group.tobytes() != [data for data in packets if len(data) % 3 == key]:
                raise Wrong("a group has something else")
        if [bytes(row) for row in numpy.asarray(batch.headers(40))] != [data[:40].ljust(40, b"\0") for data in packets]:
            raise Wrong("headers are something else")
        _ask_for_origins(part)


def _ask_for_origins(batch: tunring.Batch) -> None:
    for ask in (lambda: batch.sources, lambda: batch.source_index, batch.runs):
        try:
            ask()
        except AttributeError:
            continue
        raise Wrong("packets of a session have origins")


@operation(tunring.SessionClosed, weight=8)
def keep_a_part_of_a_batch(actor: Actor) -> None:
    """Keep buffers of a part; neither it nor its batch lives on otherwise."""
    with actor.world.use(actor) as end, _some(actor, end) as batch:
        packets = batch.tobytes()
        part, indexes = _choose(actor, batch)
        what: list[Any] = [view[:] for view in part]
        expected = [packets[i] for i in indexes]
        actor.world.keep(Kept(end.link, what, expected, lambda some: [bytes(one) for one in some], "slices"))
        if actor.chance(0.5):
            part.release()
            if not part.released or batch.released or batch.tobytes() != packets:
                raise Wrong("a part's release is not its own alone")


@operation(tunring.SessionClosed, weight=6)
def release_a_batch_under_its_parts(actor: Actor) -> None:
    """Each part is whole until its batch is released, and over after that."""
    with actor.world.use(actor) as end, _some(actor, end) as batch:
        packets = batch.tobytes()
        parts = [_choose(actor, batch) for _ in range(3)]
        found: list[object] = []

        def read(part: tunring.Batch, indexes: list[int]) -> None:
            while True:
                try:
                    if part.tobytes() != [packets[i] for i in indexes]:
                        found.append("a part has changed")
                except ValueError:
                    return

        readers = [threading.Thread(target=read, args=each, daemon=True) for each in parts]
        for reader in readers:
            reader.start()
        batch.release()
        for reader in readers:
            reader.join(15)
        if found or any(reader.is_alive() for reader in readers):
            raise Wrong(f"parts of a released batch: {found or 'one can still be read'}")


@operation(tunring.SessionClosed, tunring.RingFull, weight=12)
def send_a_part_of_a_batch_back(actor: Actor) -> None:
    """Send a part on, each of whose packets was replaced in place."""
    with actor.world.use(actor) as end, _some(actor, end) as batch:
        part, _ = _choose(actor, batch)
        with _replace(actor, end, part) as offered:
            offered.accept(end.session.send(part, **how_full(actor)))


def _replace(actor: Actor, end: End, part: tunring.Batch) -> Offer:
    views = list(part)
    if not views or not all(identify(bytes(view)) for view in views):
        raise Skip("nothing of ours alone")
    offered = end.outgoing.offer(flow(actor, end.outgoing), [len(view) for view in views], "a part")
    if len(offered.packets) < len(views):
        with offered:
            raise Skip("the window is full")
    for view, packet in zip(views, offered.packets, strict=True):
        view[:] = packet
    return offered
