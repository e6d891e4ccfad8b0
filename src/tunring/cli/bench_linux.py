"""The half of ``tunring bench`` with the kernel: beside os.read and os.write on a TUN interface of the usual kind."""

from __future__ import annotations

import os
import socket
import struct
import sys
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING

from tunring import Adapter, Session, load
from tunring._system.namespace_linux import enter_own_network
from tunring.cli.bench import BATCH, SIZES, Contest, Side, drain, send_list, take
from tunring.testing.checksum import checksum

if TYPE_CHECKING:
    from collections.abc import Iterator

assert sys.platform == "linux"

#: Datagrams that wait when a round begins: fewer than an interface's queue has room for.
_WAITING = 400

#: Datagrams that are sent in a round.
_SENT = 2 * BATCH

_HOSTS = ("10.77.0.{}", "10.78.0.{}")
_PORT = 9

_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 1, 0x1000
_UDP_SEGMENT = 103


@contextmanager
def contests_with_the_kernel() -> Iterator[list[Contest]]:
    """Cases to be measured, in a network namespace of this process's own. It must have only one thread.

    Raises
    ------
    OSError
        The system doesn't allow it.
    """
    with ExitStack() as stack:
        enter_own_network()
        adapter = stack.enter_context(Adapter.create("tunring0", library=load("tun_linux")))
        adapter.configure([f"{_HOSTS[0].format(1)}/24"], 1500)
        session = stack.enter_context(adapter.start_session())
        plain = stack.enter_context(_plain_tun("plain0", f"{_HOSTS[1].format(1)}/24"))
        for host in _HOSTS:
            # Everything that is sent arrives here, and nobody reads it.
            link = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            link.bind((host.format(1), _PORT))
        yield [contest for size in SIZES for contest in _contests(session, plain, size, stack)]


@contextmanager
def _plain_tun(name: str, address: str) -> Iterator[int]:
    """A descriptor as programs without tunring have it."""
    from fcntl import ioctl

    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
        # tunring can set up what another program serves.
        with Adapter.from_fd(tun, library=load("tun_linux")) as adapter:
            adapter.configure([address], 1500)
            os.set_blocking(tun, True)
            yield tun
    finally:
        os.close(tun)


def _contests(session: Session, plain: int, size: int, stack: ExitStack) -> Iterator[Contest]:
    for what, segment in (("receive", False), ("receive segments", True)):
        fill_ours, fill_theirs = (partial(_fill, _link(host.format(2), stack), size - 28, segment) for host in _HOSTS)
        ours = Side(fill_ours, partial(take, session, _WAITING))
        theirs = Side(fill_theirs, partial(_read, plain))
        yield Contest("tun_linux", what, size, _WAITING, ours, "os.read", theirs)
    near, far = ([_datagram(host, size - 28)] * BATCH for host in _HOSTS)
    ours = Side(partial(drain, session), partial(send_list, session, near, _SENT))
    theirs = Side(int, partial(_write, plain, far))
    yield Contest("tun_linux", "send", size, _SENT, ours, "os.write", theirs)


def _link(host: str, stack: ExitStack) -> socket.socket:
    link = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
    link.connect((host, _PORT))
    return link


def _fill(link: socket.socket, payload: int, segment: bool) -> None:
    """Let the kernel send a round: datagram by datagram, or many at a time, which it cuts in the end."""
    left = _WAITING
    maximum = min(64, 65507 // payload) if segment else 1
    if segment:
        link.setsockopt(socket.SOL_UDP, _UDP_SEGMENT, payload)
    while left:
        count = min(maximum, left)
        link.send(bytes(payload * count))
        left -= count


def _read(tun: int) -> None:
    for _ in range(_WAITING):
        os.read(tun, 2048)


def _write(tun: int, packets: list[bytes]) -> None:
    for _ in range(_SENT // len(packets)):
        for packet in packets:
            os.write(tun, packet)


def _datagram(host: str, payload: int) -> bytes:
    """A UDP datagram to the kernel, with right checksums: others it wouldn't put together."""
    source, target = (socket.inet_aton(host.format(number)) for number in (2, 1))
    length = 8 + payload
    udp = struct.pack("!HHHH", _PORT, _PORT, length, 0) + bytes(payload)
    total = checksum(source, target, struct.pack("!HH", 17, length), udp)
    udp = udp[:6] + struct.pack("!H", total) + udp[8:]
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 0, 0x4000, 64, 17, 0) + source + target
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + udp
