"""The objects of the operations: links whose packets are accounted for, and things that were kept of packets.

A *proven* link is closed only when nobody uses it, and everything that was accepted must have arrived by then. A *wild*
one may be closed, removed or moved at any time; what arrives over it must still arrive once, in order and unchanged.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import os
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from engine import Deadline, Skip
from ledger import Direction, Route, Wrong

import tunring
import tunring.pcapng

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from engine import Actor as AnyActor

    Actor = AnyActor["World"]

PROVEN, WILD = 3, 3

#: What the sessions of a link merge, in turn.
COALESCE: tuple[Literal["all", "tcp", "none"], ...] = ("all", "tcp", "none")

#: Things that may be kept at once.
SHELF = 24


class Bench(Protocol):
    """Makes links over one library."""

    #: Largest packet that the path takes.
    largest: int
    #: Packets that may be under way in one direction of a proven link; None: any number.
    window: int | None

    def adapters(self, number: int) -> tuple[tunring.Adapter, tunring.Adapter]:
        """Two new adapters with a path between them."""

    def routes(self, number: int) -> tuple[Route, Route]:
        """The routes from the first adapter to the second, and back."""

    def ready(self, adapters: tuple[tunring.Adapter, tunring.Adapter], number: int) -> None:
        """Prepare a link once both sessions exist."""

    def adapter(self) -> tunring.Adapter:
        """A new adapter that is connected to nothing."""


@dataclass(eq=False)
class End:
    """One end of a link."""

    link: Link
    adapter: tunring.Adapter
    session: tunring.Session
    outgoing: Direction
    incoming: Direction


class Link:
    """Two connected sessions."""

    def __init__(self, number: int, proven: bool, ends: tuple[End, End] | None = None) -> None:
        self.number = number
        self.proven = proven
        self.ends: tuple[End, End] = ends or ()  # type: ignore[assignment]
        self._lock = threading.Lock()
        self._users = 0
        self._closing = False

    @contextlib.contextmanager
    def use(self) -> Iterator[None]:
        """Use it. A proven link stays open meanwhile."""
        with self._lock:
            if self._closing:
                raise Skip("closing")
            self._users += 1
        try:
            yield
        except tunring.SessionClosed as error:
            if self.proven:
                raise Wrong(f"a session of link {self.number}, which nobody closes, is over: {error}") from error
            raise
        finally:
            with self._lock:
                self._users -= 1

    def shut(self) -> bool:
        """Let nobody use it from now on. False if another thread has done so before."""
        with self._lock:
            before, self._closing = self._closing, True
        return not before

    def wait_for_users(self) -> None:
        """Wait until those who use it are done."""
        if not Deadline(20).until(lambda: self._users == 0):
            raise Wrong(f"link {self.number} is in use for 20 s")


@dataclass(eq=False)
class Kept:
    """Something that was made of packets, and the bytes that it must have as long as it lives."""

    link: Any  # a Link, or a pair of sockets
    what: Any  # a Batch, or something derived from its views
    expected: list[bytes]
    read: Callable[[Any], list[bytes]]
    label: str
    lock: threading.Lock = field(default_factory=threading.Lock)


class World:
    """All objects of a run. Every method may be called from any thread.

    Parameters
    ----------
    bench : Bench
        Makes links.
    folder : Path
        For files.
    """

    def __init__(self, bench: Bench, library: tunring.Library, folder: Path) -> None:
        self.bench = bench
        self.library = library
        self.folder = folder
        self.names = itertools.count()
        self._numbers = itertools.count(1)
        self._directions = itertools.count(1)
        self._lock = threading.Lock()
        self.shelf: list[Kept] = []
        self.shared: tunring.Adapter | None = None  # which threads start sessions on, and close
        self.writer: tunring.pcapng.Writer | None = None  # of captures, which threads share
        self.recording: tunring.pcapng.Recording | None = None  # the last that was started
        self.arrived = 0  # packets, over links that are checked
        self.links: list[Link] = []
        self.pairs: list[Any] = []  # of UDP sockets, see sockets.py
        self.tunnels: list[Any] = []  # by WireGuard, see tunnels.py
        self.secrets: list[Any] = []  # see keys.py
        self.table = tunring.RouteTable()  # see tables.py, and for the next, by threads
        self.own_routes: dict[int, dict[Any, int]] = collections.defaultdict(dict)

    def open(self) -> None:
        """Make the first links."""
        self.links = [self.new_link(proven=True) for _ in range(PROVEN)]
        self.links += [self.new_link(proven=False) for _ in range(WILD)]

    def new_number(self) -> int:
        """The number of something that is like a link."""
        return next(self._numbers)

    def new_direction(self) -> int:
        """The number of a direction that no other has."""
        return next(self._directions)

    # ---- Links

    def new_link(self, *, proven: bool, capacity: int = tunring.MIN_CAPACITY) -> Link:
        """A new pair of sessions, which the world doesn't know yet."""
        number = next(self._numbers)
        link = Link(number, proven)
        with contextlib.ExitStack() as undo:
            adapters = self.bench.adapters(number)
            for adapter in adapters:
                undo.callback(adapter.close)
            sessions = []
            for adapter in adapters:
                sessions.append(adapter.start_session(capacity, coalesce=COALESCE[number % len(COALESCE)]))
                undo.callback(sessions[-1].close)
            self.bench.ready(adapters, number)
            window = self.bench.window if proven else None
            there, back = (Direction(next(self._directions), route, window) for route in self.bench.routes(number))
            link.ends = (
                End(link, adapters[0], sessions[0], there, back),
                End(link, adapters[1], sessions[1], back, there),
            )
            undo.pop_all()
        return link

    @contextlib.contextmanager
    def use(self, actor: Actor, *, proven: bool | None = None) -> Iterator[End]:
        """Use an end of some link."""
        links = [link for link in list(self.links) if proven is None or link.proven == proven]
        if not links:
            raise Skip("no link")
        link = actor.random.choice(links)
        end = actor.random.choice(link.ends)
        actor.note(f"link {link.number}{'' if link.proven else ' wild'}", "there" if end is link.ends[0] else "back")
        with link.use():
            yield end

    def wild_link(self, actor: Actor) -> Link:
        """Some wild link, which others use too."""
        links = [link for link in list(self.links) if not link.proven]
        if not links:
            raise Skip("no link")
        link = actor.random.choice(links)
        actor.note(f"link {link.number}")
        return link

    def replace(self, actor: Actor, link: Link, *, capacity: int) -> None:
        """Check a link, close it and put another in its place."""
        if not link.shut():
            raise Skip("closing already")
        self.close_link(link, actor)
        made = self.new_link(proven=link.proven, capacity=capacity)
        with self._lock:
            self.links[self.links.index(link)] = made

    def empty(self, receiver: object, link: Link) -> None:
        """Receive what is still on its way over a link that nobody uses any more."""
        limit = Deadline(15)
        while any(end.incoming.missing() for end in link.ends):
            self.clear_shelf(link)  # pinned packets may prevent it
            for end in link.ends:
                with end.session.receive(4096, timeout=0.01) as batch:
                    end.incoming.receive(receiver, batch.tobytes())
            if limit.passed():
                break

    def close_link(self, link: Link, actor: Actor | None) -> None:
        """Close a link that was shut, its sessions and adapters in any order, and check what has arrived over it."""
        if link.proven:
            link.wait_for_users()
            self.empty(actor, link)
        self.clear_shelf(link)
        things: list[tunring.Session | tunring.Adapter] = []
        for end in link.ends:
            things += [end.session, end.adapter]
        if actor is not None:
            actor.random.shuffle(things)
        for thing in things:
            thing.close()
        link.wait_for_users()
        for end in link.ends:
            self.arrived += end.incoming.check(complete=link.proven)

    # ---- What is kept

    def keep(self, kept: Kept) -> None:
        """Keep it for others; if the shelf is full, let something else go."""
        old: list[Kept] = []
        with self._lock:
            self.shelf.append(kept)
            while len(self.shelf) > SHELF:
                old.append(self.shelf.pop(0))
        for kept in old:
            self.let_go(kept)

    def take(self, actor: Actor) -> Kept:
        """Something from the shelf."""
        with self._lock:
            if not self.shelf:
                raise Skip("an empty shelf")
            return self.shelf.pop(actor.random.randrange(len(self.shelf)))

    def clear_shelf(self, link: Any = None) -> None:
        """Let everything go that was kept of a link, or of all."""
        with self._lock:
            gone = [kept for kept in self.shelf if link in (None, kept.link)]
            self.shelf = [kept for kept in self.shelf if kept not in gone]
        for kept in gone:
            self.let_go(kept)

    @staticmethod
    def look(kept: Kept) -> None:
        """Check that it is unchanged."""
        with kept.lock:
            found = kept.read(kept.what)
        if found != kept.expected:
            raise Wrong(f"a kept {kept.label} of link {kept.link.number} has changed: {found} was {kept.expected}")

    def let_go(self, kept: Kept) -> None:
        """Check it once more, and drop it."""
        self.look(kept)
        if isinstance(kept.what, tunring.Batch):
            kept.what.release()
        kept.what = None

    # ---- The rest

    def path(self, suffix: str) -> str:
        """The path of a new file."""
        return os.fspath(self.folder / f"{next(self.names)}{suffix}")

    def name(self) -> str:
        """A name for an adapter, which no other has."""
        return f"chaos{next(self.names)}"

    def close(self) -> None:
        """Check and close everything."""
        for link in self.links:
            if link.shut():
                self.close_link(link, None)
        self.clear_shelf()
        for pair in self.pairs:
            pair.close()
            for side in pair.sides:
                self.arrived += side.incoming.account.check(complete=False)
        self.pairs.clear()
        for tunnel in self.tunnels:
            tunnel.close()
            self.arrived += tunnel.check()
        self.tunnels.clear()
        if self.shared is not None:
            self.shared.close()
