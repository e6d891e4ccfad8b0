"""The counters of a session."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stats:
    """A session's figures since its start. Each is exact, but they are not all read at the same instant.

    The fields are the same for every library. A figure that the library doesn't know is None: the official DLL doesn't
    know what the driver does.

    Attributes
    ----------
    received_packets, received_bytes, received_batches : int
        Packets, their bytes, and batches that were received.
    sent_packets, sent_bytes, sent_batches : int
        Packets, their bytes, and calls that sent some.
    waits, wakes, spins : int
        Times a receive or a send went to sleep, receives that an event woke, and spins before a sleep.
    ring_full : int
        Times a send or a reservation met a full ring.
    dropped : int
        Packets given up because of a full ring, by ``on_full="drop"``.
    skipped : int
        Packets of a sent Batch that are not IP packets.
    fillers : int
        Reserved slots that were given up.
    pinned_packets, pinned_bytes : int
        Packets, and their bytes, that are received and not released yet.
    reservations : int
        Reservations that are open now.
    capacity : int
        Bytes of each ring.
    host_dropped : int or None
        Packets that the library lost: on the way to this session because of a full queue, or from it because nobody
        listens. On Linux it is the interface's queue, which a larger ``capacity`` makes longer. A packet in a full
        queue waits until all before it are received: 2048 packets of 1400 bytes take 23 ms at 1 Gbit/s.
    host_filtered : int or None
        Packets, either way, that are not IP packets: the host drops them. Fillers are among them.
    write_errors : int or None
        Packets that the kernel refused to take.
    """

    received_packets: int
    received_bytes: int
    received_batches: int
    sent_packets: int
    sent_bytes: int
    sent_batches: int
    waits: int
    wakes: int
    spins: int
    ring_full: int
    dropped: int
    skipped: int
    fillers: int
    pinned_packets: int
    pinned_bytes: int
    reservations: int
    capacity: int
    host_dropped: int | None
    host_filtered: int | None
    write_errors: int | None
