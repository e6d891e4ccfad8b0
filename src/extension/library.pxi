# Libraries and adapters. Included by _core.pyx.

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
    cdef tunring_api *api         # the 14 functions; set once and never freed: rings may outlive Python's objects
    cdef readonly str path        # the file
    cdef readonly str name        # what kind of library
    cdef readonly bint official   # it has the 14 functions and no more
    cdef readonly uint32_t log_id  # its number in log lines
    cdef object __weakref__

    def __cinit__(self, str path not None):
        cdef char detail[512]
        cdef bytes encoded = _path_characters(path)
        cdef const char *chars = encoded
        cdef DWORD code
        self.api = <tunring_api *>malloc(sizeof(tunring_api))
        if not self.api:
            raise MemoryError()
        detail[0] = 0
        with nogil:  # `encoded` holds the path
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

    def create_adapter(self, str name not None, str tunnel_type not None, bytes guid, unsigned int queues=1):
        """Create an adapter; ``guid`` is 16 bytes or None. For :meth:`tunring.Adapter.create`."""
        cdef tunring_adapter_options options
        cdef AdapterHandle handle = AdapterHandle.__new__(AdapterHandle)
        cdef bytes wide_name = _utf16(name)
        cdef bytes wide_type = _utf16(tunnel_type)
        cdef const char *name_chars = wide_name
        cdef const char *type_chars = wide_type
        cdef const char *guid_chars = NULL
        cdef tunring_adapter *adapter
        cdef DWORD code
        cdef int number
        if guid is not None:
            if len(guid) != sizeof(GUID):
                raise ValueError(f"guid must have {sizeof(GUID)} bytes, not {len(guid)}")
            guid_chars = guid
        options.queues = queues
        with nogil:  # here and below: our own names hold the strings, and the api is never freed
            tunring_log_forget()
            code = tunring_adapter_create(self.api, <LPCWSTR>name_chars, <LPCWSTR>type_chars,
                                          <const GUID *>guid_chars, &options, &adapter)
            number = tunring_adapter_system_error(self.api)
        if code != ERROR_SUCCESS:
            raise error_from_code(code, f"can't create adapter {name!r}", _last_log_lines(), number)
        return handle.begin(adapter)

    def open_adapter(self, str name not None):
        """Open an existing adapter. For :meth:`tunring.Adapter.open`."""
        cdef AdapterHandle handle = AdapterHandle.__new__(AdapterHandle)
        cdef bytes wide_name = _utf16(name)
        cdef const char *name_chars = wide_name
        cdef tunring_adapter *adapter
        cdef DWORD code
        cdef int number
        # `wide_name` holds the name, and the api is never freed.
        with nogil:
            tunring_log_forget()
            code = tunring_adapter_open(self.api, <LPCWSTR>name_chars, &adapter)
            number = tunring_adapter_system_error(self.api)
        if code != ERROR_SUCCESS:
            raise error_from_code(code, f"can't open adapter {name!r}", _last_log_lines(), number)
        return handle.begin(adapter)

    def adopt_descriptor(self, int descriptor):
        """Make an adapter of an attached descriptor. For :meth:`tunring.Adapter.from_fd`."""
        cdef AdapterHandle handle = AdapterHandle.__new__(AdapterHandle)
        cdef tunring_adapter *adapter
        cdef DWORD code
        cdef int number
        # The api is never freed.
        with nogil:
            tunring_log_forget()
            code = tunring_adapter_adopt(self.api, descriptor, &adapter)
            number = tunring_adapter_system_error(self.api)
        if code != ERROR_SUCCESS:
            raise error_from_code(code, f"can't use descriptor {descriptor}", _last_log_lines(), number)
        return handle.begin(adapter)

    def set_option(self, str name not None, unsigned int value):
        """Set an option of the library, for adapters made from now on. True if it has such an option."""
        cdef bytes encoded = name.encode()
        cdef DWORD code
        if self.official:
            if name != "wake_guard":
                return False
            tunring_wake_guard_enable(value)
            return True
        code = self.api.backend.set_option(encoded, value)
        if code == ERROR_NOT_FOUND:
            return False
        if code != ERROR_SUCCESS:
            raise error_from_code(code, f"can't set option {name!r} to {value}")
        return True

    def running_driver_version(self):
        """The driver's version as (major, minor)."""
        cdef DWORD version, code
        # Here and below the api is never freed.
        with nogil:
            tunring_log_forget()
            code = tunring_api_driver_version(self.api, &version)
        if code != ERROR_SUCCESS:
            raise error_from_code(code, "no driver version", _last_log_lines())
        return version >> 16, version & 0xFFFF

    def delete_driver(self):
        """Remove the driver from the system."""
        cdef DWORD code
        with nogil:
            tunring_log_forget()
            code = tunring_api_delete_driver(self.api)
        if code != ERROR_SUCCESS:
            raise error_from_code(code, "can't delete the driver", _last_log_lines())


cdef bytes _path_characters(str path):
    """The path as ``tunring_path_char``."""
    return os.fsencode(path) if os.name == "posix" else _utf16(path)


cdef bytes _utf16(str text):
    # The second zero byte of the final unit is the one that bytes objects have anyway.
    return text.encode("utf-16-le", "surrogatepass") + b"\0"


cdef str _last_log_lines():
    cdef char text[2048]
    cdef size_t size = tunring_log_recall(text, sizeof(text))
    return text[:size].decode("utf-8", "replace")


@cython.final
cdef class AdapterHandle:
    """An adapter as the library knows it. :class:`tunring.Adapter` owns one.

    Its calls raise ValueError once it is closed, and in a forked child.
    """
    cdef tunring_adapter *adapter  # set once, by begin(), and freed by __dealloc__: a call's own `self` holds it
    cdef set sessions              # weak references to the sessions that were started on it

    cdef AdapterHandle begin(self, tunring_adapter *adapter):
        """Take what a library has made, which nobody else has."""
        self.adapter = adapter
        self.sessions = set()
        return self

    def __dealloc__(self):
        if self.adapter:
            tunring_adapter_drop(self.adapter)

    cdef tunring_adapter *get(self) except NULL:
        if not self.adapter:
            raise TypeError("Adapter.create() and Adapter.open() make adapters")
        return self.adapter

    cdef object refusal(self):
        """The exception for a call that came too late."""
        return ValueError("the adapter was made before the fork: it is the parent process's"
                          if tunring_adapter_forked(self.adapter) else "the adapter is closed")

    @property
    def luid(self) -> int:
        cdef NET_LUID luid
        if tunring_adapter_luid(self.get(), &luid) == ERROR_INVALID_HANDLE:
            raise self.refusal()
        return luid.Value

    @property
    def name(self):
        """The name as the system knows it now, or None where the library can't tell, or any more."""
        cdef char name[512]
        cdef tunring_adapter *adapter = self.get()
        cdef DWORD code
        # Here and below the caller's reference to `self` holds the adapter, and the call itself keeps it open.
        with nogil:
            code = tunring_adapter_name(adapter, name, sizeof(name))
        return (<bytes>name).decode("utf-8", "replace") if code == ERROR_SUCCESS else None

    @property
    def index(self):
        """The interface index, or None where the library can't tell or the system has no such interface."""
        cdef tunring_adapter *adapter = self.get()
        cdef DWORD index = 0
        cdef DWORD code
        # The caller's reference to `self` holds the adapter, and the call itself keeps it open.
        with nogil:
            code = tunring_adapter_index(adapter, &index)
        if code == ERROR_INVALID_HANDLE:
            raise self.refusal()
        return index if code == ERROR_SUCCESS and index else None

    def open_namespace(self):
        """A descriptor of the network namespace that the adapter is in, or -1."""
        cdef tunring_adapter *adapter = self.get()
        cdef int descriptor = -1
        cdef DWORD code
        # Here and below the caller's reference to `self` holds the adapter, and the call itself keeps it open.
        with nogil:
            code = tunring_adapter_namespace(adapter, &descriptor)
        if code == ERROR_INVALID_HANDLE:
            raise self.refusal()
        return descriptor

    def descriptor(self, bint leave):
        """The interface's descriptor; or a copy that is the caller's, after which the interface stays as it is."""
        cdef tunring_adapter *adapter = self.get()
        cdef int descriptor = -1
        cdef DWORD code
        with nogil:  # `self` holds the adapter
            code = tunring_adapter_descriptor(adapter, leave, &descriptor)
        if code == ERROR_INVALID_HANDLE:
            raise self.refusal()
        if code == ERROR_NOT_SUPPORTED:
            raise io.UnsupportedOperation("only adapters of tun_linux have descriptors")
        if code != ERROR_SUCCESS:
            raise error_from_code(code, "no descriptor")
        return descriptor

    @property
    def shared(self) -> bool:
        """True if others are attached to the interface, as far as the library can tell."""
        cdef tunring_adapter *adapter = self.get()
        cdef bint shared
        with nogil:  # `self` holds the adapter
            shared = tunring_adapter_shared(adapter)
        return shared

    def lend(self):
        """The library's own handle, for calls through another binding: a :class:`Loan`."""
        cdef Loan loan = Loan.__new__(Loan)
        if tunring_adapter_lend(self.get(), &loan.borrowed) == ERROR_INVALID_HANDLE:
            raise self.refusal()
        loan.lender = self
        return loan

    @property
    def pinned(self) -> int:
        """Packets that keep a closed session of this adapter from ending."""
        return tunring_adapter_pinned(self.get())

    def close_sessions(self):
        """Let no more sessions start, wait for those that are starting, and close all."""
        cdef tunring_adapter *adapter = self.get()
        cdef _Session session
        # Here and below the caller's reference to `self` holds the adapter.
        with nogil:
            tunring_adapter_shut(adapter)
        # One whose starter doesn't have the GIL back yet isn't listed: it sees that the adapter is closing.
        for reference in list(self.sessions):
            session = reference()
            if session is not None:
                session.end()

    def close(self):
        """Give the adapter up; it goes, unless loans or packets that are still held need it."""
        cdef tunring_adapter *adapter = self.get()
        with nogil:
            tunring_adapter_close(adapter)


@cython.final
@cython.no_gc  # its end needs the handle
cdef class Loan:
    """The library's own handle of an adapter: a number, in a ``with`` block.

    It stays valid until the block's end; the adapter may be closed before, which takes effect only then.
    """
    cdef AdapterHandle lender            # None once it has the handle back
    cdef WINTUN_ADAPTER_HANDLE borrowed

    def __enter__(self):
        if self.lender is None:
            raise TypeError("AdapterHandle.lend() makes loans, each for one block")
        return <size_t>self.borrowed

    def __exit__(self, kind, value, traceback):
        if self.lender is None:
            raise TypeError("AdapterHandle.lend() makes loans, each for one block")
        self.give_back()

    def __dealloc__(self):
        self.give_back()

    cdef void give_back(self) noexcept:
        cdef AdapterHandle lender
        with cython.critical_section(self):  # of several threads, one gives it back
            lender = self.lender
            self.lender = None
        if lender is not None:
            tunring_adapter_give_back(lender.adapter)
