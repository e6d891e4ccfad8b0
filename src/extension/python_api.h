/* SPDX-License-Identifier: MIT
 *
 * Macros of Python, replaced by functions in the stable ABI, which lacks them.
 */
#ifndef TUNRING_PYTHON_API_H
#define TUNRING_PYTHON_API_H

#include <Python.h>

#include <stdbool.h>

/* An item of a list or tuple, borrowed. */
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

/* The `internal` of a memoryview that rests: it holds no slot, and nobody has it but its _Views. */
#define RESTING SIZE_MAX

/* Using a memoryview again. It needs what the stable ABI doesn't show, and a GIL: what is unused here stays so. */
#if defined(Py_LIMITED_API) || defined(Py_GIL_DISABLED) || defined(PYPY_VERSION)

static inline bool
view_unused(PyObject *Py_UNUSED(view), Py_ssize_t Py_UNUSED(references), PyObject *Py_UNUSED(exporter))
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

/* True for a memoryview of the exporter's that has only `references` references, no weak ones, and that nothing was
 * made from: neither by its own buffer nor by what it exports. One that was released has no exporter. */
static inline bool
view_unused(PyObject *view, Py_ssize_t references, PyObject *exporter)
{
    const PyMemoryViewObject *self = (PyMemoryViewObject *)view;
    const _PyManagedBufferObject *buffer = self->mbuf;
    return Py_REFCNT(view) == references && Py_REFCNT((PyObject *)buffer) == 1 && buffer->exports == 1 &&
           self->exports == 0 && !self->weakreflist && buffer->master.obj == exporter;
}

/* True for one that was turned to RESTING: nobody but its owner has it. */
static inline bool
view_rests(PyObject *view)
{
    return ((PyMemoryViewObject *)view)->mbuf->master.internal == (void *)RESTING;
}

/* Turns such a view, which has one dimension of bytes, to other memory. Returns what `internal` was. */
static inline size_t
view_turn(PyObject *view, void *data, Py_ssize_t length, size_t internal)
{
    PyMemoryViewObject *self = (PyMemoryViewObject *)view;
    Py_buffer *master = &self->mbuf->master;
    const size_t before = (size_t)master->internal;
    master->buf = self->view.buf = data;
    master->len = self->view.len = self->view.shape[0] = length;
    master->internal = self->view.internal = (void *)internal;
    return before;
}

#endif

#endif
