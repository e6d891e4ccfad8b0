# cython: language_level=3, embedsignature=True, binding=True, boundscheck=False, wraparound=False, auto_pickle=False
"""The extension module: objects over the C core, which moves the packets.

Here live reference counts, exceptions and argument checks. Policy (which library, names, configuration) is in the
plain Python modules beside this one, and every loop over packets in ``src/core``.
"""

import io
import math
import operator
import os
import threading
import warnings
import weakref

cimport cython
from cpython.buffer cimport (
    PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_CheckBuffer,
    PyObject_GetBuffer,
)
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.memoryview cimport PyMemoryView_FromObject, PyMemoryView_GET_BUFFER
from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from tunring cimport *
from wintun cimport *

from tunring.stats import Stats
from tunring.errors import LibraryInvalid, SessionClosed, error_from_code


cdef extern from "Python.h":
    PyObject *PyList_GET_ITEM(list, Py_ssize_t) noexcept
    Py_ssize_t Py_REFCNT(PyObject *) noexcept

cdef extern from "interrupt.h":
    ctypedef struct interrupt:
        HANDLE handle
    int interrupt_init(unsigned long main_thread) except -1
    int interrupt_arm(interrupt *state) except -1
    int interrupt_check(interrupt *state) except -1
    void interrupt_disarm(interrupt *state) noexcept


def _note_main_thread():
    interrupt_init(threading.main_thread().ident)


_note_main_thread()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_main_thread)


# ---- Arguments ----

cdef int64_t _deadline(timeout) except? -1:
    """The clock's nanoseconds at which ``timeout`` seconds are over; 0 polls."""
    if timeout is None:
        return TUNRING_FOREVER
    if isinstance(timeout, (str, bytes, bytearray)):
        raise TypeError(f"timeout must be seconds or None, not {timeout!r}")
    try:
        seconds = float(timeout)
    except (TypeError, ValueError):
        raise TypeError(f"timeout must be seconds or None, not {timeout!r}") from None
    except OverflowError:
        seconds = math.inf if timeout > 0 else -math.inf
    if math.isnan(seconds) or seconds < 0:
        raise ValueError(f"timeout must be 0 or more seconds, or None for no limit, not {timeout!r}")
    if seconds == 0:
        return 0
    # int64 nanoseconds reach 292 years ahead.
    return TUNRING_FOREVER if seconds > 9e9 else tunring_deadline(<int64_t>(seconds * 1e9) + 1)


cdef str _packet_fault(const unsigned char *data, Py_ssize_t size):
    """Why a host would not accept this packet, or None."""
    if size > WINTUN_MAX_IP_PACKET_SIZE:
        return f"has {size} bytes; at most {WINTUN_MAX_IP_PACKET_SIZE} are allowed"
    if tunring_packet_is_ip(data, <uint32_t>size):
        return None
    version = data[0] >> 4 if size else None
    return (f"is no IP packet: it has {size} bytes and version {version}; "
            "IPv4 takes at least 20 bytes and IPv6 at least 40")


@cython.final
@cython.no_gc
cdef class _Sizes:
    """Packet sizes from an integer buffer or a sequence, checked to be 0 to 65535."""
    cdef uint32_t *values   # `count` of them, ours
    cdef Py_ssize_t count   # packets
    cdef uint64_t total     # their sum, in bytes

    def __cinit__(self, sizes, str what):
        if isinstance(sizes, (str, bytes, bytearray)):
            raise TypeError(f"{what} must be integers, not {type(sizes).__name__}")
        if PyObject_CheckBuffer(sizes):
            view = memoryview(sizes)
            if view.ndim != 1:
                raise ValueError(f"{what} must have one dimension, not {view.ndim}")
            if view.format == "I" and view.c_contiguous:
                self.copy(view)  # as Batch.lengths is, without an object each
            else:
                try:
                    self.convert(view.tolist(), what)
                except NotImplementedError:
                    self.convert(list(sizes), what)  # a format that only its owner reads, say of the other byte order
        else:
            self.convert(list(sizes), what)
        cdef Py_ssize_t i
        for i in range(self.count):
            if self.values[i] > WINTUN_MAX_IP_PACKET_SIZE:
                raise ValueError(f"{what}[{i}] must be 0 to {WINTUN_MAX_IP_PACKET_SIZE}, not {self.values[i]}")
            self.total += self.values[i]

    cdef int make_room(self, Py_ssize_t count) except -1:
        self.values = <uint32_t *>PyMem_Malloc((count + 1) * sizeof(uint32_t))
        if not self.values:
            raise MemoryError()
        self.count = count
        return 0

    cdef int copy(self, view) except -1:
        cdef Py_buffer buffer
        PyObject_GetBuffer(view, &buffer, PyBUF_SIMPLE)
        try:
            self.make_room(buffer.len // sizeof(uint32_t))
            memcpy(self.values, buffer.buf, buffer.len)
        finally:
            PyBuffer_Release(&buffer)
        return 0

    cdef int convert(self, list items, str what) except -1:
        cdef Py_ssize_t i
        cdef long long size
        self.make_room(len(items))
        for i in range(self.count):
            try:
                size = items[i] if isinstance(items[i], int) else operator.index(items[i])
            except TypeError:
                raise TypeError(f"{what}[{i}] must be an integer, not {items[i]!r}") from None
            except OverflowError:
                size = -1
            if not 0 <= size <= WINTUN_MAX_IP_PACKET_SIZE:
                raise ValueError(f"{what}[{i}] must be 0 to {WINTUN_MAX_IP_PACKET_SIZE}, not {items[i]}")
            self.values[i] = <uint32_t>size
        return 0

    def __dealloc__(self):
        PyMem_Free(self.values)


@cython.final
@cython.no_gc
cdef class _Packets:
    """Packets to send, checked, with what keeps their memory in place."""
    cdef tunring_packet *packets  # `count` of them, ours
    cdef uint32_t count           # packets
    cdef Py_buffer *buffers       # `held` acquired buffers, ours
    cdef Py_ssize_t held          # how many of them to release
    cdef tunring_lease *lease     # a lease we are in an operation on, or NULL
    cdef object owner             # keeps the lease's memory

    def __dealloc__(self):
        cdef Py_ssize_t i
        for i in range(self.held):
            PyBuffer_Release(&self.buffers[i])
        if self.lease:
            tunring_lease_leave(self.lease)
        PyMem_Free(self.buffers)
        PyMem_Free(self.packets)

    cdef int make_room(self, Py_ssize_t packets, Py_ssize_t buffers) except -1:
        if packets > 0x7FFFFFFF:
            raise ValueError(f"too many packets: {packets}")
        self.packets = <tunring_packet *>PyMem_Malloc((packets + 1) * sizeof(tunring_packet))
        self.buffers = <Py_buffer *>PyMem_Malloc((buffers + 1) * sizeof(Py_buffer))
        if not self.packets or not self.buffers:
            raise MemoryError()
        return 0


cdef _Packets _packets_from_items(packets):
    """From an iterable of bytes-like objects: all held and checked, or an exception that names the index."""
    if isinstance(packets, (str, bytes, bytearray, memoryview)):
        raise TypeError(f"send takes an iterable of packets, not one {type(packets).__name__}; "
                        "for a single packet: send([packet])")
    # A copy: buffers may run Python code, and other threads may change the list meanwhile.
    cdef list items = list(packets)
    cdef _Packets result = _Packets()
    cdef Py_ssize_t i, count = len(items)
    cdef Py_buffer *buffer
    result.make_room(count, count)
    for i in range(count):
        buffer = &result.buffers[i]
        try:
            PyObject_GetBuffer(items[i], buffer, PyBUF_SIMPLE)
        except TypeError as error:
            raise TypeError(f"packet {i}: {error}") from None
        except (BufferError, ValueError) as error:
            raise ValueError(f"packet {i} must be one contiguous, live buffer: {error}") from None
        result.held = i + 1
        fault = _packet_fault(<const unsigned char *>buffer.buf, buffer.len)
        if fault is not None:
            raise ValueError(f"packet {i} {fault}")
        result.packets[i].data = <const BYTE *>buffer.buf
        result.packets[i].length = <uint32_t>buffer.len
    result.count = <uint32_t>count
    return result


cdef _Packets _packets_from_packed(buffer, lengths):
    """From one buffer of packets back to back."""
    cdef _Sizes sizes = _Sizes(lengths, "lengths")
    cdef _Packets result = _Packets()
    cdef Py_ssize_t i
    result.make_room(sizes.count, 1)
    PyObject_GetBuffer(buffer, result.buffers, PyBUF_SIMPLE)
    result.held = 1
    if sizes.total != <uint64_t>result.buffers[0].len:
        raise ValueError(f"the lengths add up to {sizes.total} bytes, the buffer has {result.buffers[0].len}")
    cdef const unsigned char *at = <const unsigned char *>result.buffers[0].buf
    for i in range(sizes.count):
        fault = _packet_fault(at, sizes.values[i])
        if fault is not None:
            raise ValueError(f"packet {i} {fault}")
        result.packets[i].data = <const BYTE *>at
        result.packets[i].length = sizes.values[i]
        at += sizes.values[i]
    result.count = <uint32_t>sizes.count
    return result


cdef _Packets _packets_from_batch(Batch batch, tunring_session *session):
    """From a batch, which can't be let go meanwhile. What is no IP packet is skipped and counted."""
    cdef _Packets result = _Packets()
    cdef tunring_lease *lease = batch.enter("sent")
    if not lease:
        result.make_room(0, 0)
        return result
    result.lease = lease
    result.owner = batch.lease
    result.make_room(lease.count, 0)
    with nogil:
        result.count = tunring_lease_packets(lease, result.packets)
    if result.count < lease.count:
        tunring_session_count_skipped(session, lease.count - result.count)
    return result


# ---- Libraries and adapters ----

@cython.final
cdef class Library:
    """One loaded library of the Wintun ABI. :func:`tunring.load` makes it; it is never unloaded.

    Attributes
    ----------
    path : str
        The file it was loaded from.
    name : str
        ``"tun_linux"``, ``"loopback"``, or ``"wintun"`` for a library without our own table, as the official DLL.
    official : bool
        True for a library without our own table.
    """
    cdef tunring_api *api         # the 14 functions; never freed, as rings may outlive the interpreter's objects
    cdef readonly str path        # the file
    cdef readonly str name        # what kind of library
    cdef readonly bint official   # it has the 14 functions and no more
    cdef readonly uint32_t log_id  # its number in log lines
    cdef object __weakref__

    def __cinit__(self, str path):
        cdef char detail[512]
        cdef bytes encoded = os.fsencode(path) if os.name == "posix" else path.encode("utf-16-le") + b"\0"
        cdef const char *chars = encoded
        cdef DWORD code
        self.api = <tunring_api *>malloc(sizeof(tunring_api))
        if not self.api:
            raise MemoryError()
        detail[0] = 0
        with nogil:
            code = tunring_api_load(self.api, <const tunring_path_char *>chars, detail, sizeof(detail))
        if code != ERROR_SUCCESS:
            free(self.api)
            self.api = NULL
            raise error_from_code(code, f"can't load {path!r}", (<bytes>detail).decode("utf-8", "replace"))
        if not tunring_log_attach(self.api, &self.log_id):
            raise LibraryInvalid(ERROR_BUSY, f"can't load {path!r}: at most {TUNRING_LOG_LIBRARIES} libraries fit")
        self.path = path
        self.official = self.api.backend == NULL
        self.name = "wintun" if self.official else (<bytes>self.api.backend.name).decode()

    def __repr__(self):
        return f"<tunring.Library {self.name!r} from {self.path!r}>"

    def create_adapter(self, str name, str tunnel_type, bytes guid):
        """Create an adapter; ``guid`` is 16 bytes or None. For :meth:`tunring.Adapter.create`."""
        cdef AdapterHandle handle = AdapterHandle.__new__(AdapterHandle)
        cdef bytes wide_name = _utf16(name)
        cdef bytes wide_type = _utf16(tunnel_type)
        cdef const char *name_chars = wide_name
        cdef const char *type_chars = wide_type
        cdef const char *guid_chars = NULL
        cdef DWORD code
        if guid is not None:
            guid_chars = guid
        handle.library = self
        with nogil:
            tunring_log_forget()
            code = tunring_adapter_create(self.api, <LPCWSTR>name_chars, <LPCWSTR>type_chars,
                                          <const GUID *>guid_chars, &handle.adapter)
        if code != ERROR_SUCCESS:
            raise error_from_code(code, f"can't create adapter {name!r}", _last_log_lines())
        return handle

    def open_adapter(self, str name):
        """Open an existing adapter. For :meth:`tunring.Adapter.open`."""
        cdef AdapterHandle handle = AdapterHandle.__new__(AdapterHandle)
        cdef bytes wide_name = _utf16(name)
        cdef const char *name_chars = wide_name
        cdef DWORD code
        handle.library = self
        with nogil:
            tunring_log_forget()
            code = tunring_adapter_open(self.api, <LPCWSTR>name_chars, &handle.adapter)
        if code != ERROR_SUCCESS:
            raise error_from_code(code, f"can't open adapter {name!r}", _last_log_lines())
        return handle

    def adopt_descriptor(self, int descriptor):
        """Make an adapter of an attached descriptor. For :meth:`tunring.Adapter.from_fd`."""
        cdef AdapterHandle handle = AdapterHandle.__new__(AdapterHandle)
        cdef DWORD code
        handle.library = self
        with nogil:
            tunring_log_forget()
            code = tunring_adapter_adopt(self.api, descriptor, &handle.adapter)
        if code != ERROR_SUCCESS:
            raise error_from_code(code, f"can't use descriptor {descriptor}", _last_log_lines())
        return handle

    def set_option(self, str name, unsigned int value):
        """Set an option of the library, for adapters made from now on. True if it has such an option."""
        cdef bytes encoded = name.encode()
        cdef DWORD code
        if self.official:
            return False
        code = self.api.backend.set_option(encoded, value)
        if code == ERROR_NOT_FOUND:
            return False
        if code != ERROR_SUCCESS:
            raise error_from_code(code, f"can't set option {name!r} to {value}")
        return True

    def running_driver_version(self):
        """The driver's version as (major, minor)."""
        cdef DWORD version, code
        with nogil:
            tunring_log_forget()
            version = self.api.WintunGetRunningDriverVersion()
            code = GetLastError()
        if not version:
            raise error_from_code(code, "no driver version", _last_log_lines())
        return version >> 16, version & 0xFFFF

    def delete_driver(self):
        """Remove the driver from the system."""
        cdef DWORD code
        cdef int done
        with nogil:
            tunring_log_forget()
            done = self.api.WintunDeleteDriver()
            code = GetLastError()
        if not done:
            raise error_from_code(code, "can't delete the driver", _last_log_lines())


cdef bytes _utf16(str text):
    # The second zero byte of the final unit is the one that bytes objects have anyway.
    return text.encode("utf-16-le", "surrogatepass") + b"\0"


cdef str _last_log_lines():
    cdef char text[2048]
    cdef size_t size = tunring_log_recall(text, sizeof(text))
    return text[:size].decode("utf-8", "replace")


@cython.final
cdef class AdapterHandle:
    """An adapter as the library knows it. :class:`tunring.Adapter` owns one."""
    cdef tunring_adapter *adapter  # NULL once closed
    cdef Library library           # whose it is

    def __dealloc__(self):
        if self.adapter:
            tunring_adapter_drop(self.adapter)

    cdef WINTUN_ADAPTER_HANDLE handle(self) except NULL:
        if not self.adapter:
            raise ValueError("the adapter is closed")
        return tunring_adapter_handle(self.adapter)

    @property
    def address(self) -> int:
        """The library's own handle, for calls through another binding."""
        return <size_t>self.handle()

    @property
    def luid(self) -> int:
        cdef NET_LUID luid
        self.library.api.WintunGetAdapterLUID(self.handle(), &luid)
        return luid.Value

    @property
    def name(self):
        """The name as the system knows it now, or None where the library can't tell."""
        cdef char name[512]
        cdef WINTUN_ADAPTER_HANDLE handle = self.handle()
        if self.library.official or self.library.api.backend.adapter_name(handle, name, sizeof(name)):
            return None
        return (<bytes>name).decode("utf-8", "replace")

    @property
    def index(self):
        """The interface index, or None where the library can't tell or the system has no such interface."""
        cdef DWORD index = 0
        cdef WINTUN_ADAPTER_HANDLE handle = self.handle()
        if self.library.official or self.library.api.backend.adapter_index(handle, &index):
            return None
        return index or None

    def open_namespace(self):
        """A descriptor of the network namespace that the adapter is in, or -1."""
        cdef WINTUN_ADAPTER_HANDLE handle = self.handle()
        return -1 if self.library.official else self.library.api.backend.adapter_namespace(handle)

    @property
    def pinned(self) -> int:
        """Packets that keep a closed session of this adapter from ending."""
        return tunring_adapter_pinned(self.adapter) if self.adapter else 0

    def close(self):
        cdef tunring_adapter *adapter = self.adapter
        self.adapter = NULL
        if adapter:
            with nogil:
                tunring_adapter_close(adapter)


# ---- Packets ----

@cython.final
@cython.no_gc
@cython.freelist(16)
cdef class Lease:
    """What memoryviews export from: slots of a ring, each held until its last view is gone."""
    cdef tunring_lease *slots  # never NULL
    cdef Py_ssize_t exporting  # the slot that the memoryview being made is for, or -1

    def __cinit__(self):
        self.exporting = -1

    def __dealloc__(self):
        if self.slots:
            tunring_lease_free(self.slots)

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        cdef Py_ssize_t index = self.exporting
        if index < 0:
            raise BufferError("take a view of one packet instead: batch[i]")
        if not tunring_lease_hold(self.slots, <uint32_t>index):
            raise ValueError("the packet was released")
        cdef tunring_slot *slot = &self.slots.slots[index]
        PyBuffer_FillInfo(buffer, self, slot.data, slot.length, 0, flags)
        buffer.internal = <void *>index

    def __releasebuffer__(self, Py_buffer *buffer):
        tunring_lease_unhold(self.slots, <uint32_t><size_t>buffer.internal)

    cdef object view(self, Py_ssize_t index):
        """A new memoryview of one slot."""
        while True:
            self.exporting = index
            try:
                view = PyMemoryView_FromObject(self)
            finally:
                self.exporting = -1
            # Making it may have collected garbage, and a finalizer taken a view of another slot in between.
            if PyMemoryView_GET_BUFFER(view).internal == <void *>index:
                return view


@cython.final
@cython.no_gc
cdef class _Views:
    """The memoryviews that were handed out, so that they can be ended.

    The references are strong: a weak one costs more than the view. One that nobody else has any more is dropped soon,
    so that a loop over a batch goes through two views' memory again and again, which stays in the cache.
    """
    cdef list views        # what was handed out and may still be in use
    cdef Py_ssize_t limit  # length at which all those that nobody else has are dropped

    def __cinit__(self):
        self.views = []
        self.limit = 64

    cdef bint only_ours(self, Py_ssize_t index) noexcept:
        return Py_REFCNT(PyList_GET_ITEM(self.views, index)) == 1

    cdef object add(self, object view):
        cdef list views = self.views
        cdef Py_ssize_t count = len(views)
        # A loop's variable still has the last one; the one before is usually free.
        if count >= 2 and self.only_ours(count - 2):
            views[count - 2] = views[count - 1]
            views[count - 1] = view
            return view
        views.append(view)
        if count >= self.limit:
            self.views = [views[i] for i in range(count + 1) if not self.only_ours(i)]
            self.limit = 2 * len(self.views) + 64
        return view

    cdef end(self):
        """End every view. One that something derives from can't be: it holds its slot until that is gone."""
        cdef list views = self.views
        cdef Py_ssize_t i
        for i in range(len(views)):
            if not self.only_ours(i):
                try:
                    views[i].release()
                except BufferError:
                    pass
        self.views = []


@cython.final
@cython.no_gc
@cython.freelist(16)
cdef class Batch:
    """Received packets, in ring memory.

    A sequence of writable memoryviews, made when asked for: ``batch[i]`` and iteration copy nothing. Give the slots
    back with :meth:`release` or a ``with`` block as soon as you can, and copy what you keep: the ring regains room only
    up to the oldest packet that is still held. A Batch may be used and released after its session is closed.

    Examples
    --------
    >>> import tunring.testing
    >>> left, right = tunring.testing.pair()
    >>> left.send([bytes([0x45]) + bytes(19)] * 2)
    2
    >>> with right.receive() as batch:
    ...     len(batch), batch.nbytes, list(batch.lengths), batch[0][0] >> 4
    (2, 40, [20, 20], 4)
    >>> left.close(); right.close()
    """
    cdef Lease lease         # None for an empty batch
    cdef _Views views        # None before the first view
    cdef object _lengths     # None before it is asked for
    cdef readonly bint released
    """True after :meth:`release`."""

    def __init__(self):
        raise TypeError("Session.receive() makes batches")

    def __reduce__(self):
        raise TypeError("a Batch can't be copied or pickled; tobytes() copies its packets")

    def __dealloc__(self):
        if self.lease is not None and not self.released:
            tunring_lease_release(self.lease.slots)

    cdef Py_ssize_t size(self) noexcept:
        return 0 if self.lease is None else self.lease.slots.count

    cdef int check(self, str verb) except -1:
        if self.released:
            raise ValueError(f"the batch was released and can't be {verb}")
        return 0

    cdef tunring_lease *enter(self, str verb) except? NULL:
        """Begin a C operation: until tunring_lease_leave() a release waits. NULL for an empty batch."""
        self.check(verb)
        if self.lease is None:
            return NULL
        if not tunring_lease_enter(self.lease.slots):
            raise ValueError(f"the batch was released and can't be {verb}")
        return self.lease.slots

    cdef object view(self, Py_ssize_t index):
        self.check("read")
        if self.views is None:
            self.views = _Views()
        return self.views.add(self.lease.view(index))

    def __len__(self):
        return self.size()

    def __getitem__(self, index, /):
        self.check("read")
        cdef Py_ssize_t count = self.size()
        cdef Py_ssize_t i
        if isinstance(index, slice):
            return [self.view(i) for i in range(*index.indices(count))]
        try:
            i = operator.index(index)
        except OverflowError:
            i = count
        if i < 0:
            i += count
        if not 0 <= i < count:
            raise IndexError(f"packet {index} of a batch of {count}")
        return self.view(i)

    def __iter__(self):
        self.check("read")
        cdef BatchIterator iterator = BatchIterator.__new__(BatchIterator)
        iterator.batch = self
        return iterator

    def __enter__(self):
        self.check("entered")
        return self

    def __exit__(self, *exception):
        self.release()

    def __repr__(self):
        state = " released" if self.released else ""
        return f"<tunring.Batch of {len(self)} packets, {self.nbytes} bytes{state}>"

    @property
    def nbytes(self) -> int:
        """Bytes of all packets together."""
        return 0 if self.lease is None else self.lease.slots.bytes

    @property
    def lengths(self):
        """The packets' lengths in bytes: a read-only memoryview of format "I", with memory of its own."""
        cdef uint32_t *values
        cdef Py_ssize_t i, count = self.size()
        cdef bytes memory
        if self._lengths is None:
            memory = PyBytes_FromStringAndSize(NULL, count * sizeof(uint32_t))
            values = <uint32_t *><char *>memory
            for i in range(count):
                values[i] = self.lease.slots.slots[i].length
            self._lengths = memoryview(memory).cast("I")
        return self._lengths

    def tobytes(self) -> list:
        """The packets as a list of bytes objects: copies, to keep."""
        cdef tunring_lease *lease = self.enter("copied")
        cdef Py_ssize_t i
        if not lease:
            return []
        try:
            return [PyBytes_FromStringAndSize(<char *>lease.slots[i].data, lease.slots[i].length)
                    for i in range(lease.count)]
        finally:
            tunring_lease_leave(lease)

    def pack_into(self, buffer) -> int:
        """Copy all packets, back to back, into a writable contiguous buffer.

        Returns
        -------
        int
            Bytes written: ``nbytes``.

        Raises
        ------
        ValueError
            The buffer is too small; nothing was written.
        """
        cdef Py_buffer target
        cdef tunring_lease *lease = self.enter("packed")
        cdef BYTE *at
        if not lease:
            return 0
        try:
            PyObject_GetBuffer(buffer, &target, PyBUF_SIMPLE | PyBUF_WRITABLE)
            try:
                if <uint64_t>target.len < lease.bytes:
                    raise ValueError(f"the packets have {lease.bytes} bytes, the buffer only {target.len}")
                at = <BYTE *>target.buf
                with nogil:
                    tunring_lease_pack(lease, at)
                return lease.bytes
            finally:
                PyBuffer_Release(&target)
        finally:
            tunring_lease_leave(lease)

    def release(self) -> None:
        """Give the slots back to the ring and end the views that were handed out: they raise ValueError from here on.

        What derives from one (a slice of a memoryview, a numpy array) stays valid and holds its slot until it is gone.
        ``len``, ``lengths``, ``nbytes`` and ``released`` answer after it, everything else raises ValueError. Any
        number of times, from any thread.
        """
        cdef tunring_lease *lease
        if self.released:
            return
        self.released = True
        if self.views is not None:
            self.views.end()
        if self.lease is not None:
            lease = self.lease.slots
            with nogil:
                tunring_lease_release(lease)


@cython.final
@cython.nonecheck(True)
@cython.no_gc
@cython.freelist(16)
cdef class BatchIterator:
    """Iterates over a batch's packets."""
    cdef Batch batch         # what it iterates over
    cdef Py_ssize_t index    # the next packet

    def __iter__(self):
        return self

    def __next__(self):
        if self.index >= self.batch.size():
            raise StopIteration
        self.index += 1
        return self.batch.view(self.index - 1)


@cython.final
@cython.nonecheck(True)
@cython.no_gc_clear  # its end needs the lease
cdef class Reservation:
    """Room in the send ring, to be filled in place. :meth:`Session.reserve` makes it; use it in a ``with`` block."""
    cdef Lease lease        # the slots
    cdef _Views views       # None before the block is entered
    cdef Session session    # where it is
    cdef readonly unsigned long thread
    """Identity of the thread that reserved: it can't send elsewhere on this session meanwhile."""
    cdef readonly bint open
    """True until the block is left."""
    cdef object __weakref__

    def __init__(self):
        raise TypeError("Session.reserve() makes reservations")

    def __reduce__(self):
        raise TypeError("a Reservation can't be copied or pickled")

    def __dealloc__(self):
        if self.lease is not None:
            tunring_lease_release(self.lease.slots)

    def __len__(self):
        return self.lease.slots.count

    def __enter__(self):
        cdef Py_ssize_t i
        if not self.open:
            raise ValueError("the reservation is over")
        if self.views is not None:
            raise RuntimeError("the reservation was entered before")
        self.views = _Views()
        self.views.views = [self.lease.view(i) for i in range(self.lease.slots.count)]
        return list(self.views.views)

    def __exit__(self, kind, value, traceback):
        if kind is not None:
            self.abandon()
            return
        self.commit()

    cdef int commit(self) except -1:
        cdef tunring_lease *lease = self.lease.slots
        cdef DWORD code
        cdef Py_ssize_t i
        if not self.open:
            raise self.session.failure(ERROR_HANDLE_EOF, "can't send the reservation")
        self.views.end()
        if tunring_lease_held(lease):
            self.abandon()
            raise BufferError("something made from a reserved view is still alive: nothing was sent")
        for i in range(lease.count):
            fault = _packet_fault(lease.slots[i].data, lease.slots[i].length)
            if fault is not None:
                self.abandon()
                raise ValueError(f"reserved packet {i} {fault}: nothing was sent")
        self.open = False
        with nogil:
            code = tunring_lease_commit(lease)
        self.session.forget(self)
        if code == ERROR_BUSY:
            raise BufferError("something made from a reserved view is still alive: nothing was sent")
        if code != ERROR_SUCCESS:
            raise self.session.failure(code, "can't send the reservation")
        return 0

    cpdef abandon(self):
        """Give the room up: each slot goes out as filler, which the host drops, once nothing is exported from it."""
        cdef tunring_lease *lease = self.lease.slots
        if not self.open:
            return
        self.open = False
        if self.views is not None:
            self.views.end()
        with nogil:
            tunring_lease_release(lease)
        self.session.forget(self)


# ---- Sessions ----

cdef dict _ON_FULL = {"wait": 0, "partial": 1, "drop": 2, "raise": 3}
cdef enum:
    WAIT = 0
    PARTIAL = 1
    DROP = 2
    RAISE = 3


cdef struct _Receiving:
    tunring_session *session
    uint32_t most
    tunring_lease *lease


cdef struct _Sending:
    tunring_session *session
    const tunring_packet *packets
    uint32_t count
    uint32_t sent


cdef struct _Reserving:
    tunring_session *session
    const uint32_t *sizes
    uint32_t count
    tunring_lease *lease


# The calls that may wait, in one shape: what is to be done, and for how long to wait for it (NULL: not at all).
ctypedef DWORD (*_Call)(void *state, const tunring_wait *wait) noexcept nogil


cdef DWORD _receive(void *state, const tunring_wait *wait) noexcept nogil:
    cdef _Receiving *call = <_Receiving *>state
    return tunring_receive(call.session, call.most, wait, &call.lease)


cdef DWORD _send(void *state, const tunring_wait *wait) noexcept nogil:
    cdef _Sending *call = <_Sending *>state
    cdef uint32_t done
    cdef DWORD code = tunring_send(call.session, call.packets + call.sent, call.count - call.sent, wait, &done)
    call.sent += done
    return code


cdef DWORD _reserve(void *state, const tunring_wait *wait) noexcept nogil:
    cdef _Reserving *call = <_Reserving *>state
    return tunring_reserve(call.session, call.sizes, call.count, wait, &call.lease)


cdef DWORD _wait_for(_Call call, void *state, int64_t deadline) except? 0xFFFFFFFF:
    """Make a call without the GIL, and wait for it until the deadline; signals are handled meanwhile."""
    cdef tunring_wait wait
    cdef interrupt signal
    cdef DWORD code
    # At once first: where packets keep coming, a wait need not be prepared.
    with nogil:
        code = call(state, NULL)
    if not deadline or code not in (WAIT_TIMEOUT, ERROR_BUFFER_OVERFLOW):
        return code
    interrupt_arm(&signal)
    wait.interrupt = signal.handle
    wait.deadline = deadline
    try:
        while True:
            with nogil:
                code = call(state, &wait)
            if code != ERROR_OPERATION_ABORTED:
                return code
            interrupt_check(&signal)
    finally:
        interrupt_disarm(&signal)


cdef int _on_full(on_full, tuple allowed) except -1:
    if not isinstance(on_full, str) or on_full not in allowed:
        raise ValueError(f"on_full must be one of {', '.join(map(repr, allowed))}, not {on_full!r}")
    return _ON_FULL[on_full]


@cython.final
cdef class Session:
    """An adapter's open rings. :meth:`tunring.Adapter.start_session` makes it.

    Any thread may use it. No call holds the GIL while it waits, and each wait ends by data, its deadline,
    :meth:`close`, or in the main thread a signal such as Ctrl-C.

    Attributes
    ----------
    adapter : tunring.Adapter
        The adapter whose session it is.
    """
    cdef tunring_session *session   # NULL only before start()
    cdef readonly object adapter    # kept alive by its session
    cdef set reservations           # weak references to the open reservations
    cdef bint closes_adapter        # the adapter is the session's own, and goes with it
    cdef bint close_called          # the C core's state tells of a removed adapter first
    cdef object __weakref__

    def __init__(self):
        raise TypeError("Adapter.start_session() makes sessions")

    def __reduce__(self):
        raise TypeError("a Session can't be copied or pickled")

    @staticmethod
    def _start(adapter, AdapterHandle handle, unsigned int capacity, bint closes_adapter):
        """For :meth:`tunring.Adapter.start_session`."""
        cdef Session self = Session.__new__(Session)
        cdef tunring_adapter *target
        cdef DWORD code
        handle.handle()
        target = handle.adapter
        with nogil:
            tunring_log_forget()
            code = tunring_session_start(target, capacity, &self.session)
        if code != ERROR_SUCCESS:
            detail = _last_log_lines()
            if code == ERROR_BUSY:
                detail = f"{handle.pinned} packets of its last session are still held\n{detail}".rstrip()
            error = error_from_code(code, "can't start a session", detail)
            if isinstance(error, SessionClosed):
                error.reason = "forked" if tunring_adapter_forked(target) else "removed"
            raise error
        self.adapter = adapter
        self.reservations = set()
        self.closes_adapter = closes_adapter
        return self

    def __del__(self):
        if not self.closed:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self)
            self.close()

    def __dealloc__(self):
        if self.session:
            tunring_session_drop(self.session)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def __repr__(self):
        state = "closed" if self.closed else "open"
        return f"<tunring.Session of {self.adapter!r}, {state}>"

    @property
    def closed(self) -> bool:
        """True once :meth:`close` was called."""
        if not self.session or self.close_called:
            return True
        return tunring_session_state(self.session) in (TUNRING_CLOSED, TUNRING_FORKED)

    @property
    def capacity(self) -> int:
        """Bytes of each ring."""
        return tunring_session_capacity(self.get())

    cdef tunring_session *get(self) except NULL:
        if not self.session:
            raise TypeError("Adapter.start_session() makes sessions")
        return self.session

    cdef object failure(self, DWORD code, str action):
        """The exception for a code."""
        error = error_from_code(code, action)
        if isinstance(error, SessionClosed):
            state = tunring_session_state(self.session)
            error.reason = ("closed" if state == TUNRING_CLOSED else "forked" if state == TUNRING_FORKED
                            else "removed")
        return error

    # -- Receiving

    def receive(self, max_packets=256, timeout=None) -> Batch:
        """Take the packets that are there, waiting for the first one.

        Parameters
        ----------
        max_packets : int
            Most packets to take: 1 to 65536.
        timeout : float, optional
            Seconds to wait; 0 polls, None waits for ever.

        Returns
        -------
        Batch
            Empty, hence false, when the time was up.

        Raises
        ------
        SessionClosed
            The session was closed, here or in another thread, or the adapter is gone.
        RingCorrupt
            The ring holds nonsense.
        """
        cdef Batch batch = Batch.__new__(Batch)
        cdef Lease lease = Lease.__new__(Lease)
        cdef _Receiving call
        cdef long long most
        cdef DWORD code
        call.session = self.get()
        call.lease = NULL
        try:
            most = operator.index(max_packets)
        except OverflowError:
            most = 0
        if not 1 <= most <= TUNRING_MAX_BATCH:
            raise ValueError(f"max_packets must be 1 to {TUNRING_MAX_BATCH}, not {max_packets}")
        call.most = <uint32_t>most
        code = _wait_for(_receive, &call, _deadline(timeout))
        lease.slots = call.lease
        if code == ERROR_SUCCESS:
            batch.lease = lease
        elif code != WAIT_TIMEOUT:
            raise self.failure(code, "can't receive")
        return batch

    def batches(self, max_packets=256):
        """Iterate over batches as they come, releasing each when the next is asked for.

        Ends silently when the session is over. ``max_packets`` is that of :meth:`receive`.
        """
        while True:
            try:
                batch = self.receive(max_packets)
            except SessionClosed:
                return
            with batch:
                yield batch

    # -- Sending

    cdef object send_packets(self, _Packets packets, int on_full, int64_t deadline):
        cdef _Sending call
        cdef DWORD code
        cdef uint32_t sent
        call.session = self.get()
        call.packets = packets.packets
        call.count = packets.count
        call.sent = 0
        self.check_thread()
        code = _wait_for(_send, &call, deadline if on_full == WAIT else 0)
        sent = call.sent
        if code == ERROR_SUCCESS or code == WAIT_TIMEOUT:
            return sent
        if code == ERROR_BUFFER_OVERFLOW and on_full != RAISE:
            if on_full == DROP:
                tunring_session_count_dropped(self.session, packets.count - sent)
            return sent
        error = self.failure(code, f"sent {sent} of {packets.count} packets")
        error.sent = sent
        raise error

    def send(self, packets, *, on_full="wait", timeout=None) -> int:
        """Send packets, in order.

        Parameters
        ----------
        packets : iterable of bytes-like objects, or Batch
            IP packets of at most 65535 bytes. All are checked before the first is sent. A Batch, of any session, stays
            the caller's; those of its packets that are no IP are skipped and counted.
        on_full : {"wait", "partial", "drop", "raise"}
            When the ring is full: wait for room; send what fits; the same and count the rest as dropped; the same and
            raise RingFull.
        timeout : float, optional
            Seconds to wait for room; None waits for ever.

        Returns
        -------
        int
            How many were sent. A packet that the kernel then refuses is counted in :meth:`stats`.

        Raises
        ------
        TypeError, ValueError
            An item can't be sent; its index is named, and nothing was sent.
        RingFull
            With ``on_full="raise"``; its ``sent`` tells how many were sent.
        SessionClosed
            Its ``sent`` tells how many were sent.
        RuntimeError
            This thread has an open reservation on the session, which would hold the packets back.
        """
        cdef int mode = _on_full(on_full, ("wait", "partial", "drop", "raise"))
        cdef int64_t deadline = _deadline(timeout)
        if isinstance(packets, Batch):
            return self.send_packets(_packets_from_batch(packets, self.get()), mode, deadline)
        return self.send_packets(_packets_from_items(packets), mode, deadline)

    def send_packed(self, buffer, lengths, *, on_full="wait", timeout=None) -> int:
        """Send packets that lie back to back in one contiguous buffer.

        Parameters
        ----------
        buffer : bytes-like object
            The packets.
        lengths : buffer of integers, or sequence of int
            Their lengths in bytes; the sum is the buffer's size.
        on_full, timeout
            As for :meth:`send`, and so is what it returns and raises.
        """
        cdef int mode = _on_full(on_full, ("wait", "partial", "drop", "raise"))
        cdef int64_t deadline = _deadline(timeout)
        return self.send_packets(_packets_from_packed(buffer, lengths), mode, deadline)

    def reserve(self, sizes, *, on_full="raise", timeout=None) -> Reservation:
        """Reserve room for packets in the send ring, to be filled in place: all of them or none.

        Parameters
        ----------
        sizes : buffer of integers, or sequence of int
            Bytes of each packet: 20 to 65535.
        on_full : {"raise", "wait"}
            When the ring lacks room.
        timeout : float, optional
            Seconds to wait for room; None waits for ever.

        Returns
        -------
        Reservation
            A context manager. It gives the list of writable memoryviews; leaving the block checks and sends the
            packets, an exception abandons them. Until then everything that is sent later, by any thread, is held back.

        Raises
        ------
        ValueError
            A size is out of range, or the ring could never hold them all.
        RingFull
            There is no room, in time.
        """
        cdef int mode = _on_full(on_full, ("raise", "wait"))
        cdef _Sizes wanted = _Sizes(sizes, "sizes")
        cdef Reservation reservation = Reservation.__new__(Reservation)
        cdef Lease lease = Lease.__new__(Lease)
        cdef _Reserving call
        cdef DWORD code
        cdef Py_ssize_t i
        cdef int64_t deadline = _deadline(timeout)
        for i in range(wanted.count):
            if wanted.values[i] < 20:
                raise ValueError(f"sizes[{i}] must be at least 20, an IPv4 header, not {wanted.values[i]}")
        call.session = self.get()
        call.sizes = wanted.values
        call.count = <uint32_t>wanted.count
        call.lease = NULL
        self.check_thread()
        code = _wait_for(_reserve, &call, deadline if mode == WAIT else 0)
        lease.slots = call.lease
        if code == ERROR_INVALID_PARAMETER:
            raise ValueError(f"{wanted.count} packets of {wanted.total} bytes don't fit a ring of {self.capacity}")
        if code == WAIT_TIMEOUT:
            code = ERROR_BUFFER_OVERFLOW
        if code != ERROR_SUCCESS:
            raise self.failure(code, f"can't reserve room for {wanted.count} packets")
        reservation.lease = lease
        reservation.session = self
        reservation.thread = threading.get_ident()
        reservation.open = True
        self.reservations.add(weakref.ref(reservation, self.reservations.discard))
        return reservation

    cdef int check_thread(self) except -1:
        cdef Reservation reservation
        if not self.reservations or self.closed:
            return 0
        for reference in tuple(self.reservations):
            reservation = reference()
            if reservation is not None and reservation.open and reservation.thread == threading.get_ident():
                raise RuntimeError("this thread has an open reservation on the session: leave its block first")
        return 0

    cdef forget(self, reservation):
        self.reservations.discard(weakref.ref(reservation))

    # -- State

    def stats(self):
        """The session's figures so far, as a :class:`tunring.Stats`."""
        cdef tunring_stats stats
        tunring_session_stats(self.get(), &stats)
        counters = (None, None, None)
        if stats.has_counters:
            counters = (stats.counters.host_dropped, stats.counters.host_filtered, stats.counters.write_errors)
        return Stats(
            stats.received_packets, stats.received_bytes, stats.received_batches,
            stats.sent_packets, stats.sent_bytes, stats.sent_batches,
            stats.waits, stats.wakes, stats.spins, stats.ring_full, stats.dropped, stats.skipped, stats.fillers,
            stats.pinned_packets, stats.pinned_bytes, stats.reservations, self.capacity, *counters,
        )

    @property
    def read_event(self) -> int:
        """The library's read event: a handle on Windows, a descriptor elsewhere. It is the session's."""
        cdef tunring_session *session = self.get()
        if self.closed:
            raise self.failure(ERROR_HANDLE_EOF, "no read event")
        return <size_t>tunring_session_read_event(session)

    def fileno(self) -> int:
        """The read event's descriptor, for select, poll, epoll and event loops; not on Windows.

        It is readable if and only if ``receive(timeout=0)`` would return a packet or raise.

        Raises
        ------
        io.UnsupportedOperation
            On Windows: wait for :attr:`read_event` there.
        SessionClosed
            The session is closed.
        """
        if os.name == "nt":
            raise io.UnsupportedOperation("no descriptor on Windows; wait for Session.read_event")
        return self.read_event

    def close(self) -> None:
        """End the session: wake whoever waits in it, wait for the calls in flight, give the rings up.

        Open reservations are abandoned. Batches and views stay valid; the ring's memory goes with the last of them.
        Any number of times, from any thread, also from a signal handler or a destructor.
        """
        cdef Reservation reservation
        cdef uint64_t leaked
        if not self.session:
            return
        self.close_called = True
        for reference in tuple(self.reservations):
            reservation = reference()
            if reservation is not None:
                reservation.abandon()
        leaked = tunring_sessions_leaked()
        with nogil:
            tunring_session_close(self.session)
        if tunring_sessions_leaked() > leaked:
            warnings.warn("the system had removed the adapter: the session's rings can't be freed", ResourceWarning)
        if self.closes_adapter:
            self.adapter.close()


# ---- Log lines ----

def log_enable(Library library not None, bint enabled):
    """Queue the library's log lines for :func:`log_next`, or don't."""
    cdef DWORD code = tunring_log_enable(library.log_id, enabled)
    if code != ERROR_SUCCESS:
        raise error_from_code(code, "can't open the log queue")


def log_next():
    """Wait for a line: (library's number, level, time in 100 ns since 1601, text). None after :func:`log_stop`."""
    cdef tunring_log_line line
    cdef DWORD code
    with nogil:
        code = tunring_log_next(&line)
    if code != ERROR_SUCCESS:
        return None
    return line.library, line.level, line.time, (<bytes>line.text).decode("utf-8", "replace")


def log_stop():
    """End :func:`log_next` for good."""
    tunring_log_stop()


def log_lost() -> int:
    """Lines lost because the queue was full."""
    return tunring_log_lost()


def pinned_sessions() -> int:
    """Closed sessions that wait for their last packet to be let go."""
    return tunring_sessions_pinned()


def leaked_sessions() -> int:
    """Sessions that could not be ended, since the system had removed their adapter."""
    return tunring_sessions_leaked()
