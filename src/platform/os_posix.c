/* SPDX-License-Identifier: MIT
 *
 * os.h for POSIX: pthreads, clocks and anonymous memory. os_fork_posix.c has the rest.
 */
#include "platform/os.h"

#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

void
os_mutex_init(os_mutex *mutex)
{
    pthread_mutex_init(mutex, NULL);
}

void
os_mutex_destroy(os_mutex *mutex)
{
    pthread_mutex_destroy(mutex);
}

void
os_mutex_lock(os_mutex *mutex)
{
    pthread_mutex_lock(mutex);
}

bool
os_mutex_trylock(os_mutex *mutex)
{
    return pthread_mutex_trylock(mutex) == 0;
}

void
os_mutex_unlock(os_mutex *mutex)
{
    pthread_mutex_unlock(mutex);
}

void
os_condition_wait(os_condition *condition, os_mutex *mutex)
{
    pthread_cond_wait(condition, mutex);
}

void
os_condition_signal(os_condition *condition)
{
    pthread_cond_signal(condition);
}

int64_t
os_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t
os_deadline(int64_t nanoseconds)
{
    int64_t now = os_now();
    return nanoseconds < OS_FOREVER - now ? now + nanoseconds : OS_FOREVER;
}

int64_t
os_boottime(void)
{
#if defined(CLOCK_BOOTTIME)
    struct timespec now;
    if (clock_gettime(CLOCK_BOOTTIME, &now) == 0)
        return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
#endif
    return os_now();
}

int64_t
os_wall_clock(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void
os_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

void
os_yield(void)
{
    sched_yield();
}

void
os_sleep(int64_t nanoseconds)
{
    struct timespec span = {.tv_sec = (time_t)(nanoseconds / 1000000000), .tv_nsec = (long)(nanoseconds % 1000000000)};
    nanosleep(&span, NULL);
}

void
os_sleep_by(HANDLE *timer, int64_t nanoseconds)
{
    (void)timer;
    os_sleep(nanoseconds);
}

unsigned
os_cpu_count(void)
{
    /* Asked once: sysconf() reads a file. */
    static atomic_uint known;
    unsigned count = atomic_load_explicit(&known, memory_order_relaxed);
    if (!count)
    {
        long online = sysconf(_SC_NPROCESSORS_ONLN);
        count = online > 0 ? (unsigned)online : 1;
        atomic_store_explicit(&known, count, memory_order_relaxed);
    }
    return count;
}

struct thread_start
{
    void (*run)(void *);
    void *argument;
};

static void *
thread_main(void *parameter)
{
    struct thread_start start = *(struct thread_start *)parameter;
    free(parameter);
    start.run(start.argument);
    return NULL;
}

/* All but those for a thread's own faults, which faulthandler reports. */
static void
program_signals(sigset_t *signals)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
    sigfillset(signals);
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++)
        sigdelset(signals, faults[i]);
}

bool
os_thread_detached(void (*run)(void *), void *argument)
{
    struct thread_start *start = malloc(sizeof(*start));
    if (!start)
        return false;
    *start = (struct thread_start){run, argument};
    sigset_t blocked;
    program_signals(&blocked);
    sigset_t before;
    /* The new thread takes over the mask of this one. */
    pthread_sigmask(SIG_BLOCK, &blocked, &before);
    pthread_t thread;
    const int failure = pthread_create(&thread, NULL, thread_main, start);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failure)
    {
        free(start);
        return false;
    }
    pthread_detach(thread);
    return true;
}

void *
os_pages_alloc(size_t size)
{
    void *pages = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return pages == MAP_FAILED ? NULL : pages;
}

void
os_pages_free(void *pages, size_t size)
{
    munmap(pages, size);
}

void *
os_aligned_alloc(size_t size)
{
    void *memory;
    return posix_memalign(&memory, size, size) == 0 ? memory : NULL;
}

void
os_aligned_free(void *memory)
{
    free(memory);
}

void *
os_secret_alloc(size_t size, unsigned *protection)
{
    void *memory = os_pages_alloc(size);
    if (!memory)
        return NULL;
    /* A system refuses what it doesn't know, and the memory is as good as any other. */
    unsigned achieved = 0;
#if defined(MADV_WIPEONFORK)
    if (madvise(memory, size, MADV_WIPEONFORK) == 0)
        achieved |= OS_SECRET_EMPTY_IN_CHILD;
#endif
#if defined(MADV_DONTDUMP)
    if (madvise(memory, size, MADV_DONTDUMP) == 0)
        achieved |= OS_SECRET_NOT_DUMPED;
#endif
    if (protection)
        *protection = achieved;
    return memory;
}

unsigned
os_secret_lock(void *memory, size_t size)
{
    return mlock(memory, size) == 0 ? OS_SECRET_LOCKED : 0;
}

void
os_secret_free(void *memory, size_t size)
{
    os_pages_free(memory, size);
}

void
os_at_exit(void (*run)(void))
{
    atexit(run);
}

DWORD
os_error_from_errno(int code)
{
    switch (code)
    {
    case ENOENT:
    case ENXIO:
    case ENODEV:
        return ERROR_FILE_NOT_FOUND;
    case EMFILE:
    case ENFILE:
        return ERROR_TOO_MANY_OPEN_FILES;
    case EPERM:
    case EACCES:
        return ERROR_ACCESS_DENIED;
    case ENOMEM:
    case ENOBUFS:
        return ERROR_NOT_ENOUGH_MEMORY;
#if defined(EBADFD)
    case EBADFD:
        return ERROR_HANDLE_EOF;
#endif
    case EINVAL:
    case ENAMETOOLONG:
        return ERROR_INVALID_PARAMETER;
    case EBUSY:
        return ERROR_BUSY;
    case EEXIST:
        return ERROR_ALREADY_EXISTS;
    default:
        return ERROR_GEN_FAILURE;
    }
}
