/* SPDX-License-Identifier: MIT
 *
 * os.h for Windows.
 */
#include "platform/os.h"

#include <malloc.h>
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

void
os_condition_wait(os_condition *condition, os_mutex *mutex)
{
    SleepConditionVariableSRW(condition, mutex, INFINITE, 0);
}

void
os_condition_signal(os_condition *condition)
{
    WakeConditionVariable(condition);
}

const char *const os_event_refusal = "Opening an event by CreateEvent() failed";

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

bool
os_event_is_ours(const os_event *event)
{
    (void)event;
    return true;
}

void
os_event_set_if_ours(os_event *event)
{
    SetEvent(event->wait);
}

void
os_event_clear(os_event *event)
{
    ResetEvent(event->wait);
}

bool
os_event_clear_if_ours(os_event *event)
{
    os_event_clear(event);
    return true;
}

/* Ticks a second, which never change. */
static int64_t
ticks_per_second(void)
{
    static _Atomic int64_t known;
    int64_t frequency = atomic_load_explicit(&known, memory_order_relaxed);
    if (!frequency)
    {
        LARGE_INTEGER asked;
        QueryPerformanceFrequency(&asked);
        frequency = asked.QuadPart;
        atomic_store_explicit(&known, frequency, memory_order_relaxed);
    }
    return frequency;
}

int64_t
os_now(void)
{
    const int64_t frequency = ticks_per_second();
    LARGE_INTEGER count;
    QueryPerformanceCounter(&count);
    /* 10 MHz since Windows 10. */
    if (frequency == 10000000)
        return count.QuadPart * 100;
    /* Whole seconds apart, so that the product doesn't overflow. */
    return count.QuadPart / frequency * 1000000000 + count.QuadPart % frequency * 1000000000 / frequency;
}

int64_t
os_deadline(int64_t nanoseconds)
{
    int64_t now = os_now();
    return nanoseconds < OS_FOREVER - now ? now + nanoseconds : OS_FOREVER;
}

/* Ticks of 100 ns from 1601 to 1970. */
#define EPOCH 116444736000000000

/* The performance counter goes on meanwhile. */
int64_t
os_boottime(void)
{
    return os_now();
}

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

static HANDLE
timer_open(void)
{
    return CreateWaitableTimerExW(NULL, NULL, CREATE_WAITABLE_TIMER_HIGH_RESOLUTION, TIMER_ALL_ACCESS);
}

static bool
timer_set(HANDLE timer, int64_t nanoseconds)
{
    const LARGE_INTEGER due = {.QuadPart = -((nanoseconds + 99) / 100)};
    return SetWaitableTimer(timer, &due, 0, NULL, NULL, FALSE) != 0;
}

HANDLE
os_timer_start(int64_t nanoseconds)
{
    HANDLE timer = timer_open();
    if (timer && !timer_set(timer, nanoseconds))
    {
        CloseHandle(timer);
        timer = NULL;
    }
    return timer;
}

void
os_sleep_by(HANDLE *timer, int64_t nanoseconds)
{
    if (!*timer)
        *timer = timer_open();
    if (*timer && timer_set(*timer, nanoseconds))
        WaitForSingleObject(*timer, INFINITE);
    else
        Sleep((DWORD)((nanoseconds + 999999) / 1000000));
}

void
os_sleep(int64_t nanoseconds)
{
    HANDLE timer = NULL;
    os_sleep_by(&timer, nanoseconds);
    if (timer)
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

void *
os_aligned_alloc(size_t size)
{
    return _aligned_malloc(size, size);
}

void
os_aligned_free(void *memory)
{
    _aligned_free(memory);
}

void *
os_secret_alloc(size_t size, unsigned *protection)
{
    if (protection)
        *protection = 0;
    return os_pages_alloc(size);
}

unsigned
os_secret_lock(void *memory, size_t size)
{
    return VirtualLock(memory, size) ? OS_SECRET_LOCKED : 0;
}

void
os_secret_free(void *memory, size_t size)
{
    os_pages_free(memory, size);
}

void
os_at_exit(void (*run)(void))
{
    (void)run;
}

/* Windows doesn't fork. */

unsigned
os_generation(void)
{
    return 0;
}

void
os_watch_forks(void)
{
}

void
os_after_fork_in_child(void (*run)(void))
{
    (void)run;
}
