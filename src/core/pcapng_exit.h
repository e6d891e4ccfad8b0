/* SPDX-License-Identifier: MIT
 *
 * The end of the process, which ends every thread wherever it is: files count as unfinished while they have something
 * to be written.
 */
#ifndef TUNRING_PCAPNG_EXIT_H
#define TUNRING_PCAPNG_EXIT_H

#include "core/pcapng_file.h"

/* With the file's lock held. A file that was finished and is about to take something is marked first; then it asks
 * whether the process is exiting. */
void pcapng_mark_unfinished(tunring_pcapng_file *file);
void pcapng_mark_finished(tunring_pcapng_file *file);
/* True once tunring_pcapng_exit() was called in this process. */
bool pcapng_exiting(void);

#endif
