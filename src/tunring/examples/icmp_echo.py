"""Answer pings: ``python -m tunring.examples.icmp_echo tun0``, then ``ping 10.7.0.2``.

Every address behind the interface answers. The packets are memoryviews into the ring, so that an answer is written over
its request and sent from where it is.
"""

from __future__ import annotations

import argparse
from contextlib import suppress
from ipaddress import ip_interface
from typing import TYPE_CHECKING

import tunring
from tunring.cli.adapters import neighbour
from tunring.examples._program import ADDRESS, run

if TYPE_CHECKING:
    from collections.abc import Sequence

ICMP = 1
ECHO_REQUEST, ECHO_REPLY = 8, 0


def answer(packet: memoryview) -> bool:
    """Turn a ping into its answer; False, and nothing is changed, if the packet is none."""
    at = (packet[0] & 15) * 4  # where ICMP begins, after IPv4's header
    if packet[0] >> 4 != 4 or packet[9] != ICMP or not 20 <= at <= len(packet) - 8:
        return False
    is_later_fragment = packet[6] & 0x1F or packet[7]
    if is_later_fragment or packet[at] != ECHO_REQUEST:
        return False
    packet[12:16], packet[16:20] = bytes(packet[16:20]), bytes(packet[12:16])
    packet[at] = ECHO_REPLY
    # The sum of all words is to stay the same, in ones' complement: the word with the type has lost 0x0800.
    checksum = int.from_bytes(packet[at + 2 : at + 4], "big") + (ECHO_REQUEST << 8)
    packet[at + 2 : at + 4] = ((checksum & 0xFFFF) + (checksum >> 16)).to_bytes(2, "big")
    return True


def serve(session: tunring.Session) -> int:
    """Answer until the session is over, and return the number of pings."""
    answered = 0
    for batch in session.batches():
        answers = [packet for packet in batch if answer(packet)]
        answered += session.send(answers)
    return answered


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program."""
    parser = argparse.ArgumentParser(description="Answer pings.")
    parser.add_argument(
        "name", nargs="?", default="tun0", help="name of the interface to create (default: %(default)s)"
    )
    parser.add_argument("--address", action="append", help=f"address of the interface (default: {ADDRESS})")
    options = parser.parse_args(argv)
    addresses = options.address or [ADDRESS]
    with tunring.Adapter.create(options.name) as adapter:
        adapter.configure(addresses)
        with adapter.start_session() as session:
            print(f"ready: ping {neighbour(ip_interface(addresses[0]))}; Ctrl-C ends", flush=True)
            with suppress(KeyboardInterrupt):
                serve(session)
            stats = session.stats()
    print(f"{stats.sent_packets:,} pings answered; {stats.received_packets:,} packets received")
    return 0


if __name__ == "__main__":
    run(main)
