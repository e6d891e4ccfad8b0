/* SPDX-License-Identifier: MIT
 *
 * Decides if a receive that finds nothing spins before it sleeps. A sleep and its wake-up cost several microseconds, so
 * spinning pays when the next packet is that near. Each session learns from its own sleeps: one that ended within
 * SPIN_WORTH shows that a spin would have caught the packet, and the next wait spins; one that lasted longer shows that
 * the link is quiet, and the next wait sleeps at once. An idle session never spins.
 *
 * A spin that was for nothing shows that the sender may need this very processor, on which the system likes to put two
 * that wake each other: then more and more waits sleep at once before one tries again.
 */
#ifndef TUNRING_SPIN_H
#define TUNRING_SPIN_H

#include "core/source.h"

#define SPIN_WORTH 50000  /* nanoseconds of sleep that a spin is worth */
#define SPIN_BUDGET 20000 /* nanoseconds that it then spins */
#define SPIN_REST 1024    /* maximum of sleeps without a spin after those that were for nothing */

typedef struct spin
{
    int64_t until; /* 0 before it began */
} spin;

/* True while the caller should look again instead of sleeping. */
bool spin_again(tunring_source *source, spin *state);
/* Another call has spun for nothing, if there was reason to, and this one goes on: it sleeps. */
void spin_inherit(tunring_source *source, spin *state);
/* A sleep has ended with a packet, after `slept` nanoseconds; `spun` before it for nothing. */
void spin_learn(tunring_source *source, bool spun, int64_t slept);
/* A spin has found a packet. */
void spin_succeeded(tunring_source *source);

#endif
