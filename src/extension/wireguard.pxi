# The part of WireGuard that is done per packet. tunring.wireguard decides, and calls it. Included by _core.pyx.

from collections import namedtuple

_WireGuardState = namedtuple("_WireGuardState", [
    "unanswered_since", "unacknowledged_since", "last_data_sent", "last_sent", "last_received", "received_bytes",
    "sent_bytes", "current_born", "newest_born", "current_initiator", "has_next", "staged",
])

cdef tunring_hashes *_hashes = NULL  # loaded once, never unloaded


cdef tunring_hashes *_wireguard_hashes() except NULL:
    """libcrypto's hashes, from the first library that has them."""
    global _hashes
    cdef char detail[512]
    cdef bytes encoded
    cdef const char *chars
    cdef bint loaded
    cdef tunring_hashes *found = NULL
    cdef DWORD code
    with cython.critical_section(_ALGORITHMS):  # what it points to is whole for other threads, too
        found = _hashes
    if found:
        return found
    from tunring.aead import libcryptos
    from tunring._win32 import Win32
    from tunring.errors import LibraryNotFound

    tried = []
    for path, loaded in libcryptos():
        encoded = os.fsencode(path) if os.name == "posix" else path.encode("utf-16-le") + b"\0"
        chars = encoded
        detail[0] = 0
        with nogil:
            code = tunring_hashes_load(<const tunring_path_char *>chars, loaded, &found, detail, sizeof(detail))
        if code == ERROR_SUCCESS:
            with cython.critical_section(_ALGORITHMS):
                _hashes = found
            return found
        tried.append(f"{path}: {(<bytes>detail).decode('utf-8', 'replace')}")
    raise LibraryNotFound(Win32.MOD_NOT_FOUND, "\n".join(
        ["WireGuard needs OpenSSL's libcrypto, version 3 or later, and found none:", *tried]))


def wireguard_now() -> int:
    """Nanoseconds of the clock of every stamp: monotonic, and it goes on while the system is suspended."""
    return os_boottime()


def wireguard_public_key(Secret private_key not None) -> bytes:
    """The X25519 public key of a private key of 32 bytes."""
    cdef tunring_hashes *hashes = _wireguard_hashes()
    cdef BYTE[32] public_key
    cdef const BYTE *data = _private_key(private_key)
    cdef bint good
    with nogil:  # the caller holds the Secret, and enter() its bytes
        good = tunring_hashes_public_key(hashes, data, &public_key[0])
    private_key.leave()
    if not good:
        raise error_from_code(ERROR_GEN_FAILURE, "libcrypto failed")
    return PyBytes_FromStringAndSize(<const char *>&public_key[0], TUNRING_WIREGUARD_KEY)


def wireguard_exchange(Secret private_key not None, own_public, public_key):
    """Compute the Secret that X25519 gives both sides; None if it is all zeros, as with a public key of small order.

    ``own_public`` is the private key's public key, which saves computing it again.
    """
    cdef bytes own = _wireguard_key(own_public, "own_public")
    cdef bytes other = _wireguard_key(public_key, "public_key")
    cdef const char *own_bytes = own
    cdef const char *other_bytes = other
    cdef tunring_hashes *hashes = _wireguard_hashes()
    cdef Secret shared = Secret(bytes(TUNRING_WIREGUARD_KEY))
    cdef const BYTE *data = _private_key(private_key)
    cdef BYTE *result = tunring_secret_enter(shared.secret)  # nobody else has it
    cdef DWORD code
    with nogil:  # the caller holds the Secret, enter() its bytes; all else is ours
        code = tunring_hashes_exchange(hashes, data, <const BYTE *>own_bytes, <const BYTE *>other_bytes, result)
    shared.leave()
    private_key.leave()
    if code == ERROR_INVALID_DATA:
        return None
    if code != ERROR_SUCCESS:
        raise error_from_code(code, "libcrypto failed")
    return shared


cdef const BYTE *_private_key(Secret secret) except NULL:
    """A private key's bytes. The caller leaves the Secret."""
    if len(secret) != TUNRING_WIREGUARD_KEY:
        raise ValueError(f"a private key must have {TUNRING_WIREGUARD_KEY} bytes, not {len(secret)}")
    return secret.enter()


cdef struct _Taking:
    tunring_wireguard *device
    tunring_wireguard_news news


cdef DWORD _take_news(void *state, const tunring_wait *wait) noexcept nogil:
    cdef _Taking *call = <_Taking *>state
    return tunring_wireguard_take(call.device, wait, &call.news)


cdef bytes _wireguard_key(value, str what):
    """A key's bytes. No message shows them."""
    cdef bytes key = bytes(_contiguous(value, what))
    if len(key) != TUNRING_WIREGUARD_KEY:
        raise ValueError(f"{what} must have {TUNRING_WIREGUARD_KEY} bytes, not {len(key)}")
    return key


cdef bytes _wireguard_message(value):
    cdef bytes message = bytes(_contiguous(value, "data"))
    if not 1 <= len(message) <= TUNRING_WIREGUARD_MESSAGE:
        raise ValueError(f"data must have 1 to {TUNRING_WIREGUARD_MESSAGE} bytes, not {len(message)}")
    return message


@cython.final
cdef class _WireGuardDevice:
    """Everything of a WireGuard device that is done per packet, between a session and a UDP socket.

    Any thread may use it. Times are integers, nanoseconds of :func:`wireguard_now`; 0 stands for never.

    Parameters
    ----------
    session : Session
        Packets come from it and go to it. It is not closed with the device.
    """
    cdef tunring_wireguard *device   # NULL only if __cinit__ failed; freed by __dealloc__
    cdef readonly _Session session   # kept alive
    cdef object used_socket          # kept alive; None without one
    cdef dict peers                  # by number, until they are removed
    cdef object __weakref__

    WANT_HANDSHAKE = TUNRING_WIREGUARD_WANT_HANDSHAKE
    CONFIRMED = TUNRING_WIREGUARD_CONFIRMED
    ACTIVE = TUNRING_WIREGUARD_ACTIVE
    ENDPOINT = TUNRING_WIREGUARD_ENDPOINT

    def __cinit__(self, _Session session not None):
        cdef AeadLibrary library = _aead_library("chacha20-poly1305")
        cdef tunring_hashes *hashes = _wireguard_hashes()
        cdef DWORD code = tunring_wireguard_new(session.get(), library.library, hashes, &self.device)
        if code != ERROR_SUCCESS:
            raise error_from_code(code, "can't make a WireGuard device")
        self.session = session
        self.peers = {}

    def __dealloc__(self):
        if self.device:
            # Its loops and waits hold the object, so there is nothing to wait for.
            tunring_wireguard_close(self.device)
            tunring_wireguard_drop(self.device)

    def __reduce__(self):
        raise TypeError("a WireGuard device can't be copied or pickled")

    def __repr__(self):
        return f"<tunring._core._WireGuardDevice of {self.session!r}, {len(self.peers)} peers>"

    cdef object failure(self, DWORD code, str action):
        if code != ERROR_HANDLE_EOF:
            return error_from_code(code, action)
        state = tunring_wireguard_state(self.device)
        if state == TUNRING_FORKED:
            return _session_closed(action, "forked", "the device was made before the fork: it is the parent process's")
        if state == TUNRING_CLOSED:
            return _session_closed(action, "closed", "the device is closed")
        if state == TUNRING_OPEN:
            return _session_closed(action, "closed", "the peer is removed")
        reason = "closed" if self.session.closed else "removed"
        return _session_closed(action, reason, "the session is over")

    cdef int check(self, DWORD code, str action) except -1:
        if code != ERROR_SUCCESS:
            raise self.failure(code, action)
        return 0

    @property
    def socket(self):
        """The socket that it uses, or None."""
        with cython.critical_section(self):  # another thread may be setting it
            return self.used_socket

    cdef int keep_socket(self, socket) except -1:
        with cython.critical_section(self):
            self.used_socket = socket
        return 0

    @property
    def closed(self) -> bool:
        """True once :meth:`close` was called, or the session is over."""
        return tunring_wireguard_state(self.device) != TUNRING_OPEN

    def run_outgoing(self) -> None:
        """Send what the session's host sends, until the device is closed; for a thread of its own.

        Raises
        ------
        SessionClosed
            The session is over: then the device is too.
        RuntimeError
            Another thread is in it.
        """
        cdef tunring_wireguard *device = self.device  # freed with us, and the caller holds us
        cdef DWORD code
        with nogil:
            code = tunring_wireguard_run_outgoing(device)
        self.loop_ended(code)

    def run_incoming(self) -> None:
        """Deliver what peers send, as :meth:`run_outgoing`."""
        cdef tunring_wireguard *device = self.device  # freed with us, and the caller holds us
        cdef DWORD code
        with nogil:
            code = tunring_wireguard_run_incoming(device)
        self.loop_ended(code)

    cdef int loop_ended(self, DWORD code) except -1:
        if code == ERROR_BUSY:
            raise RuntimeError("another thread is in this loop")
        if code != ERROR_HANDLE_EOF or tunring_wireguard_state(self.device) != TUNRING_CLOSED:
            raise self.failure(code, "the device's loop ended")
        return 0

    def close(self) -> None:
        """End the loops and every wait, and wipe all keys. Idempotent; may be called from any thread."""
        cdef tunring_wireguard *device = self.device
        with nogil:  # the caller holds us
            tunring_wireguard_close(device)
        self.keep_socket(None)
        self.peers.clear()

    def set_socket(self, _UdpSocket socket) -> None:
        """Use another socket from now on, or none."""
        cdef tunring_socket *used = NULL if socket is None else socket.socket
        self.check(tunring_wireguard_set_socket(self.device, used), "can't set the socket")
        self.keep_socket(socket)

    def set_identity(self, mac1_key, cookie_key) -> None:
        """The hashes of the own public key that keep handshake messages out; None for both lets none through."""
        cdef bytes mac1, cookie
        cdef const char *mac1_bytes = NULL
        cdef const char *cookie_bytes = NULL
        if mac1_key is not None or cookie_key is not None:
            mac1 = _wireguard_key(mac1_key, "mac1_key")
            cookie = _wireguard_key(cookie_key, "cookie_key")
            mac1_bytes = mac1
            cookie_bytes = cookie
        self.check(tunring_wireguard_set_identity(self.device, <const BYTE *>mac1_bytes, <const BYTE *>cookie_bytes),
                   "can't set the identity")

    def set_mtu(self, mtu) -> None:
        """The size in bytes that padding never exceeds."""
        self.check(tunring_wireguard_set_mtu(self.device, _integer(mtu, "mtu", 0, 65535)), "can't set the MTU")

    def set_limits(self, *, rekey_messages=1 << 60, reject_messages=2**64 - 2**13 - 1, rekey_after=120 * 10**9,
                   reject_after=180 * 10**9, rekey_on_receive=165 * 10**9) -> None:
        """For tests: other limits than the protocol's, in messages and nanoseconds."""
        cdef tunring_wireguard_limits limits
        limits.rekey_messages = rekey_messages
        limits.reject_messages = reject_messages
        limits.rekey_after = rekey_after
        limits.reject_after = reject_after
        limits.rekey_on_receive = rekey_on_receive
        self.check(tunring_wireguard_set_limits(self.device, &limits), "can't set limits")

    def send_to(self, data, to) -> bool:
        """Send a handshake message to an endpoint, from its local address. False if it did not leave."""
        cdef bytes message = _wireguard_message(data)
        cdef const char *chars = message
        cdef uint32_t size = <uint32_t>len(message)
        cdef Endpoint endpoint = _endpoint_of(to)
        cdef tunring_wireguard *device = self.device
        cdef c_bool sent = False
        cdef DWORD code
        with nogil:  # the caller holds us; `message` and `endpoint` are ours
            code = tunring_wireguard_send_to(device, <const BYTE *>chars, size, &endpoint.value, &sent)
        self.check(code, "can't send")
        return sent

    def take(self, timeout=None):
        """Take what has happened, waiting for it.

        Returns
        -------
        list of (bytes, Endpoint, _WireGuardPeer or None)
            Handshake messages that were let through, and the peer whose index they answer.
        list of (_WireGuardPeer, int)
            Peers, and flags of what has happened to them.
        """
        cdef _Taking call
        cdef DWORD code
        cdef uint32_t i
        call.device = self.device
        call.news.messages = call.news.events = 0
        code = _wait_for(_take_news, &call, _deadline(timeout))
        if code != WAIT_TIMEOUT:
            self.check(code, "can't wait")
        messages = []
        for i in range(call.news.messages):
            peer = self.peers.get(call.news.message[i].peer)
            if call.news.message[i].peer and peer is None:
                continue  # it was removed meanwhile
            data = PyBytes_FromStringAndSize(<const char *>call.news.message[i].data, call.news.message[i].length)
            messages.append((data, _endpoint_from(&call.news.message[i].source), peer))
        events = []
        for i in range(call.news.events):
            peer = self.peers.get(call.news.event[i].peer)
            if peer is not None:
                events.append((peer, call.news.event[i].flags))
        return messages, events

    def wake(self) -> None:
        """End a :meth:`take`, or the next, before its time. May be called at any time."""
        tunring_wireguard_wake(self.device)

    def add_peer(self, tag=None) -> _WireGuardPeer:
        """Add a peer without keys, endpoint and networks."""
        cdef _WireGuardPeer peer = _WireGuardPeer.__new__(_WireGuardPeer)
        self.check(tunring_wireguard_peer_add(self.device, &peer.peer), "can't add a peer")
        peer.device = self
        peer.caller_tag = tag
        self.peers[tunring_wireguard_peer_number(peer.peer)] = peer
        return peer

    def new_index(self, _WireGuardPeer peer not None) -> int:
        """An index for a handshake of the peer: random, and unlike every other of the device."""
        cdef uint32_t index = 0
        self.check(tunring_wireguard_index_new(peer.get(), &index), "can't make an index")
        return index

    def free_index(self, index) -> None:
        """Give up an index of a handshake; a keypair's stays."""
        self.check(tunring_wireguard_index_free(self.device, index), "can't give up an index")

    def stats(self) -> dict:
        """Figures so far: datagrams, packets and handshake messages that were dropped, by the reason."""
        cdef tunring_wireguard_figures figures
        tunring_wireguard_figures_read(self.device, &figures)
        return figures


@cython.final
cdef class _WireGuardLock:
    """The lock on a device's peers and identity, to be held by ``with``; a thread may take it again.

    A thread that waits for it gives up when the device is closed: a signal handler that closes it may have interrupted
    the thread that holds the lock, and waits for this one. It is C, so that Ctrl-C never comes between the lock and the
    block that gives it back. (In CPython 3.14 it may, with any lock, until gh-148874 is mended.)
    """
    cdef _WireGuardDevice device
    cdef object lock

    def __cinit__(self, _WireGuardDevice device not None):
        self.device = device
        self.lock = threading.RLock()

    def __reduce__(self):
        raise TypeError("a lock can't be copied or pickled")

    def __enter__(self):
        while not self.lock.acquire(True, 0.1):
            if self.device.closed:
                raise self.device.failure(ERROR_HANDLE_EOF, "can't use the device")
        return self

    def __exit__(self, *exception):
        self.lock.release()


@cython.final
@cython.no_gc_clear
cdef class _WireGuardPeer:
    """A peer of a device. :meth:`_WireGuardDevice.add_peer` makes it."""
    cdef tunring_wireguard_peer *peer         # set once; freed by __dealloc__
    cdef readonly _WireGuardDevice device     # kept alive
    cdef object caller_tag

    def __init__(self):
        raise TypeError("_WireGuardDevice.add_peer() makes peers")

    def __dealloc__(self):
        if self.peer:
            tunring_wireguard_peer_drop(self.peer)

    def __reduce__(self):
        raise TypeError("a peer can't be copied or pickled")

    cdef tunring_wireguard_peer *get(self) except NULL:
        if not self.peer:
            raise TypeError("_WireGuardDevice.add_peer() makes peers")
        return self.peer

    def __repr__(self):
        return f"<tunring._core._WireGuardPeer {tunring_wireguard_peer_number(self.get())}>"

    @property
    def tag(self):
        """Whatever the caller has set."""
        with cython.critical_section(self):  # another thread may be setting it
            return self.caller_tag

    @tag.setter
    def tag(self, value):
        with cython.critical_section(self):
            self.caller_tag = value

    def remove(self) -> None:
        """Take it out of the device, with its keys, networks, indices and staged packets. Idempotent."""
        cdef tunring_wireguard_peer *peer = self.get()
        self.device.peers.pop(tunring_wireguard_peer_number(peer), None)
        tunring_wireguard_peer_remove(peer)

    @property
    def endpoint(self):
        """Where its datagrams go to, an Endpoint or None."""
        cdef tunring_endpoint value
        self.device.check(tunring_wireguard_peer_endpoint(self.get(), &value), "no endpoint")
        return _endpoint_from(&value) if value.port else None

    @endpoint.setter
    def endpoint(self, to):
        cdef tunring_endpoint value
        memset(&value, 0, sizeof(value))
        if to is not None:
            value = _endpoint_of(to).value
            if not value.port:
                raise ValueError("an endpoint's port must not be 0")
        self.device.check(tunring_wireguard_peer_set_endpoint(self.get(), &value), "can't set the endpoint")

    cdef int allow(self, networks, bint replace) except -1:
        cdef list items = list(networks)
        cdef Py_ssize_t i
        cdef bytes address
        cdef const char *chars
        cdef DWORD code
        cdef tunring_prefix *prefixes = <tunring_prefix *>PyMem_Calloc(len(items) + 1, sizeof(tunring_prefix))
        if not prefixes:
            raise MemoryError()
        try:
            for i in range(len(items)):
                address = bytes(items[i][0])
                if len(address) not in (4, 16):
                    raise ValueError(f"a network's address has 4 or 16 bytes, not {len(address)}")
                chars = address
                memcpy(prefixes[i].address, chars, len(address))
                prefixes[i].version = 4 if len(address) == 4 else 6
                prefixes[i].length = _integer(items[i][1], "a prefix's length", 0, 8 * len(address))
            code = tunring_wireguard_peer_allow(self.get(), prefixes, <uint32_t>len(items), replace)
        finally:
            PyMem_Free(prefixes)
        return self.device.check(code, "can't set allowed IPs")

    def set_allowed_ips(self, networks) -> None:
        """Replace its networks by these (address, prefix length), which other peers lose.

        Bits behind a prefix must be 0.
        """
        self.allow(networks, True)

    def add_allowed_ip(self, address, length) -> None:
        """Give it another network, which any other peer loses."""
        self.allow([(address, length)], False)

    def allowed_ips(self) -> list:
        """Its networks: (address, prefix length), IPv4 first."""
        cdef uint32_t count = 0, room = 16, i
        cdef tunring_prefix *prefixes = NULL
        try:
            while True:
                prefixes = <tunring_prefix *>_allocate(room, sizeof(tunring_prefix))
                self.device.check(tunring_wireguard_peer_allowed(self.get(), prefixes, room, &count), "no allowed IPs")
                if count <= room:
                    break
                PyMem_Free(prefixes)
                prefixes = NULL
                room = count
            result = []
            for i in range(count):
                size = 4 if prefixes[i].version == 4 else 16
                result.append((PyBytes_FromStringAndSize(<const char *>prefixes[i].address, size), prefixes[i].length))
            return result
        finally:
            PyMem_Free(prefixes)

    def install(self, index, remote_index, send_key, receive_key, *, initiator) -> None:
        """Use the keys that a handshake has left; its index becomes theirs.

        The initiator sends under them at once: staged packets or a keepalive, in this call. The responder does so once
        authentic data has come under them.

        Raises
        ------
        NotFound
            The index is not a handshake's of this peer any more.
        """
        cdef bytes send = _wireguard_key(send_key, "send_key")
        cdef bytes receive = _wireguard_key(receive_key, "receive_key")
        cdef const char *send_bytes = send
        cdef const char *receive_bytes = receive
        cdef tunring_wireguard_peer *peer = self.get()
        cdef tunring_wireguard_keys keys
        cdef DWORD code
        keys.index = index
        keys.remote_index = remote_index
        keys.send = <const BYTE *>send_bytes
        keys.receive = <const BYTE *>receive_bytes
        keys.initiator = initiator
        with nogil:  # the caller holds us, and `send` and `receive` are ours
            code = tunring_wireguard_peer_install(peer, &keys)
        self.device.check(code, "can't install keys")

    def wipe_keys(self) -> None:
        """Forget all its keys."""
        self.device.check(tunring_wireguard_peer_wipe(self.get()), "can't wipe keys")

    def drop_staged(self) -> None:
        """Drop the packets that wait for a key."""
        self.device.check(tunring_wireguard_peer_drop_staged(self.get()), "can't drop packets")

    @property
    def staged(self) -> int:
        """Packets that wait for a key."""
        return self.state().staged

    def send_handshake(self, data) -> bool:
        """Send a handshake message to its endpoint. False without one, or if it did not leave."""
        cdef bytes message = _wireguard_message(data)
        cdef const char *chars = message
        cdef uint32_t size = <uint32_t>len(message)
        cdef tunring_wireguard_peer *peer = self.get()
        cdef c_bool sent = False
        cdef DWORD code
        with nogil:  # the caller holds us, and `message` is ours
            code = tunring_wireguard_peer_send(peer, <const BYTE *>chars, size, &sent)
        self.device.check(code, "can't send")
        return sent

    def send_keepalive(self) -> bool:
        """Send an empty data message. False without a key that may be used, or an endpoint."""
        cdef tunring_wireguard_peer *peer = self.get()
        cdef c_bool sent = False
        cdef DWORD code
        with nogil:  # the caller holds us
            code = tunring_wireguard_peer_keepalive(peer, &sent)
        self.device.check(code, "can't send")
        return sent

    def heard(self, size, source=None) -> None:
        """Note that a handshake message of ``size`` bytes was authentic; the endpoint follows ``source``, if given."""
        cdef Endpoint endpoint = None if source is None else _endpoint_of(source)
        self.device.check(tunring_wireguard_peer_heard(self.get(), size, NULL if endpoint is None else &endpoint.value),
                          "can't note a message")

    def watch_until(self, time) -> None:
        """When the caller looks at :meth:`state` again; stamps that need it earlier raise ACTIVE."""
        self.device.check(tunring_wireguard_peer_watch(self.get(), time), "can't watch")

    def state(self) -> _WireGuardState:
        """Its stamps, counts and keys; zeros once it is removed."""
        cdef tunring_wireguard_status status
        tunring_wireguard_peer_status(self.get(), &status)
        return _WireGuardState(
            status.unanswered_since, status.unacknowledged_since, status.last_data_sent, status.last_sent,
            status.last_received, status.received_bytes, status.sent_bytes, status.current_born, status.newest_born,
            bool(status.current_initiator), bool(status.has_next), status.staged,
        )
