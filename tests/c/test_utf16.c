/* SPDX-License-Identifier: MIT
 *
 * UTF-16 to UTF-8 and back, cut and broken text included.
 */
/* build: parts=os */
#include "check.h"
#include "platform/utf16.h"

#include <string.h>

#define UNITS 16

static void
check_both(const char *text, LPCWSTR wide)
{
    WCHAR units[UNITS];
    CHECK(utf16_from_utf8(units, UNITS, text));
    CHECK(memcmp(units, wide, (utf16_length(wide, UNITS) + 1) * sizeof(WCHAR)) == 0);
    char bytes[64];
    CHECK(utf16_to_utf8(bytes, sizeof(bytes), wide));
    CHECK(strcmp(bytes, text) == 0);
}

/* Broken UTF-8 gives U+FFFD, and what follows it is not swallowed. */
static void
check_broken(const char *text, unsigned replacements)
{
    WCHAR units[UNITS];
    CHECK(utf16_from_utf8(units, UNITS, text));
    for (unsigned i = 0; i < replacements; i++)
        CHECK(units[i] == 0xFFFD);
    CHECK(units[replacements] == 'x' && units[replacements + 1] == 0);
}

int
main(void)
{
    static const WCHAR ascii[] = {'A', 'z', 0};
    static const WCHAR mixed[] = {0x7F, 0x80, 0x7FF, 0x800, 0xFFFF, 0xD800, 0xDC00, 0xDBFF, 0xDFFF, 0};
    static const WCHAR lone[] = {0xD800, 'x', 0xDC00, 0xD800, 0};
    static const WCHAR upper[] = {'A', 'Z', '[', 0xC9, 0};
    static const WCHAR lower[] = {'a', 'z', '[', 0xC9, 0};
    static const WCHAR other[] = {'a', 'z', '{', 0xC9, 0};
    check_both("", ascii + 2);
    check_both("Az", ascii);
    check_both("\x7F\xC2\x80\xDF\xBF\xE0\xA0\x80\xEF\xBF\xBF\xF0\x90\x80\x80\xF4\x8F\xBF\xBF", mixed);

    char bytes[64];
    CHECK(utf16_to_utf8(bytes, sizeof(bytes), lone));
    CHECK(strcmp(bytes, "\xEF\xBF\xBDx\xEF\xBF\xBD\xEF\xBF\xBD") == 0);
    check_broken("\x80x", 1);
    check_broken("\xC3x", 1);
    check_broken("\xE2\x82x", 2);
    check_broken("\xC0\x80x", 2);
    check_broken("\xED\xA0\x80x", 3);
    check_broken("\xF4\x90\x80\x80x", 4);
    check_broken("\xF8x", 1);

    /* Cut between characters, and always ended. */
    CHECK(!utf16_to_utf8(bytes, 0, ascii));
    CHECK(!utf16_to_utf8(bytes, 3, mixed));
    CHECK(strcmp(bytes, "\x7F") == 0);
    CHECK(utf16_to_utf8(bytes, 3, ascii));
    WCHAR units[UNITS];
    CHECK(!utf16_from_utf8(units, 2, "Az"));
    CHECK(units[0] == 'A' && units[1] == 0);
    CHECK(!utf16_from_utf8(units, 2, "\xF0\x9F\x98\x80"));
    CHECK(units[0] == 0);
    CHECK(utf16_from_utf8(units, 3, "\xF0\x9F\x98\x80"));

    CHECK(utf16_length(ascii, 2) == 2 && utf16_length(ascii, 1) == 2 && utf16_length(ascii, 0) == 1);
    CHECK(utf16_equal_nocase(upper, lower) && !utf16_equal_nocase(upper, other));
    CHECK(!utf16_equal_nocase(upper, upper + 1) && !utf16_equal_nocase(ascii, ascii + 2));
    return 0;
}
