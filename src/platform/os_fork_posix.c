/* SPDX-License-Identifier: MIT
 *
 * Forking, for os.h on POSIX: the generation, the table of descriptors that a forked child closes, and the gate between
 * forks and whoever makes or closes one. A fork between open() and the table's entry would leave the child a descriptor
 * that it doesn't know of, and the interface would outlive its owner.
 */
#include "platform/os.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* The table is preallocated: the child may not allocate. 16,384 is more than the usual limit on open files. */
#define FD_TABLE_SIZE 16384

/* The cell is being filled. */
#define FD_TAKEN (-1)

/* Which file a descriptor was of when it was registered: programs close descriptors that they don't know of, and their
 * own files then get the numbers. */
typedef struct fd_file
{
    uint64_t device, inode;
    uint32_t type;
} fd_file;

typedef struct fd_cell
{
    _Atomic int number; /* the descriptor plus one, so that zeroed memory is an empty table; or FD_TAKEN */
    fd_file file;       /* written before the number, and not changed while that is there */
} fd_cell;

/* Functions that run in a child: the core's log and signals, a back end's registry. */
#define MAX_CHILD_FUNCTIONS 4

/* A fork waits no longer than this for a call that makes or closes a descriptor: close() may be stuck in the kernel, as
 * that of a file on a server that is gone. */
#define LONGEST_HOLD 1000000000

static fd_cell fd_table[FD_TABLE_SIZE];
static atomic_uint fd_table_used; /* cells that were ever taken */
static atomic_uint generation;
static void (*_Atomic child_functions[MAX_CHILD_FUNCTIONS])(void);

static atomic_uint forking; /* forks that are about to happen, or happen */
static atomic_uint holding; /* threads between os_fork_hold() and os_fork_release() */

/* ---- Files ---- */

/* No file is of this type if the descriptor is of none. Async-signal-safe. */
static fd_file
file_of(int fd)
{
    struct stat about;
    if (fstat(fd, &about) != 0)
        return (fd_file){.type = UINT32_MAX};
    return (fd_file){(uint64_t)about.st_dev, (uint64_t)about.st_ino, (uint32_t)(about.st_mode & S_IFMT)};
}

static bool
is_still(int fd, const fd_file *noted)
{
    const fd_file now = file_of(fd);
    return now.device == noted->device && now.inode == noted->inode && now.type == noted->type;
}

/* ---- The handlers ---- */

/* The wait is for a system call of another thread's. */
static void
pause_briefly(unsigned turn)
{
    if (turn < 16)
        os_yield();
    else
        os_sleep(50000);
}

/* Registers first and looks second, as os_fork_hold() does: at least one of the two sees the other. */
static void
before_fork(void)
{
    const int64_t deadline = os_now() + LONGEST_HOLD;
    atomic_fetch_add(&forking, 1);
    for (unsigned turn = 0; atomic_load(&holding) && os_now() < deadline; turn++)
        pause_briefly(turn);
}

static void
after_fork_in_parent(void)
{
    atomic_fetch_sub(&forking, 1);
}

static void
after_fork_in_child(void)
{
    /* The threads that these counted are not in the child. */
    atomic_store(&forking, 0);
    atomic_store(&holding, 0);
    atomic_fetch_add(&generation, 1);
    const unsigned used = atomic_load(&fd_table_used);
    for (unsigned i = 0; i < used; i++)
    {
        const int number = atomic_exchange(&fd_table[i].number, 0);
        if (number > 0 && is_still(number - 1, &fd_table[i].file))
            close(number - 1);
    }
    for (unsigned i = 0; i < MAX_CHILD_FUNCTIONS; i++)
    {
        void (*run)(void) = atomic_load(&child_functions[i]);
        if (run)
            run();
    }
}

static void
install_handlers(void)
{
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

static void
need_handlers(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, install_handlers);
}

unsigned
os_generation(void)
{
    return atomic_load_explicit(&generation, memory_order_relaxed);
}

void
os_watch_forks(void)
{
    need_handlers();
}

void
os_after_fork_in_child(void (*run)(void))
{
    need_handlers();
    for (unsigned i = 0; i < MAX_CHILD_FUNCTIONS; i++)
    {
        void (*there)(void) = NULL;
        if (atomic_compare_exchange_strong(&child_functions[i], &there, run) || there == run)
            return;
    }
}

void
os_fork_hold(void)
{
    const int last_error = errno;
    need_handlers();
    for (;;)
    {
        atomic_fetch_add(&holding, 1);
        if (!atomic_load(&forking))
            break;
        atomic_fetch_sub(&holding, 1);
        for (unsigned turn = 0; atomic_load(&forking); turn++)
            pause_briefly(turn);
    }
    errno = last_error;
}

void
os_fork_release(void)
{
    atomic_fetch_sub(&holding, 1);
}

/* ---- Descriptors ---- */

/* Closes a descriptor because of a failure, whose errno stays. */
static void
close_failed(int fd)
{
    const int failure = errno;
    close(fd);
    errno = failure;
}

int
os_fd_move(int fd)
{
    if (fd < 0 || fd > STDERR_FILENO)
        return fd;
    const int moved = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    close_failed(fd);
    return moved;
}

/* Raises the high-water mark before the cell is filled, so that the child's scan covers it. */
static void
raise_table_used(unsigned at_least)
{
    unsigned used = atomic_load(&fd_table_used);
    while (used < at_least && !atomic_compare_exchange_weak(&fd_table_used, &used, at_least))
        continue;
}

static bool
add_to_table(int fd)
{
    for (unsigned i = 0; i < FD_TABLE_SIZE; i++)
    {
        if (atomic_load_explicit(&fd_table[i].number, memory_order_relaxed) != 0)
            continue;
        raise_table_used(i + 1);
        int empty = 0;
        if (!atomic_compare_exchange_strong(&fd_table[i].number, &empty, FD_TAKEN))
            continue;
        fd_table[i].file = file_of(fd);
        atomic_store(&fd_table[i].number, fd + 1);
        return true;
    }
    return false;
}

/* NULL if it is not there. */
static fd_cell *
find_in_table(int fd)
{
    const unsigned used = atomic_load(&fd_table_used);
    for (unsigned i = 0; i < used; i++)
        if (atomic_load(&fd_table[i].number) == fd + 1)
            return &fd_table[i];
    return NULL;
}

/* Moves a descriptor away from a number that is registered: the program has closed the one before, and whoever made
 * that will close the number. */
static int
move_from_registered(int fd)
{
    while (fd >= 0 && find_in_table(fd))
    {
        const int moved = fcntl(fd, F_DUPFD_CLOEXEC, fd + 1);
        close_failed(fd);
        fd = moved;
    }
    return fd;
}

int
os_fd_register(int fd)
{
    fd = move_from_registered(os_fd_move(fd));
    if (fd < 0 || add_to_table(fd))
        return fd;
    errno = EMFILE;
    close_failed(fd);
    return -1;
}

int
os_fd_keep(int fd)
{
    fd = os_fd_register(fd);
    os_fork_release();
    return fd;
}

bool
os_pipe_move(int ends[2])
{
    for (int i = 0; i < 2; i++)
    {
        ends[i] = os_fd_move(ends[i]);
        if (ends[i] >= 0)
            continue;
        close_failed(ends[!i]);
        return false;
    }
    return true;
}

bool
os_fd_is_ours(int fd)
{
    const int last_error = errno;
    const fd_cell *cell = find_in_table(fd);
    const bool ours = cell && is_still(fd, &cell->file);
    errno = last_error;
    return ours;
}

bool
os_fd_is_lost(int fd)
{
    const int last_error = errno;
    const fd_cell *cell = find_in_table(fd);
    const bool lost = cell && !is_still(fd, &cell->file);
    errno = last_error;
    return lost;
}

bool
os_event_is_ours(const os_event *event)
{
    return os_fd_is_ours(event->write_fd) && os_fd_is_ours((int)(intptr_t)event->wait);
}

void
os_event_set_if_ours(os_event *event)
{
    if (os_fd_is_ours(event->write_fd))
        os_event_set(event);
}

bool
os_event_clear_if_ours(os_event *event)
{
    const bool ours = os_event_is_ours(event);
    if (ours)
        os_event_clear(event);
    return ours;
}

void
os_fd_close(int fd)
{
    if (fd < 0)
        return;
    os_fork_hold();
    fd_cell *cell = find_in_table(fd);
    const bool ours = cell && is_still(fd, &cell->file);
    int number = fd + 1;
    /* Its cell is emptied before the close: afterwards the number may belong to another file. */
    if (cell && atomic_compare_exchange_strong(&cell->number, &number, 0) && ours)
        close(fd);
    os_fork_release();
}
