/* SPDX-License-Identifier: MIT
 *
 * A table of prefixes in a child that was forked in the middle of a change, as one is that its parent would wait for
 * longer than a fork does: it can be looked up and freed.
 */
/* build: parts=core */
#include "check.h"
#include "core/routes.h"

#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

int
main(void)
{
    tunring_routes *table = tunring_routes_new();
    const tunring_route route = {{.address = {10}, .version = 4, .length = 8}, 7};
    const BYTE address[4] = {10, 1, 2, 3};
    uint32_t done;
    CHECK(tunring_routes_set(table, &route, 1, &done) == ERROR_SUCCESS);
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child)
    {
        int status;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
        tunring_routes_free(table);
        return 0;
    }
    /* As between realloc(), which has moved the list, and the assignment of what it returned. */
    table->changing = true;
    free(table->tries[0].sorted);
    CHECK_EQUAL(tunring_routes_lookup(table, 4, address), 7);
    CHECK(tunring_routes_set(table, &route, 1, &done) == ERROR_HANDLE_EOF);
    tunring_routes_free(table);
    _exit(0);
}
