/* SPDX-License-Identifier: MIT
 *
 * The life of a device, and what can be set while data flows.
 */
#include "platform/wait.h"
#include "wireguard/device.h"

#include <stdlib.h>

/* A socket without room for that long has trouble that waiting doesn't mend. */
#define SEND_PATIENCE (NANOSECONDS / 10)
/* Between two tries of a handshake message. Data takes turns by the system's word that there is room, which comes once
 * half of the buffer is free: on a slow uplink that is much later than the first room. */
#define MESSAGE_RETRY (NANOSECONDS / 500)

/* The protocol's. */
static const tunring_wireguard_limits protocol_limits = {
    .rekey_messages = UINT64_C(1) << 60,
    .reject_messages = UINT64_MAX - (UINT64_C(1) << 13),
    .rekey_after = 120 * NANOSECONDS,
    .reject_after = 180 * NANOSECONDS,
    .rekey_on_receive = 165 * NANOSECONDS,
};

#define MAX_MTU 65535u

/* ---- Life ---- */

bool
device_enter(tunring_wireguard *device)
{
    return !OS_FOREIGN(device) && life_enter(&device->life);
}

void
device_leave(tunring_wireguard *device)
{
    life_leave(&device->life);
}

void
device_use(tunring_wireguard *device)
{
    atomic_fetch_add(&device->users, 1);
}

static void
free_device(tunring_wireguard *device)
{
    gate_free(device->gate);
    queue_close(&device->queue);
    tunring_routes_free(device->allowed);
    index_close(&device->indices);
    index_close(&device->peers);
    os_mutex_destroy(&device->lock);
    source_put(&device->session->source);
    free(device);
}

void
device_put(tunring_wireguard *device)
{
    if (atomic_fetch_sub(&device->users, 1) == 1)
        free_device(device);
}

void
device_over(tunring_wireguard *device)
{
    atomic_store(&device->over, true);
    os_event_set_if_ours(&device->stop);
    os_event_set_if_ours(&device->changed);
}

DWORD
tunring_wireguard_new(tunring_session *session, tunring_aead *aead, tunring_hashes *hashes, tunring_wireguard **result)
{
    tunring_wireguard *device = calloc(1, sizeof(*device));
    if (!device)
        return ERROR_NOT_ENOUGH_MEMORY;
    DWORD code = ERROR_NOT_ENOUGH_MEMORY;
    if (!os_event_open(&device->stop))
    {
        code = GetLastError();
        goto free_struct;
    }
    if (!os_event_open(&device->changed))
    {
        code = GetLastError();
        goto close_stop;
    }
    if (!os_event_open(&device->flush))
    {
        code = GetLastError();
        goto close_changed;
    }
    if (!queue_open(&device->queue))
    {
        code = GetLastError();
        goto close_flush;
    }
    device->hashes = hashes;
    device->allowed = tunring_routes_new();
    if (!device->allowed)
        goto close_queue;
    device->gate = gate_new(device);
    if (!device->gate)
        goto free_routes;
    os_watch_forks();
    device->generation = os_generation();
    atomic_init(&device->users, 1);
    atomic_init(&device->mtu, MAX_MTU);
    device->aead = aead;
    device->session = session;
    device->limits = protocol_limits;
    os_mutex_init(&device->lock);
    source_use(tunring_session_source(session));
    *result = device;
    return ERROR_SUCCESS;

free_routes:
    tunring_routes_free(device->allowed);
close_queue:
    queue_end(&device->queue);
    queue_close(&device->queue);
close_flush:
    os_event_close(&device->flush);
close_changed:
    os_event_close(&device->changed);
close_stop:
    os_event_close(&device->stop);
free_struct:
    free(device);
    return code;
}

/* Calls in flight have left, and new ones turn back at the door. */
static void
close_quiet(tunring_wireguard *device)
{
    for (uint32_t i = 0; i < device->peers.room;)
    {
        tunring_wireguard_peer *peer = device->peers.entries[i].value;
        if (peer)
            peer_take_out(peer); /* another entry may take the place */
        else
            i++;
    }
    queue_end(&device->queue);
    outgoing_end(device);
    os_event_close(&device->flush);
    os_event_close(&device->changed);
    os_event_close(&device->stop);
    device_put_socket(device->socket);
    device->socket = NULL;
    gate_set_identity(device->gate, NULL, NULL);
}

void
tunring_wireguard_close(tunring_wireguard *device)
{
    if (OS_FOREIGN(device))
        return;
    if (!life_shut(&device->life))
    {
        life_await_end(&device->life);
        return;
    }
    os_event_set_if_ours(&device->stop);
    os_event_set_if_ours(&device->changed);
    life_await_calls(&device->life);
    close_quiet(device);
    life_end(&device->life);
}

void
tunring_wireguard_drop(tunring_wireguard *device)
{
    if (!OS_FOREIGN(device))
        device_put(device);
}

tunring_state
tunring_wireguard_state(const tunring_wireguard *device)
{
    if (OS_FOREIGN(device))
        return TUNRING_FORKED;
    if (life_closing(&device->life))
        return TUNRING_CLOSED;
    return atomic_load(&device->over) ? TUNRING_REMOVED : TUNRING_OPEN;
}

/* ---- The socket ---- */

tunring_socket *
device_socket(tunring_wireguard *device)
{
    os_mutex_lock(&device->lock);
    tunring_socket *socket = device->socket;
    if (socket)
        source_use(&socket->source);
    os_mutex_unlock(&device->lock);
    return socket;
}

void
device_put_socket(tunring_socket *socket)
{
    if (socket)
        source_put(&socket->source);
}

DWORD
tunring_wireguard_set_socket(tunring_wireguard *device, tunring_socket *socket)
{
    if (!device_enter(device))
        return ERROR_HANDLE_EOF;
    if (socket)
        source_use(&socket->source);
    os_mutex_lock(&device->lock);
    tunring_socket *before = device->socket;
    device->socket = socket;
    os_event_set_if_ours(&device->changed);
    os_mutex_unlock(&device->lock);
    device_put_socket(before);
    device_leave(device);
    return ERROR_SUCCESS;
}

static void
count_unsent(tunring_wireguard *device, const tunring_sending *what, const tunring_accepted *accepted)
{
    if (accepted->count < what->count)
        atomic_fetch_add_explicit(&device->counts.unsent, what->count - accepted->count, memory_order_relaxed);
}

static tunring_accepted
send_waiting(tunring_wireguard *device, tunring_socket *socket, const tunring_sending *what, const tunring_wait *wait)
{
    tunring_accepted accepted = {0};
    tunring_sending all = *what;
    all.accepted = &accepted;
    uint32_t done;
    if (socket)
        tunring_socket_send(socket, &all, wait, &done);
    count_unsent(device, what, &accepted);
    return accepted;
}

tunring_accepted
device_send(tunring_wireguard *device, tunring_socket *socket, const tunring_sending *what)
{
    const tunring_wait wait = {.deadline = os_deadline(SEND_PATIENCE), .interrupt = device->stop.wait};
    return send_waiting(device, socket, what, &wait);
}

tunring_accepted
device_send_now(tunring_wireguard *device, tunring_socket *socket, const tunring_sending *what)
{
    return send_waiting(device, socket, what, NULL);
}

/* False at the end of patience, and of the device. */
static bool
wait_for_retry(tunring_wireguard *device, int64_t end)
{
    const int64_t next = os_deadline(MESSAGE_RETRY);
    return next < end && wait_any(&device->stop.wait, 1, next) == WAIT_NOTHING;
}

/* Sends one message, by the first room that there is. */
static bool
send_message(tunring_wireguard *device, tunring_socket *socket, const tunring_sending *what)
{
    const int64_t end = os_deadline(SEND_PATIENCE);
    tunring_accepted accepted = {0};
    tunring_sending message = *what;
    message.accepted = &accepted;
    uint32_t done;
    while (socket && tunring_socket_send(socket, &message, NULL, &done) == ERROR_BUFFER_OVERFLOW &&
           wait_for_retry(device, end))
        ;
    count_unsent(device, what, &accepted);
    return accepted.count == 1;
}

DWORD
tunring_wireguard_send_to(tunring_wireguard *device, const BYTE *data, uint32_t size, const tunring_endpoint *to,
                          bool *sent)
{
    if (!device_enter(device))
        return ERROR_HANDLE_EOF;
    const tunring_packet packet = {.data = data, .length = size};
    const tunring_sending what = {.packets = &packet, .count = 1, .endpoints = to, .dscp = HANDSHAKE_DSCP};
    tunring_socket *socket = device_socket(device);
    *sent = send_message(device, socket, &what);
    device_put_socket(socket);
    device_leave(device);
    return ERROR_SUCCESS;
}

/* ---- Settings and figures ---- */

DWORD
tunring_wireguard_set_identity(tunring_wireguard *device, const BYTE *mac1_key, const BYTE *cookie_key)
{
    if (!device_enter(device))
        return ERROR_HANDLE_EOF;
    const bool good = gate_set_identity(device->gate, mac1_key, cookie_key);
    device_leave(device);
    return good ? ERROR_SUCCESS : ERROR_GEN_FAILURE;
}

DWORD
tunring_wireguard_set_mtu(tunring_wireguard *device, uint32_t mtu)
{
    if (!device_enter(device))
        return ERROR_HANDLE_EOF;
    atomic_store(&device->mtu, mtu);
    device_leave(device);
    return ERROR_SUCCESS;
}

tunring_wireguard_limits
device_limits(tunring_wireguard *device)
{
    os_mutex_lock(&device->lock);
    const tunring_wireguard_limits limits = device->limits;
    os_mutex_unlock(&device->lock);
    return limits;
}

DWORD
tunring_wireguard_set_limits(tunring_wireguard *device, const tunring_wireguard_limits *limits)
{
    if (!device_enter(device))
        return ERROR_HANDLE_EOF;
    os_mutex_lock(&device->lock);
    device->limits = *limits;
    os_mutex_unlock(&device->lock);
    device_leave(device);
    return ERROR_SUCCESS;
}

static uint64_t
read_count(const _Atomic uint64_t *count)
{
    return atomic_load_explicit(count, memory_order_relaxed);
}

void
tunring_wireguard_figures_read(tunring_wireguard *device, tunring_wireguard_figures *figures)
{
    const device_counts *counts = &device->counts;
    *figures = (tunring_wireguard_figures){
        .malformed = read_count(&counts->malformed),
        .unknown_index = read_count(&counts->unknown_index),
        .expired = read_count(&counts->expired),
        .rejected = read_count(&counts->rejected),
        .replayed = read_count(&counts->replayed),
        .wrong_source = read_count(&counts->wrong_source),
        .undelivered = read_count(&counts->undelivered),
        .no_peer = read_count(&counts->no_peer),
        .unsent = read_count(&counts->unsent),
        .staged_dropped = read_count(&counts->staged_dropped),
        .staged_bytes = read_count(&counts->staged_bytes),
        .wrong_mac = read_count(&counts->wrong_mac),
        .cookies_sent = read_count(&counts->cookies_sent),
        .limited = read_count(&counts->limited),
        .queue_full = read_count(&counts->queue_full),
        .under_load = gate_under_load(device->gate),
    };
}
