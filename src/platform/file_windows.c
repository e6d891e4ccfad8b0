/* SPDX-License-Identifier: MIT
 *
 * file.h for Windows. There is no way to ask a pipe for room, so a write to one waits for its reader, unless it is in
 * PIPE_NOWAIT mode.
 */
#include "platform/file.h"

/* A pipe may refuse more at once. */
#define MAX_WRITE 0x100000u
/* Milliseconds between two looks for room in a pipe that never blocks. */
#define PAUSE 10

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
file_write(const file *self, const BYTE *data, size_t size, size_t *written)
{
    DWORD some = 0;
    const bool done = WriteFile(self->handle, data, size < MAX_WRITE ? (DWORD)size : MAX_WRITE, &some, NULL) != 0;
    *written = some;
    if (!done)
        return (int)GetLastError();
    /* A pipe in PIPE_NOWAIT mode. */
    return some == 0 && size > 0 ? FILE_FULL : 0;
}

void
file_cut(const file *self, size_t size)
{
    LARGE_INTEGER back = {.QuadPart = -(LONGLONG)size};
    LARGE_INTEGER none = {.QuadPart = 0};
    LARGE_INTEGER end;
    LARGE_INTEGER now;
    if (!self->regular || !GetFileSizeEx(self->handle, &end) ||
        !SetFilePointerEx(self->handle, none, &now, FILE_CURRENT))
        return;
    /* Nothing that others have behind it. */
    if (now.QuadPart == end.QuadPart && SetFilePointerEx(self->handle, back, NULL, FILE_CURRENT))
        SetEndOfFile(self->handle);
}

void
file_wait(const file *self, const os_event *wake)
{
    (void)self;
    /* No event reports a pipe's room. */
    (void)WaitForSingleObject(wake->wait, PAUSE);
}
