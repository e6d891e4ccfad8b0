"""Network namespaces: a thread is in one, and what it makes stays there."""

from __future__ import annotations

import _thread
import ctypes
import logging
import os
import socket
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tunring._system.own_socket import make_socket

if TYPE_CHECKING:
    from collections.abc import Callable

#: For :func:`unshare`.
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000

#: Since Linux 4.10.
_SIOCGSKNS = 0x894C

T = TypeVar("T")

# Python itself has both calls only since 3.12.
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Take the calling thread to new namespaces.

    Raises
    ------
    OSError
        The system refuses.
    """
    _check(_libc.unshare(flags), "can't make a namespace")


def enter_network(descriptor: int) -> None:
    """Take the calling thread to the network namespace that a descriptor stands for.

    Raises
    ------
    PermissionError
        That takes CAP_SYS_ADMIN, here and there.
    """
    _check(_libc.setns(descriptor, CLONE_NEWNET), "can't enter the network namespace")


def _effective_ids() -> tuple[int, int]:
    if sys.platform != "win32":
        return os.geteuid(), os.getegid()
    else:
        raise NotImplementedError("there are no network namespaces on Windows")


def enter_own_network() -> None:
    """Take this process, which must have but one thread, to a network namespace in which it may do everything.

    Without CAP_SYS_ADMIN it gets a user namespace as well, where it is root.

    Raises
    ------
    OSError
        The system allows neither; the message has the reason.
    """
    user, group = _effective_ids()
    try:
        unshare(CLONE_NEWNET)
    except PermissionError:
        try:
            unshare(CLONE_NEWUSER | CLONE_NEWNET)
            Path("/proc/self/setgroups").write_text("deny", "ascii")
            Path("/proc/self/uid_map").write_text(f"0 {user} 1", "ascii")
            Path("/proc/self/gid_map").write_text(f"0 {group} 1", "ascii")
        except OSError as error:
            text = "a network namespace needs CAP_SYS_ADMIN, and user namespaces are not allowed either"
            raise OSError(error.errno, f"{text} ({os.strerror(error.errno or 0)})") from error


def _is_here(descriptor: int) -> bool:
    try:
        here = os.stat("/proc/thread-self/ns/net")
    except FileNotFoundError:
        try:
            here = _stat_by_socket()
        except OSError:
            return False
    return os.path.samestat(os.fstat(descriptor), here)


def _stat_by_socket() -> os.stat_result:
    """The same as the namespace's file in /proc, where /proc is not mounted. Requires CAP_NET_ADMIN."""
    if sys.platform != "win32":
        from fcntl import ioctl

        with make_socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
            descriptor = ioctl(made, _SIOCGSKNS)
        try:
            return os.fstat(descriptor)
        finally:
            os.close(descriptor)
    else:
        raise NotImplementedError("there are no network namespaces on Windows")


def call_in_network(descriptor: int, function: Callable[[], T]) -> T:
    """Call a function in the network namespace that a descriptor stands for, or in the caller's if that is -1.

    It runs in a thread of its own, so the caller's stays where it is, and an event loop that runs there is not met.
    """

    def call() -> T:
        if descriptor >= 0 and not _is_here(descriptor):
            enter_network(descriptor)
        return function()

    if sys.is_finalizing():  # a thread would not run any more
        return call()
    results: list[T] = []
    failures: list[BaseException] = []
    warnings: list[tuple[str, tuple[object, ...]]] = []
    running = _thread.allocate_lock()
    running.acquire()

    def run() -> None:
        _work.warnings = warnings
        try:
            results.append(call())
        except BaseException as error:
            failures.append(error)
        finally:
            running.release()

    # Neither an executor nor a threading.Thread: they take locks of the whole process as they start a thread, which a
    # signal handler that closes an adapter just then would wait for without end.
    started: list[int] = []
    try:
        # extend() is C: no signal comes between the start of the thread and the note that it has started.
        started.extend(map(_thread.start_new_thread, (run,), ((),)))
        running.acquire()
    except BaseException as error:
        if not started and isinstance(error, RuntimeError):
            # The interpreter is on its way out and starts no more threads; nobody minds any more where this one is.
            return call()
        # A signal handler's, which must not leave the work behind.
        if started and not (results or failures):
            running.acquire()
        raise
    for message, arguments in warnings:
        warn(message, *arguments)
    if failures:
        raise failures.pop()
    return results[0]


class _Work(threading.local):
    warnings: list[tuple[str, tuple[object, ...]]] | None = None  # of what call_in_network() calls in this thread


_work = _Work()


def warn(message: str, *arguments: object) -> None:
    """Log a warning of "tunring", in the thread that waits for the work if this is done by :func:`call_in_network`.

    A signal handler that closes an adapter may have interrupted its thread where that had a lock of the logging module.
    """
    if _work.warnings is not None:
        _work.warnings.append((message, arguments))
        return
    logging.getLogger("tunring").warning(message, *arguments)
