/* SPDX-License-Identifier: MIT
 *
 * tun_uring.h by the kernel's own interface: two system calls, and two rings that are mapped together. The part
 * of their layout that is used is declared here, for systems whose headers are older than their kernel.
 */
#include "backends/tun_linux/tun_uring.h"

#include "platform/os.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The numbers of both calls, the same on every architecture but Alpha. */
#define CALL_SETUP 425
#define CALL_ENTER 426

#define FEATURE_SINGLE_MMAP 1u
#define ENTER_GET_EVENTS 1u
#define OPERATION_READ 22
#define READ_WITHOUT_WAITING 8 /* RWF_NOWAIT */
#define OFFSET_RINGS 0
#define OFFSET_ENTRIES 0x10000000

typedef struct submission
{
    uint8_t operation;
    uint8_t flags;
    uint16_t priority;
    int32_t fd;
    uint64_t offset;
    uint64_t address;
    uint32_t length;
    uint32_t read_flags;
    uint64_t user_data;
    uint64_t unused[3];
} submission;

typedef struct completion
{
    uint64_t user_data;
    int32_t result;
    uint32_t flags;
} completion;

typedef struct parameters
{
    uint32_t submissions, completions, flags, cpu, idle, features, workqueue, reserved[3];
    struct
    {
        uint32_t head, tail, mask, entries, flags, dropped, array, reserved;
        uint64_t address;
    } submit;
    struct
    {
        uint32_t head, tail, mask, entries, overflow, completions, flags, reserved;
        uint64_t address;
    } complete;
} parameters;

WINTUN_ASSERT(sizeof(submission) == 64 && sizeof(completion) == 16 && sizeof(parameters) == 120, "the kernel's layout");

struct tun_uring
{
    int fd;
    BYTE *rings;
    size_t rings_size;
    submission *entries;
    size_t entries_size;
    _Atomic uint32_t *submit_tail;
    uint32_t submit_mask;
    _Atomic uint32_t *complete_head, *complete_tail;
    const completion *completions;
    uint32_t complete_mask;
};

static void *
map_shared(int fd, size_t size, off_t offset)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, offset);
    return memory == MAP_FAILED ? NULL : memory;
}

static bool
map_rings(tun_uring *uring, const parameters *made)
{
    const size_t submit_end = made->submit.array + made->submissions * sizeof(uint32_t);
    const size_t complete_end = made->complete.completions + made->completions * sizeof(completion);
    uring->rings_size = submit_end > complete_end ? submit_end : complete_end;
    uring->entries_size = made->submissions * sizeof(submission);
    uring->rings = map_shared(uring->fd, uring->rings_size, OFFSET_RINGS);
    uring->entries = map_shared(uring->fd, uring->entries_size, OFFSET_ENTRIES);
    if (!uring->rings || !uring->entries)
        return false;
    BYTE *rings = uring->rings;
    uring->submit_tail = (_Atomic uint32_t *)(rings + made->submit.tail);
    uring->submit_mask = made->submissions - 1;
    uring->complete_head = (_Atomic uint32_t *)(rings + made->complete.head);
    uring->complete_tail = (_Atomic uint32_t *)(rings + made->complete.tail);
    uring->completions = (const completion *)(rings + made->complete.completions);
    uring->complete_mask = made->completions - 1;
    uint32_t *array = (uint32_t *)(rings + made->submit.array);
    for (uint32_t i = 0; i < made->submissions; i++)
        array[i] = i;
    return true;
}

tun_uring *
tun_uring_open(unsigned max)
{
    tun_uring *uring = calloc(1, sizeof(*uring));
    if (!uring)
        return NULL;
    parameters made = {0};
    uring->fd = OS_FD((int)syscall(CALL_SETUP, max, &made));
    if (uring->fd >= 0 && made.features & FEATURE_SINGLE_MMAP && map_rings(uring, &made))
        return uring;
    tun_uring_close(uring);
    return NULL;
}

void
tun_uring_close(tun_uring *uring)
{
    if (!uring)
        return;
    if (uring->entries)
        munmap(uring->entries, uring->entries_size);
    if (uring->rings)
        munmap(uring->rings, uring->rings_size);
    if (uring->fd >= 0)
        os_fd_close(uring->fd);
    free(uring);
}

static bool
submit(tun_uring *uring, unsigned count)
{
    unsigned left = count;
    for (;;)
    {
        const long done = syscall(CALL_ENTER, uring->fd, left, count, ENTER_GET_EVENTS, NULL, (size_t)0);
        if (done >= 0)
            left -= (unsigned)done < left ? (unsigned)done : left;
        else if (errno != EINTR)
            return false;
        const uint32_t ready = atomic_load_explicit(uring->complete_tail, memory_order_acquire) -
                               atomic_load_explicit(uring->complete_head, memory_order_relaxed);
        if (ready >= count)
            return true;
    }
}

bool
tun_uring_read(tun_uring *uring, int fd, unsigned char *buffers, size_t stride, uint32_t size, int32_t *lengths,
               unsigned count)
{
    const uint32_t tail = atomic_load_explicit(uring->submit_tail, memory_order_relaxed);
    for (unsigned i = 0; i < count; i++)
        uring->entries[(tail + i) & uring->submit_mask] = (submission){
            .operation = OPERATION_READ,
            .fd = fd,
            .address = (uintptr_t)(buffers + i * stride),
            .length = size,
            .read_flags = READ_WITHOUT_WAITING,
            .user_data = i,
        };
    atomic_store_explicit(uring->submit_tail, tail + count, memory_order_release);
    if (!submit(uring, count))
        return false;
    uint32_t head = atomic_load_explicit(uring->complete_head, memory_order_relaxed);
    for (unsigned i = 0; i < count; i++, head++)
    {
        const completion *done = &uring->completions[head & uring->complete_mask];
        lengths[done->user_data] = done->result;
    }
    atomic_store_explicit(uring->complete_head, head, memory_order_release);
    return true;
}
