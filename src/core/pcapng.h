/* SPDX-License-Identifier: MIT
 *
 * The blocks of a pcapng file that a capture needs, in this machine's byte order, which the section header shows.
 */
#ifndef TUNRING_CORE_PCAPNG_H
#define TUNRING_CORE_PCAPNG_H

#include "tunring_pcapng.h"

/* Bytes that any block but a packet's takes at most, with texts of PCAPNG_MAX_TEXT bytes. */
#define PCAPNG_MAX_TEXT 1024u
#define PCAPNG_MAX_HEADER 2304u

/* Each writes one block and returns its size. */
size_t pcapng_section(BYTE *at, const char *application);
size_t pcapng_interface(BYTE *at, const char *name, const char *description, uint32_t snaplen);
/* `captured` of the packet's `length` bytes, the first of which are its headers, are written. */
size_t pcapng_packet(BYTE *at, const tunring_packet *headers, const BYTE *data, uint32_t captured, uint32_t length,
                     uint32_t interface_id, tunring_direction direction, uint64_t time);

/* Size of a packet's block. */
size_t pcapng_packet_size(uint32_t captured);

/* Of a block that was written: its size, and whether it is a packet's. */
size_t pcapng_block_size(const BYTE *block);
bool pcapng_block_is_packet(const BYTE *block);

#endif
