/* SPDX-License-Identifier: MIT
 *
 * Log lines of the libraries. The callback runs on whichever thread has something to log, maybe inside a call of ours
 * and maybe on a thread of the library's own; it takes no lock but the queue's, and never one of Python's. It copies
 * the line twice: into the thread's own memory, from which a failed call takes its reasons, and into a bounded queue
 * for the user's logger, if there is one.
 */
#include "core/log.h"

#include "platform/os.h"
#include "tunring.h"
#include "platform/utf16.h"
#include "platform/wait.h"

#include <string.h>

#define QUEUE_LINES 256u
#define RECALL_SIZE 2048u

static os_mutex queue_lock = OS_MUTEX_INIT; /* guards the four below */
static tunring_log_line queue[QUEUE_LINES];
static unsigned queue_first, queue_count;
static os_event queue_event; /* set while there are lines, and for good once stopped */
static bool queue_open;

static _Atomic bool stopped;
static _Atomic uint64_t lost;
static _Atomic uint32_t attached;
static _Atomic bool enabled[TUNRING_LOG_LIBRARIES];

static _Thread_local char recall[RECALL_SIZE];
static _Thread_local size_t recall_length;

void
log_remember(const char *text)
{
    size_t length = strlen(text);
    while (recall_length && recall_length + 1 + length >= RECALL_SIZE)
    {
        char *end = memchr(recall, '\n', recall_length);
        size_t gone = end ? (size_t)(end - recall) + 1 : recall_length;
        memmove(recall, recall + gone, recall_length - gone);
        recall_length -= gone;
    }
    if (recall_length)
        recall[recall_length++] = '\n';
    memcpy(recall + recall_length, text, length);
    recall_length += length;
}

static void
enqueue(const tunring_log_line *line)
{
    os_mutex_lock(&queue_lock);
    if (!queue_open || queue_count == QUEUE_LINES || atomic_load(&stopped))
        atomic_fetch_add(&lost, 1);
    else
    {
        queue[(queue_first + queue_count++) % QUEUE_LINES] = *line;
        os_event_set_if_ours(&queue_event);
    }
    os_mutex_unlock(&queue_lock);
}

static void
take_line(uint32_t library, WINTUN_LOGGER_LEVEL level, DWORD64 time, LPCWSTR message)
{
    DWORD last_error = GetLastError();
    tunring_log_line line = {.library = library, .level = (uint32_t)level, .time = time};
    utf16_to_utf8(line.text, sizeof(line.text), message);
    log_remember(line.text);
    if (atomic_load(&enabled[library]))
        enqueue(&line);
    SetLastError(last_error);
}

/* The callback has no context argument, so each library gets one of its own. */
#define CALLBACK_OF(number)                                                                          \
    static void CALLBACK callback_##number(WINTUN_LOGGER_LEVEL level, DWORD64 time, LPCWSTR message) \
    {                                                                                                \
        take_line(number, level, time, message);                                                     \
    }
CALLBACK_OF(0)
CALLBACK_OF(1)
CALLBACK_OF(2)
CALLBACK_OF(3)
CALLBACK_OF(4)
CALLBACK_OF(5)
CALLBACK_OF(6)
CALLBACK_OF(7)

static const WINTUN_LOGGER_CALLBACK callbacks[TUNRING_LOG_LIBRARIES] = {
    callback_0, callback_1, callback_2, callback_3, callback_4, callback_5, callback_6, callback_7,
};

/* The child has neither the queue's event nor its reader, and whoever held the lock is not in it. */
static void
start_anew_in_child(void)
{
    os_mutex_init(&queue_lock);
    queue_first = queue_count = 0;
    queue_open = false;
    atomic_store(&stopped, false);
    for (uint32_t i = 0; i < TUNRING_LOG_LIBRARIES; i++)
        atomic_store(&enabled[i], false);
}

bool
tunring_log_attach(const tunring_api *api, uint32_t *library)
{
    uint32_t number = atomic_load(&attached);
    do
    {
        if (number == TUNRING_LOG_LIBRARIES)
            return false;
    } while (!atomic_compare_exchange_weak(&attached, &number, number + 1));
    *library = number;
    os_after_fork_in_child(start_anew_in_child);
    api->WintunSetLogger(callbacks[number]);
    return true;
}

DWORD
tunring_log_enable(uint32_t library, bool wanted)
{
    os_mutex_lock(&queue_lock);
    DWORD code = ERROR_SUCCESS;
    if (wanted && !queue_open)
    {
        queue_open = os_event_open(&queue_event);
        if (!queue_open)
            code = GetLastError();
    }
    os_mutex_unlock(&queue_lock);
    if (code == ERROR_SUCCESS)
        atomic_store(&enabled[library], wanted);
    return code;
}

DWORD
tunring_log_next(tunring_log_line *line)
{
    for (;;)
    {
        const int ready = wait_once(&queue_event.wait, 1, TUNRING_FOREVER);
        const bool lost = ready != WAIT_NOTHING && !os_event_is_ours(&queue_event);
        os_mutex_lock(&queue_lock);
        bool found = queue_count != 0;
        if (found)
        {
            *line = queue[queue_first];
            queue_first = (queue_first + 1) % QUEUE_LINES;
            queue_count--;
        }
        /* Without its event, which somebody has closed, nothing more can be waited for. */
        bool ended = lost || ready == WAIT_BROKEN || atomic_load(&stopped);
        if (ready >= 0 && queue_count == 0 && !ended)
            os_event_clear(&queue_event);
        os_mutex_unlock(&queue_lock);
        if (found)
            return ERROR_SUCCESS;
        if (ended)
            return ERROR_NO_MORE_ITEMS;
    }
}

void
tunring_log_stop(void)
{
    os_mutex_lock(&queue_lock);
    atomic_store(&stopped, true);
    if (queue_open)
        os_event_set_if_ours(&queue_event);
    os_mutex_unlock(&queue_lock);
}

uint64_t
tunring_log_lost(void)
{
    return atomic_load(&lost);
}

void
tunring_log_forget(void)
{
    recall_length = 0;
}

size_t
tunring_log_recall(char *text, size_t size)
{
    size_t length = recall_length < size ? recall_length : size;
    memcpy(text, recall, length);
    return length;
}
