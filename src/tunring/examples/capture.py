"""Capture: ``python -m tunring.examples.capture tun0 pings.pcapng``, then ``ping 10.7.0.2``.

Writes what a session receives and sends to a pcapng file, which Wireshark, tshark and tcpdump read. Here that is
pings, UDP and TCP, and their echo.
"""

from __future__ import annotations

import argparse
from contextlib import suppress
from typing import TYPE_CHECKING

import tunring
from tunring.examples._program import ADDRESS, run
from tunring.pcapng import Writer
from tunring.testing.responder import Responder

if TYPE_CHECKING:
    from collections.abc import Sequence


def capture(session: tunring.Session, writer: Writer) -> None:
    """Answer until the session is over, and write both directions to the file."""
    responder = Responder()
    with session.capture(writer):
        for batch in session.batches():
            responder.answer(batch)
            session.send(batch)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program."""
    parser = argparse.ArgumentParser(description="Write an interface's packets to a file.")
    parser.add_argument("name", help="name of the interface to create")
    parser.add_argument("file", help="a new pcapng file")
    parser.add_argument("--address", action="append", help=f"address of the interface (default: {ADDRESS})")
    options = parser.parse_args(argv)
    with tunring.Adapter.create(options.name) as adapter:
        adapter.configure(options.address or [ADDRESS])
        writer = Writer(options.file, name=adapter.name)
        with adapter.start_session() as session, writer, suppress(KeyboardInterrupt):
            print("ready; Ctrl-C ends", flush=True)
            capture(session, writer)
    print(f"{writer.packets:,} packets in {options.file}")
    return 0


if __name__ == "__main__":
    run(main)
