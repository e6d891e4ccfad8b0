"""A user's program, in which a type checker must find nothing."""

from __future__ import annotations

import array
import contextlib
import logging
import uuid
from ipaddress import ip_interface
from typing import assert_type

import numpy as np

import tunring
import tunring.testing
from tunring.aead import ALGORITHMS, Opener, Provider, Sealer, providers
from tunring.pcapng import Recording, Writer


def serve(name: str) -> None:
    library = tunring.load("loopback")
    assert_type(library, tunring.Library)
    assert_type(tunring.running_driver_version(library).major, int)
    tunring.set_logger(logging.getLogger("user"), library)
    tunring.set_logger(print)
    tunring.set_logger(None)
    with tunring.Adapter.create(name, "Tunring", guid=uuid.uuid4(), library=library) as adapter:
        assert_type(adapter, tunring.Adapter)
        assert_type(adapter.name, str)
        assert_type(adapter.ifindex, int | None)
        adapter.configure(["10.6.7.7/24", ip_interface("fd00::7/64")], mtu=1420)
        adapter.configure(routes=["10.0.0.0/8", tunring.Route("fd01::/64", metric=5)], up=False)
        assert_type(adapter.configuration(), tunring.Configuration)
        with adapter.start_session(capacity=tunring.MIN_CAPACITY) as session:
            move(session)


def move(session: tunring.Session) -> None:
    with session.receive(max_packets=256, timeout=1.0) as batch:
        assert_type(batch, tunring.Batch)
        for packet in batch:
            assert_type(packet, memoryview)
            packet[0] = 0x45
            assert_type(packet[0] >> 4, int)
        assert_type(batch[0], memoryview)
        assert_type(batch[1:3], tunring.Batch)
        assert_type(batch.tobytes(), list[bytes])
        assert_type(batch.lengths[0] + batch.offsets[0] + batch.nbytes + len(batch), int)
        data = np.empty(batch.nbytes, np.uint8)
        assert_type(batch.pack_into(data), int)
        session.send_packed(data, batch.lengths, on_full="partial")
        assert_type(session.send(batch), int)
    for batch in session.batches():
        session.send([packet for packet in batch if packet[9] == 1], on_full="drop")
    session.send([b"", bytearray(), memoryview(b""), array.array("B"), np.zeros(20, np.uint8)], timeout=0.5)
    session.send(bytes(20) for _ in range(3))
    session.send_packed(b"", np.array([20, 30]))
    session.send_packed(bytearray(50), (20, 30))
    with session.reserve([1400] * 2, on_full="wait", timeout=None) as slots:
        assert_type(slots, tunring.Slots)
        assert_type(slots[0], memoryview)
        assert_type(slots[:1], list[memoryview])
        slots[0][:4] = b"\x45\0\0\0"
    assert_type(session.fileno(), int)


def watch(session: tunring.Session) -> float:
    stats = session.stats()
    assert_type(stats, tunring.Stats)
    assert_type(stats.host_dropped, int | None)
    with Writer("user.pcapng", name="tun0", mtu=1500) as writer, session.capture(writer) as recording:
        assert_type(recording, Recording)
        writer.write([bytes(20)], "in", 1_000_000_000)
    return stats.received_bytes / stats.received_packets


def handle(session: tunring.Session) -> str:
    try:
        session.send([])
    except tunring.SessionClosed as error:
        assert_type(error.reason, str)
        return error.reason
    except (tunring.RingFull, PermissionError) as problem:
        return str(problem)
    except tunring.WintunError as error:
        assert_type(error.winerror, int)
        return str(error.errno)
    return ""


def closing() -> contextlib.AbstractContextManager[tunring.Session]:
    left, right = tunring.testing.pair()
    right.close()
    return contextlib.closing(left)


def simulate(adapter: tunring.Adapter) -> bytes | None:
    simulator = tunring.testing.Simulator.attach(adapter)
    simulator.inject(bytes(20))
    return simulator.drain()


def seal(batch: tunring.Batch, key: bytes) -> None:
    with Sealer("aes-256-gcm", key, header=b"head", pad_to=16, pad_limit=1420) as sealer:
        assert_type(sealer.seal(batch), tunring.Batch)
        assert_type(sealer.seal([b"", bytearray(b"")]), tunring.Batch)
        assert_type(sealer.counter, int)
        assert_type(sealer.library.version, str)
    with Opener(ALGORITHMS[0], bytearray(key), header_size=4, byteorder="big") as opener:
        assert_type(opener.open(batch), tunring.Batch)
        assert_type(opener.rejected + opener.replayed + opener.foreign, int)
    assert_type(providers()["aes-128-gcm"], Provider)
