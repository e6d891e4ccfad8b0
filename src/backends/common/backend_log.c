/* SPDX-License-Identifier: MIT
 *
 * Log lines of a back end.
 */
#include "backends/common/backend_log.h"

#include "platform/utf16.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define LINE_UNITS 1024

/* 100 ns units from 1601-01-01 to 1970-01-01. */
#define UNIX_EPOCH 116444736000000000ull

static _Atomic(WINTUN_LOGGER_CALLBACK) logger;

void
backend_log_set(WINTUN_LOGGER_CALLBACK callback)
{
    atomic_store(&logger, callback);
}

static DWORD64
timestamp(void)
{
    struct timespec now;
    timespec_get(&now, TIME_UTC);
    return UNIX_EPOCH + (DWORD64)now.tv_sec * 10000000 + (DWORD64)now.tv_nsec / 100;
}

/* Under the last error that the caller is about to return, which the callback must not change. */
static void
write_line(WINTUN_LOGGER_LEVEL level, const char *text)
{
    WINTUN_LOGGER_CALLBACK callback = atomic_load(&logger);
    DWORD last_error = GetLastError();
    WCHAR line[LINE_UNITS];
    if (callback)
    {
        utf16_from_utf8(line, LINE_UNITS, text);
        callback(level, timestamp(), line);
    }
    SetLastError(last_error);
}

void
backend_log(WINTUN_LOGGER_LEVEL level, const char *format, ...)
{
    DWORD last_error = GetLastError();
    va_list arguments;
    va_start(arguments, format);
    char text[LINE_UNITS];
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    SetLastError(last_error);
    write_line(level, text);
}

void
backend_log_error(DWORD code, const char *format, ...)
{
    DWORD last_error = GetLastError();
    char text[LINE_UNITS];
    const size_t room = sizeof(text) - sizeof(": Code 0x00000000") + 1;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, room, format, arguments);
    va_end(arguments);
    snprintf(text + strlen(text), sizeof(text) - strlen(text), ": Code 0x%08X", (unsigned)code);
    SetLastError(last_error);
    write_line(WINTUN_LOG_ERR, text);
}
