/* SPDX-License-Identifier: MIT
 *
 * Libraries as a wheel has them, loaded by the core: `load_libraries LOOPBACK TUN_LINUX`, as root in a network
 * namespace of its own; on Windows `load_libraries LOOPBACK WINTUN`.
 */
#include "core_api.h"

#ifdef _WIN32
typedef WCHAR path_unit;
#define main wmain
#else
typedef char path_unit;
#endif

static void
load(tunring_api *api, const path_unit *path)
{
    char detail[512] = "";
    const DWORD code = tunring_api_load(api, path, detail, sizeof(detail));
    if (code)
        fprintf(stderr, "%s\n", detail);
    CHECK_EQUAL(code, ERROR_SUCCESS);
}

static void
test_loopback(const path_unit *path)
{
    tunring_api api;
    load(&api, path);
    CHECK(api.backend);
    ends pair;
    open_ends(&api, &pair, 0x20000);
    BYTE bytes[20];
    make_packet(bytes, sizeof(bytes), 7);
    const tunring_packet packet = {bytes, sizeof(bytes)};
    uint32_t sent = 0;
    CHECK_EQUAL(tunring_send(pair.sessions[0], &packet, 1, &POLL, &sent), ERROR_SUCCESS);
    CHECK_EQUAL(sent, 1);
    tunring_lease *lease = NULL;
    CHECK_EQUAL(tunring_receive(tunring_session_source(pair.sessions[1]), 8, &FOREVER, &lease), ERROR_SUCCESS);
    tunring_lease_release(lease);
    tunring_lease_free(lease);
    close_ends(&pair);
}

#ifdef _WIN32
/* Its adapters want a driver. */
static void
test_other(const path_unit *path)
{
    tunring_api api;
    load(&api, path);
    CHECK(!api.backend);
}
#else
static void
test_other(const path_unit *path)
{
    static const WCHAR names[2][3] = {{'m', '0', 0}, {'m', '1', 0}};
    tunring_api api;
    load(&api, path);
    CHECK(api.backend);
    DWORD version = 0;
    CHECK_EQUAL(tunring_api_driver_version(&api, &version), ERROR_SUCCESS);
    CHECK(version >> 16 >= 3);
    tunring_adapter *adapter = NULL;
    CHECK_EQUAL(tunring_adapter_create(&api, names[0], names[1], NULL, NULL, &adapter), ERROR_SUCCESS);
    tunring_session *session = NULL;
    CHECK_EQUAL(tunring_session_start(adapter, 0x20000, NULL, &session), ERROR_SUCCESS);
    char name[16] = "";
    CHECK_EQUAL(tunring_adapter_name(adapter, name, sizeof(name)), ERROR_SUCCESS);
    CHECK(strcmp(name, "m0") == 0);
    tunring_source_close(tunring_session_source(session));
    tunring_source_drop(tunring_session_source(session));
    tunring_adapter_close(adapter);
    tunring_adapter_drop(adapter);
}
#endif

int
main(int count, path_unit **arguments)
{
    CHECK_EQUAL(count, 3);
    test_loopback(arguments[1]);
    test_other(arguments[2]);
    puts("loaded");
    return 0;
}
