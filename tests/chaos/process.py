"""Operations on the process: forks, signals, garbage, log lines, descriptors that run out."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import Deadline, Kick, Skip, operation
from kernel import handing_over
from keys import in_child as check_secrets
from ledger import Wrong
from tables import in_child as check_routes
from traffic import offer, sizes

import tunring
import tunring.testing
from running import FREE_THREADED, SANITIZED

if TYPE_CHECKING:
    from collections.abc import Callable

    from world import Actor

POSIX = ("linux", "darwin")

#: Where a process with threads forks. In free-threaded Python 3.13, with this package or without, a child hangs now and
#: then whose parent's threads raised exceptions at that moment.
FORKING = ("nowhere",) if FREE_THREADED else POSIX

#: Seconds after which a child hangs.
CHILD_LIMIT = 20


# ---- Forks


def _in_child(actor: Actor) -> None:
    """Check a forked child: its parent's sessions are over, what was kept is readable, and new ones work.

    No lock of the tests' own is taken: another thread of the parent may have held it.
    """
    world = actor.world
    for link in list(world.links):
        for end in link.ends:
            for call in (lambda: end.session.receive(timeout=0), lambda: end.session.send([bytes(20)])):
                try:
                    call()
                except (tunring.SessionClosed, ValueError):
                    continue
                raise Wrong("the parent's session works in a child")
            end.session.close()
            end.adapter.close()
    for kept in list(world.shelf):
        if (
            kept.what is not None
            and kept.label in ("slices", "arrays", "casts")
            and kept.read(kept.what) != kept.expected
        ):
            raise Wrong(f"a kept {kept.label} has changed in a child")
    if world.pairs:
        import sockets

        sockets.in_child(list(world.pairs))
    if world.tunnels:
        import tunnels

        tunnels.in_child(list(world.tunnels))
    check_secrets(list(world.secrets))
    check_routes(world, actor.number)
    world.shelf.clear()
    gc.collect()
    _check_descriptors()
    left, right = tunring.testing.pair(tunring.MIN_CAPACITY)
    packet = bytes([0x45]) + bytes(19)
    for _ in range(2):
        left.send([packet])
        with right.receive(timeout=10) as batch:
            if batch.tobytes() != [packet]:
                raise Wrong("a child's own session does not work")
    left.close()
    right.close()


def _check_descriptors() -> None:
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    if any("/dev/net/tun" in path for path in found) and not handing_over:
        raise Wrong(f"a child has its parent's device: {found}")


@operation(weight=2, systems=FORKING)
def fork(actor: Actor) -> None:
    if sys.platform == "win32":
        raise Skip
    with tempfile.TemporaryFile() as report:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                signal.alarm(CHILD_LIMIT)
                faulthandler.register(signal.SIGALRM, file=report, chain=True)
                faulthandler.enable(file=report)
                sys.unraisablehook = sys.__unraisablehook__
                warnings.showwarning = lambda *_, **__: None  # what it drops unclosed is its parent's
                _in_child(actor)
                code = 0
            except BaseException:
                report.write(traceback.format_exc().encode())
                report.flush()
            finally:
                os._exit(code)
        status, state = _wait_for(child)
        # GCC's sanitizer forks without its allocator's locks: one that another thread has is taken for good. The child
        # waits for that lock then, perhaps even before its alarm is set.
        if SANITIZED and (status == signal.SIGALRM or state):
            raise Skip("the sanitizer's allocator is locked in the child")
        if state:
            raise Wrong(f"a child hangs, and not even SIGALRM ends it: {state}")
        if status:
            report.seek(0)
            raise Wrong(f"a child ended with {status}:\n{report.read().decode('utf-8', 'replace')}")


def _wait_for(child: int) -> tuple[int, str]:
    """Its exit code, or the signal that ended it; and its state if it hung and had to be killed."""
    result = 0, 0

    def ended() -> bool:
        nonlocal result
        result = os.waitpid(child, os.WNOHANG)
        return result[0] != 0

    state = ""
    if not Deadline(CHILD_LIMIT + 5).until(ended):
        state = _state_of(child)
        os.kill(child, signal.SIGKILL)
        result = os.waitpid(child, 0)
    return result[1], state


def _state_of(child: int) -> str:
    """Describe a hung child: R (running) or another letter, its system call, and where its threads wait."""
    folder = Path(f"/proc/{child}")
    if not folder.exists():
        return "unknown"
    state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
    tasks = [(task / "wchan").read_text() for task in (folder / "task").iterdir()]
    return f"{state}, system call {(folder / 'syscall').read_text().strip()}, waits in {tasks}"


@operation(weight=1, systems=POSIX)
def run_a_program(actor: Actor) -> None:
    """A program that is executed inherits nothing of ours."""
    show = subprocess.run(
        ["ls", "-l", "/proc/self/fd"], capture_output=True, text=True, close_fds=False, check=True,
        env={name: value for name, value in os.environ.items() if name != "LD_PRELOAD"},
    )  # fmt: skip
    for what in ("/dev/net/tun", "[eventpoll]", "[eventfd]", "[io_uring]"):
        # Event loops of other threads have descriptors too, but none that is inherited.
        if what in show.stdout:
            raise Wrong(f"a program has inherited {what}: {show.stdout}")


# ---- Signals


class Signals:
    """The handler of SIGUSR1: does something at random, in the main thread, whatever that is in the middle of."""

    def __init__(self) -> None:
        self.actor: Any = None
        self.raises = False
        self._depth = 0

    def install(self, actor: Actor) -> None:
        """Called by the main thread, whose actor it is."""
        self.actor = actor
        if sys.platform != "win32":
            signal.signal(signal.SIGUSR1, self._handle)

    def _handle(self, *_: object) -> None:
        actor = self.actor
        if self.raises:
            self.raises = False
            raise Kick
        if self._depth or actor is None or actor.engine.over:
            return
        self._depth += 1
        try:
            self._act(actor)
        finally:
            self._depth -= 1

    @staticmethod
    def _act(actor: Actor) -> None:
        # With no lock of the tests' own: the main thread may hold it.
        links = [link for link in list(actor.world.links) if not link.proven]
        if not links:
            return
        end = actor.random.choice(actor.random.choice(links).ends)
        kind = actor.random.randrange(6)
        with contextlib.suppress(tunring.SessionClosed):
            if kind == 0:
                end.session.stats()
            elif kind == 1:
                gc.collect()
            elif kind == 2:
                end.session.receive(1, timeout=0.005)  # what it takes is lost, as wild links may lose
            elif kind == 3:
                end.session.close()
            elif kind == 4:
                end.adapter.close()
            else:
                repr(end.session.read_event)


signals = Signals()


@operation(weight=6, systems=POSIX)
def send_a_signal(actor: Actor) -> None:
    if sys.platform == "win32":
        raise Skip
    for _ in range(actor.random.choice([1, 1, 20])):
        if actor.chance(0.5):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
        else:
            os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(actor.random.random() * 0.002)


def _kick_during(actor: Actor, call: Callable[[], object]) -> None:
    """Call a function, and let a handler raise in the main thread soon. The call may end before."""
    seconds = actor.random.random() * 0.02
    # Not an Event: what raises within its own lock leaves that taken. The same goes for the start of a thread.
    armed: list[bool] = []

    def kick() -> None:
        while not armed:
            time.sleep(0.001)
        time.sleep(seconds)
        os.kill(os.getpid(), getattr(signal, "SIGUSR1", 0))

    kicker = threading.Thread(target=kick)
    kicker.start()
    try:
        signals.raises = True
        try:
            armed.append(True)
            call()
        finally:
            signals.raises = False
    except Kick:
        actor.note(f"kicked after {seconds * 1000:.1f} ms or before")
    kicker.join()


@operation(tunring.SessionClosed, weight=6, systems=POSIX, main=True)
def interrupt_a_receive(actor: Actor) -> None:
    # A handler that raises after packets were taken loses them, so the link must be one that may lose some.
    with actor.world.use(actor, proven=False) as end:

        def receive() -> None:
            while True:
                end.session.receive(4, timeout=5).release()

        _kick_during(actor, receive)


@operation(tunring.SessionClosed, weight=6, systems=POSIX, main=True)
def interrupt_a_send(actor: Actor) -> None:
    with actor.world.use(actor, proven=False) as end:
        direction = end.outgoing
        with direction.offer(direction.new_flow(), sizes(actor) * 20, "an interrupted send") as offered:
            offered.accept(None)
            _kick_during(actor, lambda: end.session.send(offered.packets, timeout=5))


# ---- Garbage


@operation(weight=6)
def collect_garbage(actor: Actor) -> None:
    if actor.chance(0.1):
        gc.set_threshold(*actor.random.choice([(1, 1, 1), (50, 5, 5), (700, 10, 10)]))
    gc.collect(actor.random.choice([0, 1, 2]))


@operation(weight=3)
def drop_sessions_unclosed(actor: Actor) -> None:
    """Dropped objects warn and are closed by their destructors, in whichever thread collects them."""
    left, right = tunring.testing.pair(tunring.MIN_CAPACITY)
    left.send([bytes([0x45]) + bytes(19)])
    batch = right.receive(timeout=5)
    cycle: list[Any] = [left, right, batch, batch[0][:]]
    cycle.append(cycle)
    if actor.chance(0.5):
        del left, right, batch
        cycle.clear()
    if actor.chance(0.5):
        gc.collect()


# ---- Log lines


@operation(tunring.WintunError, weight=4)
def set_a_logger(actor: Actor) -> None:
    library = actor.world.library
    kind = actor.random.choice(["none", "list", "slow", "closes"])
    actor.note(kind)

    def close(*_: object) -> None:
        links = [link for link in list(actor.world.links) if not link.proven]
        if links:
            links[0].ends[0].session.close()

    target = {"none": None, "list": lambda *_: None, "slow": lambda *_: time.sleep(0.002), "closes": close}[kind]
    tunring.set_logger(target, library)
    try:
        tunring.Adapter.open(actor.world.name(), library=library)
    except tunring.NotFound:
        return
    raise Wrong("an adapter that nobody made")


@operation(weight=2)
def load_the_library(actor: Actor) -> None:
    name = actor.world.library.name
    if name != "wintun" and tunring.load(name) is not actor.world.library:
        raise Wrong("a second library of the same file")


# ---- Descriptors


@operation(weight=2, systems=("linux",))
def run_out_of_descriptors(actor: Actor) -> None:
    """Descriptors are scarce for a moment: calls in any thread may fail, and must leave everything as it was."""
    if sys.platform == "win32":
        raise Skip
    import resource

    engine = actor.engine
    if engine.shortages % 2:
        raise Skip("they are scarce already")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    engine.shortage()
    try:
        used = max(map(int, os.listdir("/proc/self/fd")))
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + actor.random.randrange(1, 12), hard))
        limit = Deadline(actor.random.random() * 0.05)
        while not limit.passed():
            with contextlib.suppress(OSError):
                for session in tunring.testing.pair(tunring.MIN_CAPACITY):
                    session.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        engine.shortage()


@operation(tunring.SessionClosed, tunring.RingFull, weight=6)
def send_while_others_collect(actor: Actor) -> None:
    """Yield buffers that are freed as soon as the call has released them."""
    with actor.world.use(actor) as end, offer(actor, end) as offered:
        packets = [bytearray(packet) for packet in offered.packets]
        gc.collect(0)
        offered.accept(end.session.send(iter(packets), timeout=0.1))
        packets.clear()
