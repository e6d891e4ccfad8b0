"""The counters of the demo's traffic."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

#: Datagrams that are under way at a time: the kernel queues a few hundred packets at an interface.
WINDOW = 64
#: Bytes of a ping's and a datagram's content.
PING_SIZE = 56
DATAGRAM_SIZE = 1000
#: Seconds after which a packet counts as lost.
TIMEOUT = 2.0


@dataclass
class Count:
    """One kind of traffic: the number sent, and the number that came back intact."""

    sent: int = 0
    returned: int = 0

    def as_dict(self) -> dict[str, int]:
        """For JSON."""
        return {"sent": self.sent, "returned": self.returned}


@dataclass
class Tally:
    """All counts of the traffic.

    Attributes
    ----------
    pings, datagrams, tcp_bytes : Count
        Packets, and bytes.
    connections : int
        TCP connections that were opened, used and closed in order.
    damaged : int
        Answers that differed from what they should be.
    round_trips : list of int
        The time of each ping, in nanoseconds.
    """

    pings: Count = field(default_factory=Count)
    datagrams: Count = field(default_factory=Count)
    tcp_bytes: Count = field(default_factory=Count)
    connections: int = 0
    damaged: int = 0
    round_trips: list[int] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """True if everything that was sent came back right."""
        counts = (self.pings, self.datagrams, self.tcp_bytes)
        return not self.damaged and all(count.sent == count.returned for count in counts) and self.pings.sent > 0

    def round_trip(self, percent: int) -> float:
        """A percentile of the pings' round trips, in microseconds."""
        times = sorted(self.round_trips)
        return times[min(len(times) - 1, len(times) * percent // 100)] / 1000 if times else 0.0


class Traffic(Protocol):
    """Something that sends and checks what comes back."""

    tally: Tally

    def round(self) -> None:
        """Send a little of everything, and wait for all of it to come back."""

    def close(self) -> None:
        """Close what it has open, in order."""
