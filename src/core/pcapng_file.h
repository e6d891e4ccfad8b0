/* SPDX-License-Identifier: MIT
 *
 * How sessions write to a pcapng file.
 */
#ifndef TUNRING_PCAPNG_FILE_H
#define TUNRING_PCAPNG_FILE_H

#include "tunring.h"

#define PCAPNG_MAX_INTERFACES 64u

/* Takes one more reference, which tunring_pcapng_drop() gives up. */
void pcapng_file_hold(tunring_pcapng_file *file);
/* Writes what can be written without waiting for a reader, and counts the rest. */
void pcapng_file_write_or_drop(tunring_pcapng_file *file, const tunring_captured *what);

#endif
