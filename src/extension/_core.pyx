# cython: language_level=3, embedsignature=True, binding=True, wraparound=False, auto_pickle=False
# cython: freethreading_compatible=True
# Bounds stay checked, as by default. This concerns lists, tuples and bytes, some of which users' code made: without the
# check, a tuple that is too short is read behind its end. Hot loops index pointers, which no setting checks.
"""The extension module: objects over the C core, which moves the packets.

Here live reference counts, exceptions and argument checks. Policy (which library, names, configuration) is in the
plain Python modules of the package, and every loop over packets in ``src/core``.
"""

import errno
import io
import math
import operator
import os
import threading
import time
import warnings
import weakref

cimport cython
from cpython.buffer cimport (
    PyBUF_FORMAT, PyBUF_ND, PyBUF_SIMPLE, PyBUF_STRIDES, PyBUF_WRITABLE, PyBuffer_FillInfo, PyBuffer_Release,
    PyObject_CheckBuffer, PyObject_GetBuffer,
)
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc
from cpython.memoryview cimport PyMemoryView_FromObject
from cpython.ref cimport PyObject
from cpython.weakref cimport PyWeakref_NewRef
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from tunring cimport *
from tunring_aead cimport *
from tunring_packets cimport *
from tunring_pcapng cimport *
from tunring_routes cimport *
from tunring_secret cimport *
from tunring_socket cimport *
from tunring_wireguard cimport *
from wintun cimport *

from tunring.errors import LibraryInvalid, SessionClosed, WintunError, error_from_code


cdef extern from "Python.h":
    const Py_ssize_t PY_SSIZE_T_MAX
    Py_ssize_t Py_REFCNT(PyObject *) noexcept
    void Py_INCREF(PyObject *) noexcept
    void Py_DECREF(PyObject *) noexcept

cdef extern from "extension/python_api.h":
    ctypedef struct exported_slot:
        void *exporter
        Py_ssize_t index
    exported_slot exporting  # each thread's own
    const bint WITHOUT_GIL
    ctypedef struct shared_flag:
        pass
    bint flag_is_set(shared_flag *self) noexcept
    bint flag_set(shared_flag *self) noexcept
    bint flag_clear(shared_flag *self) noexcept
    ctypedef struct ending_view:
        bint active
        void *slots
        size_t root
    ending_view ending       # each thread's own
    bint only_this_thread(PyObject *object) noexcept
    PyObject *sequence_item(object sequence, Py_ssize_t index) noexcept
    bint exact_bytes(PyObject *item, const unsigned char **data, Py_ssize_t *size) noexcept
    bint exact_int(PyObject *item, long long *value) noexcept
    const bint KEEPS_OBJECTS
    bint has_weak_references(PyObject *object) noexcept
    void use_vectorcall(object type, Py_ssize_t offset) noexcept
    Py_ssize_t vectorcall_arguments(size_t count) noexcept
    const size_t RESTING
    bint view_unused(PyObject *view, PyObject *exporter) noexcept
    bint view_rests(PyObject *view) noexcept
    size_t view_turn(PyObject *view, void *data, Py_ssize_t length, size_t internal) noexcept

cdef extern from "platform/os.h" nogil:
    ctypedef struct os_event:
        HANDLE wait
    bint os_event_open(os_event *event) noexcept
    void os_event_close(os_event *event) noexcept
    void os_event_set_if_ours(os_event *event) noexcept
    int64_t os_boottime() noexcept
    int64_t os_deadline(int64_t nanoseconds) noexcept
    uint64_t os_thread_number() noexcept
    unsigned os_generation() noexcept
    const unsigned OS_SECRET_EMPTY_IN_CHILD
    const unsigned OS_SECRET_NOT_DUMPED
    const unsigned OS_SECRET_LOCKED
    DWORD GetLastError() noexcept

cdef extern from "extension/descriptor.h" nogil:
    int descriptor_socket(int family, int kind, int protocol) noexcept
    int descriptor_accept(int listening) noexcept
    int descriptor_open(const char *path) noexcept
    void descriptor_close(int descriptor) noexcept

cdef extern from "extension/interrupt.h":
    ctypedef struct interrupt:
        HANDLE handle
    int interrupt_init(unsigned long main_thread) except -1
    bint interrupt_possible() noexcept
    int interrupt_arm(interrupt *state) except -1
    int interrupt_check(interrupt *state) except -1
    void interrupt_disarm(interrupt *state) noexcept


def _note_main_thread():
    interrupt_init(threading.main_thread().ident)


_note_main_thread()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_main_thread)


# One module, several files: each includes one part, in the order in which they build on each other.
include "arguments.pxi"
include "library.pxi"
include "lease.pxi"
include "batch.pxi"
include "reservation.pxi"
include "endpoint.pxi"
include "parts.pxi"
include "packets.pxi"
include "routes.pxi"
include "aead.pxi"
include "source.pxi"
include "descriptor.pxi"
include "session.pxi"
include "socket.pxi"
include "secret.pxi"
include "wireguard.pxi"
include "loops.pxi"
include "pcapng.pxi"
include "log.pxi"
include "simulator.pxi"
