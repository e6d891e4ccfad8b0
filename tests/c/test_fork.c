/* SPDX-License-Identifier: MIT
 *
 * Descriptors of ours and forks: no number below 3, none in a child, whatever other threads do meanwhile; and a fork
 * that waits for nobody for long.
 */
/* build: parts=os */
#include "check.h"
#include "platform/os.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#define MANY 64 /* more than this program ever has */

static bool
is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

/* Forks, and checks that the child has no descriptor but the standard streams. */
static void
check_child(void)
{
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0)
    {
        for (int fd = 3; fd < MANY; fd++)
            if (is_open(fd))
                _exit(fd);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK_EQUAL(WEXITSTATUS(status), 0);
}

static void
without_standard_streams(void)
{
    int saved[3];
    for (int fd = 0; fd < 3; fd++)
    {
        saved[fd] = fcntl(fd, F_DUPFD_CLOEXEC, MANY);
        close(fd);
    }
    int made = OS_FD(open("/dev/null", O_RDWR | O_CLOEXEC));
    os_event event;
    bool opened = os_event_open(&event);
    os_fork_hold();
    int pipes[2];
    bool piped = os_pipe(pipes);
    os_fork_release();
    bool below = is_open(0) || is_open(1) || is_open(2);
    for (int fd = 0; fd < 3; fd++)
    {
        dup2(saved[fd], fd);
        close(saved[fd]);
    }
    CHECK(made >= 3 && opened && piped && !below);
    CHECK(fcntl(made, F_GETFD) & FD_CLOEXEC);
    for (int i = 0; i < 2; i++)
    {
        CHECK(pipes[i] >= 3 && (fcntl(pipes[i], F_GETFD) & FD_CLOEXEC) && (fcntl(pipes[i], F_GETFL) & O_NONBLOCK));
        close(pipes[i]);
    }
    os_fd_close(made);
    os_event_close(&event);
    CHECK(!is_open(made));
}

static void
a_failed_call(void)
{
    CHECK(OS_FD(open("/nowhere/at/all", O_RDONLY)) == -1 && errno == ENOENT);
    CHECK(os_fd_move(-1) == -1);
    os_fd_close(-1);
    check_child();
}

/* ---- While other threads make and close them ---- */

static atomic_bool stop;

/* Takes its time with the descriptor open, as a fork may well find it. */
static int
open_slowly(void)
{
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    os_sleep(300000);
    return fd;
}

static void *
make_and_close(void *unused)
{
    (void)unused;
    while (!atomic_load(&stop))
    {
        int fd = OS_FD(open_slowly());
        CHECK(fd >= 3);
        os_fd_close(fd);
    }
    return NULL;
}

static void
forks_meanwhile(void)
{
    atomic_store(&stop, false);
    pthread_t threads[3];
    for (int i = 0; i < 3; i++)
        CHECK(pthread_create(&threads[i], NULL, make_and_close, NULL) == 0);
    for (int turn = 0; turn < 200; turn++)
        check_child();
    atomic_store(&stop, true);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    check_child();
}

static os_event held, over;

static void *
hold_for_long(void *unused)
{
    (void)unused;
    os_fork_hold();
    os_event_set(&held);
    while (!atomic_load(&stop))
        os_sleep(1000000);
    os_fork_release();
    return NULL;
}

/* close() may be stuck in the kernel for as long as it likes. */
static void
a_fork_does_not_wait_for_ever(void)
{
    CHECK(os_event_open(&held) && os_event_open(&over));
    atomic_store(&stop, false);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, hold_for_long, NULL) == 0);
    char bytes[8];
    while (read((int)(intptr_t)held.wait, bytes, sizeof(bytes)) <= 0)
        os_sleep(1000000);
    int64_t began = os_now();
    check_child();
    int64_t took = os_now() - began;
    CHECK(took > 500000000 && took < 5000000000);
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
    began = os_now();
    check_child();
    CHECK(os_now() - began < 500000000);
    os_event_close(&held);
    os_event_close(&over);
}

/* ---- In the child ---- */

static atomic_int runs;

static void
count_first(void)
{
    atomic_fetch_add(&runs, 1);
}

static void
count_second(void)
{
    atomic_fetch_add(&runs, 100);
}

/* Each function once, however often it was added; and the child can make descriptors of its own. */
static void
functions_in_the_child(void)
{
    unsigned generation = os_generation();
    for (int i = 0; i < 10; i++)
    {
        os_after_fork_in_child(count_first);
        os_after_fork_in_child(count_second);
    }
    pid_t child = fork();
    if (child == 0)
    {
        os_event event;
        bool good = atomic_load(&runs) == 101 && os_generation() == generation + 1 && os_event_open(&event);
        if (good)
            os_event_close(&event);
        _exit(good ? 0 : 1);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(atomic_load(&runs) == 0 && os_generation() == generation);
}

int
main(void)
{
    for (int fd = 3; fd < MANY; fd++)
        close(fd);
    without_standard_streams();
    a_failed_call();
    forks_meanwhile();
    a_fork_does_not_wait_for_ever();
    functions_in_the_child();
    return 0;
}
