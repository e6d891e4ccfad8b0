/* SPDX-License-Identifier: MIT
 *
 * The replay window against a plain model: a list of everything that was accepted.
 */
/* build: parts=os */
#include "check.h"
#include "core/replay.h"

#include <string.h>

#define MAX_WORDS 512
#define MAX_SEEN 20000

static uint64_t words[MAX_WORDS];

static replay_window
new_window(uint32_t size)
{
    memset(words, 0, sizeof(words));
    CHECK(replay_words(size) <= MAX_WORDS);
    return (replay_window){.size = size, .words = replay_words(size), .bits = words};
}

static void
test_order(void)
{
    replay_window window = new_window(100);
    for (uint64_t counter = 0; counter < 1000; counter++)
    {
        CHECK(replay_accept(&window, counter));
        CHECK(!replay_accept(&window, counter));
    }
    /* Each counter of the window was seen, each before it is too old. */
    for (uint64_t counter = 0; counter < 1000; counter++)
        CHECK(!replay_accept(&window, counter));
}

/* Nothing is accepted first but the highest; then what lies `size` back is too old, and what lies less back is new. */
static void
test_edges(uint32_t size)
{
    static const uint64_t highs[] = {1u << 20, (1u << 20) + 1, (1u << 20) + 63, UINT64_MAX - 1};
    for (size_t i = 0; i < sizeof(highs) / sizeof(highs[0]); i++)
    {
        replay_window window = new_window(size);
        CHECK(replay_accept(&window, highs[i]));
        CHECK(!replay_accept(&window, highs[i] - size));
        CHECK(!replay_accept(&window, 0));
        CHECK_EQUAL(replay_accept(&window, highs[i] - size + 1), size > 1);
        CHECK(!replay_accept(&window, highs[i] - size + 1));
        /* A jump over all of it leaves no bits behind. */
        if (highs[i] > (1u << 21))
            continue;
        const uint64_t far = highs[i] + 64u * MAX_WORDS * 3 + 5;
        CHECK(replay_accept(&window, far));
        for (uint64_t back = 1; back < size; back++)
            CHECK(replay_accept(&window, far - back));
        CHECK(!replay_accept(&window, far - size));
    }
}

static void
test_random(uint32_t size, uint64_t seed)
{
    replay_window window = new_window(size);
    uint64_t random = seed, highest = 0, base = 1u << 30;
    uint32_t count = 0;
    static uint64_t seen[MAX_SEEN];
    for (int turn = 0; turn < 3000; turn++)
    {
        const uint32_t kind = check_random(&random) % 16;
        uint64_t counter = base + check_random(&random) % (2 * size) - size;
        if (kind == 0)
            counter = base + check_random(&random) % (4 * size);
        if (kind == 1 && count)
            counter = seen[check_random(&random) % count];
        bool expected = count == 0 || counter > highest || highest - counter < size;
        for (uint32_t i = 0; i < count && expected; i++)
            expected = seen[i] != counter;
        CHECK_EQUAL(replay_accept(&window, counter), expected);
        if (!expected)
            continue;
        seen[count++] = counter;
        if (counter > highest)
            highest = base = counter;
    }
}

int
main(void)
{
    static const uint32_t sizes[] = {1, 2, 63, 64, 65, 127, 128, 129, 1000, 8128, 8192};
    test_order();
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
    {
        test_edges(sizes[i]);
        test_random(sizes[i], 7 + i);
    }
    return 0;
}
