/* SPDX-License-Identifier: MIT
 *
 * Every allocation of the loopback library fails once: the call returns ERROR_NOT_ENOUGH_MEMORY, nothing is left
 * behind, and the same call then works.
 */
/* build: parts=os,loopback,common,ring flags=-Wl,--wrap=calloc,--wrap=free,--wrap=mmap,--wrap=munmap */
#include "check.h"
#include "backends/common/exports.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>

static const WCHAR name[] = {'A', 0};
static const WCHAR peer_name[] = {'B', 0};
static const WCHAR type[] = {'T', 0};
static const GUID guid = {1, 2, 3, {4}};

static unsigned fail_at; /* this one from now on fails; 0: none */
static unsigned failed;
static int live; /* allocations and mappings that are not freed */

void *__real_calloc(size_t count, size_t size);
void __real_free(void *memory);
void *__real_mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset);
int __real_munmap(void *address, size_t size);
void *__wrap_calloc(size_t count, size_t size);
void __wrap_free(void *memory);
void *__wrap_mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset);
int __wrap_munmap(void *address, size_t size);

static int
fails(void)
{
    if (fail_at > 0 && --fail_at == 0)
    {
        failed++;
        return 1;
    }
    return 0;
}

void *
__wrap_calloc(size_t count, size_t size)
{
    if (fails())
        return NULL;
    live++;
    return __real_calloc(count, size);
}

void
__wrap_free(void *memory)
{
    live -= memory != NULL;
    __real_free(memory);
}

void *
__wrap_mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset)
{
    if (fails())
        return MAP_FAILED;
    live++;
    return __real_mmap(address, size, protection, flags, fd, offset);
}

int
__wrap_munmap(void *address, size_t size)
{
    live--;
    return __real_munmap(address, size);
}

/* Runs the call with its first, second, ... allocation failing, until none does. Returns how many there were. */
static unsigned
each_fails(int (*call)(void))
{
    int before = live;
    unsigned n = 0;
    for (;;)
    {
        fail_at = ++n;
        failed = 0;
        SetLastError(0);
        if (call())
        {
            CHECK(failed == 0);
            fail_at = 0;
            return n - 1;
        }
        CHECK_EQUAL(failed, 1);
        CHECK_EQUAL(GetLastError(), ERROR_NOT_ENOUGH_MEMORY);
        CHECK_EQUAL(live, before);
    }
}

static WINTUN_ADAPTER_HANDLE adapter, peer, opened;
static WINTUN_SESSION_HANDLE session;

static int
create(void)
{
    return (adapter = WintunCreateAdapter(name, type, &guid)) != NULL;
}

static int
create_peer(void)
{
    return (peer = WintunCreateAdapter(peer_name, type, &guid)) != NULL;
}

static int
open(void)
{
    return (opened = WintunOpenAdapter(name)) != NULL;
}

static int
start(void)
{
    return (session = WintunStartSession(adapter, WINTUN_MIN_RING_CAPACITY)) != NULL;
}

static int
attach(void)
{
    DWORD code = TunringBackend.simulator->attach(peer);
    SetLastError(code);
    return code == ERROR_SUCCESS;
}

int
main(void)
{
    CHECK_EQUAL(each_fails(create), 4);
    CHECK_EQUAL(each_fails(create_peer), 2);
    CHECK_EQUAL(each_fails(open), 1);
    CHECK_EQUAL(each_fails(start), 2);
    CHECK_EQUAL(each_fails(attach), 2);
    WintunEndSession(session);
    WintunCloseAdapter(opened);
    WintunCloseAdapter(peer);
    WintunCloseAdapter(adapter);
    CHECK_EQUAL(live, 0);
    CHECK(WintunDeleteDriver());
    return 0;
}
