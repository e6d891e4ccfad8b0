/* SPDX-License-Identifier: MIT
 *
 * Figures of sessions and other sources.
 */
#include "core/session.h"

static uint64_t
read_count(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

void
tunring_source_stats(tunring_source *source, tunring_stats *stats)
{
    const source_counts *counts = &source->counts;
    *stats = (tunring_stats){
        .received_packets = read_count(&counts->received_packets),
        .received_bytes = read_count(&counts->received_bytes),
        .received_batches = read_count(&counts->received_batches),
        .sent_packets = read_count(&counts->sent_packets),
        .sent_bytes = read_count(&counts->sent_bytes),
        .sent_batches = read_count(&counts->sent_batches),
        .waits = read_count(&counts->waits),
        .wakes = read_count(&counts->wakes),
        .spins = read_count(&counts->spins),
        .ring_full = read_count(&counts->ring_full),
        .dropped = read_count(&counts->dropped),
        .skipped = read_count(&counts->skipped),
        .fillers = read_count(&counts->fillers),
        .pinned_packets = read_count(&counts->pinned_packets),
        .pinned_bytes = read_count(&counts->pinned_bytes),
        .reservations = read_count(&counts->reservations),
    };
}

void
tunring_session_stats(tunring_session *session, tunring_stats *stats)
{
    tunring_source_stats(&session->source, stats);
    const tunring_backend *backend = session->api->backend;
    if (backend && source_enter(&session->source))
    {
        backend->counters(session->handle, &stats->counters);
        stats->has_counters = true;
        source_leave(&session->source);
    }
    else if (atomic_load(&session->has_last_counters))
    {
        stats->counters = session->last_counters;
        stats->has_counters = true;
    }
}

void
tunring_source_count_dropped(tunring_source *source, uint64_t packets)
{
    count_add(&source->counts.dropped, packets);
}

void
tunring_session_count_skipped(tunring_session *session, uint64_t packets)
{
    count_add(&session->source.counts.skipped, packets);
}
