# Authenticated encryption of batches: its libraries, Sealers and Openers. Included by _core.pyx.

cdef dict _ALGORITHMS = {
    "chacha20-poly1305": TUNRING_CHACHA20_POLY1305,
    "aes-256-gcm": TUNRING_AES_256_GCM,
    "aes-128-gcm": TUNRING_AES_128_GCM,
}
cdef dict _AEAD_KINDS = {"libcrypto": TUNRING_LIBCRYPTO, "ipsec-mb": TUNRING_IPSEC_MB, "boringssl": TUNRING_BORINGSSL}


cdef tunring_aead_algorithm _algorithm(name) except *:
    if not isinstance(name, str) or name not in _ALGORITHMS:
        raise ValueError(f"algorithm must be one of {', '.join(map(repr, _ALGORITHMS))}, not {name!r}")
    return <tunring_aead_algorithm><int>_ALGORITHMS[name]


@cython.final
cdef class AeadLibrary:
    """One loaded library of ciphers. :mod:`tunring.aead` loads it; it is never unloaded.

    Attributes
    ----------
    name : str
        ``"libcrypto"``, ``"ipsec-mb"`` or ``"boringssl"``.
    path : str
        The path or name by which it was loaded.
    version : str
        As the library puts it.
    """
    cdef tunring_aead *library   # never freed
    cdef readonly str name       # its kind
    cdef readonly str path       # or name, by which the system found it
    cdef readonly str version    # in its own words

    def __cinit__(self, str name, str path, bint loaded=False):
        cdef char detail[512]
        cdef bytes encoded = os.fsencode(path) if os.name == "posix" else path.encode("utf-16-le") + b"\0"
        cdef const char *chars = encoded
        cdef tunring_aead_kind kind = <tunring_aead_kind><int>_AEAD_KINDS[name]
        cdef DWORD code
        detail[0] = 0
        # `encoded` holds the path, and nobody else has `self` yet. The library that is loaded is never freed.
        with nogil:
            code = tunring_aead_load(kind, <const tunring_path_char *>chars, loaded, &self.library, detail,
                                     sizeof(detail))
        if code != ERROR_SUCCESS:
            raise error_from_code(code, f"can't use {path!r} as {name}", (<bytes>detail).decode("utf-8", "replace"))
        self.name = name
        self.path = path
        self.version = (<bytes>tunring_aead_version(self.library)).decode("utf-8", "replace")

    def __repr__(self):
        return f"<tunring.AeadLibrary {self.name!r}, {self.version}, from {self.path!r}>"

    def fault(self, algorithm):
        """Why it doesn't serve an algorithm, in words, or None if it does. The first call tests it."""
        cdef tunring_aead_algorithm which = _algorithm(algorithm)
        cdef DWORD code
        # The library is never freed.
        with nogil:
            code = tunring_aead_check(self.library, which)
        if code == ERROR_SUCCESS:
            return None
        if code == ERROR_INVALID_DATA:
            return f"{self.version} fails the known-answer test of {algorithm}"
        if code == ERROR_NOT_SUPPORTED:
            return f"{self.version} lacks {algorithm}"
        return str(error_from_code(code, f"can't test {algorithm}"))


cdef AeadLibrary _aead_library(str algorithm):
    """The library that serves the algorithm, which is checked."""
    from tunring.aead import library_for

    return library_for(algorithm)


@cython.final
@cython.no_gc
cdef class _AeadFormat:
    """The checked format that a Sealer and an Opener agree on."""
    cdef tunring_aead_format format  # its header is in `header`
    cdef bytes header                # kept alive; None for any

    def __cinit__(self, header, nonce, authenticate_header, byteorder):
        cdef bytes fixed = bytes(_contiguous(nonce, "nonce"))
        cdef Py_ssize_t i
        if len(fixed) != sizeof(self.format.nonce):
            raise ValueError(f"nonce must have {sizeof(self.format.nonce)} bytes, not {len(fixed)}: "
                             "the counter's 8 follow them")
        for i in range(<Py_ssize_t>sizeof(self.format.nonce)):
            self.format.nonce[i] = fixed[i]
        if byteorder not in ("little", "big"):
            raise ValueError(f"byteorder must be 'little' or 'big', not {byteorder!r}")
        self.format.big_endian = byteorder == "big"
        self.format.unauthenticated_header = not authenticate_header
        if header is not None:
            self.header = bytes(_contiguous(header, "header"))
            self.format.header = <const BYTE *><const char *>self.header
            self.set_size(len(self.header))

    cdef int set_size(self, size) except -1:
        if not 0 <= size <= TUNRING_AEAD_MAX_HEADER:
            raise ValueError(f"a header has at most {TUNRING_AEAD_MAX_HEADER} bytes, not {size}")
        self.format.header_size = size
        return 0


cdef object _contiguous(value, str what):
    """A memoryview of a bytes-like argument."""
    try:
        return memoryview(value).cast("B")
    except TypeError:
        raise TypeError(f"{what} must be bytes-like and contiguous, not {type(value).__name__}") from None


cdef bytes _aead_key(key, tunring_aead_algorithm algorithm, str name):
    """The key's bytes. No message shows them."""
    cdef bytes result = bytes(_contiguous(key, "key"))
    if len(result) != tunring_aead_key_size(algorithm):
        raise ValueError(f"a key of {name} has {tunring_aead_key_size(algorithm)} bytes, not {len(result)}")
    return result


cdef object _aead_failure(DWORD code, str what, unsigned generation):
    """The exception for a failed call of a Sealer or Opener."""
    error = error_from_code(code, f"the {what} is over" if code == ERROR_HANDLE_EOF else f"the {what} failed")
    if code == ERROR_HANDLE_EOF:
        error.reason = "closed" if generation == os_generation() else "forked"
    return error


@cython.final
@cython.no_gc
cdef class Sealer:
    """Encrypts packets into datagrams that an :class:`Opener` with the same key opens.

    A datagram is the header, the counter (8 bytes), the ciphertext and the tag (16 bytes). The cipher's nonce is
    ``nonce`` and the counter's 8 bytes, so **a key is used with one Sealer only, and never again after it**: two
    datagrams of one key and one counter reveal both, and let anybody forge more. A child process can't use its
    parent's Sealers.

    Parameters
    ----------
    algorithm : {"chacha20-poly1305", "aes-256-gcm", "aes-128-gcm"}
    key : bytes-like object
        32 bytes, for AES-128 16. It is copied.
    header : bytes-like object
        The bytes with which every datagram begins, at most 128.
    counter : int
        The first datagram's counter.
    nonce : bytes-like object
        The first 4 bytes of the cipher's nonce.
    pad_to : int
        Zeros are added to the packet up to a multiple of this number of bytes, 1 to 65535.
    pad_limit : int, optional
        The size in bytes that padding never exceeds, such as the MTU.
    authenticate_header : bool
        True: header and counter are the cipher's additional data, so that nobody can change them. False: the cipher
        has no additional data. The counter is part of the nonce in any case.
    byteorder : {"little", "big"}
        Of the counter in the datagram, and in the nonce.

    Raises
    ------
    ValueError, TypeError
        An argument is wrong; the message names the allowed values.
    LibraryNotFound
        No library serves the algorithm. The message lists what was tried.

    Examples
    --------
    >>> import os
    >>> from tunring.aead import Opener, Sealer
    >>> key = os.urandom(32)
    >>> sealer, opener = Sealer("aes-256-gcm", key), Opener("aes-256-gcm", key)
    >>> with sealer.seal([b"one", b"two"]) as datagrams, opener.open(datagrams) as packets:
    ...     list(datagrams.lengths), packets.tobytes()
    ([27, 27], [b'one', b'two'])
    """
    cdef tunring_sealer *sealer     # NULL only if __cinit__ failed
    cdef unsigned generation        # of the process
    cdef readonly str algorithm
    """The cipher's name."""
    cdef readonly AeadLibrary library
    """The library that computes it."""

    def __cinit__(self, algorithm, key, *, header=b"", counter=0, nonce=bytes(4), pad_to=1, pad_limit=None,
                  authenticate_header=True, byteorder="little"):
        cdef tunring_aead_algorithm which = _algorithm(algorithm)
        cdef bytes secret = _aead_key(key, which, algorithm)
        cdef const char *secret_bytes = secret
        cdef _AeadFormat format
        cdef uint64_t first = _integer(counter, "counter", 0, TUNRING_AEAD_LAST_COUNTER + 1)
        cdef uint32_t multiple = _integer(pad_to, "pad_to", 1, 65535)
        cdef uint32_t limit = 0xFFFFFFFF if pad_limit is None else _integer(pad_limit, "pad_limit", 0, 0xFFFFFFFF)
        cdef DWORD code
        if header is None:
            raise TypeError("header must be bytes-like and contiguous, not NoneType")
        format = _AeadFormat(header, nonce, authenticate_header, byteorder)
        self.algorithm = algorithm
        self.generation = os_generation()
        self.library = _aead_library(algorithm)
        code = tunring_sealer_new(self.library.library, which, <const BYTE *>secret_bytes, &format.format, multiple,
                                  limit, first, &self.sealer)
        if code != ERROR_SUCCESS:
            raise error_from_code(code, "can't make a Sealer")

    def __dealloc__(self):
        tunring_sealer_free(self.sealer)

    def __reduce__(self):
        raise TypeError("a Sealer can't be copied or pickled: its counters would be used twice")

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        self.close()

    def __repr__(self):
        return f"<tunring.aead.Sealer {self.algorithm}, counter {self.counter}>"

    def seal(self, packets) -> Batch:
        """Encrypt packets, each into one datagram of the batch returned, back to back.

        Any number of threads may call it at once: each call takes the counters of all its packets before it begins. A
        call that fails has used them up.

        Parameters
        ----------
        packets : Batch, or iterable of bytes-like objects
            Of at most 65535 bytes each, IP or not, empty ones too. They are only read.

        Returns
        -------
        Batch
            One datagram per packet. Its memory is reused once it is released and its views are gone.

        Raises
        ------
        OverflowError
            Fewer counters are left than packets given; none was used.
        SessionClosed
            The Sealer is closed, or was made before a fork.
        """
        cdef _Packets held
        cdef tunring_sealer *sealer = self.sealer  # freed with us, and the caller holds us
        cdef Batch batch = Batch.__new__(Batch)
        cdef Lease lease = Lease.__new__(Lease)
        cdef tunring_store *store
        cdef DWORD code
        if isinstance(packets, Batch):
            held = _held_batch(packets, "sealed", False)
        else:
            held = _packets_from_items(packets, "seal", TUNRING_AEAD_MAX_PACKET)
        # `held` keeps the packets in place.
        with nogil:
            code = tunring_store_shared(&store)
            if code == ERROR_SUCCESS:
                code = tunring_store_seal(store, sealer, held.packets, held.count, &lease.slots)
        if code == ERROR_ARITHMETIC_OVERFLOW:
            raise OverflowError(f"{held.count} packets need as many counters, and only "
                                f"{TUNRING_AEAD_LAST_COUNTER + 1 - self.counter} are left: take a new key")
        if code != ERROR_SUCCESS:
            raise _aead_failure(code, "Sealer", self.generation)
        batch.lease = lease
        flag_set(&batch.live)
        return batch

    @property
    def counter(self) -> int:
        """The next datagram's counter. The last one used is 2**64 - 2; after it this is 2**64 - 1."""
        return tunring_sealer_counter(self.sealer)

    def close(self) -> None:
        """Wipe the key once the calls in flight are done; later ones raise SessionClosed. Idempotent.

        Batches that it made stay.
        """
        tunring_sealer_close(self.sealer)


@cython.final
@cython.no_gc
cdef class Opener:
    """Decrypts the datagrams of a :class:`Sealer` with the same key; forged and repeated ones are left out.

    Parameters
    ----------
    algorithm, key, nonce, authenticate_header, byteorder
        As the Sealer has them.
    header : bytes-like object, optional
        The bytes with which datagrams begin. Others are foreign: they are counted and left alone, so that a batch can
        go from one Opener to the next.
    header_size : int
        Without ``header``: bytes of a header that may be anything, 0 to 128.
    window : int
        Maximum distance of a counter behind the highest authentic one, 1 to 1048576. Each counter is accepted once.
    strip_padding : bool
        Cut a packet to the length that its IP header gives. A datagram that is not an IP packet, or whose header
        claims more than came, is rejected; an empty one is not.

    Raises
    ------
    ValueError, TypeError, LibraryNotFound
        As for a Sealer.
    """
    cdef tunring_opener *opener     # NULL only if __cinit__ failed
    cdef unsigned generation        # of the process
    cdef readonly str algorithm
    """The cipher's name."""
    cdef readonly AeadLibrary library
    """The library that computes it."""

    def __cinit__(self, algorithm, key, *, header=None, header_size=0, nonce=bytes(4), window=8192,
                  strip_padding=False, authenticate_header=True, byteorder="little"):
        cdef tunring_aead_algorithm which = _algorithm(algorithm)
        cdef bytes secret = _aead_key(key, which, algorithm)
        cdef const char *secret_bytes = secret
        cdef _AeadFormat format = _AeadFormat(header, nonce, authenticate_header, byteorder)
        cdef uint32_t size = _integer(header_size, "header_size", 0, TUNRING_AEAD_MAX_HEADER)
        cdef uint32_t bits = _integer(window, "window", 1, TUNRING_AEAD_MAX_WINDOW)
        cdef DWORD code
        if header is None:
            format.set_size(size)
        elif size and size != format.format.header_size:
            raise ValueError(f"header_size is {size}, but the header has {format.format.header_size} bytes: "
                             "pass only one of them")
        self.algorithm = algorithm
        self.generation = os_generation()
        self.library = _aead_library(algorithm)
        code = tunring_opener_new(self.library.library, which, <const BYTE *>secret_bytes, &format.format, bits,
                                  strip_padding, &self.opener)
        if code != ERROR_SUCCESS:
            raise error_from_code(code, "can't make an Opener")

    def __dealloc__(self):
        tunring_opener_free(self.opener)

    def __reduce__(self):
        raise TypeError("an Opener can't be copied or pickled: each copy would accept a datagram once")

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        self.close()

    def __repr__(self):
        return f"<tunring.aead.Opener {self.algorithm}, {self.rejected} rejected, {self.replayed} replayed>"

    cdef tunring_opener_counts counts(self) noexcept:
        cdef tunring_opener_counts counts
        tunring_opener_counts_read(self.opener, &counts)
        return counts

    def open(self, datagrams) -> Batch:
        """Decrypt datagrams into a batch of the packets that are authentic and new, in order.

        A Batch is opened in place. Its views end, as by :meth:`Batch.release`, and its datagrams can only be read
        through the batch returned, which is a part of it. Foreign datagrams stay as they are. Bytes-like objects are
        copied first.

        Any number of threads may call it at once. All tags of a call are checked before its counters are looked at.

        Parameters
        ----------
        datagrams : Batch, or iterable of bytes-like objects

        Returns
        -------
        Batch
            The packets; fewer than datagrams if some were rejected, replayed or foreign.

        Raises
        ------
        BufferError
            Something still uses a datagram: a slice of a view, a numpy array, a call in another thread. Nothing was
            opened.
        ValueError
            The batch was released, or a datagram was opened before. Nothing was opened.
        SessionClosed
            The Opener is closed, or was made before a fork.
        """
        if isinstance(datagrams, Batch):
            return self.open_in_place(datagrams)
        cdef _Packets held = _packets_from_items(datagrams, "open", TUNRING_AEAD_MAX_DATAGRAM)
        cdef tunring_opener *opener = self.opener  # freed with us, and the caller holds us
        cdef Batch batch = Batch.__new__(Batch)
        cdef Lease lease = Lease.__new__(Lease)
        cdef tunring_store *store
        cdef DWORD code
        # `held` keeps the datagrams in place.
        with nogil:
            code = tunring_store_shared(&store)
            if code == ERROR_SUCCESS:
                code = tunring_store_open(store, opener, held.packets, held.count, &lease.slots)
        if code != ERROR_SUCCESS:
            raise _aead_failure(code, "Opener", self.generation)
        batch.lease = lease
        flag_set(&batch.live)
        return batch

    cdef Batch open_in_place(self, Batch datagrams):
        cdef Batch result = Batch.__new__(Batch)
        cdef Lease lease = Lease.__new__(Lease)
        cdef tunring_opener *opener = self.opener  # freed with us, and the caller holds us
        cdef tunring_lease *slots
        cdef const tunring_part *part
        cdef uint32_t index = 0
        cdef DWORD code = ERROR_SUCCESS
        datagrams.check("opened")
        result.whole = datagrams if datagrams.whole is None else datagrams.whole
        result.from_socket = datagrams.from_socket
        cdef _Views views = result.whole.present_views()
        if views is not None:
            views.end()
        slots = datagrams.lease.slots
        part = datagrams.lease.part
        if slots:
            # `datagrams` keeps the tables, and the operation that this begins the slots.
            with nogil:
                code = tunring_open_part(opener, slots, part, &lease.part, &index)
        if code == ERROR_BUSY:
            raise BufferError(f"datagram {index} is still in use: by something made from a view of it, or by "
                              "another call")
        if code == ERROR_ALREADY_EXISTS:
            raise ValueError(f"packet {index} was opened through another batch and can't be opened")
        if code == ERROR_INVALID_HANDLE:
            raise ValueError("the batch was released and can't be opened")
        if code != ERROR_SUCCESS:
            raise _aead_failure(code, "Opener", self.generation)
        if lease.part:
            lease.whole = datagrams.lease if datagrams.lease.whole is None else datagrams.lease.whole
            lease.slots = slots
        result.lease = lease
        flag_set(&result.live)
        return result

    @property
    def rejected(self) -> int:
        """Datagrams that were not authentic, too short or, with ``strip_padding``, not a whole IP packet."""
        return self.counts().rejected

    @property
    def replayed(self) -> int:
        """Authentic datagrams that were seen before, or older than the window."""
        return self.counts().replayed

    @property
    def foreign(self) -> int:
        """Datagrams of another header."""
        return self.counts().foreign

    def close(self) -> None:
        """Wipe the key once the calls in flight are done; later ones raise SessionClosed. Idempotent."""
        tunring_opener_close(self.opener)


def aead_message(algorithm, key, nonce, aad, text, tag=None):
    """One message by itself, under a key that is used for nothing else. For handshakes, and for published vectors.

    Without ``tag`` it returns ciphertext and tag; else the text, or None if the message is not authentic.
    """
    cdef tunring_aead_algorithm which = _algorithm(algorithm)
    cdef bytes secret = _aead_key(key, which, algorithm)
    cdef bytes fixed = bytes(nonce), extra = bytes(aad)
    cdef bytearray out = bytearray(text), mac = bytearray(16 if tag is None else tag)
    cdef const char *secret_bytes = secret
    cdef const char *fixed_bytes = fixed
    cdef const char *extra_bytes = extra
    cdef char *out_bytes = out
    cdef char *mac_bytes = mac
    cdef tunring_aead_text message
    cdef DWORD code
    if len(fixed) != 12 or len(mac) != 16:
        raise ValueError(f"a nonce has 12 bytes and a tag 16, not {len(fixed)} and {len(mac)}")
    message.nonce = <const BYTE *>fixed_bytes
    message.aad = <const BYTE *>extra_bytes
    message.aad_length = <uint32_t>len(extra)
    message.data = <BYTE *>out_bytes
    message.length = <uint32_t>len(out)
    message.tag = <BYTE *>mac_bytes
    code = tunring_aead_message(_aead_library(algorithm).library, which, <const BYTE *>secret_bytes, tag is not None,
                                &message)
    if code == ERROR_INVALID_DATA:
        return None
    if code != ERROR_SUCCESS:
        raise error_from_code(code, f"{algorithm} failed")
    return (bytes(out), bytes(mac)) if tag is None else bytes(out)
