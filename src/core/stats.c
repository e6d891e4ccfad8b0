/* SPDX-License-Identifier: MIT
 *
 * Figures of sessions and other sources.
 */
#include "core/session.h"

#define FIGURE(name) {#name, offsetof(tunring_stats, name)},
const tunring_figure tunring_stats_figures[] = {TUNRING_SOURCE_COUNTS(FIGURE){NULL, 0}};

void
tunring_source_stats(tunring_source *source, tunring_stats *stats)
{
    const source_counts *counts = &source->counts;
#define READ(name) .name = count_read(&counts->name),
    *stats = (tunring_stats){TUNRING_SOURCE_COUNTS(READ)};
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
