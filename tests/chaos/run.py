"""Does everything at random that tunring can do, in several threads at once, and checks that its promises hold.

    python tests/chaos/run.py [--seconds 45] [--library loopback] [--seed N] [--threads 6] [--without NAME,...]

The installed tunring is tested. ``--library tun_linux`` needs root; what it does stays in a network namespace of its
own. A failure prints the seed, the versions, all stacks and the last operations of each thread; the same seed repeats
what each thread does, but not who is faster. ``--list`` names the operations.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import os
import pkgutil
import random
import sys
import tempfile
import threading
import warnings
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [os.fspath(TESTS / "chaos"), os.fspath(TESTS / "support")]

import benches
import engine
import process
from ledger import Wrong
from world import World

import tunring
from running import FREE_THREADED
from tunring import _core

TOPICS = [
    "traffic", "parts", "checksums", "loops", "lives", "captures", "tables", "keys", "devices", "sockets", "tunnels",
]  # fmt: skip
LINUX_TOPICS = ["kernel", "descriptors"]

if FREE_THREADED and not importlib.util.find_spec("cryptography"):
    TOPICS.remove("tunnels")

for topic in TOPICS + (LINUX_TOPICS if sys.platform == "linux" else []):
    __import__(topic)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=45, help="default: %(default)g")
    parser.add_argument("--library", default="loopback", help="loopback, tun_linux or wintun; default: %(default)s")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32), help="default: any")
    parser.add_argument("--threads", type=int, default=6, help="default: %(default)s")
    parser.add_argument("--without", default="", metavar="NAMES", help="operations to leave out, separated by commas")
    parser.add_argument("--only", default="", metavar="NAMES", help="the only operations to perform")
    parser.add_argument("--list", action="store_true", help="name the operations and end")
    return parser.parse_args()


def _select(without: str, only: str) -> None:
    names = {name for name in (without + "," + only).split(",") if name}
    if unknown := names - {operation.name for operation in engine.OPERATIONS}:
        raise SystemExit(f"no such operation: {', '.join(sorted(unknown))}")
    engine.OPERATIONS[:] = [
        operation
        for operation in engine.OPERATIONS
        if operation.name not in without.split(",") and (not only or operation.name in only.split(","))
    ]


def _import_everything() -> None:
    """Import what the package imports when it is first needed, as far as this system has it.

    In a child that was forked while another thread imported a module, CPython waits for that module without end.
    """
    others = {"__main__", "_pyinstaller", "cli", "examples", "scapy"}
    for module in pkgutil.walk_packages(tunring.__path__, "tunring.", onerror=lambda _: None):
        if not others & set(module.name.split(".")) and not module.name.endswith("_windows"):
            with contextlib.suppress(ImportError):
                importlib.import_module(module.name)


def _descriptors() -> dict[str, str]:
    """The open descriptors and their targets, where the system lists them."""
    found = {}
    for name in os.listdir("/proc/self/fd") if sys.platform == "linux" else ():
        with contextlib.suppress(OSError):
            found[name] = os.readlink(f"/proc/self/fd/{name}")
    return found


def main() -> int:
    """Runs it. Returns 0, or 1 if an operation was never performed; other failures end the process at once."""
    options = _arguments()
    _select(options.without, options.only)
    if options.list:
        print("\n".join(sorted(operation.name for operation in engine.OPERATIONS)))
        return 0
    warnings.simplefilter("default")
    # Sessions that are dropped unclosed are among the operations; Python's own, of threads and forks.
    warnings.simplefilter("ignore", ResourceWarning)
    warnings.filterwarnings("ignore", ".*multi-threaded.*fork.*", DeprecationWarning)
    # A wild link's configuration is gone with its interface.
    warnings.filterwarnings("ignore", ".*leaves a part of its configuration behind", RuntimeWarning)
    if sys.platform != "win32":
        _import_everything()
    bench, library = benches.make(options.library)
    with tempfile.TemporaryDirectory(prefix="tunring-chaos-") as folder:
        world = World(bench, library, Path(folder))
        run = engine.Engine(world, options.library, options.seed, options.seconds, options.threads)
        print(run.description(), flush=True)
        descriptors = _descriptors()
        process.signals.install(run.actors[0])
        world.open()
        run.run()
        run.finish(lambda: _finish(run, world, descriptors))
    run.print_table()
    print(f"{world.arrived} packets arrived, each once, in order and unchanged")
    if missing := run.never_performed():
        print(f"never performed: {', '.join(missing)}\n{run.description()}", file=sys.stderr)
        return 1
    return 0


def _finish(run: engine.Engine[World], world: World, descriptors: dict[str, str]) -> None:
    """Check that nothing is left over."""
    import gc

    world.close()
    tunring.set_logger(None, world.library)
    world.writer = world.recording = None

    def descriptors_now() -> int:
        gc.collect()  # which does nothing while another thread collects
        return len(_descriptors())

    limit = engine.Deadline(15)
    gc.collect()
    if not limit.until(lambda: _core.pinned_sessions() == 0):
        raise Wrong(f"{_core.pinned_sessions()} sessions are pinned")
    # Some things are opened once: the pipes for signals, ours and uvloop's, the queue of log lines, and the event that
    # ends waits for closed sockets. Sessions whose adapter the system has removed are given up on purpose, with theirs.
    allowed = len(descriptors) + 6 + _core.leaked_sessions()
    if not limit.until(lambda: descriptors_now() <= allowed):
        raise Wrong(f"these descriptors are open: {_descriptors()}; these were before: {descriptors}")
    if not limit.until(lambda: threading.active_count() <= 3):
        raise Wrong(f"threads are left: {threading.enumerate()}")


if __name__ == "__main__":
    sys.exit(main())
