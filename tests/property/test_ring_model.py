"""Two sessions on a cable against a model of their rings: what fits to the byte, what comes, and what is still held.

The model follows the ABI's description of a ring: a packet takes its size and a word more, rounded up to whole words;
one word always stays free; room comes back only up to the oldest packet that is held; packets leave in the order in
which they were allocated, and none before the ones that were allocated earlier.
"""

from __future__ import annotations

import itertools
import uuid
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import libraries
import tunring
from packets import MAX_PACKET, packet, slot_size
from running import eventually, is_set
from tunring import _core

if TYPE_CHECKING:
    from collections.abc import Callable

CAPACITY = tunring.MIN_CAPACITY
HOLDS = CAPACITY - 4

#: Packets that send() allocates before it publishes them.
CHUNK = 64

sizes_of_packets = st.lists(
    st.one_of(st.integers(20, 200), st.sampled_from([20, 1400, 1500, 9000, MAX_PACKET - 1, MAX_PACKET])),
    min_size=1,
    max_size=80,
)
some_index = st.integers(0, 1 << 16)


@dataclass
class Sent:
    """A slot of the near end's ring."""

    data: bytes | None  # None: filler
    size: int
    ready: bool


@dataclass
class Received:
    """A slot of the far end's ring, from its arrival to its return."""

    data: bytes
    holds: int = 0  # the batch's, and one for each view that lives; none before it is received
    taken: bool = False


@dataclass
class Near:
    """A model of the sending session."""

    slots: deque[Sent] = field(default_factory=deque)
    room: int = HOLDS
    leases: list[list[Sent]] = field(default_factory=list)  # reservations whose slots are not all gone yet
    sent: int = 0
    fillers: int = 0
    filtered: int = 0
    lost: int = 0
    full: int = 0
    dropped: int = 0

    def add(self, slot: Sent) -> None:
        self.slots.append(slot)
        self.room -= slot.size

    def take(self) -> None:
        self.room += self.slots.popleft().size

    def give_up(self, slot: Sent) -> None:
        slot.data, slot.ready = None, True
        self.fillers += 1


@dataclass
class Far:
    """A model of the receiving session."""

    slots: deque[Received] = field(default_factory=deque)
    room: int = HOLDS

    def add(self, slot: Received) -> None:
        self.slots.append(slot)
        self.room -= slot_size(len(slot.data))

    @property
    def unread(self) -> list[Received]:
        return [slot for slot in self.slots if not slot.taken]

    @property
    def held(self) -> list[Received]:
        return [slot for slot in self.slots if slot.taken and slot.holds]

    def reclaim(self) -> None:
        while self.slots and self.slots[0].taken and not self.slots[0].holds:
            self.room += slot_size(len(self.slots.popleft().data))


@dataclass
class Held:
    """A batch of the test's, and the slots that it should have."""

    batch: tunring.Batch
    slots: list[Received]


@dataclass
class Kept:
    """Something derived from a view of a received packet."""

    view: memoryview
    slot: Received
    data: bytes


@dataclass
class Late:
    """Something derived from a view of a reserved packet, which outlives its reservation."""

    view: memoryview
    slot: Sent
    near: Near


class Rings(RuleBasedStateMachine):
    def __init__(self, library: tunring.Library) -> None:
        super().__init__()
        self.library = library
        self.numbers = itertools.count(1)
        # A thread that holds a reservation can't send, so all sends come from another one.
        self.sender = ThreadPoolExecutor(1)
        self.held: list[Held] = []
        self.kept: list[Kept] = []
        self.late: list[Late] = []
        self.reservation: tunring.Slots | None = None
        self.views: list[memoryview] = []
        self.pinned = _core.pinned_sessions()

    @initialize()
    def start(self) -> None:
        number = uuid.uuid4().hex[:8]
        self.ends = libraries.cable(self.library, f"model-{number}-a", f"model-{number}-b")
        self.start_near()
        self.open_far()

    def start_near(self) -> None:
        self.left = self.ends[0].start_session(CAPACITY)
        self.near = Near()

    # -- The model

    def make(self, size: int) -> bytes:
        return packet(size, version=6 if size % 3 == 0 and size >= 40 else 4, number=next(self.numbers))

    def move(self) -> None:
        """Do as the cable does whenever something changes."""
        while self.near.slots and self.near.slots[0].ready:
            first = self.near.slots[0]
            if first.data is None:
                self.near.filtered += 1
            elif self.far is None:
                self.near.lost += 1
            elif first.size <= self.far.room:
                self.far.add(Received(first.data))
            else:
                break
            self.near.take()

    def predict(self, items: list[bytes]) -> int:
        """Sends in the model; returns the number that fit."""
        sent = 0
        while sent < len(items):
            fits = 0
            for data in items[sent : sent + CHUNK]:
                if slot_size(len(data)) > self.near.room:
                    break
                self.near.add(Sent(data, slot_size(len(data)), ready=True))
                fits += 1
            # Published packets may have made room for more.
            self.move()
            sent += fits
            if fits == 0:
                self.near.full += 1
                break
        self.near.sent += sent
        return sent

    def let_go(self, slots: list[Received]) -> None:
        for slot in slots:
            slot.holds -= 1
        if self.far is not None:
            self.far.reclaim()
            self.move()
            libraries.settle(self.library)

    # -- Sending

    def send(self, call: Callable[..., int], items: list[bytes], mode: str, *arguments: Any) -> None:
        expected = self.predict(items)
        options: dict[str, Any] = {"on_full": mode}
        if mode == "wait":
            options["timeout"] = 0
        future = self.sender.submit(call, *arguments, **options)
        if mode == "raise" and expected < len(items):
            # Not raised here: its traceback would keep this frame, and a batch with it.
            error = future.exception()
            assert isinstance(error, tunring.RingFull)
            assert error.sent == expected
        else:
            assert future.result() == expected
        # The thread may still have the call's arguments, a batch among them, until it takes the next call.
        self.sender.submit(int).result()
        if mode == "drop":
            self.near.dropped += len(items) - expected

    modes = st.sampled_from(["wait", "partial", "drop", "raise"])

    @rule(sizes=sizes_of_packets, mode=modes)
    def send_items(self, sizes: list[int], mode: str) -> None:
        items = [self.make(size) for size in sizes]
        self.send(self.left.send, items, mode, items)

    @rule(sizes=sizes_of_packets, mode=modes)
    def send_packed(self, sizes: list[int], mode: str) -> None:
        items = [self.make(size) for size in sizes]
        self.send(self.left.send_packed, items, mode, b"".join(items), sizes)

    @rule(size=st.sampled_from([20, 1400, 30000]), mode=modes)
    def fill(self, size: int, mode: str) -> None:
        items = [self.make(size) for _ in range(2 * HOLDS // slot_size(size) + 1)]
        self.send(self.left.send, items, mode, items)

    @precondition(lambda self: self.held)
    @rule(index=some_index, mode=modes)
    def send_batch(self, index: int, mode: str) -> None:
        held = self.held[index % len(self.held)]
        self.send(self.left.send, [slot.data for slot in held.slots], mode, held.batch)

    # -- Reservations

    @rule(sizes=sizes_of_packets)
    def reserve(self, sizes: list[int]) -> None:
        needed = sum(map(slot_size, sizes))
        if self.reservation is not None:
            with pytest.raises(RuntimeError):
                self.left.reserve(sizes)
        elif needed > HOLDS:
            with pytest.raises(ValueError, match="fit"):
                self.left.reserve(sizes)
        elif needed > self.near.room:
            self.near.full += 1
            with pytest.raises(tunring.RingFull):
                self.left.reserve(sizes)
            if self.library.official:
                self.reserve_in_vain(sizes)
        else:
            self.reservation = self.left.reserve(sizes)
            self.reserved = [Sent(b"", slot_size(size), ready=False) for size in sizes]
            for slot in self.reserved:
                self.near.add(slot)
            self.near.leases.append(self.reserved)

    def reserve_in_vain(self, sizes: list[int]) -> None:
        """The official DLL can't tell the room beforehand: what fits is allocated all the same, and becomes filler."""
        for size in sizes:
            if slot_size(size) > self.near.room:
                break
            self.near.add(Sent(None, slot_size(size), ready=True))
            self.near.fillers += 1
        self.move()

    def enter(self) -> list[memoryview]:
        assert self.reservation is not None
        if not self.views:
            self.views = list(self.reservation.__enter__())
        return self.views

    def keep_one(self, index: int) -> Late:
        views = self.enter()
        at = index % len(views)
        late = Late(views[at][:], self.reserved[at], self.near)
        self.late.append(late)
        return late

    def abandoned(self) -> None:
        """Turns every slot of the model that nothing holds into filler."""
        waiting = [late.slot for late in self.late]
        for slot in self.reserved:
            if not any(slot is other for other in waiting):
                self.near.give_up(slot)
        self.settle()
        self.reservation, self.views, self.reserved = None, [], []

    def settle(self) -> None:
        self.near.leases = [lease for lease in self.near.leases if not all(slot.ready for slot in lease)]
        self.move()

    @precondition(lambda self: self.reservation is not None)
    @rule(edits=st.lists(st.sampled_from(["shrink", "drop", "keep"]), max_size=8), cut=st.integers(0, 1500))
    def leave(self, edits: list[str], cut: int) -> None:
        reservation, views = self.reservation, self.enter()
        assert reservation is not None
        for i, (view, slot) in enumerate(zip(views, self.reserved, strict=True)):
            edit = edits[i] if i < len(edits) else "keep"
            if edit == "drop":
                reservation.drop(i)
                self.near.give_up(slot)
                continue
            length = max(20, len(view) - cut) if edit == "shrink" else len(view)
            reservation.shrink(i, length)
            data = view[:length] = self.make(length)
            # The official DLL's slots keep their sizes.
            slot.data = data + bytes(len(view) - length) if self.library.official else data
            slot.ready = True
            self.near.sent += 1
        del view
        reservation.__exit__(None, None, None)
        for view in views:
            with pytest.raises(ValueError, match="released"):
                view[0]
        self.settle()
        self.reservation, self.views, self.reserved = None, [], []

    @precondition(lambda self: self.reservation is not None)
    @rule(index=some_index)
    def leave_while_something_lives(self, index: int) -> None:
        self.keep_one(index)
        assert self.reservation is not None
        with pytest.raises(BufferError):
            self.reservation.__exit__(None, None, None)
        self.abandoned()

    @precondition(lambda self: self.reservation is not None)
    @rule(keep=st.booleans(), index=some_index)
    def abandon(self, keep: bool, index: int) -> None:
        if keep:
            self.keep_one(index)
        assert self.reservation is not None
        self.reservation.__exit__(KeyError, KeyError(), None)
        self.abandoned()

    @precondition(lambda self: self.reservation is not None and not self.views)
    @rule()
    def drop_reservation(self) -> None:
        self.reservation = None
        self.abandoned()

    @precondition(lambda self: self.reservation is not None)
    @rule()
    def enter_only(self) -> None:
        self.enter()

    @precondition(lambda self: self.late)
    @rule(index=some_index)
    def drop_late(self, index: int) -> None:
        late = self.late.pop(index % len(self.late))
        late.view[0] = 0x45  # still its own memory, and filler all the same
        late.view.release()
        late.near.give_up(late.slot)
        self.settle()

    # -- Receiving

    @precondition(lambda self: self.far is not None)
    @rule(maximum=st.sampled_from([1, 2, 3, 10, 100, 65536]))
    def receive(self, maximum: int) -> None:
        batch = self.right.receive(maximum, timeout=0)
        assert self.far is not None
        slots = self.far.unread[:maximum]
        assert batch.tobytes() == [slot.data for slot in slots]
        for slot in slots:
            slot.taken, slot.holds = True, 1
        if slots:
            self.held.append(Held(batch, slots))

    @precondition(lambda self: self.held)
    @rule(index=some_index, at=some_index)
    def keep_view(self, index: int, at: int) -> None:
        held = self.held[index % len(self.held)]
        at %= len(held.slots)
        slot = held.slots[at]
        slot.holds += 1
        self.kept.append(Kept(held.batch[at][:], slot, slot.data))

    @precondition(lambda self: self.kept)
    @rule(index=some_index)
    def drop_view(self, index: int) -> None:
        kept = self.kept.pop(index % len(self.kept))
        kept.view.release()
        self.let_go([kept.slot])

    @precondition(lambda self: self.held)
    @rule(index=some_index, drop=st.booleans())
    def release(self, index: int, drop: bool) -> None:
        held = self.held.pop(index % len(self.held))
        if drop:
            del held.batch
        else:
            held.batch.release()
        self.let_go(held.slots)

    # -- Closing

    # A session of the official DLL goes on until the last of its packets is let go.

    @precondition(lambda self: self.far is not None and not (self.library.official and (self.held or self.kept)))
    @rule()
    def close_far(self) -> None:
        self.right.close()
        self.far = None
        self.move()

    def open_far(self) -> None:
        self.right = self.ends[1].start_session(CAPACITY)
        self.far: Far | None = Far()

    @precondition(lambda self: self.far is None)
    @rule()
    def open_far_again(self) -> None:
        self.open_far()

    @precondition(lambda self: not (self.library.official and self.late))
    @rule()
    def restart_near(self) -> None:
        self.left.close()
        if self.reservation is not None:
            assert not self.reservation.open
            self.abandoned()
        for view in self.views:
            with pytest.raises(ValueError, match="released"):
                view[0]
        self.start_near()

    # -- Invariants

    @invariant()
    def figures(self) -> None:
        stats, near = self.left.stats(), self.near
        assert (stats.sent_packets, stats.fillers, stats.ring_full, stats.dropped) == (
            near.sent,
            near.fillers,
            near.full,
            near.dropped,
        )
        assert (stats.host_filtered, stats.host_dropped, stats.reservations) == (
            libraries.reported(self.left, near.filtered),
            libraries.reported(self.left, near.lost),
            len(near.leases),
        )
        if self.far is not None:
            stats = self.right.stats()
            assert stats.pinned_packets == len(self.far.held)
            assert stats.pinned_bytes == sum(len(slot.data) for slot in self.far.held)

    @invariant()
    def readiness(self) -> None:
        # The official DLL's event is set once for each publication, whatever is taken since.
        if self.far is not None and not self.library.official:
            assert is_set(self.right.read_event) is bool(self.far.unread)

    @invariant()
    def contents(self) -> None:
        for kept in self.kept:
            assert kept.view == kept.data
        for held in self.held:
            assert held.batch.lengths.tolist() == [len(slot.data) for slot in held.slots]

    def teardown(self) -> None:
        self.sender.shutdown()
        if not hasattr(self, "ends"):
            return
        self.left.close()
        self.right.close()
        for held in self.held:
            assert held.batch.tobytes() == [slot.data for slot in held.slots]
            held.batch.release()
        self.contents()
        for kept in self.kept:
            kept.view.release()
        for late in self.late:
            late.view.release()
        self.reservation, self.views = None, []
        for end in self.ends:
            end.close()
        assert eventually(lambda: _core.pinned_sessions() == self.pinned, 5), "a session is pinned"


def test_rings_against_the_model(library: tunring.Library) -> None:
    run_state_machine_as_test(lambda: Rings(library))
