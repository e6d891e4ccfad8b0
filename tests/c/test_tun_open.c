/* SPDX-License-Identifier: MIT
 *
 * tun_linux: interfaces that exist already, other processes, users without privileges, and systems that lack something.
 */
/* build: parts=tun_session,tun_device,offloads,common,os,ring */
#include "tun_net.h"

#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#define NOBODY 65534

/* A persistent interface; attached to as long as the descriptor is open. */
static int
make_interface(const char *name, int flags, int owner)
{
    struct ifreq request = request_named(name);
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0);
    request.ifr_flags = (short)(flags | IFF_NO_PI);
    CHECK(ioctl(fd, TUNSETIFF, &request) == 0);
    CHECK(ioctl(fd, TUNSETPERSIST, 1) == 0);
    if (owner)
        CHECK(ioctl(fd, TUNSETOWNER, owner) == 0);
    return fd;
}

static void
remove_interface(const char *name)
{
    char command[64];
    snprintf(command, sizeof(command), "ip link del %s", name);
    CHECK(run(command) == 0);
}

static void
one_packet_each_way(WINTUN_SESSION_HANDLE session)
{
    int in = bound_socket(AF_INET), out = udp_socket(AF_INET);
    kernel_sends(out, AF_INET, "here", 4);
    DWORD size;
    BYTE *packet = next_packet(session, &size);
    CHECK(size == 32 && memcmp(packet + 28, "here", 4) == 0);
    WintunReleaseReceivePacket(session, packet);
    ring_sends(session, AF_INET, "back", 4);
    uint8_t got[4];
    CHECK(recv(in, got, 4, 0) == 4 && memcmp(got, "back", 4) == 0);
    close(in);
    close(out);
}

static void
persistent(void)
{
    close(make_interface("keep0", IFF_TUN, 0));
    configure4("keep0");
    for (int i = 0; i < 3; i++)
    {
        WINTUN_ADAPTER_HANDLE adapter = WintunOpenAdapter(wide("keep0"));
        CHECK(adapter);
        CHECK(!(link_flags("keep0") & IFF_RUNNING));
        WINTUN_SESSION_HANDLE session = WintunStartSession(adapter, WINTUN_MIN_RING_CAPACITY);
        CHECK(session);
        CHECK(link_flags("keep0") & IFF_RUNNING);
        one_packet_each_way(session);
        /* A handle that did not create the interface leaves the session alone. */
        if (i == 1)
        {
            WintunCloseAdapter(adapter);
            one_packet_each_way(session);
        }
        WintunEndSession(session);
        if (i != 1)
            WintunCloseAdapter(adapter);
        CHECK(if_nametoindex("keep0") != 0);
    }
    remove_interface("keep0");
}

static void
refused(void)
{
    CHECK_FAILS(WintunOpenAdapter(wide("unknown")), ERROR_NOT_FOUND);
    CHECK(strstr(last_line, "unknown"));
    CHECK(if_nametoindex("unknown") == 0);
    CHECK_FAILS(WintunOpenAdapter(wide("lo")), ERROR_INVALID_PARAMETER);
    CHECK(strstr(last_line, "not a TUN interface"));
    close(make_interface("tap0", IFF_TAP, 0));
    CHECK_FAILS(WintunOpenAdapter(wide("tap0")), ERROR_INVALID_PARAMETER);
    close(make_interface("tap1", IFF_TAP | IFF_MULTI_QUEUE, 0));
    CHECK_FAILS(WintunOpenAdapter(wide("tap1")), ERROR_INVALID_PARAMETER);
    CHECK(if_nametoindex("tap0") && if_nametoindex("tap1"));
    remove_interface("tap0");
    remove_interface("tap1");

    int fd = make_interface("busy0", IFF_TUN, 0);
    CHECK_FAILS(WintunOpenAdapter(wide("busy0")), ERROR_ALREADY_INITIALIZED);
    CHECK(strstr(last_line, "in use"));
    CHECK_FAILS(WintunCreateAdapter(wide("busy0"), wide("Test"), NULL), ERROR_ALREADY_EXISTS);
    close(fd);
    WINTUN_ADAPTER_HANDLE adapter = WintunOpenAdapter(wide("busy0"));
    CHECK(adapter);
    WintunCloseAdapter(adapter);
    remove_interface("busy0");
}

/* Two handles on what this process created: it goes with its creator, whatever the other one does. */
static void
shared(void)
{
    WINTUN_ADAPTER_HANDLE creator = create("tt0");
    WINTUN_ADAPTER_HANDLE other = WintunOpenAdapter(wide("tt0"));
    CHECK(other);
    configure4("tt0");
    WINTUN_SESSION_HANDLE session = WintunStartSession(other, WINTUN_MIN_RING_CAPACITY);
    CHECK(session);
    one_packet_each_way(session);
    CHECK(run("ip link set tt0 down; ip link set tt0 name tt1; ip link set tt1 up") == 0);
    CHECK_FAILS(WintunOpenAdapter(wide("tt0")), ERROR_NOT_FOUND);
    WINTUN_ADAPTER_HANDLE third = WintunOpenAdapter(wide("tt1"));
    CHECK(third);
    WintunCloseAdapter(third);
    WintunCloseAdapter(creator);
    CHECK(if_nametoindex("tt1") == 0);
    DWORD size;
    CHECK_FAILS(WintunReceivePacket(session, &size), ERROR_HANDLE_EOF);
    CHECK(ready(session));
    WintunEndSession(session);
    CHECK_FAILS(WintunStartSession(other, WINTUN_MIN_RING_CAPACITY), ERROR_NOT_FOUND);
    DWORD index;
    CHECK(TunringBackend.adapter_index(other, &index) == ERROR_SUCCESS && index == 0);

    /* The name is free again, and the stale handle has nothing to do with the new interface. */
    creator = create("tt1");
    WintunCloseAdapter(other);
    CHECK(if_nametoindex("tt1") != 0);
    WintunCloseAdapter(creator);
}

/* A name means what it means in the caller's namespace. */
static void
namespaces(void)
{
    int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    struct stat first;
    CHECK(home >= 0 && fstat(home, &first) == 0);
    WINTUN_ADAPTER_HANDLE adapter = create("tt0");
    int space = TunringBackend.adapter_namespace(adapter);
    struct stat seen;
    CHECK(space >= 0 && fstat(space, &seen) == 0 && seen.st_ino == first.st_ino);
    close(space);

    CHECK(unshare(CLONE_NEWNET) == 0);
    CHECK_FAILS(WintunOpenAdapter(wide("tt0")), ERROR_NOT_FOUND);
    WINTUN_ADAPTER_HANDLE twin = create("tt0");
    CHECK(setns(home, CLONE_NEWNET) == 0);
    space = TunringBackend.adapter_namespace(twin);
    CHECK(space >= 0 && fstat(space, &seen) == 0 && seen.st_ino != first.st_ino);

    /* Moved where its index is taken, it gets another one. */
    char command[128];
    snprintf(command, sizeof(command), "ip link set tt0 name moved && ip link set moved netns /proc/%d/fd/%d",
             (int)getpid(), space);
    CHECK(run(command) == 0);
    CHECK(if_nametoindex("moved") == 0);
    CHECK(setns(space, CLONE_NEWNET) == 0);
    const DWORD64 index = if_nametoindex("moved");
    CHECK(index != 0 && index != if_nametoindex("tt0"));
    configure4("moved");
    CHECK(setns(home, CLONE_NEWNET) == 0);
    NET_LUID luid;
    WintunGetAdapterLUID(adapter, &luid);
    CHECK(luid.Value == ((DWORD64)53 << 48 | index << 24));

    CHECK(setns(space, CLONE_NEWNET) == 0);
    WINTUN_SESSION_HANDLE session = WintunStartSession(adapter, WINTUN_MIN_RING_CAPACITY);
    CHECK(session);
    one_packet_each_way(session);
    WintunEndSession(session);
    WintunCloseAdapter(twin);
    WintunCloseAdapter(adapter);
    CHECK(if_nametoindex("moved") == 0 && if_nametoindex("tt0") == 0);
    CHECK(setns(home, CLONE_NEWNET) == 0);
    close(space);
    close(home);
}

/* Runs it in a child, which has its own user, limits and mounts. */
static void
in_child(void (*test)(void))
{
    fflush(NULL);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0)
    {
        test();
        exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void
become_nobody(void)
{
    CHECK(setresgid(NOBODY, NOBODY, NOBODY) == 0);
    CHECK(setresuid(NOBODY, NOBODY, NOBODY) == 0);
}

static void
private_mounts(void)
{
    CHECK(unshare(CLONE_NEWNS) == 0);
    CHECK(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
    CHECK(mount("none", "/dev/net", "tmpfs", 0, NULL) == 0);
}

static void
without_device(void)
{
    private_mounts();
    CHECK_FAILS(WintunCreateAdapter(wide("tt0"), wide("Test"), NULL), ERROR_FILE_NOT_FOUND);
    CHECK(strstr(last_line, "/dev/net/tun"));
    CHECK_FAILS(WintunGetRunningDriverVersion(), ERROR_FILE_NOT_FOUND);
    CHECK(umount("/dev/net") == 0);
}

static void
without_permission(void)
{
    private_mounts();
    CHECK(mknod("/dev/net/tun", S_IFCHR | 0600, makedev(10, 200)) == 0 && chmod("/dev/net/tun", 0600) == 0);
    become_nobody();
    CHECK_FAILS(WintunCreateAdapter(wide("tt0"), wide("Test"), NULL), ERROR_ACCESS_DENIED);
    CHECK(strstr(last_line, "/dev/net/tun"));
    CHECK_FAILS(WintunGetRunningDriverVersion(), ERROR_ACCESS_DENIED);
    /* A taken name is found all the same. */
    CHECK_FAILS(WintunCreateAdapter(wide("lo"), wide("Test"), NULL), ERROR_ALREADY_EXISTS);
}

static void
without_capability(void)
{
    close(make_interface("mine0", IFF_TUN, NOBODY));
    close(make_interface("root0", IFF_TUN, 1));
    configure4("mine0");
    private_mounts();
    CHECK(mknod("/dev/net/tun", S_IFCHR | 0666, makedev(10, 200)) == 0 && chmod("/dev/net/tun", 0666) == 0);
    become_nobody();
    CHECK_FAILS(WintunCreateAdapter(wide("tt0"), wide("Test"), NULL), ERROR_ACCESS_DENIED);
    CHECK(strstr(last_line, "CAP_NET_ADMIN"));
    CHECK_FAILS(WintunOpenAdapter(wide("root0")), ERROR_ACCESS_DENIED);
    CHECK(strstr(last_line, "owner"));
    CHECK_FAILS(WintunOpenAdapter(wide("unknown")), ERROR_NOT_FOUND);

    WINTUN_ADAPTER_HANDLE adapter = WintunOpenAdapter(wide("mine0"));
    CHECK(adapter);
    WINTUN_SESSION_HANDLE session = WintunStartSession(adapter, WINTUN_MIN_RING_CAPACITY);
    CHECK(session);
    CHECK(link_flags("mine0") & IFF_RUNNING);
    one_packet_each_way(session);
    DWORD index;
    CHECK(TunringBackend.adapter_index(adapter, &index) == ERROR_SUCCESS && index == if_nametoindex("mine0"));
    NET_LUID luid;
    WintunGetAdapterLUID(adapter, &luid);
    CHECK(luid.Value == ((DWORD64)53 << 48 | (DWORD64)index << 24));
    int space = TunringBackend.adapter_namespace(adapter);
    CHECK(space >= 0);
    close(space);
    WintunEndSession(session);
    WintunCloseAdapter(adapter);
    CHECK(if_nametoindex("mine0") != 0);
}

/* A failure leaves no descriptor behind, however few are left. */
static void
without_descriptors(void)
{
    int first_free = dup(0);
    close(first_free);
    WINTUN_ADAPTER_HANDLE adapter = NULL;
    for (rlim_t spare = 0; !adapter; spare++)
    {
        struct rlimit limit = {.rlim_cur = (rlim_t)first_free + spare, .rlim_max = 1024};
        CHECK(spare < 10);
        CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
        SetLastError(0);
        adapter = WintunCreateAdapter(wide("tt0"), wide("Test"), NULL);
        CHECK(adapter || GetLastError() == ERROR_TOO_MANY_OPEN_FILES);
        CHECK(adapter || strstr(last_line, "too many open files"));
        CHECK(adapter || if_nametoindex("tt0") == 0 || spare == 0);
        int next = dup(0);
        CHECK(adapter || next == (spare == 0 ? -1 : first_free));
        close(next);
    }
    CHECK_FAILS(WintunStartSession(adapter, WINTUN_MIN_RING_CAPACITY), ERROR_TOO_MANY_OPEN_FILES);
    struct rlimit limit = {.rlim_cur = 1024, .rlim_max = 1024};
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    WINTUN_SESSION_HANDLE session = WintunStartSession(adapter, WINTUN_MIN_RING_CAPACITY);
    CHECK(session);
    WintunEndSession(session);
    WintunCloseAdapter(adapter);
    int next = dup(0);
    CHECK(next == first_free);
    close(next);
}

/* The handles of a parent do nothing in its child, whose own ones work; the parent's interface goes with the parent's
 * close while the child lives. */
static void
forked(void)
{
    WINTUN_ADAPTER_HANDLE adapter = create("tt0");
    configure4("tt0");
    WINTUN_SESSION_HANDLE session = WintunStartSession(adapter, WINTUN_MIN_RING_CAPACITY);
    CHECK(session);
    int out = udp_socket(AF_INET);
    kernel_sends(out, AF_INET, "kept", 4);
    DWORD size;
    BYTE *packet = next_packet(session, &size);
    BYTE *slot = WintunAllocateSendPacket(session, 100);
    int pipes[2];
    CHECK(slot && pipe(pipes) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    char byte = 0;
    if (child == 0)
    {
        CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
        CHECK(memcmp(packet + 28, "kept", 4) == 0);
        CHECK_FAILS(WintunReceivePacket(session, &size), ERROR_HANDLE_EOF);
        CHECK_FAILS(WintunAllocateSendPacket(session, 100), ERROR_HANDLE_EOF);
        CHECK_FAILS(WintunStartSession(adapter, WINTUN_MIN_RING_CAPACITY), ERROR_HANDLE_EOF);
        CHECK(WintunGetReadWaitEvent(session) == (HANDLE)(intptr_t)-1);
        WintunReleaseReceivePacket(session, packet);
        WintunSendPacket(session, slot);
        CHECK(TunringBackend.detach(session) == TRUE);
        DWORD index;
        CHECK(TunringBackend.adapter_index(adapter, &index) == ERROR_HANDLE_EOF);
        char name[IFNAMSIZ];
        CHECK(TunringBackend.adapter_name(adapter, name, sizeof(name)) == ERROR_HANDLE_EOF);
        WintunEndSession(session);
        WintunCloseAdapter(adapter);
        CHECK(WintunDeleteDriver());
        CHECK_FAILS(WintunOpenAdapter(wide("tt0")), ERROR_ALREADY_INITIALIZED);
        WINTUN_ADAPTER_HANDLE own = create("tt1");
        WINTUN_SESSION_HANDLE own_session = WintunStartSession(own, WINTUN_MIN_RING_CAPACITY);
        CHECK(own_session);
        WintunEndSession(own_session);
        WintunCloseAdapter(own);
        CHECK(write(pipes[1], &byte, 1) == 1);
        /* Until the parent has seen what it has to. */
        pause();
        _exit(0);
    }
    close(pipes[1]);
    CHECK(read(pipes[0], &byte, 1) == 1);
    CHECK(link_flags("tt0") & IFF_RUNNING);
    memset(slot, 0, 100);
    WintunSendPacket(session, slot);
    one_packet_each_way(session);
    WintunReleaseReceivePacket(session, packet);
    WintunEndSession(session);
    WintunCloseAdapter(adapter);
    CHECK(if_nametoindex("tt0") == 0);
    int status;
    CHECK(waitpid(child, &status, WNOHANG) == 0);
    CHECK(kill(child, SIGKILL) == 0 && waitpid(child, &status, 0) == child);
    close(pipes[0]);
    close(out);
}

int
main(void)
{
    enter_namespace();
    persistent();
    refused();
    shared();
    namespaces();
    in_child(without_device);
    in_child(without_permission);
    in_child(without_capability);
    remove_interface("mine0");
    remove_interface("root0");
    in_child(without_descriptors);
    forked();
    return 0;
}
