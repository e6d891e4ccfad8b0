"""One end of a WireGuard tunnel by tunring, for bench/wireguard.py.

    python wireguard_end.py NAME PRIVATE_KEY_FILE PEER_PUBLIC_KEY PORT PEER_HOST

makes the interface, prints "ready" and serves until SIGTERM.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import tunring
from tunring.wireguard import Device, Key


def main(name: str, key: str, public: str, port: str, host: str) -> None:
    private = Key(Path(key).read_text().strip())
    with tunring.Adapter.create(name) as adapter, Device(adapter, private_key=private, listen_port=int(port)) as device:
        device.add_peer(public, allowed_ips=["10.8.0.0/24"], endpoint=(host, int(port)))
        print("ready", flush=True)
        signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    main(*sys.argv[1:])
