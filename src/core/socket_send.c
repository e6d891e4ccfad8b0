/* SPDX-License-Identifier: MIT
 *
 * Sending datagrams: equal lengths to one endpoint make a run, which is one system call. No error of one destination
 * ends the rest, and nothing that the system accepted is sent again.
 */
#include "core/socket.h"
#include "platform/wait.h"

/* ICMP errors of earlier datagrams that one call passes over before it gives up on a datagram. */
#define MAX_ICMP_ERRORS 16u
/* A destination that refuses a run may stop doing so when its route changes. */
#define REFUSAL_NANOSECONDS (60 * (int64_t)1000000000)
/* Segments up to this size pass every path: if even they are refused, segmentation itself is. */
#define SAFE_SEGMENT 1200u

typedef enum outcome
{
    ACCEPTED,
    REFUSED, /* and counted */
    FULL     /* the system has no room now */
} outcome;

/* ---- Refusals ---- */

static uint32_t
refusal_index(const tunring_endpoint *to)
{
    uint32_t words[TUNRING_ENDPOINT_IDENTITY / sizeof(uint32_t)];
    memcpy(words, to, sizeof(words));
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        hash = (hash ^ words[i]) * 16777619u;
    return (hash ^ hash >> 15) % SOCKET_REFUSALS;
}

/* Knowledge about a destination. It replaces an entry of another one. */
static void
remember(tunring_socket *self, const tunring_endpoint *to, uint32_t segment, bool no_source)
{
    socket_refusal *entry = &self->refusals[refusal_index(to)];
    os_mutex_lock(&self->refusal_lock);
    if (!tunring_endpoint_same(&entry->to, to) || os_now() >= entry->until)
        *entry = (socket_refusal){.to = *to};
    if (segment)
        entry->segment = segment;
    entry->no_source |= no_source;
    entry->until = os_now() + REFUSAL_NANOSECONDS;
    atomic_store(&self->refused, true);
    os_mutex_unlock(&self->refusal_lock);
}

static socket_refusal
recall(tunring_socket *self, const tunring_endpoint *to)
{
    socket_refusal found = {0};
    if (!atomic_load_explicit(&self->refused, memory_order_relaxed))
        return found;
    const socket_refusal *entry = &self->refusals[refusal_index(to)];
    os_mutex_lock(&self->refusal_lock);
    if (tunring_endpoint_same(&entry->to, to) && os_now() < entry->until)
        found = *entry;
    os_mutex_unlock(&self->refusal_lock);
    return found;
}

/* ---- Runs ---- */

static const tunring_endpoint *
endpoint_of(const tunring_sending *what, uint32_t packet)
{
    return &what->endpoints[what->index ? what->index[packet] : 0];
}

static uint8_t
ecn_of(const tunring_sending *what, uint32_t packet)
{
    return what->ecn ? what->ecn[packet] : what->all_ecn;
}

/* The run that begins with this packet. */
static udp_run
plan_run(tunring_socket *self, const tunring_sending *what, uint32_t first)
{
    const tunring_packet *packets = &what->packets[first];
    const uint32_t segment = packets[0].length;
    const tunring_endpoint *to = endpoint_of(what, first);
    const uint8_t ecn = ecn_of(what, first);
    const socket_refusal refusal = recall(self, to);
    udp_run run = {.packets = packets,
                   .count = 1,
                   .to = to,
                   .ecn = ecn,
                   .dscp = what->dscp,
                   .from_local = tunring_endpoint_has_local(to) && !refusal.no_source};
    if (!atomic_load_explicit(&self->runs, memory_order_relaxed) || segment == 0 ||
        (refusal.segment && segment >= refusal.segment))
        return run;
    const uint32_t left = what->count - first;
    const uint32_t fitting = UDP_MAX_PAYLOAD / segment;
    uint32_t max = fitting < UDP_MAX_RUN ? fitting : UDP_MAX_RUN;
    if (max > left)
        max = left;
    while (run.count < max)
    {
        const uint32_t next = first + run.count;
        const uint32_t length = packets[run.count].length;
        if (length == 0 || length > segment || ecn_of(what, next) != ecn)
            break;
        if (what->index && what->index[next] != what->index[first])
            break;
        run.count++;
        if (length < segment)
            break;
    }
    return run;
}

/* Makes the system call, again where ICMP errors of earlier datagrams got in its way: the system reports one instead of
 * sending. An error that comes again is this datagram's own, unless only ICMP causes it. */
static int
send_past_icmp(tunring_socket *self, const udp_run *run)
{
    int error = udp_send(self->handle, self->ipv6, run);
    for (unsigned tries = 0; error && !udp_own_error(error) && tries < MAX_ICMP_ERRORS; tries++)
    {
        const int again = udp_send(self->handle, self->ipv6, run);
        if (again == error && !udp_from_peer(error))
            break;
        count_add(&self->icmp_errors, 1);
        error = again;
    }
    return error;
}

/* Sends the run, without its source address if that is gone. If it fails without one too, the source is not to blame:
 * those that follow keep it. */
static int
attempt(tunring_socket *self, udp_run *run)
{
    const int error = send_past_icmp(self, run);
    if (!error || !run->from_local || !udp_bad_source(error))
        return error;
    run->from_local = false;
    const int again = send_past_icmp(self, run);
    if (!again)
        remember(self, run->to, 0, true);
    run->from_local = again != 0;
    return again;
}

/* When what is sent next leaves, if somebody wants to know. */
static int64_t
stamp(const tunring_socket *self)
{
    return session_captures(&self->source.capture, TUNRING_SENT) ? os_wall_clock() : 0;
}

static void
count_sent(tunring_socket *self, const tunring_sending *what, const udp_run *run, int64_t time)
{
    if (time)
        socket_capture_sent(self, run, time);
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < run->count; i++)
        bytes += run->packets[i].length;
    count_add(&self->source.counts.sent_packets, run->count);
    count_add(&self->source.counts.sent_bytes, bytes);
    if (run->count > 1)
        count_add(&self->runs_sent, 1);
    if (what->accepted)
    {
        what->accepted->count += run->count;
        what->accepted->bytes += bytes;
    }
}

static outcome
judge(tunring_socket *self, const tunring_sending *what, const udp_run *run, int error, int64_t time)
{
    if (!error)
    {
        count_sent(self, what, run, time);
        return ACCEPTED;
    }
    if (udp_would_block(error))
        return FULL;
    count_add(udp_no_route(error)    ? &self->refused_unreachable
              : udp_too_large(error) ? &self->refused_size
                                     : &self->refused_other,
              run->count);
    return REFUSED;
}

/* The run was refused as a whole: each of its datagrams is judged by itself. *done counts those that are dealt with. */
static outcome
send_singly(tunring_socket *self, const tunring_sending *what, const udp_run *run, int refusal, uint32_t *done)
{
    bool all_accepted = true;
    for (uint32_t i = 0; i < run->count; i++)
    {
        udp_run single = *run;
        single.packets = &run->packets[i];
        single.count = 1;
        const int64_t time = stamp(self);
        const outcome result = judge(self, what, &single, attempt(self, &single), time);
        if (result == FULL)
            return FULL;
        all_accepted &= result == ACCEPTED;
        ++*done;
    }
    if (!all_accepted)
        return REFUSED;
    const uint32_t segment = run->packets[0].length;
    remember(self, run->to, segment, false);
    if (udp_no_offload(refusal) || segment <= SAFE_SEGMENT)
        atomic_store(&self->runs, false);
    return ACCEPTED;
}

/* Sends the run that begins with the first packet that is not dealt with yet. */
static outcome
send_run(tunring_socket *self, const tunring_sending *what, uint32_t *done)
{
    udp_run run = plan_run(self, what, *done);
    const int64_t time = stamp(self);
    const int error = attempt(self, &run);
    if (run.count > 1 && error && udp_run_refused(error))
        return send_singly(self, what, &run, error, done);
    const outcome result = judge(self, what, &run, error, time);
    if (result != FULL)
        *done += run.count;
    return result;
}

static DWORD
wait_for_room(tunring_socket *self, const tunring_wait *wait)
{
    const HANDLE handles[] = {self->source.stop.wait, wait->interrupt, self->events.writable};
    count_add(&self->source.counts.waits, 1);
    const int ready = life_wait(&self->source.life, handles, 3, wait->deadline);
    return ready == WAIT_BROKEN ? source_waiting_failed(&self->source) : wait_code(ready);
}

DWORD
tunring_socket_send(tunring_socket *self, const tunring_sending *what, const tunring_wait *wait, uint32_t *done)
{
    *done = 0;
    if (!source_enter(&self->source))
        return ERROR_HANDLE_EOF;
    DWORD code = ERROR_SUCCESS;
    while (*done < what->count && code == ERROR_SUCCESS)
    {
        if (source_closing(&self->source))
            code = ERROR_HANDLE_EOF;
        else if (send_run(self, what, done) == FULL)
        {
            count_add(&self->source.counts.ring_full, 1);
            code = wait ? wait_for_room(self, wait) : ERROR_BUFFER_OVERFLOW;
        }
    }
    if (*done)
        count_add(&self->source.counts.sent_batches, 1);
    source_leave(&self->source);
    return code;
}
