/* SPDX-License-Identifier: MIT
 *
 * interrupt.h for Windows: Python's own event for Ctrl-C, which its DLL exports but its headers don't declare any more.
 */
#include <Python.h>

#include "interrupt.h"

static unsigned long main_thread;

int
interrupt_init(unsigned long thread)
{
    main_thread = thread;
    return 0;
}

/* NULL where this Python has none. */
static HANDLE
sigint_event(void)
{
    static HANDLE event;
    HMODULE python;
    if (!event &&
        GetModuleHandleExW(GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT,
                           (LPCWSTR)(void *)&PyErr_CheckSignals, &python))
    {
        FARPROC address = GetProcAddress(python, "_PyOS_SigintEvent");
        void *(*get_event)(void);
        memcpy(&get_event, &address, sizeof(get_event));
        if (get_event)
            event = get_event();
    }
    return event;
}

int
interrupt_arm(interrupt *state)
{
    state->handle = PyThread_get_thread_ident() == main_thread ? sigint_event() : NULL;
    state->previous = -1;
    /* It stays set after a Ctrl-C. */
    if (state->handle)
        ResetEvent(state->handle);
    return state->handle ? PyErr_CheckSignals() : 0;
}

int
interrupt_check(interrupt *state)
{
    if (state->handle)
        ResetEvent(state->handle);
    return PyErr_CheckSignals();
}

void
interrupt_disarm(interrupt *state)
{
    (void)state;
}
