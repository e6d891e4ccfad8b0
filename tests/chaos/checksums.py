"""Operations on checksums: those that a session or :mod:`tunring.packets` fills in, and those that it adjusts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine import Skip, operation
from ledger import Wrong, identify
from traffic import how_full, offer, receive

import tunring
import tunring.packets

if TYPE_CHECKING:
    from collections.abc import Iterable

    from world import Actor

#: Where the checksums of an IPv4 header, of UDP and of TCP are, without IP options.
IP4, UDP, TCP = slice(10, 12), slice(26, 28), slice(36, 38)

#: An IPv4 header, and a TCP SYN that announces a segment size, both without checksums.
_SYN = bytes.fromhex("4500002c00010000400600000a0000010a000002 00010002000000000000000060020000000000000204")


def blank(packets: Iterable[bytes]) -> list[bytearray]:
    """UDP packets with nonsense for checksums."""
    made = [bytearray(packet) for packet in packets]
    for packet in made:
        packet[IP4] = packet[UDP] = b"\x5a\xa5"
    return made


@operation(tunring.SessionClosed, tunring.RingFull, weight=15)
def send_packets_to_be_completed(actor: Actor) -> None:
    """The far side gets checksums that the near side's packets lack."""
    with actor.world.use(actor) as end, offer(actor, end) as offered:
        packets = blank(offered.packets)
        if actor.chance(0.5):
            sent = end.session.send(packets, checksums="fill", **how_full(actor))
        else:
            sent = end.session.send_packed(b"".join(packets), offered.sizes, checksums="fill", **how_full(actor))
        offered.accept(sent)
        if packets != blank(offered.packets):
            raise Wrong("the sender's own packets were completed")


@operation(tunring.SessionClosed, tunring.RingFull, weight=10)
def complete_reserved_packets(actor: Actor) -> None:
    with actor.world.use(actor) as end, offer(actor, end, 16) as offered:
        with end.session.reserve(offered.sizes) as slots:
            for slot, packet in zip(slots, blank(offered.packets), strict=True):
                slot[:] = packet
            # Another thread may close a wild session between the two, which ends the views.
            if tunring.packets.fill_checksums(list(slots) if actor.chance(0.7) else slots) != len(slots):
                raise Wrong("a packet was not completed")
        offered.accept(len(offered.packets))


@operation(tunring.SessionClosed, weight=10)
def complete_received_packets(actor: Actor) -> None:
    with actor.world.use(actor) as end, receive(actor, end, timeout=0.05) as batch:
        packets = batch.tobytes()
        ours = [i for i, packet in enumerate(packets) if identify(packet)]
        if not ours:
            raise Skip("nothing of ours")
        if tunring.packets.clamp_mss(batch, mtu=1280) or batch.tobytes() != packets:
            raise Wrong("packets that are not of TCP have changed")
        part = batch.select(ours)
        for view in part:
            view[IP4] = view[UDP] = b"\x5a\xa5"
        if tunring.packets.fill_checksums(part if actor.chance(0.5) else list(part)) != len(ours):
            raise Wrong("a packet was not completed")
        if part.tobytes() != [packets[i] for i in ours]:
            raise Wrong("a checksum is another")


@operation(weight=4)
def lower_segment_sizes(actor: Actor) -> None:
    """What is adjusted is the same as what is computed anew."""
    sizes = [actor.random.randint(1, 65535) for _ in range(actor.random.choice([1, 7, 300]))]
    most = actor.random.randint(48, 9000)
    packets = [bytearray(_SYN + size.to_bytes(2, "big")) for size in sizes]
    tunring.packets.fill_checksums(packets)
    limit = {"mss": most} if actor.chance(0.5) else {"mtu": max(most, 88) + 40}
    most = limit.get("mss", max(most, 88))
    if tunring.packets.clamp_mss(packets, **limit) != sum(size > most for size in sizes):
        raise Wrong("another number of segment sizes was lowered")
    adjusted = [bytes(packet) for packet in packets]
    for packet in packets:
        packet[IP4] = packet[TCP] = bytes(2)
    tunring.packets.fill_checksums(packets)
    announced = [int.from_bytes(packet[-2:]) for packet in packets]
    if adjusted != packets or announced != [min(size, most) for size in sizes]:
        raise Wrong("a lowered segment size, or its checksum, is another")
