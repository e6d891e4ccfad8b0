/* SPDX-License-Identifier: MIT
 *
 * interrupt.h for POSIX. Python's C-level handler writes a byte to the wake-up descriptor, if one is set: for the time
 * of the wait that is a pipe of ours, which unlike EINTR can't come too early. Bytes for somebody else's descriptor
 * (an event loop's) are passed on.
 */
#include <Python.h>

#include "extension/interrupt.h"

#include <fcntl.h>
#include <unistd.h>

static unsigned long main_thread;
static PyObject *set_wakeup_fd; /* signal.set_wakeup_fd: its C function is not exported by every Python */
static int pipe_ends[2] = {-1, -1};
static unsigned pipe_generation;

int
interrupt_init(unsigned long thread)
{
    main_thread = thread;
    if (set_wakeup_fd)
        return 0;
    PyObject *module = PyImport_ImportModule("signal");
    if (!module)
        return -1;
    set_wakeup_fd = PyObject_GetAttrString(module, "set_wakeup_fd");
    Py_DECREF(module);
    return set_wakeup_fd ? 0 : -1;
}

/* Sets the wake-up descriptor. 0 and the one before, or -1 with an exception. */
static int
exchange_wakeup_fd(int fd, int *previous)
{
    PyObject *result = PyObject_CallFunction(set_wakeup_fd, "i", fd);
    if (!result)
        return -1;
    *previous = (int)PyLong_AsLong(result);
    Py_DECREF(result);
    return 0;
}

/* Made when first needed, and anew in a forked child. */
static bool
open_pipe(void)
{
    if (pipe_ends[0] >= 0 && pipe_generation == os_generation())
        return true;
    int ends[2];
    if (pipe(ends) != 0)
        return false;
    for (int i = 0; i < 2; i++)
    {
        fcntl(ends[i], F_SETFD, FD_CLOEXEC);
        fcntl(ends[i], F_SETFL, O_NONBLOCK);
        pipe_ends[i] = os_fd_register(ends[i]);
    }
    pipe_generation = os_generation();
    return pipe_ends[0] >= 0 && pipe_ends[1] >= 0;
}

/* Empties the pipe, and passes the bytes on to whom the descriptor belonged before. */
static void
take_bytes(const interrupt *state)
{
    char bytes[64];
    ssize_t taken;
    while ((taken = read(pipe_ends[0], bytes, sizeof(bytes))) > 0)
        if (state->previous >= 0 && state->previous != pipe_ends[1] &&
            write(state->previous, bytes, (size_t)taken) != taken)
            break; /* full: its reader will wake anyway */
}

int
interrupt_arm(interrupt *state)
{
    state->handle = NULL;
    if (PyThread_get_thread_ident() != main_thread)
        return 0;
    if (!open_pipe())
    {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    if (exchange_wakeup_fd(pipe_ends[1], &state->previous) < 0)
        return -1;
    state->handle = (HANDLE)(intptr_t)pipe_ends[0];
    if (PyErr_CheckSignals() == 0)
        return 0;
    interrupt_disarm(state);
    return -1;
}

int
interrupt_check(interrupt *state)
{
    if (state->handle)
        take_bytes(state);
    return PyErr_CheckSignals();
}

void
interrupt_disarm(interrupt *state)
{
    if (!state->handle)
        return;
    PyObject *type, *value, *traceback;
    int current, unused;
    PyErr_Fetch(&type, &value, &traceback);
    if (exchange_wakeup_fd(state->previous, &current) < 0)
        PyErr_Clear(); /* it was closed meanwhile: there is nothing to restore */
    else if (current != pipe_ends[1])
        (void)exchange_wakeup_fd(current, &unused); /* a handler has set another one: it stays */
    else if (state->previous >= 0)
        take_bytes(state);
    PyErr_Clear();
    PyErr_Restore(type, value, traceback);
}
