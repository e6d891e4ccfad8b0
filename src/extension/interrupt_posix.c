/* SPDX-License-Identifier: MIT
 *
 * interrupt.h for POSIX. Python's C-level handler writes a byte to the wake-up descriptor, if one is set: for the time
 * of the wait that is a pipe of ours, which unlike EINTR can't come too early. Bytes for somebody else's descriptor
 * (an event loop's) are passed on.
 *
 * Python keeps the number of the wake-up descriptor. So our numbers are never given up: a forked child, whose main
 * thread may not be the one that waits, has a pipe of its own there.
 *
 * Python doesn't report whether a descriptor was set with warn_on_full_buffer. It is restored without: a program that
 * sets one and then blocks in our calls loses that warning, and no more.
 */
#include <Python.h>

#include "extension/interrupt.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static const wakeup_fd none = {.number = -1};

static unsigned long main_thread;
static PyObject *set_wakeup_fd; /* signal.set_wakeup_fd: its C function is not exported by every Python */
static PyObject *without_warning;

/* The pipe: its ends' numbers, and the file, which both are of. */
static int pipe_ends[2] = {-1, -1};
static wakeup_fd pipe_file = {.number = -1};
/* The setting before ours, while ours is there. */
static wakeup_fd application = {.number = -1};
static bool armed;

/* ---- Descriptors ---- */

/* Notes which file a descriptor is of; none if it is of none. */
static wakeup_fd
identify(int fd)
{
    struct stat about;
    if (fd < 0 || fstat(fd, &about) != 0)
        return none;
    return (wakeup_fd){.number = fd, .device = (uint64_t)about.st_dev, .inode = (uint64_t)about.st_ino};
}

/* False if the descriptor was closed since; its number may be another file's by now. */
static bool
still_there(const wakeup_fd *noted)
{
    const wakeup_fd now = identify(noted->number);
    return now.number >= 0 && now.device == noted->device && now.inode == noted->inode;
}

/* ---- The pipe ---- */

static bool
put_at(int fd, int number)
{
    return dup2(fd, number) == number && fcntl(number, F_SETFD, FD_CLOEXEC) == 0;
}

/* A program that closes all descriptors closes these too. Their numbers are then no longer ours to close. */
static bool
end_is_there(int which)
{
    wakeup_fd end = pipe_file;
    end.number = pipe_ends[which];
    return still_there(&end);
}

static bool
pipe_is_there(void)
{
    return end_is_there(0) && end_is_there(1);
}

/* The numbers stay, and get a pipe of the child's own. Async-signal-safe: in the child of any fork. */
static void
replace_pipe_in_child(void)
{
    const bool there[2] = {end_is_there(0), end_is_there(1)};
    pipe_file = none;
    if (!there[0] && !there[1])
        return;
    int fresh[2];
    if (!os_pipe(fresh))
    {
        /* Without descriptors a write has to fail: it must not reach the parent. */
        if (there[0] && there[1])
            (void)put_at(pipe_ends[0], pipe_ends[1]);
        return;
    }
    for (int i = 0; i < 2; i++)
    {
        if (there[i])
            (void)put_at(fresh[i], pipe_ends[i]);
        close(fresh[i]);
    }
    pipe_file = identify(pipe_ends[0]);
}

/* False with errno. */
static bool
make_pipe(void)
{
    os_after_fork_in_child(replace_pipe_in_child);
    os_fork_hold();
    int made[2];
    const bool success = os_pipe(made);
    if (success)
    {
        pipe_ends[0] = made[0];
        pipe_ends[1] = made[1];
        pipe_file = identify(made[0]);
    }
    os_fork_release();
    return success;
}

/* Empties the pipe, and passes the bytes on to the descriptor's former owner. */
static void
take_bytes(const interrupt *state)
{
    char bytes[64];
    ssize_t taken;
    while ((taken = read(pipe_ends[0], bytes, sizeof(bytes))) > 0)
        if (state->previous.number != pipe_ends[1] && still_there(&state->previous) &&
            write(state->previous.number, bytes, (size_t)taken) != taken)
            break; /* full: its reader will wake anyway */
}

/* ---- Python's wake-up descriptor ---- */

/* Sets ours, or -1 for none. 0 and the one before, or -1 with an exception. */
static int
exchange_wakeup_fd(int fd, int *before)
{
    PyObject *result = PyObject_CallFunction(set_wakeup_fd, "i", fd);
    if (!result)
        return -1;
    *before = (int)PyLong_AsLong(result);
    Py_DECREF(result);
    return 0;
}

/* Restores another owner's descriptor, unless that was closed; then sets none. 0 and the one before, or -1 with an
 * exception. */
static int
restore_wakeup_fd(const wakeup_fd *noted, int *before)
{
    if (noted->number < 0 || !still_there(noted))
        return exchange_wakeup_fd(-1, before);
    PyObject *arguments = Py_BuildValue("(i)", noted->number);
    PyObject *result = arguments ? PyObject_Call(set_wakeup_fd, arguments, without_warning) : NULL;
    Py_XDECREF(arguments);
    if (!result)
    {
        PyErr_Clear(); /* the file has been made one that blocks */
        return exchange_wakeup_fd(-1, before);
    }
    *before = (int)PyLong_AsLong(result);
    Py_DECREF(result);
    return 0;
}

/* Sets ours. 0 and the one before, or -1 with an exception. */
static int
set_ours(interrupt *state, int *before)
{
    if (exchange_wakeup_fd(pipe_ends[1], before) < 0)
        return -1;
    if (*before != pipe_ends[1])
        application = identify(*before);
    state->handle = (HANDLE)(intptr_t)pipe_ends[0];
    armed = true;
    return 0;
}

/* The same on a pipe that is made when first needed, and anew where it was closed. */
static int
set_ours_surely(interrupt *state, int *before)
{
    if (pipe_is_there() || make_pipe())
        return set_ours(state, before);
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

/* Sets a descriptor in place of ours. One that a handler or another thread's fork has set meanwhile stays. */
static void
give_way_to(const wakeup_fd *noted)
{
    int current;
    if (restore_wakeup_fd(noted, &current) < 0)
    {
        PyErr_Clear();
        return;
    }
    if (current == pipe_ends[1])
        return;
    const wakeup_fd other = identify(current);
    int unused;
    if (restore_wakeup_fd(&other, &unused) < 0)
        PyErr_Clear();
}

/* ---- interrupt.h ---- */

int
interrupt_init(unsigned long thread)
{
    main_thread = thread;
    if (set_wakeup_fd)
    {
        /* In a child: whichever thread forked, no wait goes on. */
        if (armed)
            give_way_to(&application);
        armed = false;
        return 0;
    }
    without_warning = Py_BuildValue("{sO}", "warn_on_full_buffer", Py_False);
    PyObject *module = without_warning ? PyImport_ImportModule("signal") : NULL;
    if (!module)
        return -1;
    set_wakeup_fd = PyObject_GetAttrString(module, "set_wakeup_fd");
    Py_DECREF(module);
    return set_wakeup_fd ? 0 : -1;
}

bool
interrupt_possible(void)
{
    return PyThread_get_thread_ident() == main_thread;
}

int
interrupt_arm(interrupt *state)
{
    *state = (interrupt){.previous = none};
    if (!interrupt_possible())
        return 0;
    /* Signals that came before are handled first, as a handler may set another descriptor. */
    if (PyErr_CheckSignals() < 0)
        return -1;
    int before;
    if (pipe_ends[1] < 0 || set_ours(state, &before) < 0)
    {
        PyErr_Clear();
        if (set_ours_surely(state, &before) < 0)
            return -1;
    }
    state->previous = identify(before);
    return PyErr_CheckSignals();
}

int
interrupt_check(interrupt *state)
{
    if (!state->handle)
        return PyErr_CheckSignals();
    take_bytes(state);
    int before;
    for (;;)
    {
        if (PyErr_CheckSignals() < 0 || set_ours_surely(state, &before) < 0)
            return -1;
        if (before == pipe_ends[1])
            return 0;
        /* A handler has set another one, as a loop that it ran does, or has closed ours. */
        state->previous = identify(before);
    }
}

void
interrupt_disarm(interrupt *state)
{
    if (!state->handle)
        return;
    /* The wait is one in a handler of another wait's. */
    const bool inner = state->previous.number >= 0 && state->previous.number == pipe_ends[1];
    PyObject *type;
    PyObject *value;
    PyObject *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    give_way_to(&state->previous);
    armed = inner;
    if (state->previous.number >= 0 && !inner)
        take_bytes(state);
    PyErr_Restore(type, value, traceback);
}
