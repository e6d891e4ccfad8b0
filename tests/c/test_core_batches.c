/* SPDX-License-Identifier: MIT
 *
 * Batches over a cable: what is sent arrives in order; slots go back at their last hold; waits end as they should.
 */
/* build: parts=core,loopback,common,os,ring */
#include "core_api.h"

#define CAPACITY 0x20000

static tunring_api api;

static tunring_lease *
receive(tunring_session *session, uint32_t max)
{
    tunring_lease *lease = NULL;
    CHECK(tunring_receive(tunring_session_source(session), max, &POLL, &lease) == ERROR_SUCCESS);
    return lease;
}

static void
send_numbers(tunring_session *session, uint32_t first, uint32_t count)
{
    CHECK(count <= 512);
    tunring_packet packets[512];
    static BYTE bytes[512][64];
    for (uint32_t i = 0; i < count; i++)
    {
        make_packet(bytes[i], 64, first + i);
        packets[i] = (tunring_packet){bytes[i], 64};
    }
    uint32_t sent;
    CHECK(tunring_send(session, packets, count, NULL, &sent) == ERROR_SUCCESS);
    CHECK(sent == count);
}

static tunring_stats
stats_of(tunring_session *session)
{
    tunring_stats stats;
    tunring_session_stats(session, &stats);
    return stats;
}

static void
done(tunring_lease *lease)
{
    tunring_lease_release(lease);
    tunring_lease_free(lease);
}

static void
test_order_and_growth(void)
{
    ends pair;
    open_ends(&api, &pair, CAPACITY);
    send_numbers(pair.sessions[0], 0, 500);
    tunring_lease *some = receive(pair.sessions[1], 3);
    CHECK(some->count == 3 && some->bytes == 3 * 64);
    tunring_lease *rest = receive(pair.sessions[1], TUNRING_MAX_BATCH);
    CHECK(rest->count == 497);
    for (uint32_t i = 0; i < 497; i++)
        CHECK(packet_number(rest->slots[i].data) == i + 3 && rest->slots[i].length == 64);
    tunring_stats stats = stats_of(pair.sessions[1]);
    CHECK(stats.received_packets == 500 && stats.received_batches == 2 && stats.pinned_packets == 500);
    CHECK(stats.has_counters && stats.counters.host_dropped == 0);
    done(some);
    done(rest);
    stats = stats_of(pair.sessions[1]);
    CHECK(stats.pinned_packets == 0 && stats.pinned_bytes == 0);
    close_ends(&pair);
}

static void
test_holds(void)
{
    ends pair;
    open_ends(&api, &pair, CAPACITY);
    send_numbers(pair.sessions[0], 0, 4);
    tunring_lease *lease = receive(pair.sessions[1], 8);
    CHECK(tunring_lease_hold(lease, 2, 0));
    CHECK(tunring_lease_hold(lease, 2, 0));
    tunring_lease_release(lease);
    tunring_lease_release(lease);
    CHECK(!tunring_lease_hold(lease, 2, 0));
    CHECK(stats_of(pair.sessions[1]).pinned_packets == 1);
    CHECK(packet_number(lease->slots[2].data) == 2);
    tunring_lease_unhold(lease, 2);
    CHECK(stats_of(pair.sessions[1]).pinned_packets == 1);
    tunring_lease_unhold(lease, 2);
    CHECK(stats_of(pair.sessions[1]).pinned_packets == 0);
    tunring_lease_free(lease);

    /* An operation in progress delays the release. */
    send_numbers(pair.sessions[0], 0, 4);
    lease = receive(pair.sessions[1], 8);
    uint32_t index;
    CHECK(tunring_lease_enter(lease, NULL, &index) == ERROR_SUCCESS);
    tunring_lease_release(lease);
    CHECK(tunring_lease_enter(lease, NULL, &index) == ERROR_HANDLE_EOF);
    CHECK(stats_of(pair.sessions[1]).pinned_packets == 4);
    tunring_lease_leave(lease, NULL);
    CHECK(stats_of(pair.sessions[1]).pinned_packets == 0);
    tunring_lease_free(lease);
    close_ends(&pair);
}

/* A lease outlives its session, and its adapter. */
static void
test_lease_after_close(void)
{
    ends pair;
    open_ends(&api, &pair, CAPACITY);
    send_numbers(pair.sessions[0], 7, 2);
    tunring_lease *lease = receive(pair.sessions[1], 8);
    close_ends(&pair);
    CHECK(packet_number(lease->slots[0].data) == 7);
    CHECK(tunring_sources_pinned() == 1);
    done(lease);
    for (int i = 0; tunring_sources_pinned() && i < 1000; i++)
        os_sleep(1000000);
    CHECK(tunring_sources_pinned() == 0);
}

static void
test_waits(void)
{
    os_event interrupt;
    CHECK(os_event_open(&interrupt));
    ends pair;
    open_ends(&api, &pair, CAPACITY);
    tunring_lease *lease;
    CHECK(tunring_receive(tunring_session_source(pair.sessions[0]), 1, &POLL, &lease) == WAIT_TIMEOUT);
    tunring_wait wait = {.deadline = os_deadline(20000000)};
    int64_t began = os_now();
    CHECK(tunring_receive(tunring_session_source(pair.sessions[0]), 1, &wait, &lease) == WAIT_TIMEOUT);
    CHECK(os_now() - began >= 19000000);
    os_event_set(&interrupt);
    wait = (tunring_wait){.deadline = TUNRING_FOREVER, .interrupt = interrupt.wait};
    CHECK(tunring_receive(tunring_session_source(pair.sessions[0]), 1, &wait, &lease) == ERROR_OPERATION_ABORTED);
    tunring_source_close(tunring_session_source(pair.sessions[0]));
    CHECK(tunring_receive(tunring_session_source(pair.sessions[0]), 1, &FOREVER, &lease) == ERROR_HANDLE_EOF);
    CHECK(tunring_source_state(tunring_session_source(pair.sessions[0])) == TUNRING_CLOSED);
    close_ends(&pair);
    os_event_close(&interrupt);
}

/* Fills the ring: nothing is lost, and a waiter comes through once there is room. */
static void
test_full_ring(void)
{
    ends pair;
    open_ends(&api, &pair, CAPACITY);
    static BYTE big[60000];
    make_packet(big, sizeof(big), 1);
    const tunring_packet packets[8] = {
        {big, sizeof(big)}, {big, sizeof(big)}, {big, sizeof(big)}, {big, sizeof(big)},
        {big, sizeof(big)}, {big, sizeof(big)}, {big, sizeof(big)}, {big, sizeof(big)},
    };
    uint32_t sent;
    CHECK(tunring_send(pair.sessions[0], packets, 8, NULL, &sent) == ERROR_BUFFER_OVERFLOW);
    CHECK(sent == 4); /* two in each of the cable's rings */
    tunring_wait wait = {.deadline = os_deadline(5000000)};
    uint32_t more;
    CHECK(tunring_send(pair.sessions[0], packets, 1, &wait, &more) == WAIT_TIMEOUT && more == 0);
    CHECK(stats_of(pair.sessions[0]).ring_full == 2);
    for (uint32_t got = 0; got < sent; got++)
        done(receive(pair.sessions[1], 1));
    wait.deadline = os_deadline(5000000);
    CHECK(tunring_send(pair.sessions[0], packets, 1, &wait, &more) == ERROR_SUCCESS && more == 1);
    close_ends(&pair);
}

static void
test_reservations(void)
{
    const uint32_t sizes[3] = {64, 100, 40};
    ends pair;
    open_ends(&api, &pair, CAPACITY);
    tunring_session *session = pair.sessions[0];
    tunring_lease *lease;
    CHECK(tunring_reserve(session, sizes, 3, NULL, &lease) == ERROR_SUCCESS);
    CHECK(stats_of(session).reservations == 1);
    for (uint32_t i = 0; i < 3; i++)
        make_packet(lease->slots[i].data, sizes[i], i);
    /* A packet that is sent in the meantime stays behind it. */
    send_numbers(session, 100, 1);
    tunring_lease *other;
    CHECK(tunring_receive(tunring_session_source(pair.sessions[1]), 8, &POLL, &other) == WAIT_TIMEOUT);
    CHECK(tunring_lease_commit(lease) == ERROR_SUCCESS);
    CHECK(tunring_lease_commit(lease) == ERROR_HANDLE_EOF);
    tunring_lease_free(lease);
    other = receive(pair.sessions[1], 8);
    CHECK(other->count == 4 && packet_number(other->slots[3].data) == 100 && other->slots[1].length == 100);
    done(other);

    /* Held: nothing is sent; the slot is filler once it is let go. */
    CHECK(tunring_reserve(session, sizes, 3, NULL, &lease) == ERROR_SUCCESS);
    CHECK(tunring_lease_hold(lease, 1, 0) && tunring_lease_held(lease));
    CHECK(tunring_lease_commit(lease) == ERROR_BUSY);
    send_numbers(session, 200, 1);
    CHECK(tunring_receive(tunring_session_source(pair.sessions[1]), 8, &POLL, &other) == WAIT_TIMEOUT);
    tunring_lease_unhold(lease, 1);
    tunring_lease_free(lease);
    other = receive(pair.sessions[1], 8);
    CHECK(other->count == 1 && packet_number(other->slots[0].data) == 200);
    done(other);
    CHECK(stats_of(session).fillers == 3 && stats_of(session).reservations == 0);
    close_ends(&pair);
}

/* With and without a library that can make a slot smaller. */
static void
test_changed_reservations(const tunring_api *over)
{
    ends pair;
    const uint32_t sizes[4] = {64, 100, 1400, 40};
    open_ends(over, &pair, CAPACITY);
    tunring_session *session = pair.sessions[0];
    for (uint32_t round = 1; round <= 200; round++) /* more than once round the ring */
    {
        tunring_lease *lease;
        CHECK(tunring_reserve(session, sizes, 4, NULL, &lease) == ERROR_SUCCESS);
        for (uint32_t i = 0; i < 4; i++)
            make_packet(lease->slots[i].data, sizes[i], i);
        CHECK(!tunring_lease_slot_dropped(lease, 0));
        CHECK(tunring_lease_drop_slot(lease, 0) == ERROR_SUCCESS && tunring_lease_drop_slot(lease, 0) == ERROR_SUCCESS);
        CHECK(tunring_lease_slot_dropped(lease, 0) && !tunring_lease_slot_dropped(lease, 1));
        CHECK(tunring_lease_shrink_slot(lease, 2, 500) == ERROR_SUCCESS);
        CHECK(tunring_lease_shrink_slot(lease, 2, 60) == ERROR_SUCCESS);
        CHECK(lease->bytes == 200);
        CHECK(tunring_lease_commit(lease) == ERROR_SUCCESS);
        tunring_lease_free(lease);
        lease = receive(pair.sessions[1], 8);
        CHECK(lease->count == 3);
        for (uint32_t i = 0; i < 3; i++)
            CHECK(packet_number(lease->slots[i].data) == i + 1);
        CHECK(lease->slots[0].length == 100 && lease->slots[2].length == 40);
        CHECK(lease->slots[1].length == (over->backend ? 60 : 1400));
        for (uint32_t i = 60; i < lease->slots[1].length; i++)
            CHECK(lease->slots[1].data[i] == 0);
        done(lease);
        const tunring_stats stats = stats_of(session);
        CHECK(stats.sent_packets == 3 * round && stats.sent_bytes == 200 * round && stats.fillers == round);
    }
    close_ends(&pair);
}

static void
test_reserve_now(void)
{
    ends pair;
    open_ends(&api, &pair, CAPACITY);
    tunring_session *session = pair.sessions[0];
    tunring_lease *first = NULL, *second = NULL;
    CHECK(tunring_reserve_now(session, 60000, &first) == ERROR_SUCCESS);
    CHECK(tunring_reserve_now(session, 60000, &second) == ERROR_SUCCESS);
    tunring_lease *none = NULL;
    CHECK(tunring_reserve_now(session, 60000, &none) == ERROR_BUSY && !none);
    CHECK(stats_of(session).reservations == 2);
    make_packet(second->slots[0].data, 60000, 2);
    CHECK(tunring_lease_commit_is_short(second) && tunring_lease_commit(second) == ERROR_SUCCESS);
    tunring_lease_free(second);
    done(first); /* abandoned */
    tunring_lease *got = receive(pair.sessions[1], 8);
    CHECK(got->count == 1 && packet_number(got->slots[0].data) == 2);
    done(got);
    CHECK(stats_of(session).fillers == 1 && stats_of(session).reservations == 0);
    tunring_source_close(tunring_session_source(session));
    CHECK(tunring_reserve_now(session, 100, &none) == ERROR_BUSY && !none);
    close_ends(&pair);
}

/* Packet after packet through one lease, whatever was done to the one before. */
static void
test_reserve_again(void)
{
    ends pair;
    open_ends(&api, &pair, CAPACITY);
    tunring_session *session = pair.sessions[0];
    tunring_lease *lease = NULL;
    for (uint32_t number = 0; number < 12; number++)
    {
        CHECK(tunring_reserve_now(session, 100 + number, &lease) == ERROR_SUCCESS);
        CHECK(lease->count == 1 && lease->slots[0].length == 100 + number && !tunring_lease_slot_dropped(lease, 0));
        CHECK(lease->slots[0].data[0] == 0 && !tunring_lease_held(lease) && !tunring_lease_released(lease));
        make_packet(lease->slots[0].data, 100 + number, number);
        if (number % 3 == 1)
            CHECK(tunring_lease_drop_slot(lease, 0) == ERROR_SUCCESS);
        if (number % 3 == 2)
            CHECK(tunring_lease_shrink_slot(lease, 0, 60) == ERROR_SUCCESS);
        CHECK(tunring_lease_commit(lease) == ERROR_SUCCESS);
    }
    tunring_lease *got = receive(pair.sessions[1], 12);
    CHECK(got->count == 8);
    for (uint32_t i = 0; i < got->count; i++)
    {
        const uint32_t number = i / 2 * 3 + i % 2 * 2;
        CHECK(packet_number(got->slots[i].data) == number);
        CHECK(got->slots[i].length == (number % 3 == 2 ? 60 : 100 + number));
    }
    done(got);
    CHECK(stats_of(session).reservations == 0 && stats_of(session).sent_packets == 8);
    tunring_source_close(tunring_session_source(session));
    CHECK(tunring_reserve_now(session, 100, &lease) == ERROR_BUSY && !lease);
    close_ends(&pair);
}

/* All or none, with and without a library that reports its room. */
static void
test_reserve_without_room(const tunring_api *over)
{
    const uint32_t sizes[2] = {60000, 60000};
    const uint32_t too_many[3] = {60000, 60000, 60000};
    ends pair;
    open_ends(over, &pair, CAPACITY);
    tunring_session *session = pair.sessions[0];
    tunring_lease *lease;
    CHECK(tunring_reserve(session, too_many, 3, NULL, &lease) == ERROR_INVALID_PARAMETER);
    CHECK(tunring_reserve(session, sizes, 1, NULL, &lease) == ERROR_SUCCESS);
    tunring_lease *second;
    CHECK(tunring_reserve(session, sizes, 2, NULL, &second) == ERROR_BUFFER_OVERFLOW);
    CHECK(stats_of(session).fillers == (over->backend ? 0 : 1));
    make_packet(lease->slots[0].data, sizes[0], 5);
    CHECK(tunring_lease_commit(lease) == ERROR_SUCCESS);
    tunring_lease_free(lease);
    done(receive(pair.sessions[1], 8));
    CHECK(tunring_reserve(session, sizes, 2, NULL, &lease) == ERROR_SUCCESS);
    done(lease); /* abandoned */
    close_ends(&pair);
}

int
main(void)
{
    api = linked_api();
    tunring_api bare = api;
    bare.backend = NULL;
    test_order_and_growth();
    test_holds();
    test_lease_after_close();
    test_waits();
    test_full_ring();
    test_reservations();
    test_changed_reservations(&api);
    test_changed_reservations(&bare);
    test_reserve_now();
    test_reserve_again();
    test_reserve_without_room(&api);
    test_reserve_without_room(&bare);
    return 0;
}
