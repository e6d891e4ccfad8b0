# The far end of a datagram. Included by _core.pyx.

cdef object _inet_pton = None
cdef object _inet_ntop = None
cdef int _AF_INET = 2
cdef int _AF_INET6 = 10
cdef bint _addresses_found = False


# In place of a host, for one whose value is written directly.
cdef object _VALUE_FOLLOWS = object()


cdef int _find_addresses() except -1:
    """Import what converts addresses when it is first needed."""
    if not _addresses_found:
        _import_addresses()
    return 0


cdef int _import_addresses() except -1:
    global _inet_pton, _inet_ntop, _AF_INET, _AF_INET6, _addresses_found
    cdef int family, family6
    import socket

    family, family6 = socket.AF_INET, socket.AF_INET6
    pton, ntop = socket.inet_pton, socket.inet_ntop
    with cython.critical_section(_VALUE_FOLLOWS):  # once, and whole, for other threads
        if _inet_pton is None:
            _AF_INET, _AF_INET6 = family, family6
            _inet_ntop = ntop
            _inet_pton = pton
    _addresses_found = True
    return 0


cdef int _read_host(host, uint8_t *result) except -1:
    """An address literal as 16 bytes, IPv4 mapped."""
    cdef bytes packed
    cdef const unsigned char *data
    _find_addresses()
    if not isinstance(host, str):
        raise TypeError(f"host must be an address such as '192.0.2.1' or '2001:db8::1', not {host!r}")
    if "%" in host:
        raise ValueError(f"host must not name an interface, as {host!r} does: give its index as interface")
    try:
        packed = bytes(10) + b"\xff\xff" + _inet_pton(_AF_INET, host)
    except OSError:
        try:
            packed = _inet_pton(_AF_INET6, host)
        except OSError:
            raise ValueError(f"host must be an address such as '192.0.2.1' or '2001:db8::1', not {host!r}") from None
    data = packed
    memcpy(result, data, 16)
    return 0


cdef str _write_host(const uint8_t *host):
    cdef bytes packed = PyBytes_FromStringAndSize(<const char *>host, 16)
    _find_addresses()
    return _inet_ntop(_AF_INET, packed[12:]) if tunring_endpoint_is_ipv4(host) else _inet_ntop(_AF_INET6, packed)


@cython.final
@cython.no_gc
@cython.freelist(16)
cdef class Endpoint:
    """The far end of a datagram: address, port and, for link-local addresses, interface. Immutable and hashable.

    Parameters
    ----------
    host : str
        An IPv4 or IPv6 address; a name is a ValueError. An IPv4-mapped IPv6 address is the IPv4 address.
    port : int
        0 to 65535.
    interface : int, optional
        The index of the interface, which link-local IPv6 addresses need. It must be 0 for others.

    Examples
    --------
    >>> import tunring
    >>> tunring.Endpoint("192.0.2.1", 51820) == tunring.Endpoint("::ffff:192.0.2.1", 51820)
    True
    """
    cdef tunring_endpoint value  # never changes once the object is made
    cdef object _hash            # None before it is asked for

    def __cinit__(self, host, port, *, interface=0):
        if host is _VALUE_FOLLOWS:
            return
        cdef uint16_t number = _integer(port, "port", 0, 65535)
        cdef uint32_t scope = _integer(interface, "interface", 0, 0xFFFFFFFF)
        memset(&self.value, 0, sizeof(self.value))
        _read_host(host, self.value.host)
        if scope and not (self.value.host[0] == 0xFE and self.value.host[1] & 0xC0 == 0x80):
            raise ValueError(f"interface must be 0, as {host} is not a link-local address, not {interface!r}")
        self.value.port = number
        self.value.scope = scope

    @property
    def host(self) -> str:
        """The address."""
        return _write_host(self.value.host)

    @property
    def port(self) -> int:
        """The port."""
        return self.value.port

    @property
    def interface(self) -> int:
        """The index of the interface for a link-local address, otherwise 0."""
        return self.value.scope

    @property
    def local(self):
        """The local address that the datagram was sent to and replies leave from; None if unknown. Not compared."""
        return _write_host(self.value.local) if tunring_endpoint_has_local(&self.value) else None

    def __eq__(self, other):
        if not isinstance(other, Endpoint):
            return NotImplemented
        return tunring_endpoint_same(&self.value, &(<Endpoint>other).value)

    def __hash__(self):
        with cython.critical_section(self):  # another thread may be setting it
            if self._hash is None:
                self._hash = hash((PyBytes_FromStringAndSize(<const char *>self.value.host, 16), self.value.port,
                                   self.value.scope))
            return self._hash

    def __repr__(self):
        scope = f", interface={self.interface}" if self.interface else ""
        return f"tunring.Endpoint({self.host!r}, {self.port}{scope})"

    def __reduce__(self):
        return _make_endpoint, (self.host, self.port, self.interface)


def _make_endpoint(host, port, interface):
    """For unpickling."""
    return Endpoint(host, port, interface=interface)


cdef Endpoint _endpoint_from(const tunring_endpoint *value):
    cdef Endpoint endpoint = Endpoint.__new__(Endpoint, _VALUE_FOLLOWS, 0)
    endpoint.value = value[0]
    return endpoint


cdef Endpoint _endpoint_of(to):
    """From what users give as a destination."""
    if isinstance(to, Endpoint):
        return to
    if isinstance(to, tuple) and len(to) == 2:
        return Endpoint(to[0], to[1])
    if isinstance(to, tuple) and len(to) == 4:
        return Endpoint(to[0], to[1], interface=to[3])
    raise TypeError(f"a destination must be a tunring.Endpoint, (host, port) or (host, port, flow, scope), not {to!r}")
