"""A WireGuard interface that ``wg`` and ``wg-quick`` control; and ``tunring-wireguard``, as wg-quick starts it."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from tunring import __version__
from tunring.cli.report import FAILED, INTERRUPTED, exit_code_of, reason_of, say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tunring import Adapter
    from tunring.wireguard import Device
    from tunring.wireguard._control_place import Place

#: The MTU that others begin with, too: what fits into 1500 bytes with IPv6 outside.
DEFAULT_MTU = 1420

#: Seconds between two looks at the socket's file.
_LOOK = 0.25

#: Written to the pipe when all is well; anything else is the reason for the failure.
_READY = "ready"


def require_fork() -> None:
    """Refuse to go into the background on Windows, which can't fork."""
    if os.name == "nt":
        raise NotImplementedError("the command can't go into the background on Windows: pass --foreground")


class _Stop:
    """Remembers that a signal has come. Unlike an Event it has no lock, so a signal may interrupt another's handler."""

    def __init__(self) -> None:
        self.has_come = False

    def handle(self, *_: object) -> None:
        self.has_come = True


def serve(
    name: str,
    ready: Callable[[], None],
    *,
    before: Callable[[ExitStack], None] | None = None,
    set_up: Callable[[Adapter, Device, ExitStack, Callable[[], bool]], None] | None = None,
    at_end: Callable[[Device, str], None] | None = None,
) -> int:
    """Serve an interface until it is deleted, its socket's file is removed, or a signal or Ctrl-Break comes.

    Parameters
    ----------
    name : str
        The interface's name.
    ready : callable
        Called once both answer.
    before : callable, optional
        Called before there is an interface. Everything it puts on the stack is undone when there is none any more.
    set_up : callable, optional
        Sets up the device and the interface before ``ready``. Everything it puts on the stack is undone. Its last
        argument tells whether a signal has come.
    at_end : callable, optional
        Called with the device, before it is closed, and the reason for the end.
    """
    from tunring import Adapter
    from tunring.wireguard import Device
    from tunring.wireguard._control_place import ControlServer, path_of

    stop = _Stop()
    numbers = [signal.SIGTERM, signal.SIGINT]
    if sys.platform == "win32":
        numbers.append(signal.SIGBREAK)
    handlers = {number: signal.signal(number, stop.handle) for number in numbers}
    try:
        with ExitStack() as stack:
            # First of all, so that a name which is served already changes nothing.
            if before:
                # Only a look: wg would wait for an answer as long as what is called here takes.
                ControlServer(path_of(name)).close()
                before(stack)
            server = ControlServer(path_of(name))
            stack.callback(server.close)
            adapter = stack.enter_context(Adapter.create(name, tunnel_type="WireGuard"))
            device = stack.enter_context(Device(adapter, private_key=None))
            device.set_interface_mtu(DEFAULT_MTU)
            server.start(device)
            if set_up:
                set_up(adapter, device, stack, lambda: stop.has_come)
            ready()
            reason = _wait(device, server.is_there, stop)
            if at_end:
                at_end(device, reason)
        return 0
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _wait(device: Device, is_there: Callable[[], bool], stop: _Stop) -> str:
    from tunring import SessionClosed

    with suppress(SessionClosed):
        while not device.wait(_LOOK):
            if stop.has_come:
                return "signal"
            if not is_there():
                return "removal of the socket"
    return "removal of the interface"


# ---- In the background ------------------------------------------------------------------------------------------


def in_background(name: str, command: Callable[[Callable[[], None]], int]) -> int:
    """Fork, run a command in the child, and return once it reports that it is ready; otherwise with the reason.

    No thread may exist yet.
    """
    from tunring.wireguard._control_place import path_of

    require_fork()
    place = path_of(name)
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()
    child = _fork()
    if child == 0:
        os.close(reading)
        _be_child(writing, command)
    os.close(writing)
    with open(reading, encoding="utf-8", errors="replace") as pipe, _passed_on(child) as signals:
        said = pipe.read()
    if signals:
        say("tunring: interrupted", sys.stderr)
        return INTERRUPTED
    if said == _READY:
        said = _fault(name, place)
    if said != _READY:
        say(f"tunring: {said or 'the process in the background ended'}", sys.stderr)
        return FAILED
    return 0


@contextmanager
def _passed_on(child: int) -> Iterator[list[int]]:
    """Let signals end the child, which no terminal reaches, while it may be looking for endpoints; yields those."""
    signals: list[int] = []

    def handle(number: int, _: object) -> None:
        signals.append(number)
        os.kill(child, signal.SIGTERM)

    handlers = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield signals
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _fork() -> int:
    if sys.platform != "win32":
        return os.fork()
    else:
        raise NotImplementedError("Windows has no fork")


def _leave_session() -> None:
    if sys.platform != "win32":
        os.setsid()


def _fault(name: str, place: Place) -> str:
    """Why the interface can't be used, or _READY: asked as ``wg`` will."""
    from tunring.wireguard._control_client import ask

    try:
        ask(place)
        socket.if_nametoindex(name)
    except OSError as error:
        return f"{name} does not answer: {reason_of(error)}"
    return _READY


def _be_child(writing: int, command: Callable[[Callable[[], None]], int]) -> None:
    """Live on as a process of its own. It does not return."""
    code = FAILED
    logs = (os.environ.get("LOG_LEVEL") or "silent").lower() != "silent"
    if logs:
        set_up_log()
    with open(writing, "w", encoding="utf-8", errors="replace") as pipe:

        def ready() -> None:
            null = os.open(os.devnull, os.O_RDWR)
            # Whoever asks for a log gets it from the background, too, as from wireguard-go.
            for number in (0, 1) if logs else (0, 1, 2):
                os.dup2(null, number)
            if null > 2:
                os.close(null)
            pipe.write(_READY)
            pipe.close()

        try:
            _leave_session()
            os.chdir("/")
            code = command(ready)
        except BaseException as error:
            if not pipe.closed:
                with suppress(OSError):
                    pipe.write(reason_of(error))
                    pipe.close()
            elif logs:
                say(f"tunring: {reason_of(error)}", sys.stderr)
    # Python's own end: what atexit has to close is closed.
    sys.exit(code)


# ---- The script -------------------------------------------------------------------------------------------------


def set_up_log() -> None:
    """Log to standard error by LOG_LEVEL: verbose or debug, error, silent; without it, warnings too."""
    levels = {"verbose": logging.DEBUG, "debug": logging.DEBUG, "error": logging.ERROR, "silent": logging.CRITICAL + 1}
    level = levels.get(os.environ.get("LOG_LEVEL", "").lower(), logging.WARNING)
    logging.basicConfig(stream=sys.stderr, level=level, format="%(asctime)s %(name)s %(levelname)s: %(message)s")


def main(argv: Sequence[str] | None = None) -> int:
    """``tunring-wireguard``. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="tunring-wireguard",
        description="Serve a WireGuard interface that wg and wg-quick control: set"
        " WG_QUICK_USERSPACE_IMPLEMENTATION=tunring-wireguard.",
    )
    parser.add_argument(
        "-f",
        "--foreground",
        action="store_true",
        help="stay in the foreground, and log there; required on Windows",
    )
    parser.add_argument("--version", action="version", version=f"tunring-wireguard {__version__}")
    parser.add_argument("name", metavar="NAME", help="the new interface")
    arguments = parser.parse_args(argv)
    name: str = arguments.name
    if arguments.foreground:
        set_up_log()
        return exit_code_of(lambda: serve(name, lambda: None))
    return exit_code_of(lambda: in_background(name, lambda ready: serve(name, ready)))


if __name__ == "__main__":
    sys.exit(main())
