/* SPDX-License-Identifier: MIT
 *
 * A file that several threads write to, one of them by a capture that comes and goes under traffic.
 */
/* build: parts=core,loopback,common,os,ring */
#include "core_api.h"
#include "core/pcapng.h"

#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#define CAPACITY 0x20000
#define ROUNDS 300u
#define BATCH 8u

static tunring_api api;

typedef struct scene
{
    ends pair;
    tunring_pcapng_file *file;
    tunring_packet packets[BATCH];
} scene;

static void *
write_packets(void *argument)
{
    scene *self = argument;
    const uint64_t now = 1;
    for (unsigned i = 0; i < ROUNDS; i++)
    {
        const tunring_captured what = {.packets = self->packets, .count = BATCH, .times = &now, .one_time = true};
        uint32_t done = 0;
        CHECK(tunring_pcapng_write(self->file, &what, &FOREVER, &done) == ERROR_SUCCESS);
        CHECK(done == BATCH);
    }
    return NULL;
}

static void *
send_packets(void *argument)
{
    scene *self = argument;
    for (unsigned i = 0; i < ROUNDS; i++)
    {
        uint32_t sent;
        CHECK(tunring_send(self->pair.sessions[0], self->packets, BATCH, &FOREVER, &sent) == ERROR_SUCCESS);
        CHECK(sent == BATCH);
    }
    return NULL;
}

static void *
capture_on_and_off(void *argument)
{
    scene *self = argument;
    tunring_session *session = self->pair.sessions[1];
    uint32_t first, second;
    for (unsigned i = 0; i < ROUNDS; i++)
    {
        CHECK(tunring_source_capture(tunring_session_source(session), self->file, 0, true, true, &first) ==
              ERROR_SUCCESS);
        CHECK(tunring_source_capture(tunring_session_source(session), self->file, 0, true, true, &second) ==
              ERROR_BUSY);
        tunring_source_capture_end(tunring_session_source(session), first);
        CHECK(tunring_source_capture(tunring_session_source(session), self->file, 0, true, true, &second) ==
              ERROR_SUCCESS);
        /* It is over, and ends no other. */
        tunring_source_capture_end(tunring_session_source(session), first);
        CHECK(tunring_source_capture(tunring_session_source(session), self->file, 0, true, true, &first) == ERROR_BUSY);
        tunring_source_capture_end(tunring_session_source(session), second);
    }
    return NULL;
}

static void *
receive_packets(void *argument)
{
    scene *self = argument;
    for (uint32_t got = 0; got < ROUNDS * BATCH;)
    {
        tunring_lease *lease = NULL;
        CHECK(tunring_receive(tunring_session_source(self->pair.sessions[1]), 64, &FOREVER, &lease) == ERROR_SUCCESS);
        got += lease->count;
        tunring_lease_release(lease);
        tunring_lease_free(lease);
    }
    return NULL;
}

/* Counts packets; a block that is not whole fails. */
static uint64_t
read_back(int file)
{
    off_t size = lseek(file, 0, SEEK_END);
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
test_threads(void)
{
    static void *(*const roles[])(void *) = {write_packets, write_packets, send_packets, receive_packets,
                                             capture_on_and_off};
    enum
    {
        COUNT = sizeof(roles) / sizeof(roles[0])
    };
    char path[] = "/tmp/tunring-capture-XXXXXX";
    int file = mkstemp(path);
    CHECK(file >= 0 && unlink(path) == 0);
    scene self;
    open_ends(&api, &self.pair, CAPACITY);
    static BYTE bytes[BATCH][100];
    for (uint32_t i = 0; i < BATCH; i++)
    {
        make_packet(bytes[i], 93 + i, i);
        self.packets[i] = (tunring_packet){bytes[i], 93 + i};
    }
    CHECK(tunring_pcapng_open((HANDLE)(intptr_t)file, "test", &self.file) == ERROR_SUCCESS);
    uint32_t number = 9;
    CHECK(tunring_source_capture(tunring_session_source(self.pair.sessions[0]), self.file, 0, true, true, &number) ==
          ERROR_INVALID_PARAMETER);
    CHECK(tunring_pcapng_add_interface(self.file, "a", "", 65535, &FOREVER, &number) == ERROR_SUCCESS && number == 0);
    CHECK(tunring_source_capture(tunring_session_source(self.pair.sessions[0]), self.file, 0, true, true, &number) ==
          ERROR_SUCCESS);
    pthread_t threads[COUNT];
    for (int i = 0; i < COUNT; i++)
        CHECK(pthread_create(&threads[i], NULL, roles[i], &self) == 0);
    for (int i = 0; i < COUNT; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    const uint64_t packets = tunring_pcapng_packets(self.file);
    CHECK(packets >= 3 * ROUNDS * BATCH && packets <= 5 * ROUNDS * BATCH);
    CHECK(tunring_pcapng_flush(self.file, tunring_pcapng_position(self.file), &FOREVER) == ERROR_SUCCESS);
    CHECK(read_back(file) == packets);
    close_ends(&self.pair);
    CHECK(tunring_pcapng_close(self.file, &FOREVER) == ERROR_SUCCESS);
    CHECK(tunring_pcapng_close(self.file, NULL) == ERROR_SUCCESS);
    tunring_pcapng_give_up(self.file);
    CHECK(tunring_pcapng_packets(self.file) == packets && tunring_pcapng_dropped(self.file) == 0);
    CHECK(tunring_pcapng_failure(self.file) == 0);
    uint32_t done = 0;
    CHECK(tunring_pcapng_write(self.file, &(tunring_captured){0}, NULL, &done) == ERROR_HANDLE_EOF);
    CHECK(tunring_pcapng_flush(self.file, 0, NULL) == ERROR_HANDLE_EOF);
    tunring_pcapng_drop(self.file);
    close(file);
}

static DWORD
write_one(tunring_pcapng_file *file, const tunring_wait *wait)
{
    static const BYTE bytes[60000] = {0x45};
    static const uint64_t now = 1;
    const tunring_packet packet = {bytes, sizeof(bytes)};
    const tunring_captured what = {.packets = &packet, .count = 1, .times = &now, .one_time = true};
    uint32_t done = 0;
    return tunring_pcapng_write(file, &what, wait, &done);
}

static void
write_some(tunring_pcapng_file *file, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        CHECK(write_one(file, NULL) == ERROR_SUCCESS);
}

static tunring_pcapng_file *
open_with_interface(int fd)
{
    tunring_pcapng_file *file;
    CHECK(tunring_pcapng_open((HANDLE)(intptr_t)fd, "test", &file) == ERROR_SUCCESS);
    uint32_t number;
    CHECK(tunring_pcapng_add_interface(file, "a", "", 65535, NULL, &number) == ERROR_SUCCESS);
    return file;
}

/* Waits until nobody holds the other end of a pipe, and returns the bytes that came. */
static size_t
drain_pipe(int fd)
{
    size_t bytes = 0;
    ssize_t some;
    static BYTE piece[65536];
    while ((some = read(fd, piece, sizeof(piece))) > 0)
        bytes += (size_t)some;
    CHECK(some == 0);
    return bytes;
}

/* Dropped without being closed: a file gets all, a pipe what it takes without a reader. Neither keeps its thread. */
static void
test_dropped(void)
{
    char path[] = "/tmp/tunring-capture-XXXXXX";
    int file = mkstemp(path);
    int ends[2];
    CHECK(file >= 0 && unlink(path) == 0 && pipe(ends) == 0);
    tunring_pcapng_file *capture = open_with_interface(file);
    write_some(capture, 100);
    tunring_pcapng_drop(capture);
    for (int i = 0; i < 10000 && lseek(file, 0, SEEK_END) < 100 * 60000; i++)
        os_sleep(1000000);
    CHECK(read_back(file) == 100);
    close(file);

    capture = open_with_interface(ends[1]);
    close(ends[1]);
    write_some(capture, 10);
    tunring_pcapng_drop(capture);
    os_sleep(500000000); /* for the thread to find the pipe full before somebody reads it */
    const size_t bytes = drain_pipe(ends[0]);
    CHECK(bytes > 0 && bytes < 10 * 60000);
    close(ends[0]);
}

/* A pipe that nobody reads: what waits for room gets an error, whoever closes it. */
static void *
wait_for_room(void *argument)
{
    CHECK(write_one(argument, &FOREVER) == ERROR_HANDLE_EOF);
    return NULL;
}

static void
test_closed_under_a_writer(void)
{
    const tunring_wait soon = {.deadline = os_now() + 20000000};
    int ends[2];
    CHECK(pipe(ends) == 0);
    tunring_pcapng_file *file = open_with_interface(ends[1]);
    uint32_t written = 0;
    DWORD code;
    while ((code = write_one(file, NULL)) == ERROR_SUCCESS)
        written++;
    CHECK(code == ERROR_BUFFER_OVERFLOW && written > 200);
    pthread_t writer;
    CHECK(pthread_create(&writer, NULL, wait_for_room, file) == 0);
    CHECK(tunring_pcapng_close(file, &soon) == WAIT_TIMEOUT);
    CHECK(pthread_join(writer, NULL) == 0);
    tunring_pcapng_give_up(file);
    CHECK(tunring_pcapng_close(file, NULL) == ERROR_SUCCESS);
    CHECK(tunring_pcapng_packets(file) + tunring_pcapng_dropped(file) == written);
    close(ends[1]);
    /* The contents of a pipe, and the piece that was being written when the file was given up. */
    CHECK(drain_pipe(ends[0]) <= 65536 + PIPE_BUF);
    tunring_pcapng_drop(file);
    close(ends[0]);
}

/* The process is about to exit: what was written is waited for, and nothing more is taken. */
static void
test_exit(void)
{
    const tunring_wait soon = {.deadline = os_now() + 20000000};
    char path[] = "/tmp/tunring-capture-XXXXXX";
    int file = mkstemp(path);
    int ends[2];
    CHECK(file >= 0 && unlink(path) == 0 && pipe(ends) == 0);
    tunring_pcapng_file *kept = open_with_interface(file);
    tunring_pcapng_file *dropped = open_with_interface(file);
    tunring_pcapng_file *blocked = open_with_interface(ends[1]);
    write_some(kept, 50);
    CHECK(tunring_pcapng_flush(kept, tunring_pcapng_position(kept), &FOREVER) == ERROR_SUCCESS);
    write_some(blocked, 10);
    CHECK(tunring_pcapng_exit(&soon) == WAIT_TIMEOUT);
    tunring_pcapng_drop(blocked);
    CHECK(tunring_pcapng_exit(&FOREVER) == ERROR_SUCCESS);
    uint32_t done = 0;
    CHECK(tunring_pcapng_write(kept, &(tunring_captured){0}, NULL, &done) == ERROR_HANDLE_EOF);
    tunring_pcapng_drop(dropped);
    CHECK(tunring_pcapng_close(kept, &FOREVER) == ERROR_SUCCESS);
    tunring_pcapng_drop(kept);
    close(file);
    close(ends[0]);
    close(ends[1]);
}

int
main(void)
{
    api = linked_api();
    test_threads();
    test_dropped();
    test_closed_under_a_writer();
    test_exit();
    return 0;
}
