/* SPDX-License-Identifier: MIT
 *
 * file.h for Windows. There is no way to ask a pipe for room, so a write to one waits for its reader.
 */
#include "platform/file.h"

/* A pipe may refuse more at once. */
#define MOST 0x100000u

DWORD
file_open(file *self, HANDLE original)
{
    HANDLE process = GetCurrentProcess();
    if (!DuplicateHandle(process, original, process, &self->handle, 0, FALSE, DUPLICATE_SAME_ACCESS))
        return GetLastError();
    self->regular = GetFileType(self->handle) == FILE_TYPE_DISK;
    self->socket = false;
    return ERROR_SUCCESS;
}

void
file_close(file *self)
{
    CloseHandle(self->handle);
}

int
file_write(file *self, const BYTE *data, size_t size, size_t *written)
{
    *written = 0;
    while (*written < size)
    {
        size_t left = size - *written;
        DWORD some = 0;
        if (!WriteFile(self->handle, data + *written, left < MOST ? (DWORD)left : MOST, &some, NULL))
            return (int)GetLastError();
        *written += some;
    }
    return 0;
}

void
file_cut(file *self, size_t size)
{
    LARGE_INTEGER back = {.QuadPart = -(LONGLONG)size};
    LARGE_INTEGER end;
    LARGE_INTEGER now;
    LARGE_INTEGER none = {.QuadPart = 0};
    if (!self->regular || !GetFileSizeEx(self->handle, &end) ||
        !SetFilePointerEx(self->handle, none, &now, FILE_CURRENT))
        return;
    /* Nothing that others have behind it. */
    if (now.QuadPart == end.QuadPart && SetFilePointerEx(self->handle, back, NULL, FILE_CURRENT))
        SetEndOfFile(self->handle);
}

DWORD
file_wait(const file *self, HANDLE interrupt, int64_t deadline)
{
    (void)self;
    (void)interrupt;
    (void)deadline;
    return ERROR_SUCCESS;
}
