# Packets in a ring: the lease that exports them, and the memoryviews of them. Included by _core.pyx.

cdef BYTE _nothing  # the memory of memoryviews that rest


@cython.final
@cython.no_gc
@cython.freelist(16)
cdef class Lease:
    """The exporter of memoryviews: slots of a batch, or of a part of one, each held until its last view is gone."""
    cdef tunring_lease *slots  # set before anybody has a view; NULL if nothing was received; a part's are whole's
    cdef tunring_part *part    # ours, set once; NULL for a whole batch
    cdef Lease whole           # keeps `slots` for a part; None for a whole batch, which frees them

    def __dealloc__(self):
        if self.part:
            free(self.part)
        elif self.slots:
            tunring_lease_free(self.slots)

    # Only for one with slots.

    cdef inline const tunring_slot *table(self) noexcept:
        return &self.part.slots[0] if self.part else &self.slots.slots[0]

    cdef inline uint32_t count(self) noexcept:
        return self.part.count if self.part else self.slots.count

    cdef inline uint64_t nbytes(self) noexcept:
        return self.part.bytes if self.part else self.slots.bytes

    cdef inline uint32_t root(self, Py_ssize_t index) noexcept:
        """The slot's number in the whole batch."""
        return self.part.slots[index].root if self.part else <uint32_t>index

    cdef inline int hold(self, uint32_t root) except -1:
        if not tunring_lease_hold(self.slots, root, self.part.level if self.part else 0):
            raise ValueError("the packet was released, or opened through another batch")
        return 0

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        if exporting.exporter != <void *>self:
            if not self.slots:
                raise TypeError("Session.receive() and Session.reserve() make leases")
            raise BufferError("take a view of one packet instead: batch[i]")
        cdef Py_ssize_t index = exporting.index
        self.hold(self.root(index))
        cdef const tunring_slot *slot = &self.table()[index]
        PyBuffer_FillInfo(buffer, self, slot.data, slot.length, 0, flags)
        buffer.internal = <void *><size_t>self.root(index)

    def __releasebuffer__(self, Py_buffer *buffer):
        if WITHOUT_GIL and ending.active:
            ending.slots = self.slots
            ending.root = <size_t>buffer.internal
        elif <size_t>buffer.internal != RESTING:
            tunring_lease_unhold(self.slots, <uint32_t><size_t>buffer.internal)

    cdef object view(self, Py_ssize_t index):
        """A new memoryview of one slot."""
        # Making it may collect garbage, and a finalizer take a view of another slot. Each thread has an `exporting`.
        cdef exported_slot outer = exporting
        exporting.exporter = <void *>self
        exporting.index = index
        try:
            return PyMemoryView_FromObject(self)
        finally:
            exporting.exporter = outer.exporter
            exporting.index = outer.index

    cdef int turn(self, PyObject *view, Py_ssize_t index) except -1:
        """Turn a view of ours that nobody uses to another slot. This runs no Python code."""
        cdef uint32_t root = self.root(index)
        cdef const tunring_slot *slot = &self.table()[index]
        cdef size_t before
        self.hold(root)
        before = view_turn(view, slot.data, slot.length, root)
        if before != RESTING:
            tunring_lease_unhold(self.slots, <uint32_t>before)
        return 0


@cython.final
@cython.no_gc
@cython.freelist(16)
cdef class _Views:
    """The lease of a batch or a reservation, and the memoryviews that were handed out, so that they can be ended.

    The references are strong: a weak one costs more than the view. A loop over a batch turns two views from packet to
    packet, which stay in the cache, and the next batch goes on with both: one that nobody else has any more, and
    nothing was made from, is used again. Until then it rests, and a variable that still has it has a released view.
    Any other is dropped or ended.

    All of this asks how many references there are. Where there is no GIL, the answer may be wrong before it is used: so
    each view is a new one there, the references are weak, and one that another thread has is not ended, as that may be
    reading it right now. It holds its slot until it is gone.
    """
    cdef Lease lease       # of the whole batch; set once, by whoever makes or takes this
    cdef object newest     # the last one: a loop's variable still has it when the next is asked for
    cdef object older      # the one before, which the loop has usually let go by then
    cdef list views        # those before them that somebody had then; None for none
    cdef Py_ssize_t limit  # length at which all those that nobody else has are dropped

    cdef object take(self, Lease lease, Py_ssize_t index):
        """A memoryview of one slot of the lease, or of that of a part."""
        if WITHOUT_GIL:
            return self.watch(lease.view(index))
        if (self.older is None or Py_REFCNT(<PyObject *>self.older) != 1
                or not view_unused(<PyObject *>self.older, <PyObject *>lease)):
            return self.add(lease.view(index))
        lease.turn(<PyObject *>self.older, index)
        view = self.older
        self.older = self.newest
        self.newest = view
        return view

    cdef object add(self, object view):
        cdef object older = self.older
        if older is not None and not _only_ours(older, 2) and not view_rests(<PyObject *>older):
            self.keep(older)
        self.older = self.newest
        self.newest = view
        return view

    cdef int keep(self, object view) except -1:
        cdef list views
        if self.views is None:
            views = []
            if self.views is None:  # by another thread, or a finalizer
                self.views = views
                self.limit = 64
        views = self.views
        views.append(view)
        if len(views) >= self.limit:
            self.views = [view for view in views if not _only_ours(view, 2)]
            self.limit = 2 * len(self.views) + 64
        return 0

    cdef bint rest(self, PyObject *view) noexcept:
        """End a view so that it can be used again, unless something derives from it. This runs no Python code."""
        if view_rests(view):
            return True
        if not view_unused(view, <PyObject *>self.lease):
            return False
        tunring_lease_unhold(self.lease.slots, <uint32_t>view_turn(view, &_nothing, 0, RESTING))
        return True

    cdef bint rests_or_is_ours(self, PyObject *view) noexcept:
        """The same for an owner who dies without having ended the views: those that somebody has live on."""
        return view_rests(view) or Py_REFCNT(view) == 1 and self.rest(view)

    cdef int end(self) except -1:
        """End every view. One that something derives from can't be: it holds its slot until that is gone."""
        if WITHOUT_GIL:
            return self.end_watched()
        if (self.views is None and (self.newest is None or self.rest(<PyObject *>self.newest))
                and (self.older is None or self.rest(<PyObject *>self.older))):
            return 0
        cdef list views = self.views
        newest = older = None
        if self.newest is not None and not self.rest(<PyObject *>self.newest):
            newest = self.newest
            self.newest = None
        if self.older is not None and not self.rest(<PyObject *>self.older):
            older = self.older
            self.older = None
        self.views = None
        # Until here nothing could run a finalizer, which might take another view.
        if newest is not None and not _only_ours(newest, 1):
            _end_view(newest)
        if older is not None and not _only_ours(older, 1):
            _end_view(older)
        if views is not None:
            for view in views:
                if not _only_ours(view, 2):
                    _end_view(view)
        return 0

    # -- Without a GIL. There `views` has weak references, and neither `newest` nor `older` is used.

    cdef object watch(self, object view):
        """Note a new view, and return it."""
        cdef object reference = PyWeakref_NewRef(view, None)
        cdef list crowd = None
        with cython.critical_section(self):  # against other threads that take views, or end them
            if self.views is None:
                self.views = []
                self.limit = 64
            self.views.append(reference)
            if len(self.views) >= self.limit:
                crowd = self.views
                self.views = []
        if crowd is not None:
            crowd = [reference for reference in crowd if reference() is not None]
            with cython.critical_section(self):
                # Those that were noted meanwhile; if they were ended, the caller sees it, and ends these too.
                if self.views is not None:
                    crowd += self.views
                self.views = crowd
                self.limit = 2 * len(crowd) + 64
        return view

    cdef int end_watched(self) except -1:
        cdef list views
        with cython.critical_section(self):  # so that each is ended by one thread
            views = self.views
            self.views = None
        if views is not None:
            for reference in views:
                view = reference()
                if view is not None and only_this_thread(<PyObject *>view):
                    self.end_own(view)
        return 0

    cdef int end_own(self, view) except -1:
        """End one that no other thread has. Its slot is given up only when none has come to it in the meantime."""
        cdef tunring_lease *slots
        cdef uint32_t root
        ending.slots = NULL
        ending.active = True
        try:
            _end_view(view)
        finally:
            ending.active = False
        slots = <tunring_lease *>ending.slots
        root = <uint32_t>ending.root
        if not slots:
            return 0
        if only_this_thread(<PyObject *>view):
            tunring_lease_unhold(slots, root)
        else:
            _hold_until_gone(view, self.lease, root)
        return 0

    # -- The end

    cdef bint all_rest(self) noexcept:
        """True if every view rests, or none was made."""
        return (self.views is None and (self.newest is None or view_rests(<PyObject *>self.newest))
                and (self.older is None or view_rests(<PyObject *>self.older)))

    cdef void keep_for_next(self) noexcept:
        """The owner, who has the only reference to this and one to the lease, is dying: keep both for another owner.

        That needs slots that nobody holds; otherwise they live on until the last view of them is gone. Somebody may
        still have a view that rests: it is used again once that is over. This runs no Python code.
        """
        global _spare_count
        cdef Py_ssize_t references = 2
        if WITHOUT_GIL or _spare_count == SPARES or self.views is not None:
            return
        if self.newest is not None:
            if not self.rests_or_is_ours(<PyObject *>self.newest):
                return
            references += 1
        if self.older is not None:
            if not self.rests_or_is_ours(<PyObject *>self.older):
                return
            references += 1
        if Py_REFCNT(<PyObject *>self.lease) != references:
            return
        tunring_lease_free(self.lease.slots)
        self.lease.slots = NULL
        Py_INCREF(<PyObject *>self)
        _spares[_spare_count] = <PyObject *>self
        _spare_count += 1


# Those of batches and reservations that are over, with their leases: a loop has two at once. The GIL guards them.
cdef enum:
    SPARES = 4

cdef PyObject *_spares[SPARES]
cdef int _spare_count = 0


cdef _Views _views():
    """For a new batch or reservation, with a lease that has no slots yet."""
    global _spare_count
    cdef _Views views
    if _spare_count:
        _spare_count -= 1
        views = <_Views>_spares[_spare_count]
        Py_DECREF(_spares[_spare_count])
        return views
    views = _Views.__new__(_Views)
    views.lease = Lease.__new__(Lease)
    return views


cdef int _end_view(view) except -1:
    try:
        view.release()
    except BufferError:
        pass
    return 0


@cython.final
@cython.no_gc
cdef class _LateEnd:
    """Gives up the slot of a view that was ended, when the view is gone: it is called by a weak reference."""
    cdef Lease lease         # of the whole batch
    cdef uint32_t root       # the slot

    def __call__(self, reference):
        if self.lease is None:
            raise TypeError("_hold_until_gone() makes these")
        _late_ends.discard(reference)
        tunring_lease_unhold(self.lease.slots, self.root)


# Their weak references, which work only as long as somebody has them.
cdef set _late_ends = set()


cdef int _hold_until_gone(view, Lease lease, uint32_t root) except -1:
    cdef _LateEnd late = _LateEnd.__new__(_LateEnd)
    late.lease = lease
    late.root = root
    _late_ends.add(weakref.ref(view, late))
    return 0


cdef inline bint _only_ours(object view, Py_ssize_t ours) noexcept:
    """True if there are no references but ours."""
    return Py_REFCNT(<PyObject *>view) <= ours
