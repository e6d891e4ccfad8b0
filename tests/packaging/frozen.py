"""The program that test_pyinstaller.py freezes: the commands of tunring, and one that needs no privileges."""

from __future__ import annotations

import sys

import tunring.testing
from tunring.__main__ import main
from tunring.testing.responder import Responder


def echo_over_cable() -> None:
    """Send a ping over a cable to a responder, and print its answer and what moved it."""
    near, far = tunring.testing.pair()
    with near, far:
        near.send([bytes.fromhex("4500001c0001000040016642 0a4d0001 0a4d0002 0800f7fd00010001")])
        with far.receive(timeout=20) as batch:
            Responder().answer(batch)
            far.send(batch)
        with near.receive(timeout=20) as batch:
            print(batch[0].hex(" ", 4), near.stats().received_packets, tunring.load("loopback").path, sep="\n")


if sys.argv[1:] == ["cable"]:
    echo_over_cable()
else:
    sys.exit(main())
