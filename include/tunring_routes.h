/* SPDX-License-Identifier: MIT
 *
 * A table of IP prefixes that is looked up for the longest one that contains an address, by any number of threads while
 * others change it: core/routes.c, core/routes_trie.c.
 *
 * Lookups never wait. Each of them finds the table as it is at one moment: an address whose prefix is being moved has
 * the old value or the new one. Functions return 0 or a Win32 error code. A forked child has the table as its parent
 * had it, and may go on with it.
 */
#ifndef TUNRING_ROUTES_H
#define TUNRING_ROUTES_H

#include "tunring.h"

typedef struct tunring_prefix
{
    uint8_t address[16]; /* in network order; of IPv4 the first 4, and zeros. All bits behind the prefix are 0 */
    uint8_t version;     /* 4 or 6 */
    uint8_t length;      /* bits: at most 32 or 128 */
} tunring_prefix;

typedef struct tunring_route
{
    tunring_prefix prefix;
    int32_t value; /* at least 0 */
} tunring_route;

/* The value of what no prefix contains. */
#define TUNRING_NO_ROUTE (-1)

typedef struct tunring_routes tunring_routes;

/* NULL without memory. */
tunring_routes *tunring_routes_new(void);
/* Nobody may use the table any more. */
void tunring_routes_free(tunring_routes *table);

/* ---- Looking up. May be called at any time ---- */

/* Between these two calls the thread may look up as often as it wants, and must neither wait nor change the table. A
 * call that moves or removes a value returns only when every thread has left that had entered before: nobody then still
 * uses that value. */
uint32_t tunring_routes_enter(tunring_routes *table);
void tunring_routes_leave(tunring_routes *table, uint32_t entered);

/* Inside: the value for an address in network order, of 4 or 16 bytes. */
int32_t tunring_routes_find4(const tunring_routes *table, const BYTE *address);
int32_t tunring_routes_find6(const tunring_routes *table, const BYTE *address);
/* Inside: the value for a packet's destination, or its source. TUNRING_NO_ROUTE if tunring_packet_is_ip() is false. A
 * packet of IPv6 is looked up among the prefixes of IPv6, whatever its address is. */
int32_t tunring_routes_find_packet(const tunring_routes *table, const BYTE *packet, uint32_t length, bool source);

/* By itself: enters, finds the address of that version, and leaves. */
int32_t tunring_routes_lookup(tunring_routes *table, unsigned version, const BYTE *address);
/* The same for packets, one value for each. The caller keeps the packets. */
void tunring_routes_lookup_packets(tunring_routes *table, const tunring_packet *packets, uint32_t count, bool source,
                                   int32_t *values);
void tunring_routes_lookup_slots(tunring_routes *table, const tunring_slot *slots, uint32_t count, bool source,
                                 int32_t *values);

/* ---- Changing. These wait for each other, and for lookups in flight ---- */

/* True for a prefix that the table takes. */
bool tunring_prefix_valid(const tunring_prefix *prefix);

/* Adds prefixes or gives them another value, one after the other; where a prefix comes twice, the last one counts.
 * ERROR_INVALID_PARAMETER, before anything is changed, for a prefix that is not valid or a negative value.
 * ERROR_NOT_ENOUGH_MEMORY: *done of them are in the table. */
DWORD tunring_routes_set(tunring_routes *table, const tunring_route *routes, uint32_t count, uint32_t *done);
/* Gives a prefix another value if it has the value `from`; otherwise, and without that prefix, ERROR_NOT_FOUND. */
DWORD tunring_routes_move(tunring_routes *table, const tunring_prefix *prefix, int32_t from, int32_t to);
/* Removes a prefix, whose value is in *value then. ERROR_NOT_FOUND. */
DWORD tunring_routes_remove(tunring_routes *table, const tunring_prefix *prefix, int32_t *value);
/* Removes every prefix that has this value; *removed counts them. */
DWORD tunring_routes_remove_value(tunring_routes *table, int32_t value, uint32_t *removed);
DWORD tunring_routes_clear(tunring_routes *table);

/* ---- Reading the table itself. These wait for changes ---- */

/* The value of exactly this prefix, or ERROR_NOT_FOUND. */
DWORD tunring_routes_get(tunring_routes *table, const tunring_prefix *prefix, int32_t *value);
uint32_t tunring_routes_count(tunring_routes *table);
/* Copies up to `room` entries, IPv4 first, by address and length; returns the number of all entries. */
uint32_t tunring_routes_list(tunring_routes *table, tunring_route *routes, uint32_t room);

#endif
