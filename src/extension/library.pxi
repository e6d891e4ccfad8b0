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
