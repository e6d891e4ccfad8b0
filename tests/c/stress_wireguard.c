/* SPDX-License-Identifier: MIT
 *
 * Data flows between two devices while other threads add and remove peers, change keys, networks, endpoints and
 * sockets, and at last close both. And no counter is ever used twice under one key, however many threads send.
 */
/* build: parts=core,wireguard,loopback,common,os,ring */
#include "wireguard_net.h"

#define SECONDS 3
#define PEERS 6u /* at each end, 10.0.0.10 and on at the right */

/* The source of packets to 10.0.0.`last`. */
#define SOURCE(last) ((uint8_t)((last) + 100))

static station left, right;
static atomic_bool over;
static _Atomic uint64_t delivered;

static void *
pump(void *argument)
{
    static BYTE bytes[64][600];
    tunring_packet packets[64];
    uint32_t turn = 0, sent;
    (void)argument;
    while (!atomic_load(&over))
    {
        for (uint32_t i = 0; i < 64; i++)
        {
            const uint8_t last = (uint8_t)(10 + (turn + i / 8) % PEERS);
            make_ipv4(bytes[i], sizeof(bytes[i]) - i, SOURCE(last), last, i);
            packets[i] = (tunring_packet){bytes[i], (uint32_t)sizeof(bytes[i]) - i};
        }
        const tunring_wait wait = {.deadline = os_deadline(10000000)};
        tunring_send(left.host, packets, 64, &wait, &sent);
        turn++;
    }
    return NULL;
}

static void *
drain(void *argument)
{
    const station *at = argument;
    while (!atomic_load(&over))
    {
        tunring_lease *lease;
        const tunring_wait wait = {.deadline = os_deadline(10000000)};
        if (tunring_receive(tunring_session_source(at->host), 128, &wait, &lease) != ERROR_SUCCESS)
            continue;
        atomic_fetch_add(&delivered, lease->count);
        let_go(lease);
    }
    return NULL;
}

/* A peer at each end, which live for a while. */
typedef struct couple
{
    tunring_wireguard_peer *to_right, *to_left;
} couple;

static couple
join(uint8_t last)
{
    couple result = {.to_right = add_peer(&left, last), .to_left = NULL};
    const tunring_prefix source = {.address = {10, 0, 0, SOURCE(last)}, .version = 4, .length = 32};
    CHECK_EQUAL(tunring_wireguard_peer_add(right.device, &result.to_left), ERROR_SUCCESS);
    CHECK_EQUAL(tunring_wireguard_peer_allow(result.to_left, &source, 1, false), ERROR_SUCCESS);
    CHECK_EQUAL(tunring_wireguard_peer_set_endpoint(result.to_right, &right.address), ERROR_SUCCESS);
    return result;
}

static void
part(couple *one)
{
    tunring_wireguard_peer_remove(one->to_right);
    tunring_wireguard_peer_remove(one->to_left);
    tunring_wireguard_peer_drop(one->to_right);
    tunring_wireguard_peer_drop(one->to_left);
}

/* Does to a couple what timers and users do, in any order. */
static void
disturb(couple *one, uint8_t last, uint64_t *random)
{
    tunring_wireguard_status status;
    tunring_endpoint endpoint;
    uint32_t index;
    bool sent;
    switch (check_random(random) % 10)
    {
    case 0:
        part(one);
        *one = join(last);
        break;
    case 1:
        tunring_wireguard_peer_wipe(one->to_right);
        break;
    case 2:
        tunring_wireguard_peer_keepalive(one->to_left, &sent);
        break;
    case 3:
        tunring_wireguard_peer_endpoint(one->to_left, &endpoint);
        tunring_wireguard_peer_set_endpoint(one->to_right, &right.address);
        break;
    case 4:
        tunring_wireguard_peer_status(one->to_right, &status);
        tunring_wireguard_peer_watch(one->to_right, os_boottime() + (int64_t)(check_random(random) % 3) * 10000000000);
        break;
    case 5:
        CHECK_EQUAL(tunring_wireguard_index_new(one->to_right, &index), ERROR_SUCCESS);
        CHECK_EQUAL(tunring_wireguard_index_free(left.device, index), ERROR_SUCCESS);
        break;
    case 6:
        tunring_wireguard_peer_drop_staged(one->to_right);
        break;
    default:
        install_both(one->to_right, one->to_left, (uint8_t)check_random(random));
        tunring_wireguard_peer_keepalive(one->to_right, &sent);
    }
}

static void *
disturb_all(void *argument)
{
    uint64_t random = 1 + (uint64_t)(uintptr_t)argument;
    const uint32_t first = (uint32_t)(uintptr_t)argument * (PEERS / 2);
    couple couples[PEERS / 2];
    for (uint32_t i = 0; i < PEERS / 2; i++)
        couples[i] = join((uint8_t)(10 + first + i));
    while (!atomic_load(&over))
    {
        const uint32_t i = check_random(&random) % (PEERS / 2);
        os_sleep(300000);
        disturb(&couples[i], (uint8_t)(10 + first + i), &random);
    }
    for (uint32_t i = 0; i < PEERS / 2; i++)
        part(&couples[i]);
    return NULL;
}

static void *
take_all(void *argument)
{
    static tunring_wireguard_news news[2];
    const station *at = argument;
    tunring_wireguard_news *own = &news[at == &right];
    const tunring_wait wait = {.deadline = TUNRING_FOREVER};
    while (tunring_wireguard_take(at->device, &wait, own) == ERROR_SUCCESS)
        ;
    return NULL;
}

/* The device goes over to another socket and back. */
static void *
change_sockets(void *argument)
{
    (void)argument;
    while (!atomic_load(&over))
    {
        tunring_endpoint address;
        tunring_socket *other = open_socket(&address);
        CHECK_EQUAL(tunring_wireguard_set_socket(left.device, other), ERROR_SUCCESS);
        os_sleep(5000000);
        CHECK_EQUAL(tunring_wireguard_set_socket(left.device, left.socket), ERROR_SUCCESS);
        close_socket(other);
        os_sleep(5000000);
    }
    return NULL;
}

static void
test_everything_at_once(void)
{
    pthread_t threads[8];
    open_station(&left);
    open_station(&right);
    CHECK(pthread_create(&threads[0], NULL, pump, NULL) == 0);
    CHECK(pthread_create(&threads[1], NULL, drain, &right) == 0);
    CHECK(pthread_create(&threads[2], NULL, disturb_all, (void *)0) == 0);
    CHECK(pthread_create(&threads[3], NULL, disturb_all, (void *)1) == 0);
    CHECK(pthread_create(&threads[4], NULL, change_sockets, NULL) == 0);
    CHECK(pthread_create(&threads[5], NULL, take_all, &left) == 0);
    CHECK(pthread_create(&threads[6], NULL, take_all, &right) == 0);
    os_sleep(SECONDS * INT64_C(1000000000));
    atomic_store(&over, true);
    for (int i = 0; i < 5; i++)
        pthread_join(threads[i], NULL);
    close_station(&left);
    close_station(&right);
    pthread_join(threads[5], NULL);
    pthread_join(threads[6], NULL);
    printf("%llu packets were delivered\n", (unsigned long long)atomic_load(&delivered));
    CHECK(atomic_load(&delivered) > 0);
}

/* ---- Counters ---- */

#define KEYS 40u
#define COUNTERS 65536u

static BYTE seen[KEYS][COUNTERS / 8];
static tunring_wireguard_peer *only;

static void *
keep_alive(void *argument)
{
    bool sent;
    (void)argument;
    while (!atomic_load(&over))
        tunring_wireguard_peer_keepalive(only, &sent);
    return NULL;
}

/* Marks the counters of what came. Returns how many. */
static uint32_t
mark(tunring_socket *far)
{
    tunring_lease *lease;
    const tunring_wait wait = {.deadline = os_deadline(20000000)};
    if (tunring_receive(tunring_socket_source(far), 128, &wait, &lease) != ERROR_SUCCESS)
        return 0;
    const uint32_t count = lease->count;
    for (uint32_t i = 0; i < count; i++)
    {
        uint32_t key;
        uint64_t counter;
        memcpy(&key, lease->slots[i].data + 4, sizeof(key));
        memcpy(&counter, lease->slots[i].data + 8, sizeof(counter));
        CHECK(key < KEYS);
        if (counter >= COUNTERS)
            continue;
        CHECK(!(seen[key][counter / 8] >> counter % 8 & 1));
        seen[key][counter / 8] |= (BYTE)(1 << counter % 8);
    }
    let_go(lease);
    return count;
}

static void
test_no_counter_twice(void)
{
    pthread_t threads[3];
    tunring_endpoint far_address;
    tunring_socket *far = open_socket(&far_address);
    uint64_t marked = 0;
    atomic_store(&over, false);
    open_station(&left);
    only = add_peer(&left, 10);
    CHECK_EQUAL(tunring_wireguard_peer_set_endpoint(only, &far_address), ERROR_SUCCESS);
    CHECK(pthread_create(&threads[0], NULL, pump, NULL) == 0);
    CHECK(pthread_create(&threads[1], NULL, keep_alive, NULL) == 0);
    CHECK(pthread_create(&threads[2], NULL, keep_alive, NULL) == 0);
    for (uint32_t key = 0; key < KEYS; key++)
    {
        BYTE secret[TUNRING_WIREGUARD_KEY] = {(BYTE)key};
        tunring_wireguard_keys keys = {.remote_index = key, .send = secret, .receive = secret, .initiator = true};
        CHECK_EQUAL(tunring_wireguard_index_new(only, &keys.index), ERROR_SUCCESS);
        CHECK_EQUAL(tunring_wireguard_peer_install(only, &keys), ERROR_SUCCESS);
        for (int i = 0; i < 10; i++)
            marked += mark(far);
        if (key % 4 == 3)
            tunring_wireguard_peer_wipe(only); /* packets wait until the next one */
    }
    atomic_store(&over, true);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    while (mark(far))
        ;
    CHECK(marked > KEYS);
    tunring_wireguard_peer_drop(only);
    close_station(&left);
    close_socket(far);
}

int
main(void)
{
    load_all();
    test_everything_at_once();
    test_no_counter_twice();
    return 0;
}
