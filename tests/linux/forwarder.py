"""A program that forwards packets between two adapters, in two network namespaces, by batches.

    forwarder.py NAMESPACE NAMESPACE

The arguments are descriptors. It makes an adapter "tun0" in each, prints "ready", and at the end of its standard input
prints each session's figures as JSON.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import threading
from contextlib import ExitStack

import tunring
from tunring._system.namespace_linux import enter_network


def forward(source: tunring.Session, target: tunring.Session, stop: threading.Event) -> None:
    """Pass on whatever comes. At the end nothing that was received is left behind, so the figures agree."""
    while not stop.is_set():
        with source.receive(timeout=0.1) as batch:
            target.send(batch)


def main() -> None:
    with ExitStack() as stack:
        sessions = []
        for namespace in sys.argv[1:]:
            enter_network(int(namespace))
            adapter = stack.enter_context(tunring.Adapter.create("tun0"))
            sessions.append(stack.enter_context(adapter.start_session()))
        stop = threading.Event()
        threads = [threading.Thread(target=forward, args=(*way, stop)) for way in (sessions, sessions[::-1])]
        for thread in threads:
            thread.start()
        print("ready", flush=True)
        sys.stdin.read()
        stop.set()
        for thread in threads:
            thread.join()
        print(json.dumps([dataclasses.asdict(session.stats()) for session in sessions]))


if __name__ == "__main__":
    main()
