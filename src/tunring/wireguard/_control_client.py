"""Asking a device by its socket or pipe, of any implementation, as ``wg show`` does."""

from __future__ import annotations

import re
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tunring.wireguard._control_place import connect

if TYPE_CHECKING:
    from tunring.wireguard._control_place import Place

_NUMBERS = {"listen_port", "fwmark", "last_handshake_time_sec", "last_handshake_time_nsec", "tx_bytes", "rx_bytes"}


def ask(place: Place) -> dict[str, Any]:
    """Return a device's settings: its own keys, and "peers", a list. Secrets are left out.

    Raises
    ------
    OSError
        Nobody answers there, or the answer is an error.
    """
    with connect(place) as stream:
        stream.write(b"get=1\n\n")
        stream.flush()
        lines = (line.decode("ascii") for line in iter(stream.readline, b"\n"))
        return _parse(line.rstrip("\n") for line in lines if _there(line))


def _there(line: str) -> bool:
    if not line:
        raise ConnectionAbortedError("the device closed the connection before its answer was complete")
    return True


def _parse(lines: Any) -> dict[str, Any]:
    from tunring.wireguard.keys import Key, PublicKey

    result: dict[str, Any] = {"peers": []}
    now = result
    for line in lines:
        name, _, text = line.partition("=")
        if name == "errno":
            if int(text):
                raise OSError(-int(text), "the device refused to answer")
        elif name == "private_key":
            result["public_key"] = Key.from_hex(text).public.base64
        elif name == "public_key":
            now = {"public_key": PublicKey.from_hex(text).base64, "allowed_ips": []}
            result["peers"].append(now)
        elif name == "preshared_key":
            now[name] = bool(Key.from_hex(text))
        elif name == "allowed_ip":
            now["allowed_ips"].append(text)
        elif name == "endpoint":
            now[name] = _with_zone(text)
        else:
            now[name] = int(text) if name in _NUMBERS or name.endswith("_interval") else text
    return result


def _with_zone(endpoint: str) -> str:
    """An endpoint with its zone as ``wg show`` has it: the interface's name, except on Windows."""
    found = re.fullmatch(r"(\[.+%)([0-9]{1,10})(\]:[0-9]+)", endpoint)
    if found and sys.platform != "win32":
        before, number, after = found.groups()
        with suppress(OSError, OverflowError):  # there is none of this number
            return f"{before}{socket.if_indextoname(int(number))}{after}"
    return endpoint
