/* SPDX-License-Identifier: MIT
 *
 * The operating system as the core and the back ends need it: locks, events, time, threads, ring memory.
 * os_posix.c and os_fork_posix.c (with os_event_linux.c or os_event_pipe.c) and os_windows.c implement it; each library
 * compiles its own.
 */
#ifndef TUNRING_OS_H
#define TUNRING_OS_H

#include "wintun.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
typedef SRWLOCK os_mutex;
typedef CONDITION_VARIABLE os_condition;
#define OS_MUTEX_INIT SRWLOCK_INIT
#define OS_CONDITION_INIT CONDITION_VARIABLE_INIT
#else
#include <pthread.h>
typedef pthread_mutex_t os_mutex;
typedef pthread_cond_t os_condition;
#define OS_MUTEX_INIT PTHREAD_MUTEX_INITIALIZER
#define OS_CONDITION_INIT PTHREAD_COND_INITIALIZER
#endif

void os_mutex_init(os_mutex *mutex);
void os_mutex_destroy(os_mutex *mutex);
void os_mutex_lock(os_mutex *mutex);
bool os_mutex_trylock(os_mutex *mutex);
void os_mutex_unlock(os_mutex *mutex);
/* Unlocks while it waits for a signal. It may return without one. */
void os_condition_wait(os_condition *condition, os_mutex *mutex);
/* Wakes one that waits. */
void os_condition_signal(os_condition *condition);

/* A manual-reset event. `wait` is what WaitForMultipleObjects or poll() takes. */
typedef struct os_event
{
    HANDLE wait;
    int write_fd; /* POSIX: what os_event_set writes to; on Linux the same eventfd */
} os_event;

/* Creates an unset event. False on failure, with the last error. */
bool os_event_open(os_event *event);
/* A line that names the system's call, for when that fails. */
extern const char *const os_event_refusal;
void os_event_close(os_event *event);
/* Both are idempotent, and neither is ordered against the other: callers that race hold a lock. */
void os_event_set(os_event *event);
void os_event_clear(os_event *event);
/* False if the program has closed its descriptor, whose number may be a file of the program's own by now. Takes longer
 * than the two above: for what is rare, as the end of something is, and not for what happens once per batch. */
bool os_event_is_ours(const os_event *event);
/* Sets or clears it if it is. The latter returns false if it is not. */
void os_event_set_if_ours(os_event *event);
bool os_event_clear_if_ours(os_event *event);

/* Nanoseconds of a monotonic clock. */
int64_t os_now(void);
/* A time of that clock that never comes. */
#define OS_FOREVER INT64_MAX
/* The time that lies this many nanoseconds ahead, saturating. */
int64_t os_deadline(int64_t nanoseconds);
/* Nanoseconds of a monotonic clock that goes on while the system is suspended, as far as it has one. Never 0. */
int64_t os_boottime(void);
/* Nanoseconds since 1970 UTC, by the system's clock, which may be set. */
int64_t os_wall_clock(void);
/* Hints to the processor that this is a spin loop. */
void os_relax(void);
void os_yield(void);
void os_sleep(int64_t nanoseconds);
/* The same, again and again: by a timer that is made at the first time and kept. *timer is NULL before, and where a
 * sleep takes none. */
void os_sleep_by(HANDLE *timer, int64_t nanoseconds);
#if defined(_WIN32)
/* A timer that becomes ready after that time, the caller's to close: timeouts of Windows' waits are rounded up to the
 * system's tick, 15.6 ms by default. NULL before Windows 10 1803. */
HANDLE os_timer_start(int64_t nanoseconds);
#endif
unsigned os_cpu_count(void);
/* A number of this thread's own, which no other thread of the process ever has, not even when this one has ended. */
uint64_t os_thread_number(void);
/* Starts a thread that nobody joins, and that no signal of the program's is delivered to: those are for the threads
 * that wait for them. False if the system refuses. */
bool os_thread_detached(void (*run)(void *), void *argument);

/* Zeroed, page-aligned memory, private to this process (after a fork each side has its own copy). */
void *os_pages_alloc(size_t size);
void os_pages_free(void *pages, size_t size);
/* Memory aligned to its size, a power of two; its contents are undefined. */
void *os_aligned_alloc(size_t size);
void os_aligned_free(void *memory);

/* Zeroed, page-aligned memory for keys. Where the system can, a child process finds zeros there, and a core dump lacks
 * it. `protection` takes the flags of what has been achieved; NULL is allowed. */
#define OS_SECRET_EMPTY_IN_CHILD 1u
#define OS_SECRET_NOT_DUMPED 2u
#define OS_SECRET_LOCKED 4u
void *os_secret_alloc(size_t size, unsigned *protection);
/* Keeps it from being swapped out, until it is freed: OS_SECRET_LOCKED, or 0 beyond what a process may lock. */
unsigned os_secret_lock(void *memory, size_t size);
void os_secret_free(void *memory, size_t size);
/* Runs when the process ends, in reverse order, as atexit() does. On Windows it does nothing: no other thread is left
 * by the time that a library hears of the end. */
void os_at_exit(void (*run)(void));

/* The last error for errno's present value, by POSIX code. Only outside Windows. */
DWORD os_error_from_errno(int code);

/* Forking (os_fork_posix.c). A child process has none of its parent's threads and must not keep the parent's devices
 * alive, so the child's first act is to count up the generation and to close every registered descriptor. Objects
 * remember the generation they were made in; on Windows it is always 0. */
unsigned os_generation(void);

/* True in a forked child for an object of its parent: `object` points to a struct with a `generation`. */
#define OS_FOREIGN(object) ((object)->generation != os_generation())
/* From here on forks are counted, which they are not before anything asks for it. */
void os_watch_forks(void);
/* Runs in the child after its descriptors are closed: must be async-signal-safe. Each function is added once. */
void os_after_fork_in_child(void (*run)(void));

#if !defined(_WIN32)
/* Descriptors of ours are at least 3, as a program may close and redirect its standard streams at any time; they are
 * not inherited by programs that are executed, and a forked child closes them. */

/* Evaluates a call that makes a descriptor, and registers what it made; no fork comes in between. Returns the
 * descriptor, or -1 with errno. */
#define OS_FD(call) (os_fork_hold(), os_fd_keep(call))
/* Closes a registered descriptor. Others are left alone: those that went at a fork, and those that the program has
 * closed, even if their number is another file's by now. */
void os_fd_close(int fd);
/* False if it is not registered, or if the number is of another file than when it was, or of none. Files are told apart
 * by device, inode and type: one of Linux's anonymous files, as eventfds and epolls are, passes for another. */
bool os_fd_is_ours(int fd);
/* True if it is registered, but the number is of another file by now, or of none. */
bool os_fd_is_lost(int fd);

/* The parts of OS_FD, for callers who make several at once. */
/* Between these two the process does not fork, unless they are a second apart. They don't nest. */
void os_fork_hold(void);
void os_fork_release(void);
/* Returns the descriptor, maybe by another number; or -1 with errno, and it is closed. While a number is registered,
 * no other descriptor is registered by it, though the program may have closed the first one. */
int os_fd_register(int fd);
/* The same, and releases. */
int os_fd_keep(int fd);
/* The same without registering it, for descriptors that are the caller's own. */
int os_fd_move(int fd);
/* Makes a pipe whose ends don't block and are not registered, with forks held off. False with errno. */
bool os_pipe(int ends[2]);
/* Moves both ends. False with errno, and both are closed. */
bool os_pipe_move(int ends[2]);
#else
/* Nothing forks. */
static inline void
os_fork_hold(void)
{
}

static inline void
os_fork_release(void)
{
}
#endif

#endif
