/* SPDX-License-Identifier: MIT
 *
 * A file that several threads write to, one of them by a capture that comes and goes under traffic.
 */
/* build: parts=core,loopback,common,os,ring */
#include "core_api.h"
#include "core/pcapng.h"

#include <fcntl.h>
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
        CHECK(tunring_session_capture(session, self->file, 0, true, true, &first) == ERROR_SUCCESS);
        CHECK(tunring_session_capture(session, self->file, 0, true, true, &second) == ERROR_BUSY);
        tunring_session_capture_end(session, first);
        CHECK(tunring_session_capture(session, self->file, 0, true, true, &second) == ERROR_SUCCESS);
        /* It is over, and ends no other. */
        tunring_session_capture_end(session, first);
        CHECK(tunring_session_capture(session, self->file, 0, true, true, &first) == ERROR_BUSY);
        tunring_session_capture_end(session, second);
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
    static BYTE bytes[BATCH][100];
    char path[] = "/tmp/tunring-capture-XXXXXX";
    int file = mkstemp(path);
    CHECK(file >= 0 && unlink(path) == 0);
    scene self;
    open_ends(&api, &self.pair, CAPACITY);
    for (uint32_t i = 0; i < BATCH; i++)
    {
        make_packet(bytes[i], 93 + i, i);
        self.packets[i] = (tunring_packet){bytes[i], 93 + i};
    }
    CHECK(tunring_pcapng_open((HANDLE)(intptr_t)file, "test", &self.file) == ERROR_SUCCESS);
    uint32_t number = 9;
    CHECK(tunring_session_capture(self.pair.sessions[0], self.file, 0, true, true, &number) == ERROR_INVALID_PARAMETER);
    CHECK(tunring_pcapng_add_interface(self.file, "a", "", 65535, &number) == ERROR_SUCCESS && number == 0);
    CHECK(tunring_session_capture(self.pair.sessions[0], self.file, 0, true, true, &number) == ERROR_SUCCESS);
    pthread_t threads[COUNT];
    for (int i = 0; i < COUNT; i++)
        CHECK(pthread_create(&threads[i], NULL, roles[i], &self) == 0);
    for (int i = 0; i < COUNT; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    uint64_t packets = tunring_pcapng_packets(self.file);
    CHECK(packets >= 3 * ROUNDS * BATCH && packets <= 4 * ROUNDS * BATCH);
    CHECK(tunring_pcapng_dropped(self.file) == 0 && tunring_pcapng_failure(self.file) == 0);
    CHECK(read_back(file) == packets);
    close_ends(&self.pair);
    tunring_pcapng_close(self.file);
    tunring_pcapng_close(self.file);
    uint32_t done = 0;
    CHECK(tunring_pcapng_write(self.file, &(tunring_captured){0}, NULL, &done) == ERROR_HANDLE_EOF);
    tunring_pcapng_drop(self.file);
    close(file);
}

int
main(void)
{
    api = linked_api();
    test_threads();
    return 0;
}
