/* SPDX-License-Identifier: MIT
 *
 * Every allocation fails once: the call reports it, nothing leaks (ASan), and no packet is lost.
 */
/* build: parts=core,loopback,common,os,ring flags=-DKEPT_ROOM=0u -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc */
#include "core_api.h"
#include "tunring_pcapng.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *memory, size_t size);

/* Allocations until one fails; negative: none does. */
static int countdown = -1;

static bool
fails(void)
{
    return countdown >= 0 && countdown-- == 0;
}

void *
__wrap_malloc(size_t size)
{
    return fails() ? NULL : __real_malloc(size);
}

void *
__wrap_calloc(size_t count, size_t size)
{
    return fails() ? NULL : __real_calloc(count, size);
}

void *
__wrap_realloc(void *memory, size_t size)
{
    return fails() ? NULL : __real_realloc(memory, size);
}

static const WCHAR name[] = {'m', 0};

/* One attempt, in which the allocation `failing` fails. True if none did. */
static bool
attempt_open(const tunring_api *api, int failing)
{
    countdown = failing;
    tunring_adapter *adapter = NULL;
    DWORD code = tunring_adapter_create(api, name, name, NULL, NULL, &adapter);
    tunring_session *session = NULL;
    if (code == ERROR_SUCCESS)
        code = tunring_session_start(adapter, 0x20000, NULL, &session);
    bool none_failed = countdown >= 0;
    countdown = -1;
    CHECK(code == (none_failed ? ERROR_SUCCESS : ERROR_NOT_ENOUGH_MEMORY));
    if (session)
    {
        tunring_source_close(tunring_session_source(session));
        tunring_source_drop(tunring_session_source(session));
    }
    if (adapter)
    {
        tunring_adapter_close(adapter);
        tunring_adapter_drop(adapter);
    }
    return none_failed;
}

static void
test_open(const tunring_api *api)
{
    int failing = 0;
    while (!attempt_open(api, failing))
        failing++;
    CHECK(failing >= 3); /* the core's adapter and session, and the library's own */
}

static void
test_packets(const tunring_api *api)
{
    uint32_t seen = 0;
    ends pair;
    open_ends(api, &pair, 0x20000);
    tunring_packet packets[300];
    static BYTE bytes[300][32];
    for (uint32_t i = 0; i < 300; i++)
    {
        make_packet(bytes[i], sizeof(bytes[i]), i);
        packets[i] = (tunring_packet){bytes[i], sizeof(bytes[i])};
    }
    uint32_t sent;
    CHECK(tunring_send(pair.sessions[0], packets, 300, NULL, &sent) == ERROR_SUCCESS && sent == 300);

    countdown = 0; /* no table at all: nothing is taken */
    tunring_lease *lease;
    CHECK(tunring_receive(tunring_session_source(pair.sessions[1]), 300, &POLL, &lease) == ERROR_NOT_ENOUGH_MEMORY);
    countdown = 1; /* the table can't grow: what fits is returned */
    CHECK(tunring_receive(tunring_session_source(pair.sessions[1]), 300, &POLL, &lease) == ERROR_SUCCESS);
    countdown = -1;
    CHECK(lease->count < 300);
    for (;;)
    {
        for (uint32_t i = 0; i < lease->count; i++)
            CHECK(packet_number(lease->slots[i].data) == seen++);
        tunring_lease_release(lease);
        tunring_lease_free(lease);
        if (seen == 300)
            break;
        CHECK(tunring_receive(tunring_session_source(pair.sessions[1]), 300, &POLL, &lease) == ERROR_SUCCESS);
    }

    countdown = 0;
    const uint32_t size = 40;
    CHECK(tunring_reserve(pair.sessions[0], &size, 1, NULL, &lease) == ERROR_NOT_ENOUGH_MEMORY);
    countdown = 0;
    lease = NULL;
    CHECK(tunring_reserve_now(pair.sessions[0], size, &lease) == ERROR_BUSY && !lease);
    countdown = 1; /* for the table of slots, but for no other */
    CHECK(tunring_reserve(pair.sessions[0], &size, 1, NULL, &lease) == ERROR_SUCCESS);
    CHECK(tunring_lease_drop_slot(lease, 0) == ERROR_NOT_ENOUGH_MEMORY);
    countdown = 0;
    CHECK(tunring_lease_shrink_slot(lease, 0, 20) == ERROR_NOT_ENOUGH_MEMORY);
    CHECK(!tunring_lease_slot_dropped(lease, 0) && lease->slots[0].length == size);
    countdown = -1;
    tunring_lease_release(lease);
    tunring_lease_free(lease);
    CHECK(tunring_send(pair.sessions[0], packets, 1, NULL, &sent) == ERROR_SUCCESS);
    CHECK(tunring_receive(tunring_session_source(pair.sessions[1]), 1, &POLL, &lease) == ERROR_SUCCESS);
    tunring_lease_release(lease);
    tunring_lease_free(lease);
    close_ends(&pair);
}

static void
test_capture(void)
{
    const int fd = open("/dev/null", O_WRONLY);
    int failing = 0;
    for (;;)
    {
        countdown = failing++;
        tunring_pcapng_file *file;
        const DWORD code = tunring_pcapng_open((HANDLE)(intptr_t)fd, "test", &file);
        const bool none_failed = countdown >= 0;
        countdown = -1;
        CHECK(code == (none_failed ? ERROR_SUCCESS : ERROR_NOT_ENOUGH_MEMORY));
        if (code != ERROR_SUCCESS)
            continue;
        CHECK(tunring_pcapng_close(file, &FOREVER) == ERROR_SUCCESS);
        tunring_pcapng_drop(file);
        break;
    }
    CHECK(failing > 3); /* the file, its buffer, and its thread */
    CHECK(tunring_pcapng_exit(&POLL) == ERROR_SUCCESS);
    close(fd);
}

int
main(void)
{
    tunring_api api = linked_api();
    test_open(&api);
    test_capture();
    test_packets(&api);
    return 0;
}
