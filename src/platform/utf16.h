/* SPDX-License-Identifier: MIT
 *
 * The ABI's strings: UTF-16 in native byte order, ended by a zero unit.
 */
#ifndef TUNRING_UTF16_H
#define TUNRING_UTF16_H

#include "wintun.h"

#include <stdbool.h>
#include <stddef.h>

/* Units before the zero; `limit` + 1 if there is none among the first `limit` + 1. */
size_t utf16_length(LPCWSTR text, size_t limit);

/* Equal but for the case of ASCII letters. */
bool utf16_equal_nocase(LPCWSTR left, LPCWSTR right);

/* Both write a zero-ended text of at most `size` bytes or `count` units, cut between characters if need be, with U+FFFD
 * for what is not a character. True if it is whole. */
bool utf16_to_utf8(char *text, size_t size, LPCWSTR wide);
bool utf16_from_utf8(WCHAR *wide, size_t count, const char *text);

#endif
