"""Operations on the lives of adapters and sessions, which threads share."""

from __future__ import annotations

import contextlib
import io
import operator
import threading
from typing import TYPE_CHECKING, Literal

from engine import Skip, operation
from ledger import Wrong
from world import COALESCE

import tunring
import tunring.packets
import tunring.testing

if TYPE_CHECKING:
    from collections.abc import Callable

    from world import Actor

POLICIES: list[Literal["error", "open", "recreate"]] = ["error", "open", "recreate"]

CAPACITIES = [tunring.MIN_CAPACITY, tunring.MIN_CAPACITY, 0x40000, 0x400000]


# ---- Links


@operation(weight=4)
def check_and_replace_a_proven_link(actor: Actor) -> None:
    _replace(actor, proven=True)


@operation(weight=10)
def replace_a_wild_link(actor: Actor) -> None:
    _replace(actor, proven=False)


def _replace(actor: Actor, *, proven: bool) -> None:
    links = [link for link in list(actor.world.links) if link.proven == proven]
    if not links:
        raise Skip("no link")
    link = actor.random.choice(links)
    actor.note(f"link {link.number}")
    actor.world.replace(actor, link, capacity=actor.random.choice(CAPACITIES))


@operation(weight=6)
def close_a_session_under_others(actor: Actor) -> None:
    session = actor.random.choice(actor.world.wild_link(actor).ends).session
    session.close()
    if not session.closed:
        raise Wrong("a closed session is not closed")


@operation(weight=6)
def close_an_adapter_under_others(actor: Actor) -> None:
    end = actor.random.choice(actor.world.wild_link(actor).ends)
    end.adapter.close()
    # Somebody closed it, or started a session in the meantime.
    if not end.session.closed:
        raise Wrong("the session of a closed adapter is open")


@operation(tunring.SessionClosed, tunring.AdapterBusy, tunring.NotFound, weight=8)
def restart_a_session_under_others(actor: Actor) -> None:
    """Close and start: held packets of the last session may prevent that, and so may another thread's session."""
    end = actor.random.choice(actor.world.wild_link(actor).ends)
    end.session.close()
    merging = actor.random.choice(COALESCE)
    with end.adapter.start_session(actor.random.choice(CAPACITIES), coalesce=merging) as session:
        session.receive(timeout=0.002).release()


# ---- An adapter that all threads share


def _shared(actor: Actor) -> tunring.Adapter:
    world = actor.world
    adapter = world.shared
    if adapter is None:
        made = world.bench.adapter()
        if world.shared is None:
            adapter = world.shared = made
        else:  # somebody was faster
            made.close()
            adapter = world.shared
    if adapter is None:
        raise Skip("closed meanwhile")
    return adapter


@operation(tunring.SessionClosed, tunring.AdapterBusy, tunring.NotFound, weight=25)
def start_sessions_on_a_shared_adapter(actor: Actor) -> None:
    adapter = _shared(actor)
    start = adapter.start_session if actor.chance(0.7) else lambda capacity: adapter.start_sessions(1, capacity)[0]
    session = start(tunring.MIN_CAPACITY)
    try:
        session.send([bytes([0x45]) + bytes(19)], on_full="partial")
        session.receive(timeout=actor.random.choice([0, 0.001, 0.02])).release()
        session.stats()
    finally:
        if actor.chance(0.8):
            session.close()


@operation(weight=12)
def close_the_shared_adapter(actor: Actor) -> None:
    adapter = _shared(actor)
    actor.world.shared = None
    adapter.close()
    if actor.chance(0.3):
        adapter.close()
    try:
        adapter.start_session(tunring.MIN_CAPACITY)
    except tunring.SessionClosed as error:
        if error.reason != "closed":
            raise Wrong(f"the reason is {error.reason}") from error
    else:
        raise Wrong("a session starts on a closed adapter")


@operation(weight=8)
def close_adapters_while_another_thread_starts_a_session(actor: Actor) -> None:
    """Each start is refused, or the close ends its session."""
    for _ in range(5):
        adapter = actor.world.bench.adapter()
        begun: list[bool] = []
        started: list[tunring.Session] = []

        def start(
            adapter: tunring.Adapter = adapter, begun: list[bool] = begun, started: list[tunring.Session] = started
        ) -> None:
            begun.append(True)
            with contextlib.suppress(tunring.SessionClosed):
                started.append(adapter.start_session(tunring.MIN_CAPACITY))

        thread = threading.Thread(target=start)
        thread.start()
        while not begun:  # with the GIL, which the other thread gives up as it starts the session
            pass
        for _ in range(actor.random.randrange(30)):
            pass
        try:
            adapter.close()
        finally:
            thread.join()
        if started and not started[0].closed:
            raise Wrong("the session of a closed adapter is open")


@operation(tunring.SessionClosed, tunring.NotFound, ValueError, weight=6)
def ask_the_shared_adapter(actor: Actor) -> None:
    adapter = _shared(actor)
    repr((adapter, adapter.name, adapter.luid, adapter.ifindex))
    with tunring.Adapter.open(adapter.name, library=actor.world.library) as second:
        repr((second.name, second.luid))
    if actor.world.library.name != "tun_linux":
        _ask_for_a_descriptor(adapter)


def _ask_for_a_descriptor(adapter: tunring.Adapter) -> None:
    for ask in (adapter.fileno, adapter.detach):
        try:
            ask()
        except io.UnsupportedOperation:
            continue
        raise Wrong(f"an adapter of {adapter.library.name} has a descriptor")


@operation(weight=4)
def create_what_is_there_already(actor: Actor) -> None:
    """Over the official DLL the answer may be that an earlier adapter's packets are still held."""
    library = actor.world.library
    refused = (tunring.AlreadyExists, tunring.AdapterBusy) if library.official else tunring.AlreadyExists
    with actor.world.bench.adapter() as adapter:
        try:
            tunring.Adapter.create(adapter.name, library=library).close()
        except refused:
            return
    raise Wrong("two adapters of one name")


@operation(
    tunring.AlreadyExists, tunring.AdapterBusy, tunring.NotFound, tunring.SessionClosed, weight=8,
    libraries=["loopback", "tun_linux"],
)  # fmt: skip
def create_by_every_policy(actor: Actor) -> None:
    """Threads take the same two names, whose adapters others open and remove."""
    name, policy = actor.random.choice(["taken0", "taken1"]), actor.random.choice(POLICIES)
    actor.note(name, policy)
    with (
        tunring.Adapter.create(name, if_exists=policy, library=actor.world.library) as adapter,
        adapter.start_session(tunring.MIN_CAPACITY) as session,
    ):
        session.receive(timeout=0.002).release()


# ---- Waits that close() ends


@operation(weight=6)
def close_a_session_that_threads_wait_in(actor: Actor) -> None:
    """Every wait ends: receive, batches, send and reserve in a full ring."""
    link = actor.world.new_link(proven=False)
    left = link.ends[0]
    failures: list[BaseException] = []

    def wait(kind: str) -> None:
        try:
            if kind == "receive":
                left.session.receive()
            elif kind == "batches":
                for batch in left.session.batches():
                    batch.release()
            elif kind == "send":
                while True:
                    left.session.send([bytes([0x45]) + bytes(1399)] * 200)
            else:
                while True:
                    left.session.reserve([1400] * 20, on_full="wait").abandon()
        except tunring.SessionClosed:
            pass
        except BaseException as error:
            failures.append(error)

    kinds = [actor.random.choice(["receive", "batches", "send", "reserve"]) for _ in range(actor.random.randint(1, 4))]
    actor.note(*kinds)
    threads = [threading.Thread(target=wait, args=(kind,), daemon=True) for kind in kinds]
    for thread in threads:
        thread.start()
    if actor.chance(0.7):
        threads[0].join(actor.random.random() * 0.02)
    actor.random.choice([left.session, left.adapter]).close()
    for thread in threads:
        thread.join(15)
    if any(thread.is_alive() for thread in threads):
        raise Wrong("a wait goes on after close()")
    if failures:
        raise failures[0]
    link.shut()
    actor.world.close_link(link, actor)


@operation(weight=6)
def close_a_session_under_a_reservation(actor: Actor) -> None:
    """Whatever a thread does in its block, the block ends in SessionClosed: a released view's ValueError does, too."""
    link = actor.world.new_link(proven=False)
    left = link.ends[0]
    closer = threading.Thread(target=actor.random.choice([left.session, left.adapter]).close)
    kind = actor.random.choice(["views", "checksums", "slots", "shrink", "leave", "enter"])
    actor.note(kind)
    reservation = left.session.reserve([60] * 4)
    try:
        if kind == "enter":
            _run(closer)
        with reservation as slots:
            _use_until_it_is_over(kind, slots, closer)
    except tunring.SessionClosed as error:
        if error.reason != "closed":
            raise Wrong(f"the reason is {error.reason}") from error
    else:
        raise Wrong("a block of a closed session has ended well")
    closer.join()
    link.shut()
    actor.world.close_link(link, actor)


def _run(thread: threading.Thread) -> None:
    thread.start()
    thread.join()


def _use_until_it_is_over(kind: str, slots: tunring.Slots, closer: threading.Thread) -> None:
    if kind == "leave":
        _run(closer)
        return
    views = list(slots)
    uses: dict[str, Callable[[], object]] = {
        "views": lambda: [operator.setitem(view, 0, 0x45) for view in views],
        "checksums": lambda: tunring.packets.fill_checksums(views),
        "slots": lambda: operator.setitem(slots[1], 0, 0x45),
        "shrink": lambda: slots.shrink(2, 40),
    }
    closer.start()
    while slots.open:
        uses[kind]()
    # It is over. Views have ended but for one that was just being completed.
    uses[kind]()


# ---- A simulated driver


@operation(tunring.RingCorrupt, tunring.SessionClosed, tunring.RingFull, libraries=["loopback", "wintun"], weight=8)
def play_the_driver(actor: Actor) -> None:
    """Threads send and receive while the driver brings chains, takes packets, writes nonsense, and goes."""
    random = actor.random
    packet = bytes([0x45]) + bytes(99)
    with actor.world.bench.adapter() as adapter:
        driver = tunring.testing.Simulator.attach(adapter)
        session = adapter.start_session(tunring.MIN_CAPACITY)

        def client() -> None:
            while True:
                try:
                    session.send([packet] * 8, on_full="partial")
                    with session.receive(16, timeout=0.002) as batch:
                        batch.tobytes()
                except (tunring.SessionClosed, tunring.RingCorrupt):
                    return

        threads = [threading.Thread(target=client, daemon=True) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(random.randint(5, 40)):
                kind = random.randrange(10)
                if kind < 4:
                    driver.inject([packet] * random.randint(1, 40))
                elif kind < 8:
                    driver.drain()
                elif kind == 8 and actor.chance(0.1):
                    try:
                        driver.corrupt(random.choice(list(tunring.testing.Corruption)), random.getrandbits(32))
                    except tunring.RingCorrupt:
                        raise
                    except tunring.WintunError as error:
                        if error.winerror != 259:  # there is no packet whose size could be overwritten
                            raise
                elif kind == 9 and actor.chance(0.1):
                    driver.remove()
        except tunring.NotFound:
            actor.note("removed")
        finally:
            session.close()
            for thread in threads:
                thread.join(15)
        if any(thread.is_alive() for thread in threads):
            raise Wrong("a client goes on after close()")
        if driver.stale_ends():
            raise Wrong("a session was ended by a handle that was closed already")
