/* SPDX-License-Identifier: MIT
 *
 * The few Windows types and error codes that the Wintun ABI uses, for systems that have no windows.h.
 *
 * Last error: `errno` is the last-error slot. A library that exports the ABI here stores a Win32 code in it before it
 * returns a failure and leaves it alone on success; the caller reads it directly after the failed call.
 *
 * HANDLE: an event is a file descriptor that poll() reports readable while the event is set, carried in a pointer.
 *
 * Strings: UTF-16 in native byte order, ended by a zero unit, as on Windows.
 */
#ifndef WINTUN_POSIX_H
#define WINTUN_POSIX_H

#include <errno.h>
#include <stdint.h>

typedef int BOOL;
typedef uint8_t BYTE;
typedef uint32_t DWORD;
typedef uint64_t DWORD64;
typedef uint16_t WCHAR;
typedef const WCHAR *LPCWSTR;
typedef void *HANDLE;

typedef struct _GUID
{
    uint32_t Data1;
    uint16_t Data2;
    uint16_t Data3;
    uint8_t Data4[8];
} GUID;

/* Bits 0-23 reserved, 24-47 index of the interface, 48-63 its IANA type. */
typedef union _NET_LUID
{
    uint64_t Value;
} NET_LUID;

#define WINAPI
#define CALLBACK
#define FALSE 0
#define TRUE 1

#define ERROR_SUCCESS 0L
#define ERROR_FILE_NOT_FOUND 2L
#define ERROR_TOO_MANY_OPEN_FILES 4L
#define ERROR_ACCESS_DENIED 5L
#define ERROR_INVALID_HANDLE 6L
#define ERROR_NOT_ENOUGH_MEMORY 8L
#define ERROR_INVALID_DATA 13L
#define ERROR_GEN_FAILURE 31L
#define ERROR_HANDLE_EOF 38L
#define ERROR_NOT_SUPPORTED 50L
#define ERROR_INVALID_PARAMETER 87L
#define ERROR_BUFFER_OVERFLOW 111L
#define ERROR_MOD_NOT_FOUND 126L
#define ERROR_PROC_NOT_FOUND 127L
#define ERROR_BUSY 170L
#define ERROR_ALREADY_EXISTS 183L
#define ERROR_BAD_EXE_FORMAT 193L
#define WAIT_TIMEOUT 258L
#define ERROR_NO_MORE_ITEMS 259L
#define ERROR_ARITHMETIC_OVERFLOW 534L
#define ERROR_OPERATION_ABORTED 995L
#define ERROR_CANCELLED 1223L
#define ERROR_NOT_FOUND 1168L
#define ERROR_ALREADY_INITIALIZED 1247L

static inline DWORD
GetLastError(void)
{
    return (DWORD)errno;
}

static inline void
SetLastError(DWORD Code)
{
    errno = (int)Code;
}

#endif
