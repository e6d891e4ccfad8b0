"""A program that forwards packets between two adapters, in two network namespaces, by batches.

    forwarder.py NAMESPACE NAMESPACE

The arguments are descriptors. It makes an adapter "tun0" in each, says "ready", and at the end of its standard input
prints each session's figures as JSON.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import threading
from contextlib import ExitStack

import tunring
from tunring.namespace_linux import enter_network


def forward(source: tunring.Session, target: tunring.Session) -> None:
    """Pass on whatever comes, until the source is closed."""
    for batch in source.batches():
        target.send(batch)


def main() -> None:
    with ExitStack() as stack:
        sessions = []
        for namespace in sys.argv[1:]:
            enter_network(int(namespace))
            adapter = stack.enter_context(tunring.Adapter.create("tun0"))
            sessions.append(stack.enter_context(adapter.start_session()))
        directions = [sessions, sessions[::-1]]
        threads = [threading.Thread(target=forward, args=direction) for direction in directions]
        for thread in threads:
            thread.start()
        print("ready", flush=True)
        sys.stdin.read()
        print(json.dumps([dataclasses.asdict(session.stats()) for session in sessions]))
        for session in sessions:
            session.close()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main()
