"""A user's mistakes: the type checker must find each, with the error code in the comment."""

from __future__ import annotations

import tunring
import tunring.testing
from tunring.aead import Opener, Sealer
from tunring.pcapng import Writer


def mistakes(session: tunring.Session, adapter: tunring.Adapter, batch: tunring.Batch) -> None:
    session.send("not packets")  # error: arg-type
    session.send(b"one packet")  # error: arg-type
    session.send(["text"])  # error: list-item
    session.send([b""], on_full="explode")  # error: arg-type
    session.send([b""], "wait")  # error: call-arg
    session.send([b""], timeout="1")  # error: arg-type
    session.send_packed(b"")  # error: call-arg
    session.send_packed(b"", [1.5])  # error: list-item
    session.receive(max_packets="256")  # error: arg-type
    session.receive(timeout=[])  # error: arg-type
    session.reserve([20], on_full="drop")  # error: arg-type
    session.recieve()  # error: attr-defined
    session.capacity = 5  # error: misc
    tunring.Session(5)  # error: arg-type
    batch.pack_into("text")  # error: arg-type
    batch["0"]  # error: call-overload
    batch[0].decode()  # error: attr-defined
    len(batch.tobytes()) + batch.lengths  # error: operator
    adapter.configure(mtu="1500")  # error: arg-type
    adapter.configure(10)  # error: arg-type
    adapter.start_session("1M")  # error: arg-type
    tunring.Adapter.create(b"tun0")  # error: arg-type
    tunring.Adapter.create("tun0", "Tunring", "guid")  # error: call-arg
    tunring.load(5)  # error: arg-type
    tunring.set_logger(print, "loopback")  # error: arg-type
    tunring.Nonsense  # error: attr-defined
    left: tunring.Session = tunring.testing.pair()  # error: assignment
    session.stats().sent_packets = 3  # error: misc
    Sealer("aes-192-gcm", b"")  # error: arg-type
    Sealer("aes-256-gcm", "key")  # error: arg-type
    Sealer("aes-256-gcm", b"", b"header")  # error: call-arg
    Opener("aes-256-gcm", b"", byteorder="native")  # error: arg-type
    Opener("aes-256-gcm", b"").open("text")  # error: arg-type
    Opener("aes-256-gcm", b"").rejected = 0  # error: misc
    Writer("file").write([b""], "sideways")  # error: arg-type


class MySession(tunring.Session):  # error: misc
    pass


async def more_mistakes(session: tunring.Session) -> None:
    session.receive_async()  # error: unused-coroutine
    await session.receive()  # error: misc
    for batch in session.batches_async():  # error: attr-defined
        print(batch)
