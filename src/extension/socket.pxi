# UDP sockets: sending, state and close; source.pxi has the rest. Included by _core.pyx.

cdef enum:
    # Payload of the largest datagram, over IPv4.
    MAX_DATAGRAM = 65507


cdef struct _SocketSending:
    tunring_socket *socket
    tunring_sending what   # all of it
    uint32_t done          # datagrams that are dealt with


cdef DWORD _send_datagrams(void *state, const tunring_wait *wait) noexcept nogil:
    cdef _SocketSending *call = <_SocketSending *>state
    cdef tunring_sending rest = call.what
    cdef uint32_t done
    cdef DWORD code
    rest.packets += call.done
    rest.count -= call.done
    if rest.index:
        rest.index += call.done
    if rest.ecn:
        rest.ecn += call.done
    code = tunring_socket_send(call.socket, &rest, wait, &done)
    call.done += done
    return code


@cython.final
@cython.no_gc
cdef class _Ecn:
    """ECN bits of datagrams. _ecn_bits() makes it."""
    cdef uint8_t *each     # `count` of them, ours; NULL: `all` for all
    cdef Py_ssize_t count  # datagrams
    cdef uint8_t all

    def __dealloc__(self):
        PyMem_Free(self.each)


cdef _Ecn _ecn_bits(ecn):
    cdef _Ecn result = _Ecn()
    cdef _Sizes values
    cdef Py_ssize_t i
    if isinstance(ecn, int):
        result.all = _integer(ecn, "ecn", 0, 3)
        return result
    values = _sizes(ecn, "ecn")
    result.each = <uint8_t *>_allocate(values.count, 1)
    result.count = values.count
    for i in range(values.count):
        if values.values[i] > 3:
            raise ValueError(f"ecn[{i}] must be 0 to 3, not {values.values[i]}")
        result.each[i] = <uint8_t>values.values[i]
    return result


@cython.final
@cython.no_gc
cdef class _Destinations:
    """Where datagrams go: endpoints in the form that C takes, and each datagram's number among them."""
    cdef tunring_endpoint *endpoints  # `count` of them, ours
    cdef Py_ssize_t count
    cdef _Sizes index                 # None: the first for all
    cdef _Ecn ecn

    def __dealloc__(self):
        PyMem_Free(self.endpoints)

    cdef int add(self, Py_ssize_t i, to, bint to_ipv4, bint to_ipv6) except -1:
        cdef Endpoint endpoint = _endpoint_of(to)
        cdef bint ipv4 = tunring_endpoint_is_ipv4(endpoint.value.host)
        if not to_ipv6 and not ipv4:
            raise ValueError(f"{endpoint.host} is an IPv6 address, and the socket is of IPv4")
        if not to_ipv4 and ipv4:
            raise ValueError(f"{endpoint.host} is an IPv4 address, and the socket is of IPv6 only")
        self.endpoints[i] = endpoint.value
        return 0


cdef _Destinations _destinations(to, index, _Ecn ecn, bint to_ipv4, bint to_ipv6, Py_ssize_t packets):
    cdef _Destinations result = _Destinations()
    cdef list listed
    cdef Py_ssize_t i
    if isinstance(to, list):
        if index is None:
            raise TypeError("a list of endpoints takes index, each packet's number in the list")
        listed = list(to)
    elif index is not None:
        raise TypeError("index takes a list of endpoints as its destination")
    else:
        listed = [to]
    result.count = len(listed)
    result.endpoints = <tunring_endpoint *>_allocate(result.count, sizeof(tunring_endpoint))
    for i in range(result.count):
        result.add(i, listed[i], to_ipv4, to_ipv6)
    if index is not None:
        result.index = _sizes(index, "index")
        if result.index.count != packets:
            raise ValueError(f"index must have one number per packet, {packets}, not {result.index.count}")
        for i in range(packets):
            if result.index.values[i] >= result.count:
                raise ValueError(f"index[{i}] must be 0 to {result.count - 1}, not {result.index.values[i]}")
    if ecn.each and ecn.count != packets:
        raise ValueError(f"ecn must have one value per packet, {packets}, not {ecn.count}")
    result.ecn = ecn
    return result


cdef class _UdpSocket(_Source):
    """A UDP socket that receives and sends batches of datagrams. :meth:`tunring.UdpSocket.bind` makes it.

    Any thread may use it. No call holds the GIL while it waits, and each wait ends by data, its deadline,
    :meth:`close`, or in the main thread a signal such as Ctrl-C.

    Attributes
    ----------
    address : tuple
        The socket's own address, as ``getsockname()`` returns it.
    """
    cdef tunring_socket *socket      # set once: the source is a part of it
    cdef readonly object address
    cdef object options              # tunring._udp.Options: what bind() set, to undo and to report
    cdef bint to_ipv4                # the families that it can send to
    cdef bint to_ipv6
    cdef object __weakref__

    def __init__(self):
        raise TypeError("UdpSocket.bind() makes sockets")

    def __reduce__(self):
        raise TypeError("a UdpSocket can't be copied or pickled")

    @staticmethod
    def _open(handle, address, options, bint to_ipv4, bint to_ipv6, bint runs, unsigned int max_chunks):
        """For :meth:`tunring.UdpSocket.bind`: over a copy of a bound socket's handle."""
        cdef _UdpSocket self = UdpSocket.__new__(UdpSocket)
        cdef tunring_socket_options wanted
        cdef DWORD code
        wanted.handle = handle
        wanted.ipv6 = len(address) == 4
        wanted.runs = runs
        wanted.max_chunks = max_chunks
        wanted.restored_count = 0
        for level, name, value in options.before():
            if wanted.restored_count == TUNRING_SOCKET_RESTORED:
                raise AssertionError("there are more options to restore than there is room for")
            wanted.restored[wanted.restored_count] = tunring_socket_option(level, name, value)
            wanted.restored_count += 1
        self.address = address
        self.options = options
        self.to_ipv4 = to_ipv4
        self.to_ipv6 = to_ipv6
        self.datagrams = True
        self._tasks = {}
        code = tunring_socket_open(&wanted, &self.socket)
        if code != ERROR_SUCCESS:
            raise error_from_code(code, "can't open a UDP socket")
        self.source = tunring_socket_source(self.socket)
        return self

    def __repr__(self):
        state = "closed" if self.closed else "open"
        host = f"[{self.address[0]}]" if ":" in self.address[0] else self.address[0]
        return f"<tunring.UdpSocket {host}:{self.address[1]}, {state}>"

    cdef int receive_error(self) noexcept:
        return tunring_socket_receive_error(self.socket)

    cdef _Destinations destinations(self, to, index, _Ecn ecn, _Packets packets):
        return _destinations(to, index, ecn, self.to_ipv4, self.to_ipv6, packets.count)

    cdef object send_datagrams(self, _Packets packets, to, index, ecn, int on_full, int64_t deadline):
        cdef _Destinations where = self.destinations(to, index, _ecn_bits(ecn), packets)
        return self.send_rest(packets, where, on_full, deadline)

    cdef object send_rest(self, _Packets packets, _Destinations where, int on_full, int64_t deadline):
        """Send what was not sent before; returns how many of all are dealt with."""
        cdef _SocketSending call
        cdef DWORD code
        self.lender()
        call.socket = self.socket
        call.what.packets = packets.packets
        call.what.count = packets.count
        call.what.endpoints = where.endpoints
        call.what.index = where.index.values if where.index is not None else NULL
        call.what.ecn = where.ecn.each
        call.what.all_ecn = where.ecn.all
        call.what.dscp = 0
        call.what.accepted = NULL
        call.done = packets.sent
        # `packets` and `where` hold the memory, `self` the socket.
        try:
            code = _wait_for(_send_datagrams, &call, deadline if on_full == WAIT else 0)
        except BaseException as error:  # a signal handler's
            packets.sent = call.done
            error.add_note(f"tunring: {call.done} of {packets.count} datagrams were sent")
            raise
        packets.sent = call.done
        if code == ERROR_SUCCESS or code == WAIT_TIMEOUT:
            return call.done
        if code == ERROR_BUFFER_OVERFLOW and on_full != RAISE:
            if on_full == DROP:
                tunring_source_count_dropped(self.source, packets.count - call.done)
            return call.done
        error = self.failure(code, f"sent {call.done} of {packets.count} datagrams")
        error.sent = call.done
        raise error

    def send(self, packets, to, *, index=None, ecn=0, on_full="wait", timeout=None) -> int:
        """Send datagrams, in order.

        Datagrams of equal length in a row to one endpoint leave by one system call, without being copied first.

        Parameters
        ----------
        packets : iterable of bytes-like objects, or Batch
            Datagrams of 0 to 65,507 bytes, with any content. All are checked before the first is sent.
        to : Endpoint, tuple, or list of them
            The destination: an :class:`Endpoint`, or an address as the :mod:`socket` module has it (literals only); or
            a list of destinations, with ``index``.
        index : buffer of integers, or sequence of int, optional
            Each packet's number in the list of destinations.
        ecn : int, or buffer of integers, optional
            ECN bits, 0 to 3, of all datagrams or of each.
        on_full : {"wait", "partial", "drop", "raise"}
            If the system has no room: "wait" waits for it. The others send what fits: "partial" returns then, "drop"
            drops the rest, and "raise" raises RingFull.
        timeout : float, optional
            Seconds to wait for room; None waits for ever.

        Returns
        -------
        int
            The number of datagrams, from the first on, that the system accepted, or refused and :meth:`stats` counts by
            kind. ``packets[n:]`` are left.

        Raises
        ------
        TypeError, ValueError
            A datagram is too large or not bytes-like, or a destination is not valid; nothing was sent.
        RingFull
            With ``on_full="raise"``; its ``sent`` is the same number.
        SessionClosed
            The socket is closed; its ``sent`` is the same number.

        Examples
        --------
        >>> import tunring
        >>> with tunring.UdpSocket.bind(("127.0.0.1", 0)) as udp:
        ...     udp.send([b"one", b"two"], udp.address)
        ...     with udp.receive(timeout=5) as batch:
        ...         batch.tobytes(), batch.sources[0].port == udp.address[1]
        2
        ([b'one', b'two'], True)
        """
        cdef int mode = _on_full(on_full, ("wait", "partial", "drop", "raise"))
        cdef int64_t deadline = _deadline(timeout)
        return self.send_datagrams(_datagrams_from(packets), to, index, ecn, mode, deadline)

    def send_packed(self, buffer, lengths, to, *, index=None, ecn=0, on_full="wait", timeout=None) -> int:
        """Send datagrams that lie back to back in one contiguous buffer.

        Parameters
        ----------
        buffer : bytes-like object
            The datagrams.
        lengths : buffer of integers, or sequence of int
            Their lengths in bytes; the sum is the buffer's size.
        to, index, ecn, on_full, timeout
            As for :meth:`send`, as are the result and the errors.
        """
        cdef int mode = _on_full(on_full, ("wait", "partial", "drop", "raise"))
        cdef int64_t deadline = _deadline(timeout)
        return self.send_datagrams(_packets_from_packed(buffer, lengths, MAX_DATAGRAM), to, index, ecn, mode, deadline)

    def send_many(self, items, *, ecn=0, on_full="wait", timeout=None) -> list:
        """Send several batches, each to its destination, in order.

        Parameters
        ----------
        items : iterable of (destination, packets)
            As ``to`` and ``packets`` of :meth:`send`. All are checked before the first is sent.
        ecn, on_full, timeout
            As for :meth:`send`; ``timeout`` is for all together.

        Returns
        -------
        list of int
            For each, the number that :meth:`send` would have returned. After the first without room, none is tried.

        Raises
        ------
        TypeError, ValueError, RingFull, SessionClosed
            As by :meth:`send`; ``sent`` is the sum of these numbers.
        """
        cdef int mode = _on_full(on_full, ("wait", "partial", "drop", "raise"))
        cdef int64_t deadline = _deadline(timeout)
        cdef _Ecn bits = _ecn_bits(ecn)
        cdef list held = []
        cdef _Packets packets
        self.lender()
        # Nothing is converted twice: users' code, which may do something else the second time, runs before all sending.
        for to, what in items:
            packets = _datagrams_from(what)
            held.append((packets, self.destinations(to, None, bits, packets)))
        return self.send_held(held, mode, deadline)

    cdef list send_held(self, list held, int on_full, int64_t deadline):
        """Send pairs of packets and destinations; returns how many of each are dealt with."""
        cdef list sent = [0] * len(held)
        cdef _Packets packets
        cdef _Destinations where
        for i, (packets, where) in enumerate(held):
            try:
                sent[i] = self.send_rest(packets, where, on_full, deadline)
            except BaseException as error:
                before = sum(sent)
                error.add_note(f"tunring: this was batch {i}; {before} datagrams of those before it were sent")
                if isinstance(error, WintunError):
                    error.sent = before + packets.sent
                raise
            if packets.sent < packets.count:
                if on_full == DROP:
                    self.drop_held(held[i + 1:])
                break
        return sent

    cdef int drop_held(self, list held) except -1:
        """Count pairs of packets and destinations, of which none was tried, as dropped."""
        cdef _Packets packets
        for packets, _ in held:
            tunring_source_count_dropped(self.source, packets.count)
        return 0

    cdef HANDLE room_event(self) except? NULL:
        self.lender()
        if self.closed:
            raise self.failure(ERROR_HANDLE_EOF, "no room")
        return tunring_socket_room_event(self.socket)

    def _outgoing(self, packets, lengths, on_full, to, index, ecn) -> Outgoing:
        """For event loops: datagrams on their way, packed ones if there are lengths."""
        cdef Outgoing outgoing = Outgoing.__new__(Outgoing)
        self.lender()
        outgoing.mode = _on_full(on_full, ("wait", "partial", "drop", "raise"))
        outgoing.source = self
        if lengths is not None:
            outgoing.packets = _packets_from_packed(packets, lengths, MAX_DATAGRAM)
        else:
            outgoing.packets = _datagrams_from(packets)
        outgoing.where = self.destinations(to, index, _ecn_bits(ecn), outgoing.packets)
        return outgoing

    def send_async(self, packets, to, *, index=None, ecn=0, on_full="wait", timeout=None):
        """:meth:`send` for an asyncio task: the event loop runs on while this waits for room.

        Returns an awaitable. The call itself checks all datagrams and destinations, which can't be changed or released
        until the awaitable is done. Tasks of one loop that wait for room get it in the order in which they asked.

        Parameters
        ----------
        packets, to, index, ecn, on_full, timeout
            As for :meth:`send`, as are the result and the errors. A task that is cancelled may have sent some; one that
            ends by its ``timeout`` gets the number.

        Examples
        --------
        >>> import asyncio, tunring
        >>> async def main():
        ...     with tunring.UdpSocket.bind(("127.0.0.1", 0)) as udp:
        ...         await udp.send_async([b"one", b"two"], udp.address)
        ...         with await udp.receive_async(timeout=5) as batch:
        ...             return batch.tobytes()
        >>> asyncio.run(main())
        [b'one', b'two']
        """
        outgoing = self._outgoing(packets, None, on_full, to, index, ecn)
        return send_in_task(outgoing, None, check_timeout(timeout))

    def send_packed_async(self, buffer, lengths, to, *, index=None, ecn=0, on_full="wait", timeout=None):
        """:meth:`send_packed` for an asyncio task, as :meth:`send_async` is :meth:`send` for one."""
        if lengths is None:
            raise TypeError("lengths must be integers, not NoneType")
        outgoing = self._outgoing(buffer, lengths, on_full, to, index, ecn)
        return send_in_task(outgoing, None, check_timeout(timeout))

    @property
    def _mark(self):
        """The mark of what is sent now, 0 for none; or None once the socket is closed."""
        cdef uint32_t mark = 0
        cdef DWORD code
        self.lender()
        with nogil:  # the caller holds us
            code = tunring_socket_mark(self.socket, &mark)
        return mark if code == ERROR_SUCCESS else None

    def _set_mark(self, uint32_t mark) -> None:
        """Mark what is sent from now on. Raises OSError; SessionClosed once the socket is closed."""
        cdef int number = 0
        cdef DWORD code
        self.lender()
        with nogil:  # the caller holds us
            code = tunring_socket_set_mark(self.socket, mark, &number)
        if number:
            raise error_from_code(code, "can't set the mark", os.strerror(number), number)
        if code != ERROR_SUCCESS:
            raise self.failure(code, "can't set the mark")

    def stats(self):
        """The socket's figures so far, as a :class:`tunring.UdpStats`."""
        from tunring._udp import stats_of

        cdef tunring_socket_stats own
        self.lender()
        tunring_socket_read_stats(self.socket, &own)
        cdef tunring_stats common
        tunring_source_stats(self.source, &common)
        figures = _figures(tunring_socket_figures, &own)
        figures["host_dropped"] = own.host_dropped
        return stats_of(self.options, _figures(tunring_stats_figures, &common), figures, own.runs)

    def close(self) -> None:
        """Close the socket: wake its waiting calls, and wait for all calls in flight.

        Batches and views stay valid; the memory is freed with the last of them. Idempotent. May be called from any
        thread, and from signal handlers and destructors.
        """
        self.lender()
        cdef bint first = flag_set(&self.close_called)
        self.close_source()
        # In a forked child the socket is its parent's, which goes on.
        if first and tunring_source_state(self.source) != TUNRING_FORKED:
            self.options.unblock()


cdef _Packets _datagrams_from(packets):
    """Datagrams to send, which need not be IP packets."""
    cdef _Packets result
    cdef uint32_t i
    if not isinstance(packets, Batch):
        return _packets_from_items(packets, "send", MAX_DATAGRAM)
    result = _held_batch(packets, "sent", False)
    for i in range(result.count):
        if result.packets[i].length > MAX_DATAGRAM:
            raise ValueError(f"packet {i} {_packet_fault(NULL, result.packets[i].length, MAX_DATAGRAM)}")
    return result


class UdpSocket(_UdpSocket):
    # A class of Python's: in the stable ABI, Cython's have no __del__.
    __slots__ = ()
    __doc__ = _UdpSocket.__doc__

    def __init_subclass__(cls):
        raise TypeError("UdpSocket is not an acceptable base type")

    @staticmethod
    def bind(address=("0.0.0.0", 0), *, segment=None, coalesce=None, receive_buffer=None, send_buffer=None,
             pinned_limit=None, ipv6_only=False, reuse_port=False, mark=None, interface=None) -> UdpSocket:
        """Make a socket and bind it.

        Parameters
        ----------
        address : tuple
            The socket's own address, an IPv4 or IPv6 literal, and port; 0 takes any free port.
        segment : bool, optional
            True: runs of datagrams leave by one system call (UDP_SEGMENT). None: if the system supports it and is not
            known to fail. ``TUNRING_UDP_OFFLOADS=0`` turns it off.
        coalesce : bool, optional
            True: runs of datagrams arrive by one system call (UDP_GRO). None: on Linux, if the system supports it; not
            on Windows, which does not report each datagram's length. ``TUNRING_UDP_OFFLOADS=0`` turns it off.
        receive_buffer : int, optional
            Bytes of the system's buffer for datagrams received. None: 16 MiB, or as much of that as the system allows.
        send_buffer : int, optional
            Bytes of the system's buffer for datagrams sent. None: 7 MiB, or as much of that as the system allows.
        pinned_limit : int, optional
            Maximum bytes of memory for datagrams that were received and not yet released. None: 16 MiB.
        ipv6_only : bool
            True: a socket that is bound to ``"::"`` does not take IPv4. One with any other address serves the family of
            that address alone, and IPv4 addresses do not take True.
        reuse_port : bool
            True: several sockets may share the port (SO_REUSEPORT).
        mark : int, optional
            The firewall mark of the datagrams sent; Linux only.
        interface : str, optional
            The only interface to use; Linux only.

        Raises
        ------
        TypeError, ValueError
            An argument can't be used; ``ipv6_only=True`` with an IPv4 address, for example.
        OSError
            The system refuses the address or an option.
        NotImplementedError
            The system lacks an option.
        """
        from tunring._udp import bind

        return bind(address, segment, coalesce, receive_buffer, send_buffer, pinned_limit, ipv6_only, reuse_port, mark,
                    interface)

    @staticmethod
    def from_socket(sock) -> UdpSocket:
        """Take over a bound UDP socket of the :mod:`socket` module.

        The UdpSocket works on a copy of its descriptor, sets options of its own, and restores them at :meth:`close`,
        even if the original was closed or detached by then, as the descriptor may have other owners. Until then the
        original must not receive: it would get several datagrams as one.

        The system's buffers stay as large as they are, unlike those of :meth:`bind`: they are the owner's choice, and a
        size beyond the system's limit could not be put back without privileges. The usual 208 KiB hold about a hundred
        datagrams; set ``SO_RCVBUF`` and ``SO_SNDBUF`` first if more may arrive at once. :meth:`stats` has the sizes.
        """
        from tunring._udp import from_socket

        return from_socket(sock)

    def __del__(self, *, warn=warnings.warn):  # at exit, modules may be empty already
        try:
            unclosed = not self.closed
        except TypeError:  # it never opened
            return
        if unclosed:
            try:
                warn(f"unclosed {self!r}", ResourceWarning, source=self)
            finally:  # also where warnings are errors
                self.close()
