/* SPDX-License-Identifier: MIT
 *
 * spin.h: a budget that each sleep sets anew.
 */
#include "spin.h"

bool
spin_again(tunring_session *session, spin *state)
{
    int64_t budget = atomic_load_explicit(&session->spin_budget, memory_order_relaxed);
    if (!budget)
        return false;
    int64_t now = os_now();
    if (!state->until)
    {
        state->until = now + budget;
        count_add(&session->counts.spins, 1);
    }
    if (now >= state->until)
        return false;
    os_relax();
    return true;
}

void
spin_learn(tunring_session *session, int64_t slept)
{
    /* Spinning on the only processor would keep the sender from running. */
    bool worth = slept < SPIN_WORTH && os_cpu_count() > 1;
    atomic_store_explicit(&session->spin_budget, worth ? SPIN_BUDGET : 0, memory_order_relaxed);
}
