/* SPDX-License-Identifier: MIT
 *
 * Files that a capture is written to: file_posix.c, file_windows.c.
 */
#ifndef TUNRING_FILE_H
#define TUNRING_FILE_H

#include "platform/os.h"

typedef struct file
{
    HANDLE handle; /* our own; a descriptor outside Windows */
    bool regular;  /* what was written can be cut off again, and writes don't wait for anybody */
    bool socket;
} file;

/* What file_write says when a reader has to take something first. */
#define FILE_FULL (-1)

/* Takes a copy of the handle. */
DWORD file_open(file *self, HANDLE original);
void file_close(file *self);
/* Writes all, or as much as can be; *written counts it in any case. 0, FILE_FULL or the system's error. Outside Windows
 * it never waits for a reader. */
int file_write(file *self, const BYTE *data, size_t size, size_t *written);
/* Takes the last bytes back that were written, where that is possible. */
void file_cut(file *self, size_t size);
/* Waits for a reader, but not for long: the caller looks what became of its file, and asks again. WAIT_TIMEOUT at the
 * deadline, ERROR_OPERATION_ABORTED for the interrupt. */
DWORD file_wait(const file *self, HANDLE interrupt, int64_t deadline);

#endif
