/* SPDX-License-Identifier: MIT
 *
 * The offloads behind two functions without structures, for Python's ctypes.
 */
#include "backends/tun_linux/offload_coalesce.h"
#include "backends/tun_linux/offload_split.h"

#include <string.h>

/* Packets lie in memory back to back. */
static uint32_t
put(BYTE *place, uint32_t at, const void *bytes, size_t size)
{
    memcpy(place + at, bytes, size);
    return at + (uint32_t)size;
}

/* Returns how many packets were written, with their sizes; -1 if the headers were refused. */
int
flat_split(const BYTE *virtio, const BYTE *packet, uint32_t length, BYTE *result, uint32_t *sizes)
{
    virtio_header header;
    memcpy(&header, virtio, sizeof(header));
    offload_split split;
    if (!offload_split_begin(&split, &header, packet, length))
        return -1;
    int count = 0;
    for (uint32_t size; (size = offload_split_next(&split)) > 0; result += size)
    {
        offload_split_write(&split, result);
        sizes[count++] = size;
    }
    return count;
}

/* Returns how many groups there are: the group of each packet, and for each group its bytes with the virtio header. */
int
flat_coalesce(const BYTE *bytes, const uint32_t *lengths, uint32_t count, unsigned offloads, uint8_t *groups,
              BYTE *result, uint32_t *sizes)
{
    tunring_packet packets[OFFLOAD_RUN];
    for (uint32_t i = 0; i < count; bytes += lengths[i++])
        packets[i] = (tunring_packet){bytes, lengths[i]};
    static offload_run run;
    offload_coalesce(&run, packets, count, offloads);
    offload_frame frame;
    for (uint32_t g = 0; g < run.group_count; g++)
    {
        const offload_group *group = &run.groups[g];
        for (uint32_t i = 0, index = group->first; i < group->count; i++, index = run.next[index])
            groups[index] = (uint8_t)g;
        offload_group_frame(&run, group, &frame);
        uint32_t size = 0;
        for (uint32_t i = 0; i < frame.count; i++)
            size = put(result, size, frame.pieces[i].iov_base, frame.pieces[i].iov_len);
        sizes[g] = size;
        result += size;
    }
    return (int)run.group_count;
}
