/* SPDX-License-Identifier: MIT
 *
 * spin.h: a budget that each sleep sets anew.
 */
#include "core/spin.h"

bool
spin_again(tunring_source *source, spin *state)
{
    int64_t budget = atomic_load_explicit(&source->spin_budget, memory_order_relaxed);
    if (!budget)
        return false;
    int64_t now = os_now();
    if (!state->until)
    {
        state->until = now + budget;
        count_add(&source->counts.spins, 1);
    }
    if (now >= state->until)
        return false;
    os_relax();
    return true;
}

void
spin_inherit(tunring_source *source, spin *state)
{
    if (atomic_load_explicit(&source->spin_budget, memory_order_relaxed))
        state->until = os_now();
}

/* Threads that wait at once may spoil each other's figures, which costs one of them a spin at most. */
static bool
is_resting(tunring_source *source, bool spun)
{
    uint32_t length = atomic_load_explicit(&source->spin_rest, memory_order_relaxed);
    uint32_t left = atomic_load_explicit(&source->spin_rest_left, memory_order_relaxed);
    if (spun)
    {
        length = length == 0 ? 1 : length < SPIN_REST ? length * 2 : SPIN_REST;
        left = length;
        atomic_store_explicit(&source->spin_rest, length, memory_order_relaxed);
    }
    else if (left > 0)
        left--;
    atomic_store_explicit(&source->spin_rest_left, left, memory_order_relaxed);
    return left > 0;
}

void
spin_learn(tunring_source *source, bool spun, int64_t slept)
{
    /* Spinning on the only processor would keep the sender from running. */
    bool worth = slept < SPIN_WORTH && os_cpu_count() > 1 && !is_resting(source, spun);
    atomic_store_explicit(&source->spin_budget, worth ? SPIN_BUDGET : 0, memory_order_relaxed);
}

void
spin_succeeded(tunring_source *source)
{
    atomic_store_explicit(&source->spin_rest, 0, memory_order_relaxed);
}
