/* SPDX-License-Identifier: MIT
 *
 * A write that never returns, as on a dead disk or in a pipe that another process fills at the same moment: it keeps
 * the thread of its file and nobody else.
 */
/* build: parts=core,loopback,common,os,ring flags=-Wl,--wrap=write */
#include "core_api.h"
#include "core/pcapng.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#define CAPACITY 0x20000
#define SIZE 1400u
#define BATCH 32u

static tunring_api api;

/* Writes to the file `stuck_ino` wait here after they have written `torn` bytes. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static ino_t stuck_ino;
static size_t torn;
static bool stuck, in_write;

ssize_t __real_write(int fd, const void *data, size_t size);

static bool
is_stuck(int fd)
{
    struct stat about;
    return stuck && fstat(fd, &about) == 0 && about.st_ino == stuck_ino;
}

ssize_t
__wrap_write(int fd, const void *data, size_t size)
{
    pthread_mutex_lock(&lock);
    if (is_stuck(fd))
    {
        if (size > torn)
            size = torn;
        in_write = true;
        pthread_cond_broadcast(&changed);
        while (stuck)
            pthread_cond_wait(&changed, &lock);
        in_write = false;
    }
    pthread_mutex_unlock(&lock);
    return __real_write(fd, data, size);
}

static void
stick(int fd, size_t bytes)
{
    struct stat about;
    CHECK(fstat(fd, &about) == 0);
    pthread_mutex_lock(&lock);
    stuck_ino = about.st_ino;
    torn = bytes;
    stuck = true;
    pthread_mutex_unlock(&lock);
}

static void
wait_until_stuck(void)
{
    pthread_mutex_lock(&lock);
    while (!in_write)
        pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
}

static void
let_go(void)
{
    pthread_mutex_lock(&lock);
    stuck = false;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static int
new_file(void)
{
    char path[] = "/tmp/tunring-stuck-XXXXXX";
    const int file = mkstemp(path);
    CHECK(file >= 0 && unlink(path) == 0);
    return file;
}

static tunring_pcapng_file *
open_capture(int fd)
{
    tunring_pcapng_file *file;
    CHECK(tunring_pcapng_open((HANDLE)(intptr_t)fd, "test", &file) == ERROR_SUCCESS);
    uint32_t number;
    CHECK(tunring_pcapng_add_interface(file, "a", "", 65535, &FOREVER, &number) == ERROR_SUCCESS);
    CHECK(tunring_pcapng_flush(file, tunring_pcapng_position(file), &FOREVER) == ERROR_SUCCESS);
    return file;
}

/* Sends and receives, and returns the longest time that a call took. */
static int64_t
pump(ends *pair, const tunring_packet *packets, unsigned rounds)
{
    int64_t longest = 0;
    for (unsigned i = 0; i < rounds; i++)
    {
        const int64_t began = os_now();
        uint32_t sent;
        CHECK(tunring_send(pair->sessions[0], packets, BATCH, &FOREVER, &sent) == ERROR_SUCCESS);
        tunring_lease *lease = NULL;
        CHECK(tunring_receive(tunring_session_source(pair->sessions[1]), BATCH, &FOREVER, &lease) == ERROR_SUCCESS);
        CHECK(lease->count == BATCH);
        tunring_lease_release(lease);
        tunring_lease_free(lease);
        const int64_t took = os_now() - began;
        longest = took > longest ? took : longest;
    }
    return longest;
}

/* Packets of a file of whole blocks. */
static uint64_t
read_back(int file)
{
    const off_t size = lseek(file, 0, SEEK_END);
    BYTE *data = malloc((size_t)size);
    CHECK(data && pread(file, data, (size_t)size, 0) == size);
    uint64_t packets = 0;
    size_t at = 0;
    for (; at < (size_t)size; at += pcapng_block_size(data + at))
        packets += pcapng_block_is_packet(data + at);
    CHECK(at == (size_t)size);
    free(data);
    return packets;
}

static void
fill_packets(tunring_packet *packets)
{
    static BYTE bytes[BATCH][SIZE];
    for (uint32_t i = 0; i < BATCH; i++)
    {
        make_packet(bytes[i], SIZE, i);
        packets[i] = (tunring_packet){bytes[i], SIZE};
    }
}

static void
test_nobody_else_waits(void)
{
    const unsigned rounds = 1000; /* three times what the buffer holds */
    const tunring_wait soon = {.deadline = os_now() + 50000000};
    const int fd = new_file();
    tunring_packet packets[BATCH];
    fill_packets(packets);
    ends pair;
    open_ends(&api, &pair, CAPACITY);
    tunring_pcapng_file *file = open_capture(fd);
    uint32_t number;
    CHECK(tunring_source_capture(tunring_session_source(pair.sessions[0]), file, 0, true, true, &number) ==
          ERROR_SUCCESS);
    stick(fd, 100);
    pump(&pair, packets, 1);
    wait_until_stuck();

    /* One of them may give way for a moment, 10 ms; a thousand of them would take ten seconds. */
    const int64_t began = os_now();
    pump(&pair, packets, rounds);
    CHECK(os_now() - began < 5000000000);
    CHECK(tunring_pcapng_dropped(file) > rounds * BATCH / 2);
    CHECK(tunring_pcapng_packets(file) + tunring_pcapng_dropped(file) == (rounds + 1) * BATCH);

    uint32_t done = 0;
    const uint64_t now = 1;
    const tunring_captured what = {.packets = packets, .count = BATCH, .times = &now, .one_time = true};
    CHECK(tunring_pcapng_write(file, &what, NULL, &done) == ERROR_BUFFER_OVERFLOW);
    CHECK(tunring_pcapng_write(file, &what, &soon, &done) == WAIT_TIMEOUT);
    CHECK(tunring_pcapng_flush(file, tunring_pcapng_position(file), &soon) == WAIT_TIMEOUT);
    const uint64_t all = tunring_pcapng_packets(file) + tunring_pcapng_dropped(file);
    /* The session ends, and so does the capture; only the thread stays, with its file. */
    close_ends(&pair);
    CHECK(tunring_pcapng_close(file, &soon) == WAIT_TIMEOUT);
    tunring_pcapng_give_up(file);
    CHECK(tunring_pcapng_close(file, &FOREVER) == ERROR_SUCCESS);
    CHECK(tunring_pcapng_exit(&POLL) == ERROR_SUCCESS);
    CHECK(tunring_pcapng_packets(file) == 0 && tunring_pcapng_dropped(file) == all);
    CHECK(tunring_pcapng_failure(file) == 0);
    const off_t size = lseek(fd, 0, SEEK_END);
    let_go();
    tunring_pcapng_drop(file);

    /* Its last writes are taken back to the last whole block. */
    for (int i = 0; i < 2000 && lseek(fd, 0, SEEK_END) != size; i++)
        os_sleep(1000000);
    CHECK(read_back(fd) == 0);
    close(fd);
}

int
main(void)
{
    api = linked_api();
    test_nobody_else_waits();
    return 0;
}
