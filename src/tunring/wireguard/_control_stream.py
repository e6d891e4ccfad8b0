"""One client's conversation over the control socket or pipe: requests in, answers out, until it hangs up."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from tunring.wireguard._control import answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from tunring.wireguard.device import Device

    T = TypeVar("T")

log = logging.getLogger("tunring.wireguard")

#: Clients that may ask at the same time.
MAX_CLIENTS = 32

#: Bytes of a request at most: a million allowed IPs.
_MAX_REQUEST = 64 << 20


def start_thread(answer_client: Callable[[T], None], client: T) -> bool:
    """Talk to a client in a thread of its own. False if the system has no more threads: others may still be served."""
    try:
        threading.Thread(target=answer_client, args=(client,), daemon=True).start()
    except RuntimeError as error:
        log.error("a client of the control socket was refused: %s", error)
        return False
    return True


def converse(device: Device, lines: BinaryIO, send: Callable[[bytes], object]) -> None:
    """Answer requests until the client hangs up, or sends what is not text or too long."""
    try:
        while (request := read_request(lines)) is not None:
            send(answer(device, request).encode())
    except OSError as error:
        log.debug("a client of the control socket disconnected: %s", error)
    except ValueError as error:
        log.warning("a client of the control socket was disconnected: %s", error)


def read_request(lines: BinaryIO) -> list[str] | None:
    """The lines up to an empty one; None at the end. Raises ValueError for what is too long or not text."""
    request: list[str] = []
    size = 0
    while line := lines.readline(_MAX_REQUEST):
        size += len(line)
        if size > _MAX_REQUEST:
            raise ValueError(f"a request must have at most {_MAX_REQUEST} bytes")
        text = line.rstrip(b"\n").decode("ascii", "strict")
        if not text:
            if request:
                return request
            continue
        request.append(text)
    return None
