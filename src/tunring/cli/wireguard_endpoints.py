"""Endpoints of a WireGuard file: their names are looked up again for a while where the network is not there yet."""

from __future__ import annotations

import math
import os
import socket
import sys
import time
from itertools import count
from typing import TYPE_CHECKING

from tunring import Endpoint
from tunring.cli.report import say

if TYPE_CHECKING:
    from collections.abc import Callable

#: As wg does it: how often it tries again, and the pauses in seconds.
_VARIABLE, _RETRIES = "WG_ENDPOINT_RESOLUTION_RETRIES", 15
_FIRST_PAUSE, _GROWTH, _LONGEST_PAUSE = 1.0, 1.2, 20.0

#: Seconds between two looks for a signal.
_LOOK = 0.1

#: Errors that remain. All others, also those of the system, may be gone at the next try.
_FINAL = {getattr(socket, name, socket.EAI_NONAME) for name in ("EAI_NONAME", "EAI_FAIL", "EAI_NODATA")}


def retries() -> float:
    """How often a name is looked up again, by the environment. Raises ValueError."""
    text = os.environ.get(_VARIABLE)
    if text is None:
        return _RETRIES
    if text == "infinity":
        return math.inf
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(f"{_VARIABLE} must be a number or infinity, not {text!r}")
    return int(text)


def find(host: str, port: int, stopped: Callable[[], bool]) -> Endpoint:
    """Look an endpoint up, again and again while it may come to be known.

    Parameters
    ----------
    host : str
        A name or an address.
    port : int
        The port.
    stopped : callable
        Returns True when the search should end; it is asked between two tries.

    Raises
    ------
    OSError
        The name does not exist, or the last try did not find it.
    KeyboardInterrupt
        It was stopped.
    """
    maximum, pause = retries(), _FIRST_PAUSE
    for tries in count():
        try:
            return _look_up(host, port)
        except OSError as error:
            text = f"can't find the endpoint {host}: {error.strerror}"
            if error.errno in _FINAL or tries >= maximum:
                raise OSError(error.errno, text) from None
        say(f"tunring: {text}; trying again in {pause:.1f} s", sys.stderr)
        _wait(pause, stopped)
        pause = min(pause * _GROWTH, _LONGEST_PAUSE)
    raise AssertionError


def _look_up(host: str, port: int) -> Endpoint:
    address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0][4]
    # IPv6 has four parts: the last is the zone, which the address itself may name, too.
    return Endpoint(str(address[0]).partition("%")[0], port, interface=address[3] if len(address) == 4 else 0)


def _wait(seconds: float, stopped: Callable[[], bool]) -> None:
    limit = time.monotonic() + seconds
    while not stopped():
        left = limit - time.monotonic()
        if left <= 0:
            return
        time.sleep(min(left, _LOOK))
    raise KeyboardInterrupt("interrupted")
