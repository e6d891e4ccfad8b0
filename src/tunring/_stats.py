"""The counters of a session."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stats:
    """A session's figures since it started. Each is exact, but together they are not of one instant.

    The fields are the same for every library; None stands where one can't tell, as the official DLL can't tell what
    the driver does.
    """

    #: Packets, their bytes, and batches that were received.
    received_packets: int
    received_bytes: int
    received_batches: int
    #: Packets, their bytes, and calls that sent some.
    sent_packets: int
    sent_bytes: int
    sent_batches: int
    #: Times a receive or a send went to sleep, receives that an event woke, and spins before a sleep.
    waits: int
    wakes: int
    spins: int
    #: Times a send or a reservation met a full ring.
    ring_full: int
    #: Packets given up because of it, by ``on_full="drop"``.
    dropped: int
    #: Packets of a sent Batch that are no IP packets.
    skipped: int
    #: Reserved slots that were given up.
    fillers: int
    #: Packets, and their bytes, that are received and not let go.
    pinned_packets: int
    pinned_bytes: int
    #: Reservations that are open now.
    reservations: int
    #: Bytes of each ring.
    capacity: int
    #: Packets that the library lost: towards this session for want of room, or from it because nobody listens. On Linux
    #: they are those that found the interface's queue full, which a larger ``capacity`` makes longer. What comes to a
    #: full queue waits until all before it are received: 2048 packets of 1400 bytes are 23 ms at 1 Gbit/s.
    host_dropped: int | None
    #: Packets, either way, that are no IP packets: the host drops them. Fillers are among them.
    host_filtered: int | None
    #: Packets that the kernel refused to take.
    write_errors: int | None
