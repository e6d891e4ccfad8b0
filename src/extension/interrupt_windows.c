/* SPDX-License-Identifier: MIT
 *
 * interrupt.h for Windows. Python sets an event at Ctrl-C, which its DLL exports but its headers and the stable ABI
 * don't have: it is looked up in the running Python. Where there is none, a timer ends the wait now and then instead.
 */
#include <Python.h>

#include "extension/interrupt.h"

#include <string.h>

/* Between looks for signals, in the timer's units of 100 ns: 50 ms. */
#define LOOK_EVERY 500000

static unsigned long main_thread;
static HANDLE sigint_event;
static HANDLE timer; /* only without the event */

static HANDLE
find_sigint_event(void)
{
    PyObject *handle = PySys_GetObject("dllhandle"); /* borrowed */
    HMODULE python = handle ? PyLong_AsVoidPtr(handle) : NULL;
    PyErr_Clear();
    FARPROC address = python ? GetProcAddress(python, "_PyOS_SigintEvent") : NULL;
    void *(*get_event)(void);
    memcpy(&get_event, &address, sizeof(get_event));
    return get_event ? get_event() : NULL;
}

int
interrupt_init(unsigned long thread)
{
    main_thread = thread;
    sigint_event = find_sigint_event();
    if (!sigint_event)
        timer = CreateWaitableTimerW(NULL, FALSE, NULL);
    if (sigint_event || timer)
        return 0;
    PyErr_SetFromWindowsErr(0);
    return -1;
}

/* The event stays set after a Ctrl-C, and comes after what PyErr_CheckSignals() looks at: so this first, then that. */
static void
reset(void)
{
    if (sigint_event)
        ResetEvent(sigint_event);
}

/* After signals were handled: a handler may have waited, with the same timer. */
static void
start_timer(void)
{
    LARGE_INTEGER due = {.QuadPart = -LOOK_EVERY};
    if (timer)
        SetWaitableTimer(timer, &due, 0, NULL, NULL, FALSE);
}

bool
interrupt_possible(void)
{
    return PyThread_get_thread_ident() == main_thread;
}

int
interrupt_arm(interrupt *state)
{
    state->handle = NULL;
    if (!interrupt_possible())
        return 0;
    state->handle = sigint_event ? sigint_event : timer;
    return interrupt_check(state);
}

int
interrupt_check(interrupt *state)
{
    if (!state->handle)
        return PyErr_CheckSignals();
    reset();
    if (PyErr_CheckSignals() < 0)
        return -1;
    start_timer();
    return 0;
}

void
interrupt_disarm(interrupt *state)
{
    if (state->handle && timer)
        CancelWaitableTimer(timer);
}
