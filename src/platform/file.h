/* SPDX-License-Identifier: MIT
 *
 * Files that a capture is written to, by one thread each: file_posix.c, file_windows.c.
 */
#ifndef TUNRING_FILE_H
#define TUNRING_FILE_H

#include "platform/os.h"

typedef struct file
{
    HANDLE handle; /* our own; a descriptor outside Windows */
    bool regular;  /* what was written can be cut off again, and writes don't wait for a reader */
    bool socket;
} file;

/* The result of file_write() when a reader has to take something first. */
#define FILE_FULL (-1)

/* Takes a copy of the handle. */
DWORD file_open(file *self, HANDLE original);
void file_close(file *self);
/* Writes all or a part; *written counts it in any case. 0, FILE_FULL or the system's error. It may block: on a slow
 * disk, in a pipe that somebody else writes to at the same time, and on Windows in any pipe, whose room nobody can ask
 * for. */
int file_write(const file *self, const BYTE *data, size_t size, size_t *written);
/* Takes the last bytes back that were written, where that is possible. */
void file_cut(const file *self, size_t size);
/* Waits until a reader has made room, or until the event is set. */
void file_wait(const file *self, const os_event *wake);

#endif
