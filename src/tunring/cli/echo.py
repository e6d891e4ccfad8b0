"""``tunring echo``: an interface behind which everything answers."""

from __future__ import annotations

import signal
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from tunring import SessionClosed
from tunring.cli.adapters import create_or_open, default_addresses, neighbour
from tunring.cli.arguments import JSON_HELP, address, mtu
from tunring.cli.display import Limit, SessionFlow, make_display
from tunring.cli.report import describe, describe_json, lost_packets, say, say_json
from tunring.testing.responder import Responder

if TYPE_CHECKING:
    import argparse

    from tunring import Session


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("name", metavar="NAME", help="the interface: a new one, or a persistent TUN interface")
    parser.add_argument(
        "--address",
        action="append",
        type=address,
        metavar="A",
        help="its address with a prefix length; may be repeated (default, for a new one: 10.77.0.1/24, fd77::1/64)",
    )
    parser.add_argument("--mtu", type=mtu, metavar="M", help="largest packet in bytes")
    parser.add_argument("--json", action="store_true", help=JSON_HELP)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    stream = sys.stderr if arguments.json else sys.stdout
    adapter, is_new = create_or_open(arguments.name)
    with adapter:
        addresses = arguments.address or (default_addresses() if is_new else [])
        # An interface that the administrator has set up needs no more, and its user may not be allowed more.
        if is_new or addresses or arguments.mtu:
            adapter.configure(addresses, arguments.mtu)
        with adapter.start_session() as session:
            say(describe(adapter.library), stream)
            say(f"interface {adapter.name} {'is new' if is_new else 'exists already'}", stream)
            for address in addresses:
                if suggestion := neighbour(address):
                    say(f"try: ping {suggestion}", stream)
            started = time.monotonic()
            responder = Responder()
            interrupted = _serve(session, responder, arguments.json)
            stats = session.stats()
        result = {
            **describe_json(adapter.library),
            "adapter": adapter.name,
            "created": is_new,
            "seconds": round(time.monotonic() - started, 3),
            "received": stats.received_packets,
            "sent": stats.sent_packets,
            "lost": lost_packets(stats),
            "unanswered": responder.counts["ignored"],
            "answers": {kind: responder.counts[kind] for kind in ("ping", "udp", "tcp")},
            "ended_by": "interrupt" if interrupted else "removal of the interface",
        }
    if arguments.json:
        say_json(result)
    else:
        say(
            f"{result['received']:,} packets received, {result['sent']:,} sent, {result['lost']:,} lost; "
            + ", ".join(f"{kind} {responder.counts[kind]:,}" for kind in ("ping", "udp", "tcp", "ignored"))
        )
    if not interrupted:
        say(f"tunring: the interface {arguments.name} was removed", sys.stderr)
    return 0 if interrupted else 1


def _serve(session: Session, responder: Responder, as_json: bool) -> bool:
    """Answer until Ctrl-C; False if the interface went away first."""
    flows = [SessionFlow(session, "received"), SessionFlow(session, "sent")]
    display = make_display("none" if as_json else "plain", flows, Limit(), sys.stdout)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    # SIGINT as well: a program that a shell puts in the background begins with that one ignored.
    handlers = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        say("it answers pings, UDP and TCP; Ctrl-C ends", sys.stderr if as_json else sys.stdout)
        with suppress(SessionClosed):
            while True:
                with session.receive(timeout=1.0) as batch:
                    if responder.answer(batch):
                        session.send(batch)
                display.update()
        return False
    except KeyboardInterrupt:
        return True
    finally:
        display.end()
        for number, handler in handlers.items():
            signal.signal(number, handler)
