/* SPDX-License-Identifier: MIT
 *
 * pcapng blocks: type, size, body, options, and the size again, everything padded to 32 bits.
 */
#include "core/pcapng.h"

#include <string.h>

#define SECTION_HEADER 0x0A0D0D0Au
#define INTERFACE_DESCRIPTION 1u
#define ENHANCED_PACKET 6u

#define BYTE_ORDER_MAGIC 0x1A2B3C4Du
#define LINKTYPE_RAW 101u

#define OPT_END 0u
#define SHB_USERAPPL 4u
#define IF_NAME 2u
#define IF_DESCRIPTION 3u
#define IF_TSRESOL 9u
#define EPB_FLAGS 2u

/* A packet's block without its data: five words of its own, the flags with their end, and the frame. */
#define PACKET_BODY 20u
#define PACKET_OPTIONS 12u
#define FRAME 12u

static uint32_t
padded(uint32_t size)
{
    return (size + 3) & ~3u;
}

static BYTE *
put16(BYTE *at, uint32_t value)
{
    uint16_t half = (uint16_t)value;
    memcpy(at, &half, sizeof(half));
    return at + sizeof(half);
}

static BYTE *
put32(BYTE *at, uint32_t value)
{
    memcpy(at, &value, sizeof(value));
    return at + sizeof(value);
}

static BYTE *
put_bytes(BYTE *at, const void *bytes, uint32_t size)
{
    memcpy(at, bytes, size);
    memset(at + size, 0, padded(size) - size);
    return at + padded(size);
}

/* The same of bytes that lie in two places. */
static BYTE *
put_both(BYTE *at, const tunring_packet *first, const BYTE *rest, uint32_t size)
{
    const uint32_t before = first->length < size ? first->length : size;
    if (before)
        memcpy(at, first->data, before);
    memcpy(at + before, rest, size - before);
    memset(at + size, 0, padded(size) - size);
    return at + padded(size);
}

static BYTE *
put_option(BYTE *at, uint32_t code, const void *value, uint32_t size)
{
    return put_bytes(put16(put16(at, code), size), value, size);
}

/* Cut, if need be, between two characters. */
static BYTE *
put_text(BYTE *at, uint32_t code, const char *text)
{
    size_t size = strlen(text);
    if (size > PCAPNG_MAX_TEXT)
    {
        size = PCAPNG_MAX_TEXT;
        while (size && ((BYTE)text[size] & 0xC0) == 0x80)
            size--;
    }
    return size ? put_option(at, code, text, (uint32_t)size) : at;
}

static size_t
end_block(BYTE *block, BYTE *at)
{
    uint32_t size = (uint32_t)(at - block) + 4;
    put32(at, size);
    put32(block + 4, size);
    return size;
}

size_t
pcapng_section(BYTE *block, const char *application)
{
    BYTE *at = put32(block, SECTION_HEADER) + 4;
    at = put32(at, BYTE_ORDER_MAGIC);
    at = put16(put16(at, 1), 0);
    at = put32(put32(at, UINT32_MAX), UINT32_MAX); /* its length is not known */
    at = put_text(at, SHB_USERAPPL, application);
    at = put_option(at, OPT_END, "", 0);
    return end_block(block, at);
}

size_t
pcapng_interface(BYTE *block, const char *name, const char *description, uint32_t snaplen)
{
    static const BYTE nanoseconds = 9;
    BYTE *at = put32(block, INTERFACE_DESCRIPTION) + 4;
    at = put16(put16(at, LINKTYPE_RAW), 0);
    at = put32(at, snaplen);
    at = put_text(at, IF_NAME, name);
    at = put_text(at, IF_DESCRIPTION, description);
    at = put_option(at, IF_TSRESOL, &nanoseconds, 1);
    at = put_option(at, OPT_END, "", 0);
    return end_block(block, at);
}

size_t
pcapng_packet_size(uint32_t captured)
{
    return FRAME + PACKET_BODY + padded(captured) + PACKET_OPTIONS;
}

size_t
pcapng_packet(BYTE *block, const tunring_packet *headers, const BYTE *data, uint32_t captured, uint32_t length,
              uint32_t interface_id, tunring_direction direction, uint64_t time)
{
    BYTE *at = put32(block, ENHANCED_PACKET) + 4;
    at = put32(at, interface_id);
    at = put32(put32(at, (uint32_t)(time >> 32)), (uint32_t)time);
    at = put32(put32(at, captured), length);
    at = put_both(at, headers, data, captured);
    at = put32(put16(put16(at, EPB_FLAGS), 4), (uint32_t)direction);
    at = put_option(at, OPT_END, "", 0);
    return end_block(block, at);
}

size_t
pcapng_block_size(const BYTE *block)
{
    uint32_t size;
    memcpy(&size, block + 4, sizeof(size));
    return size;
}

bool
pcapng_block_is_packet(const BYTE *block)
{
    uint32_t type;
    memcpy(&type, block, sizeof(type));
    return type == ENHANCED_PACKET;
}
