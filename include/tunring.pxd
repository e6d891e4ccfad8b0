# Declarations of include/tunring.h and include/tunring_backend.h that Cython code needs.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t

from wintun cimport BYTE, DWORD, GUID, HANDLE, LPCWSTR, NET_LUID, WINTUN_ADAPTER_HANDLE


cdef extern from "tunring_packet.h" nogil:
    ctypedef struct tunring_packet:
        const BYTE *data
        uint32_t length

    bint tunring_packet_is_ip(const BYTE *packet, uint32_t length) noexcept


cdef extern from "tunring_backend.h" nogil:
    ctypedef struct tunring_counters:
        uint64_t host_dropped
        uint64_t host_filtered
        uint64_t write_errors

    ctypedef enum tunring_corruption:
        TUNRING_CORRUPT_RECEIVE_TAIL
        TUNRING_CORRUPT_RECEIVE_SIZE
        TUNRING_CORRUPT_SEND_HEAD
        TUNRING_CORRUPT_SEND_SIZE

    ctypedef struct tunring_backend:
        const char *name
        DWORD (*set_option)(const char *name, DWORD value) noexcept nogil


cdef extern from "tunring.h" nogil:
    ctypedef char tunring_path_char  # wchar_t on Windows

    ctypedef struct tunring_api:
        const tunring_backend *backend

    DWORD tunring_api_load(tunring_api *api, const tunring_path_char *path, char *detail, size_t size) noexcept
    DWORD tunring_api_driver_version(const tunring_api *api, DWORD *version) noexcept
    DWORD tunring_api_delete_driver(const tunring_api *api) noexcept

    const int64_t TUNRING_FOREVER
    ctypedef struct tunring_wait:
        int64_t deadline
        HANDLE interrupt
        HANDLE cancel
        bint brief
        bint looked
        uint32_t min_packets
        int64_t linger

    ctypedef struct tunring_adapter:
        pass
    ctypedef struct tunring_source:
        pass

    ctypedef struct tunring_session:
        pass
    ctypedef struct tunring_adapter_options:
        DWORD queues
    DWORD tunring_adapter_create(const tunring_api *api, LPCWSTR name, LPCWSTR tunnel_type, const GUID *guid,
                                 const tunring_adapter_options *options, tunring_adapter **adapter) noexcept
    DWORD tunring_adapter_open(const tunring_api *api, LPCWSTR name, tunring_adapter **adapter) noexcept
    DWORD tunring_adapter_adopt(const tunring_api *api, int descriptor, tunring_adapter **adapter) noexcept
    int tunring_adapter_system_error(const tunring_api *api) noexcept
    DWORD tunring_adapter_luid(tunring_adapter *adapter, NET_LUID *luid) noexcept
    DWORD tunring_adapter_name(tunring_adapter *adapter, char *name, DWORD size) noexcept
    DWORD tunring_adapter_index(tunring_adapter *adapter, DWORD *index) noexcept
    DWORD tunring_adapter_namespace(tunring_adapter *adapter, int *descriptor) noexcept
    DWORD tunring_adapter_lend(tunring_adapter *adapter, WINTUN_ADAPTER_HANDLE *handle) noexcept
    void tunring_adapter_give_back(tunring_adapter *adapter) noexcept
    DWORD tunring_adapter_descriptor(tunring_adapter *adapter, bint leave, int *descriptor) noexcept
    bint tunring_adapter_shared(tunring_adapter *adapter) noexcept
    bint tunring_adapter_forked(const tunring_adapter *adapter) noexcept
    bint tunring_adapter_is_shut(const tunring_adapter *adapter) noexcept
    uint64_t tunring_adapter_pinned(const tunring_adapter *adapter) noexcept
    void tunring_adapter_shut(tunring_adapter *adapter) noexcept
    void tunring_adapter_close(tunring_adapter *adapter) noexcept
    void tunring_adapter_drop(tunring_adapter *adapter) noexcept

    ctypedef enum tunring_coalesce:
        TUNRING_COALESCE_ALL
        TUNRING_COALESCE_TCP
        TUNRING_COALESCE_NONE
    ctypedef struct tunring_session_options:
        tunring_coalesce coalesce
        bint keep_queue
    DWORD tunring_session_start(tunring_adapter *adapter, DWORD capacity, const tunring_session_options *options,
                                tunring_session **session) noexcept
    void tunring_wake_guard_enable(bint enabled) noexcept
    tunring_source *tunring_session_source(tunring_session *session) noexcept
    void tunring_source_close(tunring_source *source) noexcept
    void tunring_source_drop(tunring_source *source) noexcept
    ctypedef enum tunring_state:
        TUNRING_OPEN
        TUNRING_CLOSED
        TUNRING_REMOVED
        TUNRING_FORKED
    tunring_state tunring_source_state(const tunring_source *source) noexcept
    HANDLE tunring_source_read_event(const tunring_source *source) noexcept
    DWORD tunring_session_capacity(const tunring_session *session) noexcept
    bint tunring_session_leaked(const tunring_session *session) noexcept
    uint64_t tunring_sessions_leaked() noexcept
    uint64_t tunring_sources_pinned() noexcept

    ctypedef struct tunring_figure:
        const char *name
        size_t offset
    ctypedef struct tunring_stats:
        bint has_counters
        tunring_counters counters
    const tunring_figure tunring_stats_figures[]
    void tunring_session_stats(tunring_session *session, tunring_stats *stats) noexcept
    void tunring_source_stats(tunring_source *source, tunring_stats *stats) noexcept
    void tunring_source_count_dropped(tunring_source *source, uint64_t packets) noexcept
    void tunring_session_count_skipped(tunring_session *session, uint64_t packets) noexcept

    DWORD tunring_simulator_load(tunring_api *api, const tunring_path_char *path, const char *symbol, char *detail,
                                 size_t size) noexcept
    bint tunring_simulator_available(const tunring_api *api) noexcept
    DWORD tunring_simulate_attach(tunring_adapter *adapter) noexcept
    DWORD tunring_simulate_inject(tunring_adapter *adapter, const tunring_packet *chain, DWORD count) noexcept
    DWORD tunring_simulate_drain(tunring_adapter *adapter, BYTE *buffer, DWORD *size) noexcept
    DWORD tunring_simulate_corrupt(tunring_adapter *adapter, tunring_corruption what, DWORD value) noexcept
    DWORD tunring_simulate_delay(tunring_adapter *adapter, DWORD microseconds) noexcept
    DWORD tunring_simulate_remove(tunring_adapter *adapter) noexcept
    DWORD tunring_simulator_stale_ends(const tunring_api *api) noexcept

    ctypedef struct tunring_slot:
        BYTE *data
        uint32_t length
        uint32_t root
    ctypedef struct tunring_endpoint:
        uint8_t host[16]
        uint32_t scope
        uint16_t port
        uint16_t zero
        uint8_t local[16]
        uint32_t local_scope
    bint tunring_endpoint_same(const tunring_endpoint *left, const tunring_endpoint *right) noexcept
    bint tunring_endpoint_is_ipv4(const uint8_t *host) noexcept
    bint tunring_endpoint_has_local(const tunring_endpoint *endpoint) noexcept
    ctypedef struct tunring_origin:
        uint32_t first
        uint8_t ecn
        tunring_endpoint from_ "from"
    ctypedef struct tunring_origins:
        uint32_t count
        tunring_origin list[0]
    ctypedef struct tunring_lease:
        tunring_source *source
        bint sealed
        uint32_t count
        uint64_t bytes
        tunring_origins *origins
        tunring_slot slots[0]
    ctypedef struct tunring_part:
        uint32_t level
        uint32_t count
        uint64_t bytes
        tunring_slot slots[0]
    bint tunring_lease_hold(tunring_lease *lease, uint32_t index, uint32_t level) noexcept
    void tunring_lease_unhold(tunring_lease *lease, uint32_t index) noexcept
    DWORD tunring_lease_enter(tunring_lease *lease, const tunring_part *part, uint32_t *index) noexcept
    void tunring_lease_leave(tunring_lease *lease, const tunring_part *part) noexcept
    DWORD tunring_lease_open(tunring_lease *lease, const tunring_part *part, uint32_t *index) noexcept
    void tunring_lease_opened(tunring_lease *lease) noexcept
    void tunring_lease_release(tunring_lease *lease) noexcept
    bint tunring_lease_released(const tunring_lease *lease) noexcept
    bint tunring_lease_held(const tunring_lease *lease) noexcept
    DWORD tunring_lease_commit(tunring_lease *lease) noexcept
    bint tunring_lease_commit_is_short(const tunring_lease *lease) noexcept
    DWORD tunring_reserve_now(tunring_session *session, uint32_t size, tunring_lease **lease) noexcept
    DWORD tunring_lease_drop_slot(tunring_lease *lease, uint32_t index) noexcept
    DWORD tunring_lease_shrink_slot(tunring_lease *lease, uint32_t index, uint32_t length) noexcept
    bint tunring_lease_slot_dropped(const tunring_lease *lease, uint32_t index) noexcept
    void tunring_lease_free(tunring_lease *lease) noexcept

    void tunring_slots_lengths(const tunring_slot *slots, uint32_t count, uint32_t *lengths) noexcept
    bint tunring_slots_offsets(const tunring_slot *slots, uint32_t count, uint32_t *offsets) noexcept
    void tunring_slots_pack(const tunring_slot *slots, uint32_t count, BYTE *buffer) noexcept
    void tunring_slots_headers(const tunring_slot *slots, uint32_t count, uint32_t size, BYTE *buffer) noexcept
    uint32_t tunring_slots_packets(const tunring_slot *slots, uint32_t count, bint only_ip,
                                   tunring_packet *packets) noexcept
    void tunring_slots_origins(const tunring_lease *lease, const tunring_part *part, uint32_t *numbers) noexcept
    tunring_part *tunring_part_new(uint32_t count, uint32_t level) noexcept
    void tunring_part_append(tunring_part *part, const tunring_slot *slot, uint32_t root) noexcept
    uint32_t tunring_group(const int64_t *keys, uint32_t count, uint32_t *groups) noexcept
    uint32_t tunring_group_rows(const BYTE *rows, size_t width, uint32_t count, uint32_t *groups) noexcept

    const uint32_t TUNRING_MAX_BATCH
    DWORD tunring_gather(tunring_source *source, uint32_t max, uint32_t *count)
    void tunring_gather_end(tunring_source *source)
    DWORD tunring_receive(tunring_source *source, uint32_t max, const tunring_wait *wait,
                          tunring_lease **lease) noexcept

    DWORD tunring_send(tunring_session *session, const tunring_packet *packets, uint32_t count,
                       const tunring_wait *wait, uint32_t *sent) noexcept
    DWORD tunring_send_filled(tunring_session *session, const tunring_packet *packets, uint32_t count,
                              const tunring_wait *wait, uint32_t *sent) noexcept
    DWORD tunring_reserve(tunring_session *session, const uint32_t *sizes, uint32_t count,
                          const tunring_wait *wait, tunring_lease **lease) noexcept

    ctypedef struct tunring_notifier:
        pass
    DWORD tunring_notifier_open(tunring_source *source, HANDLE event, tunring_notifier **watch) noexcept
    DWORD tunring_notifier_wait(tunring_notifier *watch) noexcept
    void tunring_notifier_arm(tunring_notifier *watch) noexcept
    void tunring_notifier_end(tunring_notifier *watch) noexcept
    void tunring_notifier_free(tunring_notifier *watch) noexcept

    enum:
        TUNRING_LOG_TEXT
        TUNRING_LOG_LIBRARIES
    ctypedef struct tunring_log_line:
        uint32_t library
        uint32_t level
        uint64_t time
        char text[TUNRING_LOG_TEXT]
    bint tunring_log_attach(const tunring_api *api, uint32_t *library) noexcept
    DWORD tunring_log_enable(uint32_t library, bint enabled) noexcept
    DWORD tunring_log_next(tunring_log_line *line) noexcept
    void tunring_log_stop() noexcept
    uint64_t tunring_log_lost() noexcept
    void tunring_log_forget() noexcept
    size_t tunring_log_recall(char *text, size_t size) noexcept
