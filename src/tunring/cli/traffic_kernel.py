"""Traffic of the kernel's: sockets that talk to addresses behind the tunnel."""

from __future__ import annotations

import os
import socket
import time
from contextlib import ExitStack, closing
from ipaddress import ip_address

from tunring.cli.traffic import DATAGRAM_SIZE, PING_SIZE, TIMEOUT, WINDOW, Count, Tally
from tunring.testing.checksum import checksum

_PORT = 7  # echo

#: Bytes that a TCP connection sends before it reads them back: less than a receive window.
_CHUNK = os.urandom(32 * 1024)
_CHUNKS_PER_CONNECTION = 16


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET if ip_address(host).version == 4 else socket.AF_INET6


class _Ping:
    """Pings one host from a raw socket."""

    def __init__(self, host: str, tally: Tally) -> None:
        self._tally = tally
        self._ipv4 = _family(host) == socket.AF_INET
        self._types = (8, 0) if self._ipv4 else (128, 129)
        protocol = socket.IPPROTO_ICMP if self._ipv4 else socket.IPPROTO_ICMPV6
        self._socket = socket.socket(_family(host), socket.SOCK_RAW, protocol)
        self._socket.settimeout(TIMEOUT)
        self._socket.connect((host, 0))
        self._content = os.urandom(PING_SIZE)
        self._number = 0

    def _message(self, kind: int) -> bytes:
        end = bytes([*os.getpid().to_bytes(8, "big")[-2:], *self._number.to_bytes(2, "big")]) + self._content
        # Of ICMPv6 the kernel computes the checksum, since it knows the addresses.
        value = checksum(kind << 8, end) if self._ipv4 else 0
        return bytes([kind, 0, *value.to_bytes(2, "big")]) + end

    def round(self) -> None:
        self._number = (self._number + 1) & 0xFFFF
        reply = self._message(self._types[1])
        count = self._tally.pings
        count.sent += 1
        started = time.perf_counter_ns()
        self._socket.send(self._message(self._types[0]))
        while True:
            try:
                answer = memoryview(self._socket.recv(2048))
            except TimeoutError:
                return
            ended = time.perf_counter_ns()
            if self._ipv4:
                answer = answer[(answer[0] & 15) * 4 :]
            if answer[0] == self._types[1] and answer[4:8] == reply[4:8]:
                break
        if answer[8:] == reply[8:]:
            count.returned += 1
            self._tally.round_trips.append(ended - started)
        else:
            self._tally.damaged += 1

    def close(self) -> None:
        self._socket.close()


class _Datagrams:
    """Sends UDP datagrams, a window at a time."""

    def __init__(self, host: str, tally: Tally) -> None:
        self._tally = tally
        self._socket = socket.socket(_family(host), socket.SOCK_DGRAM)
        self._socket.settimeout(TIMEOUT)
        self._socket.connect((host, _PORT))
        self._buffer = bytearray(65535)
        self._content = os.urandom(DATAGRAM_SIZE - 8)
        self._number = 0

    def round(self) -> None:
        count = self._tally.datagrams
        first = self._number
        self._number += WINDOW
        datagrams = [number.to_bytes(8, "big") + self._content for number in range(first, self._number)]
        for datagram in datagrams:
            self._socket.send(datagram)
        count.sent += WINDOW
        missing = set(datagrams)
        while missing:
            try:
                size = self._socket.recv_into(self._buffer)
            except TimeoutError:
                return
            answer = bytes(self._buffer[:size])
            if answer in missing:
                missing.remove(answer)
                count.returned += 1
            elif int.from_bytes(answer[:8], "big") >= first:
                self._tally.damaged += 1

    def close(self) -> None:
        self._socket.close()


class _Stream:
    """Sends over TCP and reads everything back; opens a new connection now and then."""

    def __init__(self, host: str, tally: Tally) -> None:
        self._host = host
        self._tally = tally
        self._socket: socket.socket | None = None
        self._chunks = 0

    def round(self) -> None:
        try:
            if self._socket is None:
                self._socket = socket.create_connection((self._host, _PORT), TIMEOUT)
            self._send_chunk(self._socket, self._tally.tcp_bytes)
        except OSError:
            # A missing packet shows in the count.
            self._drop()
            return
        self._chunks += 1
        if self._chunks % _CHUNKS_PER_CONNECTION == 0:
            self.close()

    def _send_chunk(self, connection: socket.socket, count: Count) -> None:
        count.sent += len(_CHUNK)
        connection.sendall(_CHUNK)
        at = 0
        while at < len(_CHUNK):
            data = connection.recv(len(_CHUNK) - at)
            if not data:
                raise ConnectionError("the connection ended early")
            if data != _CHUNK[at : at + len(data)]:
                self._tally.damaged += 1
            at += len(data)
            count.returned += len(data)

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def close(self) -> None:
        if self._socket is None:
            return
        try:
            self._socket.shutdown(socket.SHUT_WR)
            if self._socket.recv(1):
                self._tally.damaged += 1
            else:
                self._tally.connections += 1
        except OSError:
            self._tally.damaged += 1
        self._drop()


class KernelTraffic:
    """Pings, datagrams and TCP connections to each host, one after the other, from the calling thread's namespace."""

    def __init__(self, hosts: list[str]) -> None:
        self.tally = Tally()
        self._sources: list[_Ping | _Datagrams | _Stream] = []
        try:
            for host in hosts:
                for kind in (_Ping, _Datagrams, _Stream):
                    self._sources.append(kind(host, self.tally))
        except BaseException:
            self.close()
            raise

    def round(self) -> None:
        """Send a little of everything, and wait for all of it to come back."""
        for source in self._sources:
            source.round()

    def close(self) -> None:
        """Close the connections in order, and the sockets."""
        with ExitStack() as stack:
            for source in self._sources:
                stack.enter_context(closing(source))
        self._sources = []


def kernel_faults() -> dict[str, int] | None:
    """Errors that the kernel has counted so far in this namespace. None where /proc is not mounted."""
    figures: dict[str, int] = {}
    if not os.path.exists("/proc/thread-self/net/snmp"):
        return None
    with open("/proc/thread-self/net/snmp", encoding="ascii") as file:
        lines = [line.split() for line in file]
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        figures |= {names[0] + name: int(value) for name, value in zip(names[1:], values[1:], strict=True)}
    with open("/proc/thread-self/net/snmp6", encoding="ascii") as file:
        figures |= {name: int(value) for name, value in map(str.split, file)}
    wrong = [value for name, value in figures.items() if name.endswith("InCsumErrors")]
    return {"checksum_errors": sum(wrong), "retransmitted": figures.get("Tcp:RetransSegs", 0)}
