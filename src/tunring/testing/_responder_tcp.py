"""The minimum of TCP that echoes correctly: no buffer, no timer, two numbers per connection."""

from __future__ import annotations

from struct import Struct

from tunring.testing.checksum import adjusted, checksum

_PROTOCOL = 6
_FIN, _SYN, _RST, _PSH, _ACK = 0x01, 0x02, 0x04, 0x08, 0x10
_MAX_WINDOW = 0xFFFF
#: The peer hears of more room while it knows of less than this.
_LITTLE_ROOM = 0x8000
_NUMBERS = 0xFFFFFFFF

_END_OPTION, _NOP_OPTION, _SIZE_OPTION = 0, 1, 2

_PORTS = Struct("!HH")
#: Sequence number, acknowledged number, header length and flags, window, checksum, urgent pointer.
_FIELDS = Struct("!IIHHHH")


class _Connection:
    """State of a connection. The numbers are those of both directions, since an echo bears its segment's."""

    __slots__ = ("edge", "expected", "finished")

    def __init__(self, expected: int, window: int) -> None:
        self.expected = expected  # the byte that comes next
        self.edge = (expected + window) & _NUMBERS  # the end of the peer's window, and hence of ours
        self.finished = False  # the peer's FIN was answered by ours

    def room(self) -> int:
        """The window that an acknowledgement of :attr:`expected` advertises."""
        return min(max(_distance(self.expected, self.edge), 0), _MAX_WINDOW)


class TcpResponder:
    """Turns TCP segments into their answers, in place.

    Its initial sequence number is the peer's own, so the echo of a segment bears the segment's number: an answer is its
    request with ports and addresses swapped, and acknowledges it. It advertises what is left of the peer's own window,
    so that the peer sends no more than it takes back, and announces new room when the peer's window opens. A segment
    that comes out of order, or would overrun the window all the same, is dropped and answered by an acknowledgement of
    what came before: the peer sends it again.

    Answers are never repeated by themselves. One that gets lost while a later one arrives leaves the peer waiting for
    its bytes; it never gets wrong ones. Between a ring and its host nothing gets lost.

    Parameters
    ----------
    connections : int
        Connections to remember; the oldest is forgotten for a new one, and is reset when it speaks again.
    """

    def __init__(self, connections: int) -> None:
        self._max = connections
        self._connections: dict[tuple[int, ...], _Connection] = {}  # by addresses and ports

    def respond(self, packet: memoryview, at: int, end: int, addresses: tuple[int, ...]) -> int:
        """Answer the segment from ``at`` to ``end``: where the answer ends, or 0 if there is none."""
        if end - at < 20:
            return 0
        sequence, acknowledged, bits, window, _, _ = _FIELDS.unpack_from(packet, at + 4)
        data = at + (bits >> 12) * 4
        if not at + 20 <= data <= end:
            return 0
        ends = (*addresses, *_PORTS.unpack_from(packet, at))
        if bits & _RST:
            self._connections.pop(ends, None)
            return 0
        if bits & _SYN:
            return self._accept(packet, at, data, ends) if data == end and not bits & _ACK else 0
        if not bits & _ACK:
            return 0
        connection = self._connections.get(ends)
        if connection is None:
            return _header_only(packet, at, ends, (acknowledged, 0, _RST, 0))
        known = connection.room()
        edge = (acknowledged + window) & _NUMBERS
        if _distance(connection.edge, edge) > 0:  # else this one is older than another that was here
            connection.edge = edge
        size, fin = end - data, bits & _FIN
        ahead = _distance(connection.expected, sequence)
        if not size and not fin and not ahead:
            return self._hear(packet, at, ends, known)
        beyond = _distance(connection.edge, (sequence + size) & _NUMBERS)
        if (not size and not fin) or ahead > 0 or beyond > 0:
            # The peer asks whether we live, something before this is missing, or it would get more than it takes.
            return _acknowledge(packet, at, ends, connection)
        return _echo(packet, at, size, ends, connection)

    def _hear(self, packet: memoryview, at: int, ends: tuple[int, ...], known: int) -> int:
        """Take an acknowledgement, and answer it if the peer may be waiting for room: it knew of `known` bytes."""
        connection = self._connections[ends]
        acknowledged: int = _FIELDS.unpack_from(packet, at + 4)[1]
        # Our FIN has the number of the peer's, so this acknowledges either or none.
        if connection.finished and acknowledged == connection.expected:
            del self._connections[ends]
            return 0
        if known < _LITTLE_ROOM and connection.room() > known:
            return _acknowledge(packet, at, ends, connection)
        return 0

    def _accept(self, packet: memoryview, at: int, end: int, ends: tuple[int, ...]) -> int:
        if checksum(*_pseudo_header(ends, end - at), packet[at:end]) != 0xFFFF:
            return 0
        self._connections.pop(ends, None)
        if len(self._connections) >= self._max:
            del self._connections[next(iter(self._connections))]
        sequence, _, _, window, _, _ = _FIELDS.unpack_from(packet, at + 4)
        connection = self._connections[ends] = _Connection((sequence + 1) & _NUMBERS, window)
        # The other options would need what isn't here.
        _keep_size_option(packet[at + 20 : end])
        _write_header(packet, at, end, ends, (sequence, connection.expected, _SYN | _ACK, connection.room()))
        return end


def _distance(number: int, other: int) -> int:
    """How far the other sequence number is ahead; negative if it is behind."""
    return ((other - number + 0x80000000) & _NUMBERS) - 0x80000000


def _echo(packet: memoryview, at: int, size: int, ends: tuple[int, ...], connection: _Connection) -> int:
    """Send a segment of ``size`` bytes of data back."""
    sequence, acknowledged, bits, window, value, urgent = _FIELDS.unpack_from(packet, at + 4)
    fin = bits & _FIN
    following = (sequence + size + fin) & _NUMBERS
    if _distance(connection.expected, following) > 0:
        connection.expected = following
        connection.finished = bool(fin)
    room = connection.room()
    new_bits = bits & 0xF000 | _ACK | _PSH | fin
    # Adjusted and not computed anew: damage stays visible.
    value = adjusted(value, acknowledged + bits + window + urgent, connection.expected + new_bits + room)
    _PORTS.pack_into(packet, at, ends[-1], ends[-2])
    _FIELDS.pack_into(packet, at + 4, sequence, connection.expected, new_bits, room, value, 0)
    end: int = at + (bits >> 12) * 4 + size
    return end


def _acknowledge(packet: memoryview, at: int, ends: tuple[int, ...], connection: _Connection) -> int:
    return _header_only(packet, at, ends, (connection.expected, connection.expected, _ACK, connection.room()))


def _pseudo_header(ends: tuple[int, ...], size: int) -> tuple[int, ...]:
    return (*ends[:-2], _PROTOCOL, size)


def _keep_size_option(options: memoryview) -> None:
    """Leave of a SYN's options only the maximum segment size."""
    at = 0
    while at < len(options) and options[at] != _END_OPTION:
        size = 1 if options[at] == _NOP_OPTION else max(2, options[at + 1]) if at + 1 < len(options) else 1
        if options[at] != _SIZE_OPTION or size != 4 or at + 4 > len(options):
            for i in range(at, min(at + size, len(options))):
                options[i] = _NOP_OPTION
        at += size


def _write_header(
    packet: memoryview, at: int, end: int, ends: tuple[int, ...], fields: tuple[int, int, int, int]
) -> None:
    """Write a header that reaches to ``end``: sequence number, acknowledged number, flags, window."""
    sequence, acknowledged, flags, window = fields
    bits = (end - at) // 4 << 12 | flags
    _PORTS.pack_into(packet, at, ends[-1], ends[-2])
    _FIELDS.pack_into(packet, at + 4, sequence, acknowledged, bits, window, 0, 0)
    value = checksum(*_pseudo_header(ends, end - at), packet[at:end])
    _FIELDS.pack_into(packet, at + 4, sequence, acknowledged, bits, window, value, 0)


def _header_only(packet: memoryview, at: int, ends: tuple[int, ...], fields: tuple[int, int, int, int]) -> int:
    """Answer with a header alone; for the host, what stays behind it is padding."""
    _write_header(packet, at, at + 20, ends, fields)
    return at + 20
