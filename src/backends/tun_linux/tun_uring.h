/* SPDX-License-Identifier: MIT
 *
 * Many reads by one system call, where the kernel has io_uring and lets us use it. All reads are over when the call
 * returns, so neither buffers nor the descriptor are in use in between.
 */
#ifndef TUNRING_TUN_URING_H
#define TUNRING_TUN_URING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct tun_uring tun_uring;

/* For up to `max` reads at once. NULL where there is none; the reason is not reported, since read() does as well. */
tun_uring *tun_uring_open(unsigned max);
void tun_uring_close(tun_uring *uring);

/* Reads up to `count` times `size` bytes into buffers that lie `stride` bytes apart, without waiting. Each length is
 * that of read(), or a negative errno. False if the kernel refused: then nothing was read. */
bool tun_uring_read(tun_uring *uring, int fd, unsigned char *buffers, size_t stride, uint32_t size, int32_t *lengths,
                    unsigned count);

#endif
