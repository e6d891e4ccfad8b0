"""Peers of a hub in one process, for bench/wireguard.py: each is a device of tunring's, with a host of its own.

    python wireguard_crowd.py NUMBER HUB_PUBLIC_KEY HUB_HOST:PORT

prints "ready", and answers a line "peers" with their public keys and ports, and "count" with the packets that the hosts
have received so far.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from contextlib import ExitStack

from tunring import testing
from tunring.wireguard import Device, Key

CAPACITY = 1 << 20

#: Seconds between two looks at all hosts.
PAUSE = 0.002


def main(number: str, public: str, hub: str) -> None:
    host, _, port = hub.rpartition(":")
    hosts, peers = [], []
    with ExitStack() as stack:
        for _ in range(int(number)):
            near, session = testing.pair(CAPACITY)
            stack.enter_context(near)
            stack.enter_context(session)
            key = Key.generate()
            device = stack.enter_context(Device(session, private_key=key))
            device.add_peer(public, allowed_ips=["0.0.0.0/0"], endpoint=(host, int(port)))
            hosts.append(near)
            peers.append((key.public.base64, device.listen_port))
        count = 0

        def drain() -> None:
            nonlocal count
            while True:
                for near in hosts:
                    with near.receive(1024, timeout=0) as batch:
                        count += len(batch)
                time.sleep(PAUSE)

        threading.Thread(target=drain, daemon=True).start()
        print("ready", flush=True)
        for line in sys.stdin:
            print(json.dumps(peers) if line.strip() == "peers" else count, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
