"""``tunring demo``: real packets through tunring, answered from Python, and a check of every one."""

from __future__ import annotations

import signal
import sys
import threading
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from tunring import Adapter, Library, Session, SessionClosed, load
from tunring.cli.adapters import default_addresses, neighbour
from tunring.cli.arguments import JSON_HELP, seconds
from tunring.cli.display import Limit, SessionFlow, make_display
from tunring.cli.report import describe, describe_json, exit_code_of, lost_packets, reason_of, say, say_json
from tunring.cli.traffic_cable import CableTraffic
from tunring.testing import pair
from tunring.testing.responder import Responder

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from tunring.cli.traffic import Traffic

_NAME = "tunring0"
_CABLE = (["10.77.0.1", "fd77::1"], ["10.77.0.2", "fd77::2"])
_MTU = 1420


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("--seconds", type=seconds, default=3.0, help="duration in seconds (default: 3)")
    parser.add_argument(
        "--library",
        choices=("tun_linux", "loopback"),
        help="the library that moves the packets (default: tun_linux where that is allowed, else loopback)",
    )
    parser.add_argument("--json", action="store_true", help=JSON_HELP)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    if arguments.library == "loopback":
        return _Demo(arguments).over_cable(None)
    if sys.platform == "linux":
        from tunring.cli.isolation_linux import run_in_child

        return run_in_child(partial(exit_code_of, _Demo(arguments).over_tun, as_json=arguments.json))
    elif arguments.library == "tun_linux":
        raise NotImplementedError(f"there is no tun_linux on {sys.platform}; try --library loopback")
    else:
        return _Demo(arguments).over_cable(f"the demo uses the kernel on Linux only, not on {sys.platform}")


class _Demo:
    """One run."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._seconds: float = arguments.seconds
        self._library: str | None = arguments.library
        self._json: bool = arguments.json
        # Not an Event: a signal handler sets it, maybe in the middle of another's run, and an Event has a lock.
        self._is_over = False
        self._failures: list[BaseException] = []

    def _say(self, text: str) -> None:
        if not self._json:
            say(text)

    # -- Where the packets go

    def over_tun(self) -> int:
        """Through an interface, in a namespace of its own; in a child process."""
        from tunring._system.namespace_linux import enter_own_network

        with ExitStack() as stack:
            try:
                enter_own_network()
                adapter = stack.enter_context(Adapter.create(_NAME, library=load("tun_linux")))
            except OSError as error:
                if self._library is not None:
                    raise
                return self.over_cable(reason_of(error))
            return self._over_adapter(adapter)

    def _over_adapter(self, adapter: Adapter) -> int:
        from tunring.cli.traffic_kernel import KernelTraffic, kernel_faults

        interfaces = default_addresses()
        hosts = [host for host in map(neighbour, interfaces) if host]
        adapter.configure(interfaces, _MTU)
        self._say(describe(adapter.library))
        self._say(f"interface {_NAME} in a network namespace of its own: {', '.join(map(str, interfaces))}, MTU {_MTU}")
        self._say(f"the kernel pings {' and '.join(hosts)} behind it, sends UDP and TCP; Python answers")
        with adapter.start_session() as session:
            traffic = KernelTraffic(hosts)
            return self._run(session, traffic, adapter.library, None, kernel_faults)

    def over_cable(self, reason: str | None) -> int:
        """Through a cable in memory, in this process."""
        library = load("loopback")
        self._say(describe(library))
        if reason:
            self._say(f"no interface: {reason}")
            self._say("using a cable in memory instead; run the demo as root to see the kernel's packets")
        left, right = pair()
        with left, right:
            return self._run(right, CableTraffic(left, *_CABLE), library, reason, None)

    # -- The run

    def _run(
        self,
        session: Session,
        traffic: Traffic,
        library: Library,
        reason: str | None,
        faults: Callable[[], dict[str, int] | None] | None,
    ) -> int:
        responder = Responder()
        handlers = {number: signal.signal(number, self._interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
        threads = [
            threading.Thread(target=self._guard, args=(self._serve, session, responder), name="answers"),
            threading.Thread(target=self._guard, args=(self._drive, traffic), name="traffic"),
        ]
        started = time.monotonic()
        try:
            for thread in threads:
                thread.start()
            flows = [SessionFlow(session, "received"), SessionFlow(session, "sent")]
            display = make_display("none" if self._json else "plain", flows, Limit(), sys.stdout)
            while threads[1].is_alive():
                threads[1].join(0.1)
                display.update()
            display.end()
            elapsed = time.monotonic() - started
        finally:
            self._is_over = True
            threads[1].join()
            session.close()
            threads[0].join()
            for number, handler in handlers.items():
                signal.signal(number, handler)
        if self._failures:
            raise self._failures[0]
        tally, stats = traffic.tally, session.stats()
        missing = sum(count.sent - count.returned for count in (tally.pings, tally.datagrams))
        result: dict[str, Any] = {
            "ok": tally.complete,
            **describe_json(library),
            "fallback_reason": reason,
            "seconds": round(elapsed, 3),
            "received": stats.received_packets,
            "sent": stats.sent_packets,
            "lost": max(missing, lost_packets(stats)),
            "unanswered": responder.counts["ignored"],
            "received_per_second": round(stats.received_packets / elapsed),
            "sent_per_second": round(stats.sent_packets / elapsed),
            "received_bytes": stats.received_bytes,
            "sent_bytes": stats.sent_bytes,
            "batches": stats.received_batches,
            "damaged": tally.damaged,
            "ping": {
                **tally.pings.as_dict(),
                "p50_us": round(tally.round_trip(50), 1),
                "p99_us": round(tally.round_trip(99), 1),
            },
            "udp": tally.datagrams.as_dict(),
            "tcp": {"connections": tally.connections, **tally.tcp_bytes.as_dict()},
            "kernel": faults() if faults else None,
        }
        if result["kernel"] and result["kernel"]["checksum_errors"]:
            result["ok"] = False
        result["ok"] = result["ok"] and not result["lost"]
        if self._json:
            say_json(result)
        else:
            _say_summary(result)
        return 0 if result["ok"] else 1

    def _interrupt(self, *_: object) -> None:
        self._is_over = True

    def _guard(self, function: Callable[..., None], *arguments: Any) -> None:
        try:
            function(*arguments)
        except BaseException as error:
            self._failures.append(error)
            self._is_over = True

    @staticmethod
    def _serve(session: Session, responder: Responder) -> None:
        """Answer batch by batch: the whole of what a program does with tunring."""
        try:
            for batch in session.batches():
                if responder.answer(batch):
                    session.send(batch)
        except SessionClosed:
            pass

    def _drive(self, traffic: Traffic) -> None:
        try:
            end = time.monotonic() + self._seconds
            while not self._is_over and time.monotonic() < end:
                traffic.round()
        finally:
            traffic.close()


def _say_summary(result: dict[str, Any]) -> None:
    ping, udp, tcp, kernel = result["ping"], result["udp"], result["tcp"], result["kernel"]
    batch = result["received"] / max(1, result["batches"])
    say(f"library  {result['library']} {result['library_version']}, tunring {result['version']}")
    say(
        f"packets  {result['received']:,} received, {result['sent']:,} sent, {result['lost']:,} lost"
        f" ({result['unanswered']:,} wanted no answer); {batch:.1f} per batch"
    )
    say(
        f"rates    {result['received_per_second']:,} packets/s received, {result['sent_per_second']:,} packets/s sent,"
        f" {(result['received_bytes'] + result['sent_bytes']) * 8e-6 / result['seconds']:,.0f} Mbit/s both ways"
    )
    say(
        f"ping     {ping['sent']:,} sent, {ping['returned']:,} answered;"
        f" round trip p50 {ping['p50_us'] / 1000:.3f} ms, p99 {ping['p99_us'] / 1000:.3f} ms"
    )
    say(f"UDP      {udp['sent']:,} datagrams sent, {udp['returned']:,} came back")
    if tcp["connections"]:
        again = f"; {kernel['retransmitted']:,} segments sent again" if kernel else ""
        say(
            f"TCP      {tcp['connections']:,} connections;"
            f" {tcp['sent']:,} bytes sent, {tcp['returned']:,} came back{again}"
        )
    if kernel:
        say(f"kernel   {kernel['checksum_errors']:,} checksum errors")
    verdict = "everything that was sent came back right" if result["ok"] else "NOT everything came back right"
    say(verdict + (f"; {result['damaged']:,} answers were damaged" if result["damaged"] else ""))
