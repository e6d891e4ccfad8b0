/* SPDX-License-Identifier: MIT
 *
 * The log callback that WintunSetLogger sets, and how a back end writes to it.
 */
#ifndef TUNRING_BACKEND_LOG_H
#define TUNRING_BACKEND_LOG_H

#include "wintun.h"

#if defined(__GNUC__)
#define BACKEND_LOG_FORMAT(text, first) __attribute__((format(printf, text, first)))
#else
#define BACKEND_LOG_FORMAT(text, first)
#endif

void backend_log_set(WINTUN_LOGGER_CALLBACK callback);

/* One line in UTF-8, without a line end; over 1023 units it is cut. Both leave the last error as it was. */
void backend_log(WINTUN_LOGGER_LEVEL level, const char *format, ...) BACKEND_LOG_FORMAT(2, 3);

/* An error line that ends in ": Code 0x%08X". Sets nothing: the caller does, before or after. */
void backend_log_error(DWORD code, const char *format, ...) BACKEND_LOG_FORMAT(2, 3);

#endif
