/* SPDX-License-Identifier: MIT
 *
 * What we ask Python's objects by a macro, and in the stable ABI, which lacks it, by a function.
 */
#ifndef TUNRING_PYTHON_API_H
#define TUNRING_PYTHON_API_H

#include <Python.h>

/* What the exporter of a memoryview's buffer has put into its `internal`: an index, so -1 tells of failure. */
static inline void *
memoryview_internal(PyObject *view)
{
#if defined(Py_LIMITED_API)
    /* A memoryview passes on what it got, all but the owner. */
    Py_buffer buffer;
    if (PyObject_GetBuffer(view, &buffer, PyBUF_FULL_RO) < 0)
    {
        PyErr_Clear();
        return (void *)(intptr_t)-1;
    }
    PyBuffer_Release(&buffer);
    return buffer.internal;
#else
    return PyMemoryView_GET_BUFFER(view)->internal;
#endif
}

#endif
