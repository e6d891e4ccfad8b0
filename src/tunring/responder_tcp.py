"""The least TCP that echoes correctly: no buffer, no timer, one number a connection."""

from __future__ import annotations

from struct import Struct

from tunring.checksum import adjusted, checksum

_PROTOCOL = 6
_FIN, _SYN, _RST, _PSH, _ACK = 0x01, 0x02, 0x04, 0x08, 0x10
_WINDOW = 0xFFFF
_NUMBERS = 0xFFFFFFFF

_END_OPTION, _NOP_OPTION, _SIZE_OPTION = 0, 1, 2

_PORTS = Struct("!HH")
#: Sequence number, acknowledged number, header length and flags, window, checksum, urgent pointer.
_FIELDS = Struct("!IIHHHH")


class TcpResponder:
    """Turns TCP segments into their answers, in place.

    Its initial sequence number is the peer's own, so the echo of a segment bears the segment's number: an answer is its
    request with ports and addresses swapped, and acknowledges it. What comes out of order, or would overrun the peer's
    window, is not acknowledged: the peer sends it again.

    Answers are never repeated by themselves. One that gets lost while a later one arrives leaves the peer waiting for
    its bytes; it never gets wrong ones. Between a ring and its host nothing gets lost.

    Parameters
    ----------
    connections : int
        Connections to remember; the oldest is forgotten for a new one, and is reset when it speaks again.
    """

    def __init__(self, connections: int) -> None:
        self._most = connections
        # Addresses and ports -> the number of the byte that is expected next.
        self._expected: dict[tuple[int, ...], int] = {}
        self._finished: set[tuple[int, ...]] = set()

    def respond(self, packet: memoryview, at: int, end: int, addresses: tuple[int, ...]) -> int:
        """Answer the segment from ``at`` to ``end``: where the answer ends, or 0 if there is none."""
        if end - at < 20:
            return 0
        sequence, acknowledged, bits, _, _, _ = _FIELDS.unpack_from(packet, at + 4)
        data = at + (bits >> 12) * 4
        if not at + 20 <= data <= end:
            return 0
        connection = (*addresses, *_PORTS.unpack_from(packet, at))
        if bits & _RST:
            self._forget(connection)
            return 0
        if bits & _SYN:
            return self._accept(packet, at, data, connection, sequence) if data == end and not bits & _ACK else 0
        if not bits & _ACK:
            return 0
        if connection not in self._expected:
            return _header_only(packet, at, connection, (acknowledged, 0, _RST))
        return self._echo(packet, at, end - data, connection)

    def _echo(self, packet: memoryview, at: int, size: int, connection: tuple[int, ...]) -> int:
        """Answer a segment of ``size`` bytes of data."""
        sequence, acknowledged, bits, window, value, urgent = _FIELDS.unpack_from(packet, at + 4)
        end: int = at + (bits >> 12) * 4 + size
        expected = self._expected[connection]
        ahead = (sequence - expected) & _NUMBERS
        fin = bits & _FIN
        if not size and not fin and not ahead:
            # Our FIN has the number of the peer's, so this acknowledges either or none.
            if acknowledged == expected and connection in self._finished:
                self._forget(connection)
            return 0
        if (not size and not fin) or 0 < ahead < 0x80000000:
            # The peer asks whether we live, or something before this is missing.
            return _header_only(packet, at, connection, (expected, expected, _ACK))
        if (sequence + size - acknowledged) & _NUMBERS > window:
            return 0
        following = (sequence + size + fin) & _NUMBERS
        if 0 < (following - expected) & _NUMBERS < 0x80000000:
            self._expected[connection] = expected = following
            if fin:
                self._finished.add(connection)
        new_bits = bits & 0xF000 | _ACK | _PSH | fin
        # Adjusted and not computed anew: damage stays visible.
        value = adjusted(value, acknowledged + bits + window + urgent, expected + new_bits + _WINDOW)
        _PORTS.pack_into(packet, at, connection[-1], connection[-2])
        _FIELDS.pack_into(packet, at + 4, sequence, expected, new_bits, _WINDOW, value, 0)
        return end

    def _accept(self, packet: memoryview, at: int, end: int, connection: tuple[int, ...], sequence: int) -> int:
        if checksum(*_pseudo_header(connection, end - at), packet[at:end]) != 0xFFFF:
            return 0
        self._forget(connection)
        if len(self._expected) >= self._most:
            self._forget(next(iter(self._expected)))
        expected = (sequence + 1) & _NUMBERS
        self._expected[connection] = expected
        # The other options would need what isn't here.
        _keep_size_option(packet[at + 20 : end])
        _write_header(packet, at, end, connection, (sequence, expected, _SYN | _ACK))
        return end

    def _forget(self, connection: tuple[int, ...]) -> None:
        self._expected.pop(connection, None)
        self._finished.discard(connection)


def _pseudo_header(connection: tuple[int, ...], size: int) -> tuple[int, ...]:
    return (*connection[:-2], _PROTOCOL, size)


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
    packet: memoryview, at: int, end: int, connection: tuple[int, ...], fields: tuple[int, int, int]
) -> None:
    """Write a header that reaches to ``end``: sequence number, acknowledged number, flags."""
    sequence, acknowledged, flags = fields
    bits = (end - at) // 4 << 12 | flags
    _PORTS.pack_into(packet, at, connection[-1], connection[-2])
    _FIELDS.pack_into(packet, at + 4, sequence, acknowledged, bits, _WINDOW, 0, 0)
    value = checksum(*_pseudo_header(connection, end - at), packet[at:end])
    _FIELDS.pack_into(packet, at + 4, sequence, acknowledged, bits, _WINDOW, value, 0)


def _header_only(packet: memoryview, at: int, connection: tuple[int, ...], fields: tuple[int, int, int]) -> int:
    """Answer with a header alone; for the host, what stays behind it is padding."""
    _write_header(packet, at, at + 20, connection, fields)
    return at + 20
