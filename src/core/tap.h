/* SPDX-License-Identifier: MIT
 *
 * What a session's calls do for its tap, if it has one: one branch a batch if not.
 */
#ifndef TUNRING_TAP_H
#define TUNRING_TAP_H

#include "core/source.h"

static inline bool
tap_wants(const tunring_source *source, tunring_direction direction)
{
    return (atomic_load_explicit(&source->tapped, memory_order_relaxed) & (unsigned)direction) != 0;
}

/* Either packets or slots, which came or went at `time`. The caller is in a call on the source. */
void tap_write(tunring_source *source, tunring_direction direction, int64_t time, const tunring_packet *packets,
               const tunring_slot *slots, uint32_t count);

#endif
