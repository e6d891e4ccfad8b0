/* SPDX-License-Identifier: MIT
 *
 * os.h for Windows.
 */
#include "os.h"

#include <stdlib.h>

void
os_mutex_init(os_mutex *mutex)
{
    InitializeSRWLock(mutex);
}

void
os_mutex_destroy(os_mutex *mutex)
{
    (void)mutex;
}

void
os_mutex_lock(os_mutex *mutex)
{
    AcquireSRWLockExclusive(mutex);
}

bool
os_mutex_trylock(os_mutex *mutex)
{
    return TryAcquireSRWLockExclusive(mutex) != 0;
}

void
os_mutex_unlock(os_mutex *mutex)
{
    ReleaseSRWLockExclusive(mutex);
}

bool
os_event_open(os_event *event)
{
    event->wait = CreateEventW(NULL, TRUE, FALSE, NULL);
    event->write_fd = -1;
    return event->wait != NULL;
}

void
os_event_close(os_event *event)
{
    CloseHandle(event->wait);
}

void
os_event_set(os_event *event)
{
    SetEvent(event->wait);
}

void
os_event_clear(os_event *event)
{
    ResetEvent(event->wait);
}

int64_t
os_now(void)
{
    LARGE_INTEGER frequency, count;
    QueryPerformanceFrequency(&frequency);
    QueryPerformanceCounter(&count);
    /* Whole seconds apart, so that the product doesn't overflow. */
    return count.QuadPart / frequency.QuadPart * 1000000000 +
           count.QuadPart % frequency.QuadPart * 1000000000 / frequency.QuadPart;
}

/* Ticks of 100 ns from 1601 to 1970. */
#define EPOCH 116444736000000000

int64_t
os_wall_clock(void)
{
    FILETIME now;
    GetSystemTimePreciseAsFileTime(&now);
    int64_t ticks = (int64_t)((uint64_t)now.dwHighDateTime << 32 | now.dwLowDateTime);
    return (ticks - EPOCH) * 100;
}

void
os_relax(void)
{
    YieldProcessor();
}

void
os_yield(void)
{
    SwitchToThread();
}

#ifndef CREATE_WAITABLE_TIMER_HIGH_RESOLUTION
#define CREATE_WAITABLE_TIMER_HIGH_RESOLUTION 0x00000002
#endif

HANDLE
os_timer_start(int64_t nanoseconds)
{
    HANDLE timer = CreateWaitableTimerExW(NULL, NULL, CREATE_WAITABLE_TIMER_HIGH_RESOLUTION, TIMER_ALL_ACCESS);
    LARGE_INTEGER due = {.QuadPart = -((nanoseconds + 99) / 100)};
    if (timer && !SetWaitableTimer(timer, &due, 0, NULL, NULL, FALSE))
    {
        CloseHandle(timer);
        timer = NULL;
    }
    return timer;
}

void
os_sleep(int64_t nanoseconds)
{
    HANDLE timer = os_timer_start(nanoseconds);
    if (!timer)
    {
        Sleep((DWORD)((nanoseconds + 999999) / 1000000));
        return;
    }
    WaitForSingleObject(timer, INFINITE);
    CloseHandle(timer);
}

unsigned
os_cpu_count(void)
{
    SYSTEM_INFO info;
    GetSystemInfo(&info);
    return info.dwNumberOfProcessors;
}

struct thread_start
{
    void (*run)(void *);
    void *argument;
};

static DWORD WINAPI
thread_main(void *parameter)
{
    struct thread_start start = *(struct thread_start *)parameter;
    free(parameter);
    start.run(start.argument);
    return 0;
}

bool
os_thread_detached(void (*run)(void *), void *argument)
{
    struct thread_start *start = malloc(sizeof(*start));
    if (!start)
        return false;
    *start = (struct thread_start){run, argument};
    HANDLE thread = CreateThread(NULL, 0, thread_main, start, 0, NULL);
    if (!thread)
    {
        free(start);
        return false;
    }
    CloseHandle(thread);
    return true;
}

void *
os_pages_alloc(size_t size)
{
    return VirtualAlloc(NULL, size, MEM_COMMIT | MEM_RESERVE, PAGE_READWRITE);
}

void
os_pages_free(void *pages, size_t size)
{
    (void)size;
    VirtualFree(pages, 0, MEM_RELEASE);
}

/* Windows doesn't fork. */

unsigned
os_generation(void)
{
    return 0;
}

void
os_after_fork_in_child(void (*run)(void))
{
    (void)run;
}
