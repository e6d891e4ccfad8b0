/* SPDX-License-Identifier: MIT
 *
 * Strings of the ABI to and from UTF-8.
 */
#include "platform/utf16.h"

#include <stdint.h>
#include <string.h>

#define REPLACEMENT 0xFFFDu

size_t
utf16_length(LPCWSTR text, size_t limit)
{
    size_t length = 0;
    while (length <= limit && text[length] != 0)
        length++;
    return length;
}

static WCHAR
lower(WCHAR unit)
{
    return unit >= 'A' && unit <= 'Z' ? (WCHAR)(unit - 'A' + 'a') : unit;
}

bool
utf16_equal_nocase(LPCWSTR left, LPCWSTR right)
{
    while (*left != 0 && lower(*left) == lower(*right))
    {
        left++;
        right++;
    }
    return lower(*left) == lower(*right);
}

/* The character at *wide, which moves on. */
static uint32_t
decode_utf16(LPCWSTR *wide)
{
    uint32_t unit = *(*wide)++;
    if (unit < 0xD800 || unit > 0xDFFF)
        return unit;
    uint32_t low = **wide;
    if (unit > 0xDBFF || low < 0xDC00 || low > 0xDFFF)
        return REPLACEMENT;
    (*wide)++;
    return 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
}

static size_t
encode_utf8(uint32_t character, char bytes[4])
{
    if (character < 0x80)
    {
        bytes[0] = (char)character;
        return 1;
    }
    if (character < 0x800)
    {
        bytes[0] = (char)(0xC0 | character >> 6);
        bytes[1] = (char)(0x80 | (character & 0x3F));
        return 2;
    }
    if (character < 0x10000)
    {
        bytes[0] = (char)(0xE0 | character >> 12);
        bytes[1] = (char)(0x80 | (character >> 6 & 0x3F));
        bytes[2] = (char)(0x80 | (character & 0x3F));
        return 3;
    }
    bytes[0] = (char)(0xF0 | character >> 18);
    bytes[1] = (char)(0x80 | (character >> 12 & 0x3F));
    bytes[2] = (char)(0x80 | (character >> 6 & 0x3F));
    bytes[3] = (char)(0x80 | (character & 0x3F));
    return 4;
}

bool
utf16_to_utf8(char *text, size_t size, LPCWSTR wide)
{
    if (size == 0)
        return false;
    size_t used = 0;
    while (*wide != 0)
    {
        char bytes[4];
        size_t length = encode_utf8(decode_utf16(&wide), bytes);
        if (used + length >= size)
        {
            text[used] = 0;
            return false;
        }
        memcpy(text + used, bytes, length);
        used += length;
    }
    text[used] = 0;
    return true;
}

/* The character at *text, which moves on: by one byte if it is none. */
static uint32_t
decode_utf8(const char **text)
{
    static const uint32_t smallest[] = {0, 0x80, 0x800, 0x10000};
    const unsigned char *bytes = (const unsigned char *)*text;
    uint32_t first = bytes[0];
    unsigned more = first < 0x80 ? 0 : first >= 0xF0 ? 3 : first >= 0xE0 ? 2 : 1;
    uint32_t character = more == 0 ? first : first & (0x3Fu >> more);
    (*text)++;
    if (first >= 0x80 && (first < 0xC0 || first >= 0xF8))
        return REPLACEMENT;
    for (unsigned i = 1; i <= more; i++)
    {
        if ((bytes[i] & 0xC0) != 0x80)
            return REPLACEMENT;
        character = character << 6 | (bytes[i] & 0x3F);
    }
    if (character < smallest[more] || character > 0x10FFFF || (character >= 0xD800 && character <= 0xDFFF))
        return REPLACEMENT;
    *text += more;
    return character;
}

bool
utf16_from_utf8(WCHAR *wide, size_t count, const char *text)
{
    if (count == 0)
        return false;
    size_t used = 0;
    while (*text != 0)
    {
        uint32_t character = decode_utf8(&text);
        size_t units = character >= 0x10000 ? 2 : 1;
        if (used + units >= count)
        {
            wide[used] = 0;
            return false;
        }
        if (units == 1)
            wide[used] = (WCHAR)character;
        else
        {
            wide[used] = (WCHAR)(0xD800 + ((character - 0x10000) >> 10));
            wide[used + 1] = (WCHAR)(0xDC00 + ((character - 0x10000) & 0x3FF));
        }
        used += units;
    }
    wide[used] = 0;
    return true;
}
