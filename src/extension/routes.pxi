# Tables of prefixes, of which tunring.RouteTable makes a dict. Included by _core.pyx.

@cython.final
@cython.no_gc
cdef class Routes:
    """For :class:`tunring.RouteTable`: a table by (version, packed address, bits), which are valid."""
    cdef tunring_routes *table  # set once; lookups and changes of any thread are counted in it

    def __cinit__(self):
        self.table = tunring_routes_new()
        if not self.table:
            raise MemoryError()

    def __dealloc__(self):
        if self.table:
            tunring_routes_free(self.table)

    # In each of these calls the caller's reference to `self` holds the table, and no Python object is used.

    def lookup(self, Batch batch not None, bint source):
        """One number per packet, by destination or source."""
        cdef _Words words = _words(batch.size())
        cdef const tunring_slot *slots
        cdef int32_t *values = <int32_t *>words.values
        cdef uint32_t count
        words.signed = True
        if batch.enter("looked up"):
            slots = batch.lease.table()
            count = batch.lease.count()
            try:
                # The operation holds the slots, `batch` their table, and `words` the numbers.
                with nogil:
                    tunring_routes_lookup_slots(self.table, slots, count, source, values)
            finally:
                batch.leave()
        return PyMemoryView_FromObject(words)

    def lookup_address(self, unsigned int version, bytes packed not None) -> int:
        """The number of one address."""
        cdef tunring_prefix prefix
        _read_prefix((version, packed, 0), &prefix)
        with nogil:
            value = tunring_routes_lookup(self.table, version, &prefix.address[0])
        return value

    def set(self, list routes not None) -> None:
        """Add or change what a list of (version, packed address, bits, number) names."""
        routes = list(routes)  # ours, so that no other thread changes it
        cdef uint32_t done = 0, count = <uint32_t>len(routes)
        cdef Py_ssize_t i
        cdef DWORD code
        cdef tunring_route *wanted = <tunring_route *>_allocate(len(routes), sizeof(tunring_route))
        try:
            for i in range(count):
                _read_prefix(routes[i][:3], &wanted[i].prefix)
                wanted[i].value = routes[i][3]
            with nogil:  # `wanted` is this call's own
                code = tunring_routes_set(self.table, wanted, count, &done)
        finally:
            PyMem_Free(wanted)
        _check_routes(code)

    def remove(self, unsigned int version, bytes packed not None, unsigned int bits):
        """Remove a prefix; returns its number, or None if there was none."""
        cdef tunring_prefix prefix
        cdef int32_t value = 0
        cdef DWORD code
        _read_prefix((version, packed, bits), &prefix)
        with nogil:
            code = tunring_routes_remove(self.table, &prefix, &value)
        if code == ERROR_NOT_FOUND:
            return None
        _check_routes(code)
        return value

    def remove_value(self, int32_t value) -> int:
        """Remove every prefix with this number; returns the number of prefixes removed."""
        cdef uint32_t removed = 0
        cdef DWORD code
        with nogil:
            code = tunring_routes_remove_value(self.table, value, &removed)
        _check_routes(code)
        return removed

    def clear(self) -> None:
        """Remove everything."""
        cdef DWORD code
        with nogil:
            code = tunring_routes_clear(self.table)
        _check_routes(code)

    def get(self, unsigned int version, bytes packed not None, unsigned int bits):
        """The number of exactly this prefix, or None."""
        cdef tunring_prefix prefix
        cdef int32_t value = 0
        cdef DWORD code
        _read_prefix((version, packed, bits), &prefix)
        with nogil:
            code = tunring_routes_get(self.table, &prefix, &value)
        if code == ERROR_NOT_FOUND:
            return None
        _check_routes(code)
        return value

    def items(self) -> list:
        """Everything as it is at one moment, as for :meth:`set`."""
        cdef uint32_t room = 0, count, i
        cdef tunring_route *routes = NULL
        try:
            while True:
                with nogil:  # `routes` is this call's own
                    count = tunring_routes_list(self.table, routes, room)
                if count <= room:
                    break
                PyMem_Free(routes)
                routes = NULL
                routes = <tunring_route *>_allocate(count, sizeof(tunring_route))
                room = count
            return [(routes[i].prefix.version,
                     PyBytes_FromStringAndSize(<const char *>routes[i].prefix.address,
                                               4 if routes[i].prefix.version == 4 else 16),
                     routes[i].prefix.length, routes[i].value) for i in range(count)]
        finally:
            PyMem_Free(routes)

    def __len__(self):
        cdef uint32_t count
        with nogil:
            count = tunring_routes_count(self.table)
        return count

    def __reduce__(self):
        raise TypeError("Routes can't be copied or pickled: RouteTable can")


cdef int _read_prefix(tuple prefix, tunring_prefix *result) except -1:
    cdef bytes packed = prefix[1]
    cdef const unsigned char *data = packed
    cdef long long version = prefix[0], bits = prefix[2]
    cdef Py_ssize_t size = 4 if version == 4 else 16
    if version not in (4, 6) or len(packed) != size or not 0 <= bits <= 8 * size:
        raise ValueError(f"no prefix: {prefix!r}")
    memset(result, 0, sizeof(result[0]))
    result.version = <uint8_t>version
    result.length = <uint8_t>bits
    memcpy(&result.address[0], data, size)
    return 0


cdef int _check_routes(DWORD code) except -1:
    if code == ERROR_SUCCESS:
        return 0
    if code == ERROR_NOT_ENOUGH_MEMORY:
        raise MemoryError()
    if code == ERROR_HANDLE_EOF:
        raise RuntimeError("the process was forked while this table changed: it can only be looked up in the child")
    raise ValueError("a prefix has bits set behind its length, or a number is negative")
