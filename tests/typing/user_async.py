"""A user's asyncio program, and one on anyio, in which a type checker must find nothing."""

from __future__ import annotations

import asyncio
from typing import assert_type

import tunring
from tunring.contrib import anyio as tunring_anyio


async def echo(session: tunring.Session) -> int:
    with await session.receive_async(max_packets=64, timeout=1.0) as batch:
        assert_type(batch, tunring.Batch)
        assert_type(await session.send_async(batch), int)
    async for batch in session.batches_async():
        assert_type(batch, tunring.Batch)
        buffer = bytearray(batch.nbytes)
        batch.pack_into(buffer)
        await session.send_packed_async(buffer, batch.lengths, on_full="drop")
    return session.stats().sent_packets


async def both(left: tunring.Session, right: tunring.Session) -> list[int]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(echo(session)) for session in (left, right)]
    return [task.result() for task in tasks]


async def anyio_echo(session: tunring.Session) -> None:
    async for batch in tunring_anyio.batches(session):
        assert_type(await tunring_anyio.send(session, batch), int)
        assert_type(await tunring_anyio.send(session, batch, checksums="fill"), int)
    assert_type(await tunring_anyio.receive(session, timeout=0), tunring.Batch)


async def udp_echo(udp: tunring.UdpSocket) -> None:
    async for batch in udp.batches_async(min_packets=8, linger=0.001):
        for endpoint, part in batch.runs():
            assert_type(await udp.send_async(part, endpoint), int)
    await udp.send_packed_async(b"ab", [1, 1], [("127.0.0.1", 1), ("127.0.0.1", 2)], index=[0, 1], ecn=[0, 1])
    async for batch in tunring_anyio.batches(udp, min_packets=2, linger=0.01):
        assert_type(await tunring_anyio.send(udp, batch, batch.sources, index=batch.source_index), int)
    assert_type(await tunring_anyio.receive(udp, timeout=0), tunring.Batch)
