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

/* The slot that this thread is making a memoryview of: a request for a buffer has no room to say which. */
typedef struct exported_slot
{
    void *exporter; /* the Lease, or NULL */
    Py_ssize_t index;
} exported_slot;

static _Thread_local exported_slot exporting;

#endif
