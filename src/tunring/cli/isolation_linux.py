"""A child process in a network namespace of its own, so that nothing outside it is touched."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tunring.namespace_linux import CLONE_NEWNET, CLONE_NEWUSER, unshare

if TYPE_CHECKING:
    from collections.abc import Callable

assert sys.platform == "linux"


def enter_own_network() -> None:
    """Take this process, which has one thread, to a network namespace in which it may do everything.

    Without CAP_SYS_ADMIN it gets a user namespace as well, where it is root.

    Raises
    ------
    OSError
        The system allows neither.
    """
    user, group = os.geteuid(), os.getegid()
    try:
        unshare(CLONE_NEWNET)
    except PermissionError:
        unshare(CLONE_NEWUSER | CLONE_NEWNET)
        Path("/proc/self/setgroups").write_text("deny", "ascii")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1", "ascii")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1", "ascii")


def run_in_child(command: Callable[[], int]) -> int:
    """Fork, run a command in the child, and return its exit code. Interrupts are handed on."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = command()
            sys.stdout.flush()
        finally:
            os._exit(code)
    signals = (signal.SIGINT, signal.SIGTERM)
    handlers = [signal.signal(number, lambda number, _: os.kill(child, number)) for number in signals]
    try:
        _, status = os.waitpid(child, 0)
    finally:
        for number, handler in zip(signals, handlers, strict=True):
            signal.signal(number, handler)
    return abs(os.waitstatus_to_exitcode(status))
