/* SPDX-License-Identifier: MIT
 *
 * Compares our wintun.h with the official one: compiled with OFFICIAL_WINTUN_H naming that, it compiles if and
 * only if all function types, handles and constants are the same. Both have the same names, so the official ones are
 * renamed while that one is read.
 */
#define WINTUN_CREATE_ADAPTER_FUNC OFFICIAL_WintunCreateAdapter
#define WINTUN_OPEN_ADAPTER_FUNC OFFICIAL_WintunOpenAdapter
#define WINTUN_CLOSE_ADAPTER_FUNC OFFICIAL_WintunCloseAdapter
#define WINTUN_DELETE_DRIVER_FUNC OFFICIAL_WintunDeleteDriver
#define WINTUN_GET_ADAPTER_LUID_FUNC OFFICIAL_WintunGetAdapterLUID
#define WINTUN_GET_RUNNING_DRIVER_VERSION_FUNC OFFICIAL_WintunGetRunningDriverVersion
#define WINTUN_SET_LOGGER_FUNC OFFICIAL_WintunSetLogger
#define WINTUN_START_SESSION_FUNC OFFICIAL_WintunStartSession
#define WINTUN_END_SESSION_FUNC OFFICIAL_WintunEndSession
#define WINTUN_GET_READ_WAIT_EVENT_FUNC OFFICIAL_WintunGetReadWaitEvent
#define WINTUN_RECEIVE_PACKET_FUNC OFFICIAL_WintunReceivePacket
#define WINTUN_RELEASE_RECEIVE_PACKET_FUNC OFFICIAL_WintunReleaseReceivePacket
#define WINTUN_ALLOCATE_SEND_PACKET_FUNC OFFICIAL_WintunAllocateSendPacket
#define WINTUN_SEND_PACKET_FUNC OFFICIAL_WintunSendPacket
#define WINTUN_ADAPTER_HANDLE OFFICIAL_ADAPTER_HANDLE
#define WINTUN_SESSION_HANDLE OFFICIAL_SESSION_HANDLE
#define WINTUN_LOGGER_CALLBACK OFFICIAL_LOGGER_CALLBACK
#define WINTUN_LOGGER_LEVEL OFFICIAL_LOGGER_LEVEL
#define WINTUN_LOG_INFO OFFICIAL_LOG_INFO
#define WINTUN_LOG_WARN OFFICIAL_LOG_WARN
#define WINTUN_LOG_ERR OFFICIAL_LOG_ERR

#include OFFICIAL_WINTUN_H

/* Constants are macros there too: kept before ours replace them. */
enum
{
    OFFICIAL_MIN_RING_CAPACITY = WINTUN_MIN_RING_CAPACITY,
    OFFICIAL_MAX_RING_CAPACITY = WINTUN_MAX_RING_CAPACITY,
    OFFICIAL_MAX_IP_PACKET_SIZE = WINTUN_MAX_IP_PACKET_SIZE
};

#undef WINTUN_CREATE_ADAPTER_FUNC
#undef WINTUN_OPEN_ADAPTER_FUNC
#undef WINTUN_CLOSE_ADAPTER_FUNC
#undef WINTUN_DELETE_DRIVER_FUNC
#undef WINTUN_GET_ADAPTER_LUID_FUNC
#undef WINTUN_GET_RUNNING_DRIVER_VERSION_FUNC
#undef WINTUN_SET_LOGGER_FUNC
#undef WINTUN_START_SESSION_FUNC
#undef WINTUN_END_SESSION_FUNC
#undef WINTUN_GET_READ_WAIT_EVENT_FUNC
#undef WINTUN_RECEIVE_PACKET_FUNC
#undef WINTUN_RELEASE_RECEIVE_PACKET_FUNC
#undef WINTUN_ALLOCATE_SEND_PACKET_FUNC
#undef WINTUN_SEND_PACKET_FUNC
#undef WINTUN_ADAPTER_HANDLE
#undef WINTUN_SESSION_HANDLE
#undef WINTUN_LOGGER_CALLBACK
#undef WINTUN_LOGGER_LEVEL
#undef WINTUN_LOG_INFO
#undef WINTUN_LOG_WARN
#undef WINTUN_LOG_ERR
#undef WINTUN_MIN_RING_CAPACITY
#undef WINTUN_MAX_RING_CAPACITY
#undef WINTUN_MAX_IP_PACKET_SIZE

#include "wintun.h"

#define IS(expression, type) _Generic((expression), type: 1, default: 0)
#define CHECK(condition) _Static_assert(condition, #condition);

CHECK(IS((WINTUN_ADAPTER_HANDLE)0, OFFICIAL_ADAPTER_HANDLE))
CHECK(IS((WINTUN_SESSION_HANDLE)0, OFFICIAL_SESSION_HANDLE))
CHECK(!IS((WINTUN_ADAPTER_HANDLE)0, OFFICIAL_SESSION_HANDLE))

CHECK(WINTUN_MIN_RING_CAPACITY == OFFICIAL_MIN_RING_CAPACITY)
CHECK(WINTUN_MAX_RING_CAPACITY == OFFICIAL_MAX_RING_CAPACITY)
CHECK(WINTUN_MAX_IP_PACKET_SIZE == OFFICIAL_MAX_IP_PACKET_SIZE)
CHECK((int)WINTUN_LOG_INFO == (int)OFFICIAL_LOG_INFO)
CHECK((int)WINTUN_LOG_WARN == (int)OFFICIAL_LOG_WARN)
CHECK((int)WINTUN_LOG_ERR == (int)OFFICIAL_LOG_ERR)

/* Two enumerations are never the same type, but both are compatible with one integer type, and so are the callbacks
 * that take them: each is compared with the other's words for the rest. */
CHECK(IS((WINTUN_LOGGER_LEVEL)0, unsigned int) && IS((OFFICIAL_LOGGER_LEVEL)0, unsigned int))
CHECK(sizeof(WINTUN_LOGGER_LEVEL) == sizeof(OFFICIAL_LOGGER_LEVEL))
typedef void(CALLBACK *callback)(unsigned int, DWORD64, LPCWSTR);
CHECK(IS((WINTUN_LOGGER_CALLBACK)0, callback) && IS((OFFICIAL_LOGGER_CALLBACK)0, callback))
typedef void(WINAPI set_logger)(callback);
CHECK(IS((WINTUN_SET_LOGGER_FUNC *)0, set_logger *) && IS((OFFICIAL_WintunSetLogger *)0, set_logger *))

/* Every other function, by pointers: they are compatible only if result, parameters and convention are. */
#define COMPARE(name, type) \
    _Static_assert(IS((type *)0, OFFICIAL_##name *) || IS((type *)0, set_logger *), #name " differs");
WINTUN_FUNCTIONS(COMPARE)

#define COUNT(name, type) +1
CHECK(0 WINTUN_FUNCTIONS(COUNT) == 14)
