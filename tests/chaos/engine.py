"""Runs operations at random in several threads, and reports what none of them may do.

An operation is a function that takes an :class:`Actor`, the thread that performs it, and names the exceptions that it
may raise: any other fails the run. So does an operation that was never performed, a thread that makes no progress, an
exception that nobody caught, and a warning that nobody expected.
"""

from __future__ import annotations

import collections
import errno
import faulthandler
import os
import platform
import random
import sys
import threading
import time
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

#: Operations of each thread that a failure shows.
HISTORY = 200

#: Seconds without progress after which a thread hangs.
PATIENCE = 30.0

#: Exit codes: a promise was broken; something hangs.
FAILED, HANGS = 1, 3


class Skip(Exception):
    """An operation has no object at present. It counts as not performed."""


class Kick(Exception):
    """The exception of a signal handler while the main thread wants one."""


@dataclass(frozen=True)
class Operation:
    """Something that a thread may do."""

    name: str
    function: Callable[[Any], object]
    raises: tuple[type[BaseException], ...]
    weight: int
    libraries: frozenset[str]  # over which it can be done; empty: all
    main: bool  # only by the main thread
    systems: frozenset[str]  # sys.platform; empty: everywhere

    def possible(self, library: str) -> bool:
        return library in (self.libraries or {library}) and sys.platform in (self.systems or {sys.platform})


#: All that were declared.
OPERATIONS: list[Operation] = []

F = TypeVar("F", bound="Callable[[Any], object]")


def operation(
    *raises: type[BaseException],
    weight: int = 10,
    libraries: Iterable[str] = (),
    systems: Iterable[str] = (),
    main: bool = False,
) -> Callable[[F], F]:
    """Declare an operation and the exceptions that it may raise."""

    def declare(function: F) -> F:
        OPERATIONS.append(
            Operation(
                function.__name__, function, raises, weight, frozenset(libraries), main, frozenset(systems)
            )
        )  # fmt: skip
        return function

    return declare


W = TypeVar("W")


class Actor(Generic[W]):
    """A thread that performs one operation after the other.

    Attributes
    ----------
    random : random.Random
        Its own, by the run's seed and its number.
    world : object
        The object of the operations, shared by all.
    """

    def __init__(self, engine: Engine[W], number: int) -> None:
        self.engine = engine
        self.number = number
        self.random = random.Random(f"{engine.seed}/{number}")
        self.flows: dict[object, int] = {}  # the number of its flow, by direction
        self.history: collections.deque[list[Any]] = collections.deque(maxlen=HISTORY)
        self.began: float | None = None  # its operation, or None between two
        self._todo: list[Operation] = []

    @property
    def world(self) -> W:
        return self.engine.world

    def note(self, *what: object) -> None:
        """Add to the history's entry of the operation that is under way."""
        self.history[-1][3].append(" ".join(map(str, what)))

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def run(self) -> None:
        while not self.engine.over:
            self._perform(self._choose())

    def _choose(self) -> Operation:
        # First each thread does its share of all of them, so that a short run performs every one.
        engine = self.engine
        if self.chance(0.3) and (rare := engine.rarest(self)):
            return rare
        mine = engine.operations_of(self)
        return self.random.choices(mine, [operation.weight for operation in mine])[0]

    def _perform(self, operation: Operation) -> None:
        engine = self.engine
        entry = [time.monotonic() - engine.started, operation.name, "...", []]
        self.history.append(entry)
        shortages = engine.shortages
        self.began = time.monotonic()
        try:
            operation.function(self)
            entry[2] = "done"
        except Skip as reason:
            entry[2] = f"skipped {reason}".rstrip()
        except BaseException as error:
            entry[2] = f"{type(error).__name__}: {error}"
            if not isinstance(error, operation.raises) and not engine.explained_by_shortage(error, shortages):
                engine.fail(f"{operation.name} in thread {self.number} raised what it may not", error)
        finally:
            self.began = None
        engine.count(operation, entry[2].partition(":")[0].partition(" ")[0])


class Engine(Generic[W]):
    """One run.

    Parameters
    ----------
    world : object
        The object of the operations.
    library : str
        The name of the library under test.
    seed : int
        Decides which operations each thread performs. The outcome also depends on which thread is faster.
    seconds : float
        How long it runs.
    threads : int
        How many, the main thread included.
    """

    def __init__(self, world: W, library: str, seed: int, seconds: float, threads: int) -> None:
        self.world = world
        self.library = library
        self.seed = seed
        self.seconds = seconds
        self.started = time.monotonic()
        self.operations = [operation for operation in OPERATIONS if operation.possible(library)]
        self.counts: dict[str, collections.Counter[str]] = {o.name: collections.Counter() for o in self.operations}
        self.shortages = 0  # times that descriptors were made scarce, and given back
        self._lock = threading.Lock()
        self._failed = threading.Lock()
        self._ended = False
        self.actors = [Actor(self, number) for number in range(threads)]

    # ---- What actors ask

    @property
    def over(self) -> bool:
        """True once the time is up. A slow machine gets more until everything was performed at least once."""
        left = self.seconds - (time.monotonic() - self.started)
        return self._ended or (left < 0 and (left < -PATIENCE or not self.never_performed()))

    def operations_of(self, actor: Actor[W]) -> list[Operation]:
        """The operations that the thread may perform."""
        return [operation for operation in self.operations if actor.number == 0 or not operation.main]

    def rarest(self, actor: Actor[W]) -> Operation | None:
        """The operation that was performed the fewest times, if that is much less than the others."""
        mine = self.operations_of(actor)
        fewest = min(self.counts[operation.name]["done"] for operation in mine)
        return actor.random.choice([o for o in mine if self.counts[o.name]["done"] == fewest]) if fewest < 3 else None

    def count(self, operation: Operation, outcome: str) -> None:
        with self._lock:
            self.counts[operation.name][outcome] += 1

    def shortage(self) -> None:
        """Note that descriptors become scarce, or are available again."""
        with self._lock:
            self.shortages += 1

    def explained_by_shortage(self, error: BaseException, shortages: int) -> bool:
        """True if the process may have run out of descriptors since `shortages` was looked at."""
        if isinstance(error, BaseExceptionGroup):
            return all(self.explained_by_shortage(part, shortages) for part in error.exceptions)
        scarce = self.shortages != shortages or shortages % 2 == 1
        seen: set[int] = set()
        cause: BaseException | None = error
        while scarce and cause is not None and id(cause) not in seen:
            if isinstance(cause, OSError) and cause.errno in (errno.EMFILE, errno.ENFILE):
                return True
            seen.add(id(cause))
            cause = cause.__cause__ or cause.__context__
        return False

    # ---- The end

    def fail(self, what: str, error: BaseException | None = None, code: int = FAILED) -> None:
        """Report everything that helps, and end the process at once: its threads may not be able to end any more."""
        if not self._failed.acquire(blocking=False):
            time.sleep(PATIENCE)  # another thread reports
        print(f"\nCHAOS FAILED: {what}", file=sys.stderr)
        if error is not None:
            traceback.print_exception(error)
        sys.stderr.flush()
        faulthandler.dump_traceback(all_threads=True)
        self.print_history()
        self.print_table(sys.stderr)
        print(f"\n{what}\n{self.description()}", file=sys.stderr, flush=True)
        os._exit(code)

    def print_history(self) -> None:
        for actor in self.actors:
            print(f"\nThe last operations of thread {actor.number}:", file=sys.stderr)
            for when, name, outcome, notes in list(actor.history):
                print(f"  {when:9.4f} {name}({'; '.join(notes)}) {outcome}", file=sys.stderr)

    def description(self) -> str:
        """The seed, and everything else that is needed to repeat the run."""
        import tunring

        return (
            f"seed {self.seed}, library {self.library}, {self.seconds:g} s, {len(self.actors)} threads; "
            f"tunring {tunring.__version__}, Python {platform.python_version()}, {platform.platform()}"
        )

    def print_table(self, file: Any = None) -> None:
        """The number of times that each operation was performed, and its other outcomes."""
        width = max(map(len, self.counts))
        for name, counter in sorted(self.counts.items()):
            others = ", ".join(f"{outcome} {n}" for outcome, n in sorted(counter.items()) if outcome != "done")
            print(f"  {name:{width}} {counter['done']:7} {others}", file=file)

    # ---- Watching

    def _watch(self) -> None:
        while not self._ended:
            # This one needs no GIL, should nobody get it any more.
            faulthandler.dump_traceback_later(2 * PATIENCE, exit=True)
            now = time.monotonic()
            for actor in self.actors:
                began = actor.began
                if began is not None and now - began > PATIENCE:
                    name = actor.history[-1][1]
                    self.fail(f"thread {actor.number} has made no progress in {name} for {PATIENCE:g} s", code=HANGS)
            time.sleep(0.5)
        faulthandler.cancel_dump_traceback_later()

    def _install_hooks(self) -> None:
        def uncaught(arguments: threading.ExceptHookArgs) -> None:
            if isinstance(arguments.exc_value, MemoryError) or arguments.exc_value is None:
                return
            if not self.explained_by_shortage(arguments.exc_value, self.shortages - 1):
                self.fail(f"{arguments.thread} died", arguments.exc_value)

        def unraisable(arguments: Any) -> None:
            if _concerns_tunring(arguments) and not self.explained_by_shortage(arguments.exc_value, self.shortages - 1):
                self.fail(
                    f"{arguments.err_msg or 'an exception was ignored in'} {arguments.object!r}", arguments.exc_value
                )

        def warn(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
            self.fail(
                f"an unexpected warning: {category.__name__}: {message}",
                message if isinstance(message, Warning) else None,
            )

        threading.excepthook = uncaught
        sys.unraisablehook = unraisable
        warnings.showwarning = warn

    # ---- The run

    def run(self) -> None:
        """Perform operations until the time is up. Returns after all threads have ended."""
        self._install_hooks()
        threading.Thread(target=self._watch, name="chaos-watchdog", daemon=True).start()
        self.started = time.monotonic()
        threads = [
            threading.Thread(target=self._run_actor, args=(actor,), name=f"chaos-{actor.number}", daemon=True)
            for actor in self.actors[1:]
        ]
        for thread in threads:
            thread.start()
        self._run_actor(self.actors[0])
        for thread in threads:
            thread.join()

    def _run_actor(self, actor: Actor[W]) -> None:
        try:
            actor.run()
        except BaseException as error:
            self.fail(f"thread {actor.number} died", error)

    def finish(self, close: Callable[[], object]) -> None:
        """Close the world, still watched; then stop watching."""
        actor = self.actors[0]
        actor.history.append([time.monotonic() - self.started, "finish", "...", []])
        actor.began = time.monotonic()
        try:
            close()
        except BaseException as error:
            self.fail("the end", error)
        self._ended = True

    def never_performed(self) -> list[str]:
        return [name for name, counter in self.counts.items() if not counter["done"]]


def _concerns_tunring(ignored: Any) -> bool:
    """Return True if tunring had a part in an exception that was ignored.

    Signal handlers raise anywhere, so also in a finalizer, which ignores it, and between two lines of
    ``Thread.start()`` or of an event loop's constructor, which CPython leaves half made.
    """
    if isinstance(ignored.exc_value, Kick):
        return False
    owner = getattr(ignored.object, "__module__", None) or type(ignored.object).__module__
    files = [frame.filename for frame in traceback.extract_tb(ignored.exc_traceback)]
    return (
        not files  # C code's, such as the descriptor for wake-ups, which tunring sets
        or owner.startswith("tunring")
        or any("tunring" in Path(file).parts or file.endswith((".pyx", ".pxi")) for file in files)
    )


class Deadline:
    """Waits in small steps for a condition, within limits that are far from the watchdog's."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def passed(self) -> bool:
        return time.monotonic() > self._end

    def until(self, condition: Callable[[], bool]) -> bool:
        while not condition():
            if self.passed():
                return False
            time.sleep(0.001)
        return True
