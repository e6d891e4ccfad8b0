/* SPDX-License-Identifier: MIT
 *
 * The core over the loopback library, linked into the test rather than loaded, so that sanitizers see both.
 */
#ifndef CORE_API_H
#define CORE_API_H

#include "check.h"
#include "backends/common/exports.h"
#include "platform/os.h"
#include "tunring.h"

#include <string.h>

static const tunring_wait POLL = {.deadline = 0};
static const tunring_wait FOREVER = {.deadline = TUNRING_FOREVER};

static inline tunring_api
linked_api(void)
{
    return (tunring_api){
#define FIELD(name, type) .name = name,
        WINTUN_FUNCTIONS(FIELD)
#undef FIELD
            .backend = &TunringBackend,
        .simulator = TunringBackend.simulator,
    };
}

/* The two ends of a cable. */
typedef struct ends
{
    tunring_adapter *adapters[2];
    tunring_session *sessions[2];
} ends;

static inline void
open_ends(const tunring_api *api, ends *pair, DWORD capacity)
{
    static const WCHAR names[2][2] = {{'a', 0}, {'b', 0}};
    static const WCHAR type[] = {'t', 0};
    static const GUID cable = {.Data1 = 1};
    for (int i = 0; i < 2; i++)
    {
        CHECK(tunring_adapter_create(api, names[i], type, &cable, NULL, &pair->adapters[i]) == ERROR_SUCCESS);
        CHECK(tunring_session_start(pair->adapters[i], capacity, NULL, &pair->sessions[i]) == ERROR_SUCCESS);
    }
}

/* A notifier of packets. */
static inline DWORD
open_notifier(tunring_source *source, tunring_notifier **notifier)
{
    return tunring_notifier_open(source, tunring_source_read_event(source), notifier);
}

static inline void
close_ends(ends *pair)
{
    for (int i = 0; i < 2; i++)
    {
        tunring_source_close(tunring_session_source(pair->sessions[i]));
        tunring_source_drop(tunring_session_source(pair->sessions[i]));
        tunring_adapter_close(pair->adapters[i]);
        tunring_adapter_drop(pair->adapters[i]);
    }
}

/* A valid IPv4 packet that carries a number. */
static inline void
make_packet(BYTE *packet, uint32_t size, uint32_t number)
{
    memset(packet, (int)(number & 0xFF), size);
    packet[0] = 0x45;
    memcpy(packet + 4, &number, sizeof(number));
}

static inline uint32_t
packet_number(const BYTE *packet)
{
    uint32_t number;
    memcpy(&number, packet + 4, sizeof(number));
    return number;
}

#endif
