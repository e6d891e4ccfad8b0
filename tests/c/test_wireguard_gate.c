/* SPDX-License-Identifier: MIT
 *
 * Load, cookies and the limit of each source, by a clock that stands still.
 */
/* build: parts=core,wireguard,loopback,common,os,ring flags=-Wl,--wrap=os_boottime */
#include "wireguard_net.h"
#include "wireguard/buckets.h"
#include "wireguard/device.h"
#include "wireguard/hashes.h"

#define SECOND INT64_C(1000000000)
#define MILLISECOND (SECOND / 1000)
#define LOAD (TUNRING_WIREGUARD_QUEUE / 8)

/* ---- The clock ---- */

static _Atomic int64_t clock_now = 1000 * SECOND;

int64_t __wrap_os_boottime(void);

int64_t
__wrap_os_boottime(void)
{
    return atomic_load(&clock_now);
}

static void
pass_time(int64_t time)
{
    atomic_fetch_add(&clock_now, time);
}

/* ---- A gate, and senders ---- */

static const BYTE mac1_key[32] = {1}, cookie_key[32] = {2};
static station here;
static tunring_socket *far;
static tunring_endpoint far_address;

/* The outcome of a message. */
typedef enum fate
{
    PASSED,
    ASKED, /* for a cookie */
    LIMITED
} fate;

static tunring_wireguard_figures
figures(void)
{
    tunring_wireguard_figures result;
    tunring_wireguard_figures_read(here.device, &result);
    return result;
}

static uint32_t
take_messages(void)
{
    static tunring_wireguard_news news;
    uint32_t taken = 0;
    while (tunring_wireguard_take(here.device, NULL, &news) == ERROR_SUCCESS)
        taken += news.messages;
    return taken;
}

static void
pass_through_gate(const BYTE *message, const tunring_endpoint *from)
{
    gate_message(here.device->gate, here.socket, message, TUNRING_WIREGUARD_MESSAGE, from);
}

static fate
try
    (const BYTE *cookie, const tunring_endpoint *from)
    {
        BYTE message[TUNRING_WIREGUARD_MESSAGE];
        const tunring_wireguard_figures before = figures();
        make_initiation(message, mac1_key, cookie, 0);
        pass_through_gate(message, from);
        const tunring_wireguard_figures after = figures();
        const uint32_t taken = take_messages();
        const uint64_t limited = after.limited - before.limited, asked = after.cookies_sent - before.cookies_sent;
        CHECK_EQUAL(taken + limited + asked, 1);
        return taken ? PASSED : limited ? LIMITED : ASKED;
    }

/* Puts the gate under load from now on. */
static void
load(void)
{
    BYTE message[TUNRING_WIREGUARD_MESSAGE];
    make_initiation(message, mac1_key, NULL, 0);
    pass_time(SECOND / 10); /* what was before does not count */
    while (!figures().under_load)
        pass_through_gate(message, &far_address);
    take_messages();
}

/* Reads replies up to the last, and decrypts the cookie of that. */
static void
last_cookie(const BYTE *message, BYTE *cookie)
{
    const tunring_wait wait = {.deadline = os_deadline(SECOND / 10)};
    BYTE reply[64] = {0}, key[32], nonce[12] = {0};
    tunring_lease *lease;
    while (tunring_receive(tunring_socket_source(far), 128, &wait, &lease) == ERROR_SUCCESS)
    {
        CHECK_EQUAL(lease->slots[lease->count - 1].length, sizeof(reply));
        memcpy(reply, lease->slots[lease->count - 1].data, sizeof(reply));
        let_go(lease);
    }
    CHECK(hashes_hchacha20(hashes, cookie_key, reply + 8, key));
    memcpy(nonce + 4, reply + 24, 8);
    const tunring_aead_text text = {.nonce = nonce,
                                    .aad = message + TUNRING_WIREGUARD_MESSAGE - 32,
                                    .aad_length = 16,
                                    .data = reply + 32,
                                    .length = 16,
                                    .tag = reply + 48};
    CHECK_EQUAL(tunring_aead_message(aead, TUNRING_CHACHA20_POLY1305, key, true, &text), ERROR_SUCCESS);
    memcpy(cookie, reply + 32, 16);
}

/* The cookie for messages from there. */
static void
ask_for_cookie(BYTE *cookie)
{
    BYTE message[TUNRING_WIREGUARD_MESSAGE];
    load();
    make_initiation(message, mac1_key, NULL, 7);
    pass_through_gate(message, &far_address);
    last_cookie(message, cookie);
}

/* ---- Tests ---- */

/* Load lasts for a second after its last sign. */
static void
test_load_ends(void)
{
    CHECK(!figures().under_load);
    CHECK_EQUAL(try (NULL, &far_address), PASSED);
    load();
    CHECK_EQUAL(try (NULL, &far_address), ASKED);
    pass_time(SECOND - 1);
    CHECK(figures().under_load);
    CHECK_EQUAL(try (NULL, &far_address), ASKED);
    pass_time(1);
    CHECK(!figures().under_load);
    CHECK_EQUAL(try (NULL, &far_address), PASSED);
}

/* Five at once and twenty a second, of those that have a cookie. */
static void
test_limit(void)
{
    BYTE cookie[16];
    ask_for_cookie(cookie);
    for (int i = 0; i < 5; i++)
        CHECK_EQUAL(try (cookie, &far_address), PASSED);
    for (int i = 0; i < 2; i++)
        CHECK_EQUAL(try (cookie, &far_address), LIMITED);
    for (int i = 0; i < 3; i++)
    {
        pass_time(49 * MILLISECOND);
        CHECK_EQUAL(try (cookie, &far_address), LIMITED);
        pass_time(MILLISECOND);
        CHECK_EQUAL(try (cookie, &far_address), PASSED);
        CHECK_EQUAL(try (cookie, &far_address), LIMITED);
    }
    pass_time(10 * SECOND);
    load();
    for (int i = 0; i < 5; i++)
        CHECK_EQUAL(try (cookie, &far_address), PASSED);
    CHECK_EQUAL(try (cookie, &far_address), LIMITED);
}

/* A cookie is worth nothing from another port or address. */
static void
test_cookie_is_of_a_port(void)
{
    BYTE cookie[16];
    pass_time(10 * SECOND);
    ask_for_cookie(cookie);
    CHECK_EQUAL(try (cookie, &far_address), PASSED);
    tunring_endpoint neighbour = far_address;
    neighbour.port ^= 1;
    CHECK_EQUAL(try (cookie, &neighbour), ASKED);
    neighbour = far_address;
    neighbour.host[15] ^= 2;
    CHECK_EQUAL(try (cookie, &neighbour), ASKED);
    CHECK_EQUAL(try (cookie, &far_address), PASSED);
}

/* Cookies are others after 120 seconds. */
static void
test_cookies_are_renewed(void)
{
    BYTE cookie[16], later[16];
    pass_time(10 * SECOND);
    CHECK_EQUAL(tunring_wireguard_set_identity(here.device, mac1_key, cookie_key), ERROR_SUCCESS);
    const int64_t renewed = atomic_load(&clock_now);
    ask_for_cookie(cookie);
    pass_time(119 * SECOND);
    load();
    atomic_store(&clock_now, renewed + 120 * SECOND - 1);
    CHECK_EQUAL(try (cookie, &far_address), PASSED);
    pass_time(1);
    CHECK_EQUAL(try (cookie, &far_address), ASKED);
    ask_for_cookie(later);
    CHECK(memcmp(cookie, later, sizeof(cookie)) != 0);
    CHECK_EQUAL(try (later, &far_address), PASSED);
}

/* An IPv6 source is a network of 64 bits, an IPv4 one an address; and they have nothing in common. */
static void
test_sources(void)
{
    static buckets table;
    BYTE host[16] = {0x20, 0x01, 0x0d, 0xb8, 0, 1, 0, 2}, mapped[16] = {[10] = 0xFF, 0xFF, 192, 0, 2, 1};
    for (int i = 0; i < 5; i++)
    {
        host[8 + i] = (BYTE)(i + 1); /* whoever has a network has all of its addresses */
        CHECK(buckets_take(&table, host, SECOND));
    }
    host[15] = 9;
    CHECK(!buckets_take(&table, host, SECOND));
    host[7] ^= 1;
    CHECK(buckets_take(&table, host, SECOND));
    for (int i = 0; i < 5; i++)
        CHECK(buckets_take(&table, mapped, SECOND));
    CHECK(!buckets_take(&table, mapped, SECOND));
    mapped[15]++;
    CHECK(buckets_take(&table, mapped, SECOND));
}

int
main(void)
{
    load_all();
    open_station(&here);
    far = open_socket(&far_address);
    CHECK_EQUAL(tunring_wireguard_set_identity(here.device, mac1_key, cookie_key), ERROR_SUCCESS);
    test_load_ends();
    test_limit();
    test_cookie_is_of_a_port();
    test_cookies_are_renewed();
    test_sources();
    close_socket(far);
    close_station(&here);
    return 0;
}
