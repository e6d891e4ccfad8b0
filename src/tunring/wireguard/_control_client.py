"""Asking a device by its socket, whoever serves it: what ``wg show`` does."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

#: Seconds that an answer may take.
_PATIENCE = 10.0

_NUMBERS = {"listen_port", "fwmark", "last_handshake_time_sec", "last_handshake_time_nsec", "tx_bytes", "rx_bytes"}


def ask(path: Path) -> dict[str, Any]:
    """Return a device's settings: its own keys, and "peers", a list. Secrets are left out.

    Raises
    ------
    OSError
        Nobody answers there, or the answer is an error.
    """
    with socket.socket(socket.AddressFamily["AF_UNIX"], socket.SOCK_STREAM) as client:
        client.settimeout(_PATIENCE)
        client.connect(str(path))
        client.sendall(b"get=1\n\n")
        with client.makefile("r", encoding="ascii") as lines:
            return _parse(line.rstrip("\n") for line in iter(lines.readline, "\n") if _there(line))


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
        else:
            now[name] = int(text) if name in _NUMBERS or name.endswith("_interval") else text
    return result
