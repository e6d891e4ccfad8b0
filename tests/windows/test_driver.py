"""The real driver, which Wine lacks: packets of Windows' own network stack come through and are answered."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import pytest

import tunring
from running import eventually
from tunring.testing.responder import Responder

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE, THERE = "10.98.76.1", "10.98.76.2"
DATAGRAMS, SIZE = 20_000, 1200


@pytest.fixture
def session() -> Iterator[tunring.Session]:
    """A session on an interface with HERE; the program answers for everything behind it."""
    with tunring.Adapter.create("tunring test") as adapter:
        adapter.configure([f"{HERE}/24"], mtu=1420)
        with adapter.start_session(0x1000000) as started:
            yield started


def test_it_is_the_official_driver() -> None:
    with tunring.Adapter.create("tunring test") as adapter:
        assert adapter.library.official
        assert adapter.ifindex
        assert adapter.name == "tunring test"
        assert tunring.running_driver_version() >= (0, 14)
        with pytest.raises(tunring.AlreadyExists):
            tunring.Adapter.create("TUNRING test")


def test_ping(session: tunring.Session) -> None:
    responder = Responder()

    def serve() -> None:
        for batch in session.batches(max_packets=64):
            if responder.answer(batch):
                session.send(batch)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        # The address may take a moment to be usable.
        ping = ["ping", "-n", "1", "-w", "1000", THERE]
        assert eventually(lambda: subprocess.run(ping, capture_output=True, check=False).returncode == 0, 30)
        assert responder.counts["ping"] >= 1
    finally:
        session.close()
        thread.join()


def test_bulk(session: tunring.Session) -> None:
    received: set[bytes] = set()
    ready = threading.Event()

    def collect() -> None:
        for batch in session.batches(max_packets=256):
            for packet in batch:
                if len(packet) == SIZE + 28 and packet[9] == 17:
                    received.add(bytes(packet[28:32]))
                    ready.set()

    thread = threading.Thread(target=collect)
    thread.start()
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            assert eventually(lambda: _send(sender, b"\xff" * 4) and ready.wait(0.1), 30)
            started = time.monotonic()
            for number in range(DATAGRAMS):
                _send(sender, number.to_bytes(4, "big"))
            wanted = {number.to_bytes(4, "big") for number in range(DATAGRAMS)}
            eventually(lambda: wanted <= received, 5)
            seconds = time.monotonic() - started
        arrived = len(wanted & received)
        print(f"{arrived} of {DATAGRAMS} datagrams of {SIZE} bytes in {seconds:.2f} s")
        assert arrived >= 0.9 * DATAGRAMS
    finally:
        session.close()
        thread.join()


def _send(sender: socket.socket, number: bytes) -> bool:
    try:
        return sender.sendto(number.ljust(SIZE, b"\0"), (THERE, 9)) == SIZE
    except OSError:
        return False
