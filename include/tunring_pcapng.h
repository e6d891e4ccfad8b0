/* SPDX-License-Identifier: MIT
 *
 * pcapng files, and captures of sessions and sockets to them: core/pcapng_file.c, core/session_capture.c.
 */
#ifndef TUNRING_PCAPNG_H
#define TUNRING_PCAPNG_H

#include "tunring.h"

/* A pcapng file that is being written, by any number of threads. They fill a buffer, and a thread of the file's own
 * takes it to the system: no other thread ever waits for a disk or a pipe's reader. The first failure ends the file
 * for good, cut off after its last whole block. */
typedef struct tunring_pcapng_file tunring_pcapng_file;

/* As the program sees it. The values are pcapng's. */
typedef enum tunring_direction
{
    TUNRING_UNKNOWN = 0,
    TUNRING_RECEIVED = 1,
    TUNRING_SENT = 2
} tunring_direction;

/* Takes a copy of the handle, outside Windows a descriptor, and of `application`, the writer's name. */
DWORD tunring_pcapng_open(HANDLE original, const char *application, tunring_pcapng_file **file);
/* Describes an interface, in UTF-8; the first is number 0. Packets are cut to `snaplen` bytes. ERROR_INVALID_PARAMETER
 * if there are too many; else as tunring_pcapng_write(). */
DWORD tunring_pcapng_add_interface(tunring_pcapng_file *file, const char *name, const char *description,
                                   uint32_t snaplen, const tunring_wait *wait, uint32_t *number);
uint32_t tunring_pcapng_interfaces(const tunring_pcapng_file *file);

/* Bytes of the headers that a capture may write in front of a packet: IPv6 and UDP. */
#define TUNRING_MAX_HEADERS 48u

/* Packets to write, or slots. */
typedef struct tunring_captured
{
    const tunring_packet *packets;
    const tunring_slot *slots;
    uint32_t count;
    /* Writes what stands in front of the packet of this index but does not lie there, and returns its size. NULL:
     * nothing does. It is asked for each packet once or more, in order. */
    uint32_t (*headers)(void *context, uint32_t index, const BYTE *data, uint32_t length, BYTE *at);
    void *context;
    uint32_t interface_id;
    tunring_direction direction;
    const uint64_t *times; /* nanoseconds since 1970 UTC, one per packet, or one for all */
    bool one_time;
} tunring_captured;

/* Puts the packets from *done on, which counts them up, into the buffer. When that is full: waits for room if `wait` is
 * given, else ERROR_BUFFER_OVERFLOW. ERROR_GEN_FAILURE: see tunring_pcapng_failure(); ERROR_HANDLE_EOF: it is closed,
 * or of another process, or the process exits. */
DWORD tunring_pcapng_write(tunring_pcapng_file *file, const tunring_captured *what, const tunring_wait *wait,
                           uint32_t *done);
/* Bytes that were put into the buffer so far; and a wait until the system has taken that many. WAIT_TIMEOUT if it has
 * not when the time is up, or at once if `wait` is NULL; else as tunring_pcapng_write(). */
uint64_t tunring_pcapng_position(tunring_pcapng_file *file);
DWORD tunring_pcapng_flush(tunring_pcapng_file *file, uint64_t position, const tunring_wait *wait);
/* Takes nothing more, and waits until the system has taken everything and the file is closed: 0 or ERROR_GEN_FAILURE
 * then. WAIT_TIMEOUT as above. Idempotent. */
DWORD tunring_pcapng_close(tunring_pcapng_file *file, const tunring_wait *wait);
/* The same without a wait: what the system has not taken is lost. A thread that is stuck in a write keeps its file
 * until that returns. May be called at any time. */
void tunring_pcapng_give_up(tunring_pcapng_file *file);
/* Gives up the caller's reference; each session that is captured to the file holds one too. With the last one a file
 * that is open is closed in the background, as soon as what it has taken is written or has to wait for a reader. May
 * be called at any time. */
void tunring_pcapng_drop(tunring_pcapng_file *file);

/* May be called at any time. The system's error that ended it (errno; on Windows its last error), or 0; packets that
 * are in the file or the buffer; and those that are lost: there was no room for what a session received or sent, or the
 * file failed or was given up before it took them. */
int tunring_pcapng_failure(const tunring_pcapng_file *file);
uint64_t tunring_pcapng_packets(const tunring_pcapng_file *file);
uint64_t tunring_pcapng_dropped(const tunring_pcapng_file *file);

/* For the end of the process: no file takes anything from here on. Waits until what they have taken is written;
 * WAIT_TIMEOUT as above. */
DWORD tunring_pcapng_exit(const tunring_wait *wait);

/* Starts a capture: from here on the calls of a session or socket write what they receive and send. They never wait for
 * a reader and never fail because of a capture: what can't be written is counted. *number identifies this capture for
 * tunring_source_capture_end(). ERROR_BUSY if the source is captured already; ERROR_INVALID_PARAMETER if the file has
 * no such interface; ERROR_HANDLE_EOF. */
DWORD tunring_source_capture(tunring_source *source, tunring_pcapng_file *file, uint32_t interface_id, bool received,
                             bool sent, uint32_t *number);
/* Ends the capture of that number; idempotent. Afterwards the source writes nothing more of it. */
void tunring_source_capture_end(tunring_source *source, uint32_t number);

#endif
