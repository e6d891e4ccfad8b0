/* SPDX-License-Identifier: MIT
 *
 * Reasons that a failed call takes from its thread, beside those that libraries log.
 */
#ifndef TUNRING_LOG_H
#define TUNRING_LOG_H

/* Keeps a line for tunring_log_recall(). The oldest make room. */
void log_remember(const char *text);

#endif
