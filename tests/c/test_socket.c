/* SPDX-License-Identifier: MIT
 *
 * UDP sockets over the loopback interface: runs and their datagrams, leftovers, origins, the bound on what is pinned,
 * the read event, captures and cut datagrams.
 */
/* build: parts=core flags=-Wl,--wrap=sendmsg,--wrap=recvmsg,--wrap=epoll_ctl */
#include "udp_net.h"
#include "tunring_pcapng.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>

/* ---- The shim of epoll_ctl() ---- */

/* Run by another thread just before the event is masked, unless NULL. */
static void *(*shim_meanwhile)(void *);
static void *shim_argument;
static pthread_t shim_thread;
static atomic_bool shim_done;

static void *
run_meanwhile(void *unused)
{
    (void)unused;
    shim_meanwhile(shim_argument);
    atomic_store(&shim_done, true);
    return NULL;
}

int __real_epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event);

int
__wrap_epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event)
{
    static atomic_bool entered;
    if (shim_meanwhile && operation == EPOLL_CTL_MOD && event->events == 0 && !atomic_exchange(&entered, true))
    {
        CHECK(pthread_create(&shim_thread, NULL, run_meanwhile, NULL) == 0);
        /* It may have to wait for this call. */
        for (int i = 0; i < 100 && !atomic_load(&shim_done); i++)
            os_sleep(2000000);
    }
    return __real_epoll_ctl(epoll, operation, fd, event);
}

/* ---- Tests ---- */

static void
test_a_run_arrives_as_its_datagrams(void)
{
    udp left = open_udp(64), right = open_udp(64);
    const uint32_t lengths[] = {1400, 1400, 1400, 700, 1400, 0, 0, 900, 65507, 1};
    CHECK_EQUAL(send_lengths(&left, &right, lengths, 10, 1), 10);
    CHECK_EQUAL(run_calls, 1); /* the first four; an empty datagram ends a run and begins none */
    CHECK_EQUAL(calls, 7);
    tunring_lease *lease = receive(&right, 256);
    CHECK_EQUAL(lease->count, 10);
    for (int i = 0; i < 10; i++)
        CHECK_EQUAL(lease->slots[i].length, lengths[i]);
    CHECK(lease->slots[1].data == lease->slots[0].data + 1400);
    CHECK_EQUAL(lease->origins->count, 1);
    CHECK(tunring_endpoint_same(&lease->origins->list[0].from, &left.address));
    CHECK_EQUAL(lease->origins->list[0].ecn, 1);
    CHECK(memcmp(lease->origins->list[0].from.local, left.address.host, 16) == 0);
    CHECK_EQUAL(figures(&right).coalesced_reads, 1);
    let_go(lease);
    close_udp(&left);
    close_udp(&right);
}

static void
test_leftovers(void)
{
    udp left = open_udp(64), right = open_udp(64);
    uint32_t lengths[40];
    for (int i = 0; i < 40; i++)
        lengths[i] = 1000;
    CHECK(!readable(&right));
    CHECK_EQUAL(send_lengths(&left, &right, lengths, 40, 0), 40);
    CHECK_EQUAL(calls, 1);
    uint32_t seen = 0;
    while (readable(&right))
    {
        tunring_lease *lease = receive(&right, 7);
        seen += lease->count;
        CHECK(lease->origins->count == 1 && lease->origins->list[0].first == 0);
        let_go(lease);
    }
    CHECK_EQUAL(seen, 40);
    CHECK_EQUAL(send_lengths(&left, &right, lengths, 40, 0), 40);
    let_go(receive(&right, 1)); /* and close with the rest left over */
    close_udp(&left);
    close_udp(&right);
}

static void
test_the_bound_on_pinned_chunks(void)
{
    udp left = open_udp(64), right = open_udp(2);
    const uint32_t lengths[] = {60000};
    int count = 0;
    tunring_lease *held[9], *lease;
    for (;;)
    {
        CHECK_EQUAL(send_lengths(&left, &right, lengths, 1, 0), 1);
        if (tunring_receive(right.source, 1, &POLL, &lease) == WAIT_TIMEOUT)
            break;
        CHECK(count < 9);
        held[count++] = lease;
    }
    CHECK_EQUAL(count, 8);    /* four in each chunk */
    CHECK(!readable(&right)); /* although a datagram waits in the system */
    for (int i = 0; i < count; i++)
        let_go(held[i]);
    CHECK(readable(&right));
    let_go(receive(&right, 1));
    close_udp(&left);
    close_udp(&right);
}

/* A receive that finds no chunk masks the read event, while the chunks come back and unmask it. */
static void
test_chunks_that_come_back_in_the_middle(void)
{
    udp left = open_udp(64), right = open_udp(2);
    const uint32_t lengths[] = {60000};
    leases held = {.count = 0};
    while (held.count < 8)
    {
        CHECK_EQUAL(send_lengths(&left, &right, lengths, 1, 0), 1);
        held.list[held.count++] = receive(&right, 1);
    }
    CHECK_EQUAL(send_lengths(&left, &right, lengths, 1, 0), 1);
    shim_argument = &held;
    shim_meanwhile = let_all_go;
    tunring_lease *lease;
    CHECK_EQUAL(tunring_receive(right.source, 1, NULL, &lease), WAIT_TIMEOUT);
    pthread_join(shim_thread, NULL);
    shim_meanwhile = NULL;
    CHECK(readable(&right));
    let_go(receive(&right, 1));
    CHECK(!readable(&right));
    CHECK_EQUAL(send_lengths(&left, &right, lengths, 1, 0), 1);
    CHECK(readable(&right));
    close_udp(&left);
    close_udp(&right);
}

static void
test_a_batch_outlives_its_socket(void)
{
    udp left = open_udp(64), right = open_udp(64);
    const uint32_t lengths[] = {100, 100, 100};
    CHECK_EQUAL(send_lengths(&left, &right, lengths, 3, 0), 3);
    tunring_lease *lease = receive(&right, 256);
    close_udp(&right);
    CHECK_EQUAL(lease->slots[2].data[99], 0);
    let_go(lease);
    close_udp(&left);
}

static void
test_linger(void)
{
    udp left = open_udp(64), right = open_udp(64);
    const uint32_t lengths[] = {100, 90, 100};
    tunring_wait wait = {.deadline = TUNRING_FOREVER, .min_packets = 3, .linger = 30000000};
    CHECK_EQUAL(send_lengths(&left, &right, lengths, 2, 0), 2);
    int64_t began = os_now();
    tunring_lease *lease;
    CHECK_EQUAL(tunring_receive(right.source, 256, &wait, &lease), ERROR_SUCCESS);
    CHECK(lease->count == 2 && os_now() - began >= 30000000);
    let_go(lease);
    CHECK_EQUAL(send_lengths(&left, &right, lengths, 3, 0), 3);
    wait.linger = TUNRING_FOREVER;
    CHECK_EQUAL(tunring_receive(right.source, 256, &wait, &lease), ERROR_SUCCESS);
    CHECK_EQUAL(lease->count, 3);
    let_go(lease);
    close_udp(&left);
    close_udp(&right);
}

static void
test_gather(void)
{
    udp left = open_udp(64), right = open_udp(64);
    const uint32_t lengths[] = {100, 90, 80, 70, 60};
    uint32_t count;
    CHECK_EQUAL(tunring_gather(right.source, 256, &count), ERROR_SUCCESS);
    CHECK_EQUAL(count, 0);
    CHECK_EQUAL(send_lengths(&left, &right, lengths, 3, 1), 3);
    CHECK_EQUAL(send_lengths(&left, &right, lengths + 3, 2, 2), 2);
    CHECK_EQUAL(tunring_gather(right.source, 2, &count), ERROR_SUCCESS);
    CHECK_EQUAL(count, 2);
    CHECK_EQUAL(tunring_gather(right.source, 256, &count), ERROR_SUCCESS);
    CHECK_EQUAL(count, 5);
    /* A smaller receive takes the first, and leaves the others with where they came from. */
    tunring_lease *lease = receive(&right, 2);
    CHECK(lease->count == 2 && lease->slots[0].length == 100 && lease->slots[1].length == 90);
    CHECK(lease->bytes == 190 && lease->origins->count == 1 && lease->origins->list[0].ecn == 1);
    let_go(lease);
    lease = receive(&right, 256);
    CHECK(lease->count == 3 && lease->slots[0].length == 80 && lease->slots[2].length == 60);
    CHECK(lease->bytes == 210 && lease->origins->count == 2);
    CHECK(lease->origins->list[0].first == 0 && lease->origins->list[0].ecn == 1);
    CHECK(lease->origins->list[1].first == 1 && lease->origins->list[1].ecn == 2);
    let_go(lease);
    /* Close lets go of what is kept. */
    CHECK_EQUAL(send_lengths(&left, &right, lengths, 5, 0), 5);
    CHECK_EQUAL(tunring_gather(right.source, 256, &count), ERROR_SUCCESS);
    CHECK_EQUAL(count, 5);
    close_udp(&left);
    close_udp(&right);
}

static void
test_truncated_datagrams(void)
{
    udp left = open_udp(64), right = open_udp(64);
    const uint32_t lengths[] = {99, 200, 0, 101};
    CHECK_EQUAL(send_lengths(&left, &right, lengths, 4, 0), 4);
    shim_room = 100;
    tunring_lease *lease = receive(&right, 256);
    shim_room = 0;
    CHECK_EQUAL(figures(&right).truncated, 2);
    uint32_t sum = 0;
    for (uint32_t i = 0; i < lease->count; i++)
    {
        CHECK(lease->slots[i].length <= 100);
        sum += lease->slots[i].length;
    }
    CHECK_EQUAL(sum, 299);
    let_go(lease);
    close_udp(&left);
    close_udp(&right);
}

/* A socket that is taken over may have lost datagrams before. */
static void
test_drops_are_counted_from_the_beginning(void)
{
    udp left = open_udp(64), right;
    const uint32_t length = 1000;
    const int fd = make_socket(&right), least = 1;
    CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &least, sizeof(least)) == 0);
    for (int i = 0; i < 20; i++)
        CHECK_EQUAL(send_lengths(&left, &right, &length, 1, 0), 1);
    open_socket(&right, fd, 64);
    CHECK_EQUAL(figures(&right).host_dropped, 0);
    for (int i = 0; i < 5; i++)
        CHECK_EQUAL(send_lengths(&left, &right, &length, 1, 0), 1);
    CHECK_EQUAL(figures(&right).host_dropped, 5);
    close_udp(&left);
    tunring_source_close(right.source);
    CHECK_EQUAL(figures(&right).host_dropped, 5);
    tunring_source_drop(right.source);
}

static DWORD
wait_for_end(const tunring_pcapng_file *file)
{
    const tunring_wait wait = {.deadline = os_deadline(20000000000)};
    return tunring_pcapng_close((tunring_pcapng_file *)(uintptr_t)file, &wait);
}

/* Each datagram is in the file once each way, after headers whose sums come out right. */
static void
test_capture(void)
{
    udp left = open_udp(64), right = open_udp(64);
    const uint32_t lengths[] = {100, 100, 51, 0, 65507};
    char name[] = "/tmp/tunring-XXXXXX";
    const int fd = mkstemp(name);
    uint32_t count = 0;
    CHECK(fd >= 0 && unlink(name) == 0);
    tunring_pcapng_file *file;
    CHECK_EQUAL(tunring_pcapng_open((HANDLE)(intptr_t)fd, "test", &file), ERROR_SUCCESS);
    uint32_t number;
    CHECK_EQUAL(tunring_pcapng_add_interface(file, "udp", "", 65535, &FOREVER, &number), ERROR_SUCCESS);
    CHECK_EQUAL(tunring_source_capture(left.source, file, 0, true, true, &number), ERROR_SUCCESS);
    uint32_t other;
    CHECK_EQUAL(tunring_source_capture(right.source, file, 0, true, true, &other), ERROR_SUCCESS);
    CHECK_EQUAL(tunring_source_capture(right.source, file, 0, true, true, &other), ERROR_BUSY);
    CHECK_EQUAL(send_lengths(&left, &right, lengths, 5, 2), 5);
    let_go(receive(&right, 256));
    tunring_source_capture_end(left.source, number);
    CHECK_EQUAL(send_lengths(&left, &right, lengths, 1, 0), 1); /* not captured */
    close_udp(&right);
    CHECK_EQUAL(wait_for_end(file), ERROR_SUCCESS);
    CHECK_EQUAL(tunring_pcapng_packets(file), 10);
    CHECK_EQUAL(tunring_pcapng_dropped(file), 0);
    tunring_pcapng_drop(file);
    static BYTE content[400000];
    const ssize_t size = pread(fd, content, sizeof(content), 0);
    for (ssize_t at = 0; at < size;)
    {
        uint32_t words[7];
        memcpy(words, content + at, sizeof(words));
        if (words[0] == 6)
        {
            const BYTE *packet = content + at + 28;
            const uint32_t length = 28 + lengths[count++ % 5];
            CHECK_EQUAL(words[5], length);
            CHECK_EQUAL(words[6], length);
            CHECK_EQUAL(packet[0], 0x45);
            CHECK_EQUAL(packet[1], 2);
            CHECK_EQUAL((uint32_t)packet[2] << 8 | packet[3], length);
            CHECK_EQUAL((uint32_t)packet[20] << 8 | packet[21], left.address.port);
            CHECK_EQUAL((uint32_t)packet[22] << 8 | packet[23], right.address.port);
            CHECK_EQUAL((uint32_t)packet[24] << 8 | packet[25], length - 20);
            uint32_t sum = 17 + length - 20;
            for (uint32_t i = 12; i < length; i++)
                sum += i % 2 ? packet[i] : (uint32_t)packet[i] << 8;
            CHECK_EQUAL(sum % 0xFFFF, 0);
        }
        at += words[1];
    }
    CHECK_EQUAL(count, 10);
    close(fd);
    close_udp(&left);
}

static void *
close_source(void *argument)
{
    tunring_source_close(argument);
    return NULL;
}

/* A thread that waits for the descriptor in a call of its own is woken when the socket is closed. */
static void
test_poll_ends_with_the_socket(void)
{
    for (int i = 0; i < 200; i++)
    {
        udp udp = open_udp(64);
        struct pollfd state = {.fd = (int)(intptr_t)tunring_source_read_event(udp.source), .events = POLLIN};
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, close_source, udp.source) == 0);
        CHECK_EQUAL(poll(&state, 1, 20000), 1);
        pthread_join(thread, NULL);
        tunring_source_drop(udp.source);
    }
}

int
main(void)
{
    use_own_network();
    test_a_run_arrives_as_its_datagrams();
    test_leftovers();
    test_the_bound_on_pinned_chunks();
    test_chunks_that_come_back_in_the_middle();
    test_a_batch_outlives_its_socket();
    test_linger();
    test_gather();
    test_truncated_datagrams();
    test_drops_are_counted_from_the_beginning();
    test_capture();
    test_poll_ends_with_the_socket();
    return 0;
}
