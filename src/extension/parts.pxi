# Parts of batches: which packets, by which keys, from where. No object per packet. Included by _core.pyx.

@cython.final
@cython.no_gc
cdef class _Integers:
    """64-bit integers from a buffer of integers or bools, or a sequence of them."""
    cdef int64_t *values    # `count` of them, ours
    cdef Py_ssize_t count
    cdef bint mask          # they were bools, and nothing else
    cdef bint unsigned      # they were unsigned and of 64 bits, so that a negative value stands for a large one

    def __cinit__(self, items, str what):
        if isinstance(items, str):
            raise TypeError(f"{what} must be integers, not {items!r}")
        if PyObject_CheckBuffer(items):
            if not self.copy(items):
                self.convert(_listed(items, what), what)
        else:
            self.convert(list(items), what)

    def __dealloc__(self):
        PyMem_Free(self.values)

    cdef int make_room(self, Py_ssize_t count) except -1:
        self.values = <int64_t *>_allocate(count, sizeof(int64_t))
        self.count = count
        return 0

    cdef bint copy(self, items) except -1:
        """From a buffer of machine integers; false if it has something else."""
        cdef Py_buffer buffer
        cdef Py_ssize_t i
        cdef bint signed
        if not _get_integers(items, &buffer, True):
            return False
        try:
            self.make_room(buffer.shape[0])
            signed = _is_signed(&buffer)
            self.mask = buffer.format and buffer.format[0] == b"?"
            self.unsigned = buffer.itemsize == 8 and not signed
            for i in range(self.count):
                self.values[i] = _machine_integer(&buffer, i, signed)
            return True
        finally:
            PyBuffer_Release(&buffer)

    cdef int convert(self, list items, str what) except -1:
        cdef Py_ssize_t i
        self.make_room(len(items))
        self.mask = self.count > 0
        for i in range(self.count):
            item = items[i]
            self.mask = self.mask and (item is True or item is False)
            try:
                self.values[i] = operator.index(item)
            except TypeError:
                raise TypeError(f"{what}[{i}] must be an integer, not {item!r}") from None
            except OverflowError:
                raise ValueError(f"{what}[{i}] must fit 64 bits, not {item!r}") from None
        return 0


cdef list _listed(items, str what):
    """The items of any buffer of one dimension."""
    view = memoryview(items)
    if view.ndim != 1:
        raise ValueError(f"{what} must have one dimension, not {view.ndim}")
    try:
        return view.tolist()
    except NotImplementedError:
        return list(items)  # a format that only its owner reads, say of the other byte order


# -- Making parts

cdef Batch _begin_part(Batch batch, Py_ssize_t count):
    """A part without packets yet, which has room for that many."""
    cdef Batch part = Batch.__new__(Batch)
    cdef Lease lease = Lease.__new__(Lease)
    batch.check("taken apart")
    if count:
        lease.part = tunring_part_new(<uint32_t>count, batch.lease.part.level if batch.lease.part else 0)
        if not lease.part:
            raise MemoryError()
        lease.whole = batch.lease if batch.lease.whole is None else batch.lease.whole
        lease.slots = batch.lease.slots
    part.lease = lease
    part.whole = batch if batch.whole is None else batch.whole
    part.from_socket = batch.from_socket
    flag_set(&part.live)
    return part


cdef inline void _append(Batch part, Batch batch, Py_ssize_t index) noexcept:
    tunring_part_append(part.lease.part, &batch.lease.table()[index], batch.lease.root(index))


cdef Batch _slice_of(Batch batch, object wanted):
    cdef Py_ssize_t start, stop, step, i, count
    start, stop, step = wanted.indices(batch.size())
    count = len(range(start, stop, step))
    cdef Batch part = _begin_part(batch, count)
    for i in range(count):
        _append(part, batch, start + i * step)
    return part


cdef Batch _selection_of(Batch batch, object packets):
    cdef _Integers wanted = _Integers(packets, "packets")
    cdef Py_ssize_t i, size = batch.size(), count = wanted.count
    cdef int64_t index
    batch.check("taken apart")
    if wanted.mask:
        if wanted.count != size:
            raise ValueError(f"a mask must have one item per packet, {size}, not {wanted.count}")
        count = 0
        for i in range(size):
            if wanted.values[i]:
                wanted.values[count] = i
                count += 1
    for i in range(count):
        index = wanted.values[i]
        if index < 0 and wanted.unsigned:
            raise ValueError(f"packets[{i}] must fit 63 bits, not {<uint64_t>index}")
        if index < 0:
            index += size
        if not 0 <= index < size:
            raise IndexError(f"packets[{i}] is packet {wanted.values[i]} of a batch of {size}")
        wanted.values[i] = index
    if count > TUNRING_MAX_BATCH:
        raise ValueError(f"a part has at most {TUNRING_MAX_BATCH} packets, not {count}")
    cdef Batch part = _begin_part(batch, count)
    for i in range(count):
        _append(part, batch, wanted.values[i])
    return part


# -- Groups

cdef list _parts_by_group(Batch batch, const uint32_t *groups, uint32_t count, list keys):
    """Pairs of a key and its part, of `count` groups."""
    cdef uint32_t *sizes
    cdef Py_ssize_t i, size = batch.size()
    cdef list parts = []
    sizes = <uint32_t *>PyMem_Calloc(<size_t>count + 1, sizeof(uint32_t))
    if not sizes:
        raise MemoryError()
    try:
        for i in range(size):
            sizes[groups[i]] += 1
        parts = [_begin_part(batch, sizes[i]) for i in range(count)]
    finally:
        PyMem_Free(sizes)
    for i in range(size):
        _append(<Batch>parts[groups[i]], batch, i)
    return list(zip(keys, parts))


cdef _Words _group_objects(list keys, list distinct):
    """Group numbers by hashable keys, which are added to ``distinct`` as they appear."""
    cdef _Words words = _words(len(keys))
    cdef dict known = {}
    cdef Py_ssize_t i
    for i in range(words.count):
        number = known.setdefault(keys[i], len(known))
        if number == len(distinct):
            distinct.append(keys[i])
        words.values[i] = number
    return words


cdef list _split_by_rows(Batch batch, view):
    """By a view of two dimensions, whose rows are the keys."""
    cdef Py_ssize_t i, size = batch.size()
    cdef Py_ssize_t width = view.shape[1]
    cdef _Words groups = _words(size)
    cdef list distinct = []
    cdef bytes rows
    cdef uint32_t count
    if view.itemsize != 1:
        raise ValueError(f"keys of two dimensions must be bytes, not of format {view.format!r}")
    if view.shape[0] != size:
        raise ValueError(f"keys must have one row per packet, {size}, not {view.shape[0]}")
    if not size:
        return []
    rows = view.tobytes()
    count = tunring_group_rows(<const BYTE *><const char *>rows, width, <uint32_t>size, groups.values)
    if not count:
        raise MemoryError()
    for i in range(size):
        if groups.values[i] == len(distinct):
            distinct.append(rows[i * width:(i + 1) * width])
    return _parts_by_group(batch, groups.values, count, distinct)


cdef list _split_by_integers(Batch batch, object keys):
    cdef _Integers numbers = _Integers(keys, "keys")
    cdef Py_ssize_t i, size = batch.size()
    cdef _Words groups = _words(size)
    cdef list distinct = []
    cdef uint32_t count
    if numbers.count != size:
        raise ValueError(f"keys must have one item per packet, {size}, not {numbers.count}")
    if not size:
        return []
    count = tunring_group(numbers.values, <uint32_t>size, groups.values)
    if not count:
        raise MemoryError()
    for i in range(size):
        if groups.values[i] == len(distinct):
            distinct.append(<uint64_t>numbers.values[i] if numbers.unsigned else numbers.values[i])
    return _parts_by_group(batch, groups.values, count, distinct)


cdef list _split(Batch batch, object keys):
    cdef _Words groups
    cdef list listed, distinct = []
    cdef Py_ssize_t size = batch.size()
    batch.check("taken apart")
    if PyObject_CheckBuffer(keys):
        view = memoryview(keys)
        return _split_by_rows(batch, view) if view.ndim == 2 else _split_by_integers(batch, keys)
    listed = list(keys)
    if len(listed) != size:
        raise ValueError(f"keys must have one item per packet, {size}, not {len(listed)}")
    groups = _group_objects(listed, distinct)
    return _parts_by_group(batch, groups.values, <uint32_t>len(distinct), distinct)


# -- Bytes

@cython.final
@cython.no_gc
cdef class _Bytes:
    """The exporter of a memoryview of rows of bytes: memory of its own, which never changes once it is exported."""
    cdef BYTE *data             # ours; NULL until _bytes() has made it
    cdef Py_ssize_t shape[2]
    cdef Py_ssize_t strides[2]
    cdef int dimensions         # 1 or 2

    def __dealloc__(self):
        PyMem_Free(self.data)

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        if not self.data:
            raise TypeError("Batch.headers() makes these")
        PyBuffer_FillInfo(buffer, self, self.data, self.shape[0] * self.shape[1], 1, flags)
        buffer.ndim = self.dimensions
        if flags & PyBUF_ND == PyBUF_ND:
            buffer.shape = &self.shape[0]
        if flags & PyBUF_STRIDES == PyBUF_STRIDES:
            buffer.strides = &self.strides[0]


cdef _Bytes _bytes(Py_ssize_t rows, Py_ssize_t columns, int dimensions):
    """Room for rows of bytes, which the caller fills before anybody else has it."""
    cdef _Bytes result = _Bytes.__new__(_Bytes)
    result.data = <BYTE *>_allocate(rows, columns)
    result.shape[0], result.shape[1] = rows, columns
    result.strides[0], result.strides[1] = columns, 1
    result.dimensions = dimensions
    return result


cdef object _headers(Batch batch, size):
    cdef _Bytes rows
    cdef const tunring_slot *slots
    cdef uint32_t count, width = _integer(size, "size", 1, WINTUN_MAX_IP_PACKET_SIZE)
    rows = _bytes(batch.size(), width, 2)
    if batch.enter("read"):
        slots = batch.lease.table()
        count = batch.lease.count()
        try:
            # The operation holds the slots, `batch` their table, and `rows` the memory.
            with nogil:
                tunring_slots_headers(slots, count, width, rows.data)
        finally:
            batch.leave()
    return PyMemoryView_FromObject(rows)


# -- Origins

cdef tunring_origins *_origins(Batch batch) except? NULL:
    """Where the packets came from. NULL for an empty batch of a socket."""
    cdef tunring_lease *lease
    batch.get(&lease)
    if not lease and batch.from_socket:
        return NULL
    if lease and lease.origins:
        return lease.origins
    raise AttributeError("packets of a session have no sources: only datagrams of a UdpSocket have them")


cdef _Words _origin_numbers(Batch batch):
    cdef _Words words = _words(batch.size())
    if words.count:
        tunring_slots_origins(batch.lease.slots, batch.lease.part, words.values)
    return words


cdef bint _has_one_value(_Words words) noexcept:
    """True if there are words, and all are equal."""
    cdef Py_ssize_t i = 1
    if not words.count:
        return False
    while i < words.count and words.values[i] == words.values[0]:
        i += 1
    return i == words.count


cdef tuple _sources(Batch batch):
    """The distinct endpoints, and each packet's index among them."""
    cdef tunring_origins *origins = _origins(batch)
    cdef _Words words = _origin_numbers(batch)
    if _has_one_value(words):
        source = _endpoint_from(&origins.list[words.values[0]].from_)
        memset(words.values, 0, words.count * sizeof(uint32_t))
        return [source], PyMemoryView_FromObject(words)
    cdef dict known = {}, numbers = {}
    cdef Py_ssize_t i
    cdef uint32_t last_origin = 0, last_source = 0
    cdef bint first = True
    for i in range(words.count):
        if first or words.values[i] != last_origin:
            last_origin = words.values[i]
            first = False
            source = numbers.get(last_origin)
            if source is None:
                source = known.setdefault(_endpoint_from(&origins.list[last_origin].from_), len(known))
                numbers[last_origin] = source
            last_source = source
        words.values[i] = last_source
    return known, PyMemoryView_FromObject(words)


cdef object _ecn(Batch batch):
    cdef tunring_origins *origins = _origins(batch)
    cdef _Words words = _origin_numbers(batch)
    cdef _Bytes result = _bytes(words.count, 1, 1)
    cdef Py_ssize_t i
    for i in range(words.count):
        result.data[i] = origins.list[words.values[i]].ecn
    return PyMemoryView_FromObject(result)


cdef list _runs(Batch batch):
    cdef tunring_origins *origins = _origins(batch)
    cdef _Words words = _origin_numbers(batch)
    cdef Py_ssize_t i, first = 0
    cdef const tunring_endpoint *endpoint
    cdef list runs = []
    for i in range(1, words.count + 1):
        endpoint = &origins.list[words.values[first]].from_
        if i < words.count and tunring_endpoint_same(endpoint, &origins.list[words.values[i]].from_):
            continue
        runs.append((_endpoint_from(endpoint), _slice_of(batch, slice(first, i))))
        first = i
    return runs
