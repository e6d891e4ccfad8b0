/* SPDX-License-Identifier: MIT
 *
 * A pcapng file that is being written. Whoever has packets turns them into blocks in a buffer (pcapng_file.c); one
 * thread per file takes the buffer to the system (pcapng_thread.c), so that nobody else waits for a disk or a reader.
 */
#ifndef TUNRING_PCAPNG_FILE_H
#define TUNRING_PCAPNG_FILE_H

#include "core/pcapng_buffer.h"
#include "core/progress.h"
#include "platform/file.h"
#include "platform/os.h"
#include "tunring_pcapng.h"

#define PCAPNG_MAX_INTERFACES 64u

/* The state of the thread while it writes nothing. */
typedef enum pcapng_rest
{
    PCAPNG_AWAKE,
    PCAPNG_NAPPING, /* a moment, so that small batches are written together: not to be woken for any of them */
    PCAPNG_ASLEEP   /* until there is something to write */
} pcapng_rest;

/* How long the thread goes on with what is in the buffer. */
typedef enum pcapng_pace
{
    PCAPNG_PATIENT,  /* to the end, whatever the reader makes it wait */
    PCAPNG_HURRIED,  /* as long as it need not wait for a reader */
    PCAPNG_GIVEN_UP, /* no longer: what was left is counted as dropped */
} pcapng_pace;

struct tunring_pcapng_file
{
    unsigned generation;    /* of the process that opened it */
    _Atomic uint32_t users; /* the caller, and each session that is captured to it */
    _Atomic uint32_t refs;  /* what keeps this struct: the users together, and the thread */
    progress progress;      /* of the thread, and of a close */
    os_event wake;          /* makes the thread look at what follows: it sleeps, or waits for a reader */
    file file;              /* the thread's to use */
    os_mutex lock;          /* guards what follows; never held over a system call */
    pcapng_rest rest;
    bool unfinished; /* there is something to be written: see pcapng_exit.h */
    bool closing;    /* it takes nothing any more */
    bool ended;      /* the thread has closed the file */
    pcapng_pace pace;
    pcapng_buffer buffer;
    pcapng_chunk *writing; /* taken out of the buffer by the thread, which reads it without the lock; or NULL */
    size_t written;        /* bytes of it that the system has taken */
    uint64_t appended;     /* bytes of all blocks so far */
    uint64_t passed;       /* bytes of those that the system has taken */
    uint64_t wanted;       /* bytes that somebody waits for the system to take */
    uint64_t stuck_at;     /* bytes that it had taken when somebody gave way in vain */
    uint32_t snaplens[PCAPNG_MAX_INTERFACES];
    _Atomic uint32_t interfaces;
    _Atomic int failure;
    _Atomic uint64_t packets, dropped;
};

/* Takes one more reference, which tunring_pcapng_drop() gives up. */
void pcapng_file_hold(tunring_pcapng_file *self);
/* Writes the packets that fit, and counts the rest. True if the caller is faster than the file, and should call
 * pcapng_file_give_way() once it holds no lock. */
bool pcapng_file_write_or_drop(tunring_pcapng_file *self, const tunring_captured *what);

/* Waits until the thread has got on a little, but only for a moment; not at all if the last such wait was in vain and
 * the thread has not got on since. */
void pcapng_file_give_way(tunring_pcapng_file *self);

/* With the lock held: true if what is to be written is not to wait for more. */
bool pcapng_file_is_urgent(const tunring_pcapng_file *self);
/* With the lock held: what is not written as a whole is lost. */
void pcapng_file_give_up(tunring_pcapng_file *self);
/* Gives up one of `refs`. */
void pcapng_file_release(tunring_pcapng_file *self);

/* The thread: `argument` is the file, of which it has one of the `refs`. */
void pcapng_thread(void *argument);

#endif
