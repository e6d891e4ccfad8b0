/* SPDX-License-Identifier: MIT
 *
 * Macros of Python, replaced by functions in the stable ABI, which lacks them.
 */
#ifndef TUNRING_PYTHON_API_H
#define TUNRING_PYTHON_API_H

#include <Python.h>

#include <stdatomic.h>
#include <stdbool.h>

/* 1 in a build of Python that may run without a GIL, 0 in others: there `if WITHOUT_GIL` costs nothing. */
#if defined(Py_GIL_DISABLED)
#define WITHOUT_GIL 1
#else
#define WITHOUT_GIL 0
#endif

/* A flag that any thread may set, clear and ask for; at first it is clear. Where there is a GIL, that guards it. */
#if WITHOUT_GIL
typedef atomic_bool flag_value;
#else
typedef bool flag_value;
#endif

typedef struct shared_flag
{
    flag_value value;
} shared_flag;

static inline bool
flag_is_set(shared_flag *self)
{
    return self->value;
}

static inline bool
flag_exchange(shared_flag *self, bool value)
{
#if WITHOUT_GIL
    return atomic_exchange(&self->value, value);
#else
    const bool before = self->value;
    self->value = value;
    return before;
#endif
}

/* True for the thread that did. */
static inline bool
flag_set(shared_flag *self)
{
    return !flag_exchange(self, true);
}

/* True for the thread that did. */
static inline bool
flag_clear(shared_flag *self)
{
    return flag_exchange(self, false);
}

/* The number of the interpreter that creates the module, which has to be the main one. Cython's function that creates
 * it calls this by Python's name. The module keeps its objects in static variables, so only one interpreter can have
 * it, and one that came first would keep the main one out, whose are signals and the wake-up descriptor. */
static inline int64_t
main_interpreter_number(PyInterpreterState *interpreter)
{
    const int64_t number = PyInterpreterState_GetID(interpreter);
    if (number <= 0)
        return number;
    PyErr_SetString(PyExc_ImportError,
                    "tunring can be imported in the main interpreter only, not in a sub-interpreter");
    return -1;
}
#define PyInterpreterState_GetID(interpreter) main_interpreter_number(interpreter)

/* An item of a list or tuple, borrowed: of a list only while no other thread can change it. */
static inline PyObject *
sequence_item(PyObject *sequence, Py_ssize_t index)
{
#if defined(Py_LIMITED_API)
    return PyTuple_Check(sequence) ? PyTuple_GetItem(sequence, index) : PyList_GetItem(sequence, index);
#else
    return PySequence_Fast_GET_ITEM(sequence, index);
#endif
}

/* A bytes object's memory, as constant as the object. False if it is none, or of a derived class. */
static inline bool
exact_bytes(PyObject *object, const unsigned char **data, Py_ssize_t *size)
{
    if (!PyBytes_CheckExact(object))
        return false;
#if defined(Py_LIMITED_API)
    return PyBytes_AsStringAndSize(object, (char **)data, size) == 0;
#else
    *data = (const unsigned char *)PyBytes_AS_STRING(object);
    *size = PyBytes_GET_SIZE(object);
    return true;
#endif
}

/* An int's value. False if it is none, or of a derived class, or too large. */
static inline bool
exact_int(PyObject *object, long long *value)
{
    int overflow;
    if (!PyLong_CheckExact(object))
        return false;
    *value = PyLong_AsLongLongAndOverflow(object, &overflow);
    return !overflow;
}

/* The slot that this thread is making a memoryview of: a request for a buffer has no room to say which. */
typedef struct exported_slot
{
    void *exporter; /* the Lease, or NULL */
    Py_ssize_t index;
} exported_slot;

static _Thread_local exported_slot exporting;

/* Using an object again that nobody has. It needs what the stable ABI doesn't show, and a GIL. */
#if defined(Py_LIMITED_API) || WITHOUT_GIL || defined(PYPY_VERSION)
#define KEEPS_OBJECTS 0

static inline bool
has_weak_references(PyObject *Py_UNUSED(object))
{
    return true;
}

static inline void
use_vectorcall(PyObject *Py_UNUSED(type), Py_ssize_t Py_UNUSED(offset))
{
}

static inline Py_ssize_t
vectorcall_arguments(size_t Py_UNUSED(count))
{
    return 0;
}

#else
#define KEEPS_OBJECTS 1

/* For one of a class of ours, which has a place for them. */
static inline bool
has_weak_references(PyObject *object)
{
    return *(PyObject **)((char *)object + Py_TYPE(object)->tp_weaklistoffset) != NULL;
}

/* Lets a new class of ours be called without a tuple of arguments. Objects have a vectorcallfunc at the offset. */
static inline void
use_vectorcall(PyObject *type, Py_ssize_t offset)
{
    PyTypeObject *self = (PyTypeObject *)type;
    self->tp_vectorcall_offset = offset;
    self->tp_flags |= Py_TPFLAGS_HAVE_VECTORCALL;
}

/* The number of positional arguments of such a call. */
static inline Py_ssize_t
vectorcall_arguments(size_t count)
{
    return PyVectorcall_NARGS(count);
}

#endif

/* The `internal` of a memoryview that rests: it holds no slot, and to whoever still has it it is a released one. */
#define RESTING SIZE_MAX

/* The same for a memoryview. */
#if !KEEPS_OBJECTS || !defined(_Py_MEMORYVIEW_RELEASED)

static inline bool
view_unused(PyObject *Py_UNUSED(view), PyObject *Py_UNUSED(exporter))
{
    return false;
}

static inline bool
view_rests(PyObject *Py_UNUSED(view))
{
    return false;
}

static inline size_t
view_turn(PyObject *Py_UNUSED(view), void *Py_UNUSED(data), Py_ssize_t Py_UNUSED(length), size_t Py_UNUSED(internal))
{
    return 0;
}

#else

/* True for a memoryview of the exporter's that has no weak references and that nothing was made from: neither by its
 * own buffer nor by what it exports. One that its user released has no exporter. */
static inline bool
view_unused(PyObject *view, PyObject *exporter)
{
    const PyMemoryViewObject *self = (PyMemoryViewObject *)view;
    const _PyManagedBufferObject *buffer = self->mbuf;
    return Py_REFCNT((PyObject *)buffer) == 1 && buffer->exports == !(self->flags & _Py_MEMORYVIEW_RELEASED) &&
           self->exports == 0 && !self->weakreflist && buffer->master.obj == exporter;
}

/* True for one that was turned to RESTING. */
static inline bool
view_rests(PyObject *view)
{
    return ((PyMemoryViewObject *)view)->mbuf->master.internal == (void *)RESTING;
}

/* Turns such a view, which has one dimension of bytes, to other memory; or to none, with RESTING, which releases it as
 * its own release() does, but for the exporter. Returns what `internal` was. */
static inline size_t
view_turn(PyObject *view, void *data, Py_ssize_t length, size_t internal)
{
    PyMemoryViewObject *self = (PyMemoryViewObject *)view;
    Py_buffer *master = &self->mbuf->master;
    const size_t before = (size_t)master->internal;
    master->buf = self->view.buf = data;
    master->len = self->view.len = self->view.shape[0] = length;
    master->internal = self->view.internal = (void *)internal;
    self->mbuf->exports = internal != RESTING;
    if (internal == RESTING)
        self->flags |= _Py_MEMORYVIEW_RELEASED;
    else
        self->flags &= ~_Py_MEMORYVIEW_RELEASED;
    return before;
}

#endif

/* A view that is being ended where there is no GIL. Its slot stays held until it is known that nobody else came. */
typedef struct ending_view
{
    bool active;
    void *slots; /* the tunring_lease whose slot it held; NULL if it didn't let go of one */
    size_t root; /* which */
} ending_view;

static _Thread_local ending_view ending;

#if WITHOUT_GIL

/* True if no other thread has a reference to the object. Threads other than the one that made it count theirs apart, in
 * ob_ref_shared, and do so before they use it: one that has not seen that the caller ended a view is seen here, because
 * of the fence. */
static inline bool
only_this_thread(PyObject *object)
{
    atomic_thread_fence(memory_order_seq_cst);
    return _Py_IsOwnedByCurrentThread(object) &&
           _Py_atomic_load_ssize(&object->ob_ref_shared) >> _Py_REF_SHARED_SHIFT == 0;
}

#else

static inline bool
only_this_thread(PyObject *Py_UNUSED(object))
{
    return true;
}

#endif

#endif
