"""Tests that do not run on Windows, and the reasons.

conftest.py leaves exactly these out there, and tests/wine/run checks that nothing else is missing: each entry is a
folder, a file or a test, parametrized or not, and must match something.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

ABSENT = {
    "tests/linux/": "Linux's own back end, over its TUN device",
    "tests/aio/test_anyio.py::test_a_program_ends_after_a_run_of_trio": "trio waits by what Wine refuses",
    "tests/aio/test_anyio.py::test_each_function_is_a_checkpoint_of_trio": "trio waits by what Wine refuses",
    "tests/aio/test_udp.py::test_the_descriptor_tells_of_what_a_cancelled_task_lingered_for": "select() takes no event",
    "tests/aio/test_udp.py::test_a_session_keeps_what_a_cancelled_task_lingered_for": "select() takes no event",
    "tests/lifetime/test_descriptors_posix.py": "Windows has handles, not descriptors",
    "tests/lifetime/test_fork_posix.py": "Windows doesn't fork",
    "tests/lifetime/test_fork_descriptors_posix.py": "Windows doesn't fork",
    "tests/lifetime/test_fork_loading_posix.py": "Windows doesn't fork",
    "tests/threads/test_interrupt_posix.py": "POSIX signals and Python's wake-up descriptor; tests/windows has Ctrl-C",
    "tests/threads/test_leftovers_posix.py": "waiting for the read event as a descriptor",
    "tests/unit/test_aead_boringssl_posix.py": "modules from a C compiler; BoringSSL is looked for on Linux only",
    "tests/unit/test_cli_signals_posix.py": "POSIX signals",
    "tests/unit/test_event_asyncio_posix.py": "the read event is a descriptor in an event loop's selector",
    "tests/unit/test_event_posix.py": "the read event is a descriptor that poll() takes",
    "tests/unit/test_import.py::test_import_loads_only_what_it_needs": "Cython's stable-ABI modules import inspect",
    "tests/unit/test_import.py::test_import_takes_less_than_the_limit": "the same; and files are slow under Wine",
    "tests/unit/test_interpreters_obstacles_posix.py": "modules from a C compiler, and POSIX signals",
    "tests/unit/test_offload_reference_posix.py": "checksums and splits of Linux's back end",
    "tests/unit/test_pcapng_posix.py": "captures to pipes, full disks and forks, told by descriptors",
    "tests/unit/test_aead.py::test_child_never_seals": "Windows doesn't fork",
    "tests/examples/test_tunnel_posix.py": "the tunnel is tried on Linux only so far",
    "tests/examples/test_tunnel_server_posix.py": "the tunnel is tried on Linux only so far",
    "tests/unit/test_secret.py::test_its_memory_is_protected": "the flags are in Linux's /proc",
    "tests/unit/test_suite.py": "it starts pytest a dozen times, which takes minutes under Wine",
    "tests/unit/test_udp.py::test_a_descriptor_of_another_kind_is_not_taken_over": "WSAPROTOCOL_INFO has the kind",
    "tests/unit/test_udp.py::test_what_bind_refuses_of_a_mark_and_an_interface": "only Linux has them",
    "tests/unit/test_udp.py::test_a_child_has_no_socket": "Windows doesn't fork",
    "tests/unit/test_udp.py::test_readable_when_a_receive_would_return": "poll() takes the read event",
    "tests/unit/test_udp_bad_days_posix.py": "the read event as a descriptor; runs that arrive as such",
    "tests/unit/test_udp_options_posix.py": "Linux's options, and descriptors that change their owner",
    "tests/unit/test_udp_capture_posix.py": "reads what Wine does not report: ECN bits, and Linux's local addresses",
    "tests/unit/test_wireguard_core.py::test_a_child_process_can_do_nothing": "Windows doesn't fork",
    "tests/unit/test_wireguard_ds_posix.py": "reads DS bytes, of which Wine reports none",
    "tests/wireguard/test_close_by_handler_posix.py": "POSIX signals",
    "tests/wireguard/test_control_socket_posix.py": "a Unix socket; tests/windows has the pipe",
    "tests/wireguard/test_descriptors_posix.py": "Windows has handles, not descriptors, and doesn't fork",
    "tests/wireguard/test_device.py::test_close_while_another_thread_changes_the_port": "a network namespace",
    "tests/wireguard/test_fork_posix.py": "Windows doesn't fork",
    "tests/wireguard/test_interrupts_posix.py": "POSIX signals",
    "tests/wireguard/test_keys.py::test_public_keys_as_wg_has_them": "wg is not there",
    "tests/wireguard/test_many_peers.py::test_unreachable_peers_stall_nobody": "memory is counted in Linux's /proc",
    "tests/wireguard/test_secrets.py::test_a_handshake_begun_before_the_change_is_completed": "searched by /proc",
    "tests/wireguard/test_secrets.py::test_a_refused_private_key_is_wiped": "memory is searched by Linux's /proc",
    "tests/wireguard/test_secrets.py::test_a_waiting_initiation_keeps_the_old_preshared_key": "searched by /proc",
    "tests/wireguard/test_secrets.py::test_another_preshared_key_wipes_the_old_one": "searched by /proc",
    "tests/wireguard/test_secrets.py::test_nothing_is_left_elsewhere": "memory is searched by Linux's /proc",
    "tests/wireguard/test_secrets.py::test_they_are_not_swapped_out": "the flags are in Linux's /proc",
    "tests/wireguard/test_secrets.py::test_they_lie_in_protected_memory": "the flags are in Linux's /proc",
    "tests/unit/test_stale_errors_posix.py": "libraries from a C compiler, whose last error is errno",
}


def is_absent(test: str, entries: Iterable[str] = ABSENT) -> bool:
    """True if the list leaves this test out. `test` is pytest's name for it."""
    return any(test.startswith(entry) if entry.endswith("/") else _is_part(test, entry) for entry in entries)


def _is_part(test: str, entry: str) -> bool:
    return test == entry or test.startswith((f"{entry}::", f"{entry}["))
