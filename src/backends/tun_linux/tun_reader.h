/* SPDX-License-Identifier: MIT
 *
 * Reads from the descriptor, and keeps what waits to be split. One read() brings one packet; where packets keep coming
 * singly, one system call brings a burst. A superpacket is many packets already, and goes through one buffer, which
 * stays in the cache.
 */
#ifndef TUNRING_TUN_READER_H
#define TUNRING_TUN_READER_H

#include "backends/tun_linux/offload_virtio.h"
#include "backends/tun_linux/tun_uring.h"

#include <stdbool.h>

#define TUN_BURST 16u

typedef struct tun_reader
{
    uint32_t header;  /* bytes before each packet: 0, or a virtio header and its padding */
    tun_uring *uring; /* NULL until a burst is wanted */
    bool no_uring;    /* it can't be had here */
    BYTE *buffers;
    bool dry;                   /* the last burst found the kernel's queue empty at its end */
    unsigned burst;             /* how many the next refill asks for */
    unsigned count, next;       /* what was read, and what of it is not taken yet */
    int32_t lengths[TUN_BURST]; /* negative: an errno */
} tun_reader;

/* False when out of memory. */
bool tun_reader_open(tun_reader *reader, uint32_t header);
void tun_reader_close(tun_reader *reader);

/* The next packet, valid until the one after it is asked for; NULL if none waits. Without virtio headers *virtio is
 * zeros: the packet is complete. */
const BYTE *tun_reader_next(tun_reader *reader, virtio_header *virtio, uint32_t *length);
/* Reads when none waits: 0, or the errno if no packet came. */
int tun_reader_refill(tun_reader *reader, int fd);

#endif
