# Completing and changing packets in place, for tunring.packets. Included by _core.pyx.

cdef _Packets _packets_to_change(packets, str verb):
    """A batch's packets, or those of an iterable of writable buffers."""
    if isinstance(packets, Batch):
        return _held_batch(packets, "changed", False)
    if isinstance(packets, (str, bytes, bytearray, memoryview)):
        raise TypeError(f"{verb} takes a Batch or an iterable of packets, not one {type(packets).__name__}; "
                        f"for a single packet: {verb}([packet])")
    cdef tuple items = tuple(packets)
    cdef _Packets result = _Packets()
    cdef Py_ssize_t i, count = len(items)
    cdef Py_buffer *buffer
    result.make_room(count)
    result.buffers = <Py_buffer *>_allocate(count, sizeof(Py_buffer))
    for i in range(count):
        buffer = &result.buffers[i]
        try:
            PyObject_GetBuffer(items[i], buffer, PyBUF_WRITABLE)
        except TypeError as error:
            raise TypeError(f"packet {i}: {error}") from None
        except (BufferError, ValueError) as error:
            raise ValueError(f"packet {i} must be one contiguous, writable, live buffer: {error}") from None
        result.held += 1
        if buffer.len > WINTUN_MAX_IP_PACKET_SIZE:
            raise ValueError(f"packet {i} has {buffer.len} bytes; at most {WINTUN_MAX_IP_PACKET_SIZE} are allowed")
        result.packets[i].data = <const BYTE *>buffer.buf
        result.packets[i].length = <uint32_t>buffer.len
    result.count = <uint32_t>count
    return result


def fill_checksums(packets) -> int:
    """For :func:`tunring.packets.fill_checksums`."""
    cdef _Packets held = _packets_to_change(packets, "fill_checksums")
    cdef uint32_t done
    with nogil:  # `held` holds the packets' memory
        done = tunring_packets_fill_checksums(held.packets, held.count)
    return done


def clamp_mss(packets, unsigned int ip4_mss, unsigned int ip6_mss) -> int:
    """For :func:`tunring.packets.clamp_mss`."""
    cdef _Packets held = _packets_to_change(packets, "clamp_mss")
    cdef uint32_t done
    with nogil:  # `held` holds the packets' memory
        done = tunring_packets_clamp_mss(held.packets, held.count, ip4_mss, ip6_mss)
    return done
