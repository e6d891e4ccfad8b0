/* SPDX-License-Identifier: MIT
 *
 * tun_reader.h
 */
#include "backends/tun_linux/tun_reader.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_READ (VIRTIO_MAX_HEADER + WINTUN_MAX_IP_PACKET_SIZE)
/* More than it takes, and not a power of two, so that the buffers' beginnings lie in different sets of the cache. */
#define STRIDE (0x10000u + 0x180u)

/* The code for a read of 0 bytes: no TUN descriptor returns that, so a program has put a file of its own there. */
#define NOT_TUN (-EBADF)

WINTUN_ASSERT(STRIDE >= MAX_READ, "a buffer holds the largest packet");

bool
tun_reader_open(tun_reader *reader, uint32_t header)
{
    *reader = (tun_reader){.header = header, .burst = 1};
    reader->buffers = malloc(TUN_BURST * (size_t)STRIDE);
    return reader->buffers != NULL;
}

void
tun_reader_close(tun_reader *reader)
{
    tun_uring_close(reader->uring);
    free(reader->buffers);
}

static bool
is_superpacket(const tun_reader *reader, unsigned index)
{
    virtio_header header;
    if (!reader->header || reader->lengths[index] < (int32_t)sizeof(header))
        return false;
    memcpy(&header, reader->buffers + index * (size_t)STRIDE, sizeof(header));
    return header.gso_type != VIRTIO_GSO_NONE;
}

/* A burst that was used up is followed by a longer one; but not a packet that came after a pause, as behind that there
 * is mostly nothing, which a single read finds sooner. */
static void
plan_next_burst(tun_reader *reader)
{
    const bool paused = reader->dry;
    unsigned packets = 0;
    for (unsigned i = 0; i < reader->count; i++)
    {
        if (is_superpacket(reader, i))
        {
            reader->burst = 1;
            return;
        }
        packets += reader->lengths[i] >= 0;
    }
    if (packets < reader->count)
        reader->burst = packets ? packets : 1;
    else if (!reader->no_uring && !paused)
        reader->burst = packets < TUN_BURST / 2 ? packets * 2 : TUN_BURST;
}

static int32_t
read_one(int fd, BYTE *place, size_t size)
{
    for (;;)
    {
        const ssize_t length = read(fd, place, size);
        if (length > 0)
            return (int32_t)length;
        if (length == 0)
            return NOT_TUN;
        if (errno != EINTR)
            return -errno;
    }
}

static bool
read_burst(tun_reader *reader, int fd, uint32_t size)
{
    if (!reader->uring)
        reader->uring = tun_uring_open(TUN_BURST);
    if (!reader->uring ||
        !tun_uring_read(reader->uring, fd, reader->buffers, STRIDE, size, reader->lengths, reader->burst))
        goto refused;
    reader->count = reader->burst;
    for (unsigned i = 0; i < reader->count; i++)
        if (reader->lengths[i] == 0)
            reader->lengths[i] = NOT_TUN;
    /* An old kernel can't read from TUN this way. */
    if (reader->lengths[0] != -EOPNOTSUPP && reader->lengths[0] != -EINVAL)
        return true;
refused:
    tun_uring_close(reader->uring);
    reader->uring = NULL;
    reader->no_uring = true;
    reader->burst = 1;
    return false;
}

/* Passes over reads that found nothing: those behind them may have found what came in between. */
static bool
find_packet(tun_reader *reader)
{
    while (reader->next < reader->count && reader->lengths[reader->next] < 0)
        reader->next++;
    return reader->next < reader->count;
}

int
tun_reader_refill(tun_reader *reader, int fd)
{
    const uint32_t size = reader->header + WINTUN_MAX_IP_PACKET_SIZE;
    reader->next = 0;
    if (reader->burst == 1 || !read_burst(reader, fd, size))
    {
        reader->lengths[0] = read_one(fd, reader->buffers, size);
        reader->count = 1;
    }
    plan_next_burst(reader);
    reader->dry = reader->lengths[reader->count - 1] == -EAGAIN;
    /* A failure behind a packet will be met again. */
    return find_packet(reader) ? 0 : -reader->lengths[0];
}

const BYTE *
tun_reader_next(tun_reader *reader, virtio_header *virtio, uint32_t *length)
{
    if (!find_packet(reader))
        return NULL;
    const unsigned index = reader->next++;
    const BYTE *packet = reader->buffers + index * (size_t)STRIDE;
    uint32_t size = (uint32_t)reader->lengths[index];
    *virtio = (virtio_header){0};
    if (reader->header)
    {
        const uint32_t header = size < reader->header ? size : reader->header;
        memcpy(virtio, packet, header < sizeof(*virtio) ? header : sizeof(*virtio));
        packet += header;
        size -= header;
    }
    *length = size;
    return packet;
}
