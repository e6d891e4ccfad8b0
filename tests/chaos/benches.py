"""Links over each library."""

from __future__ import annotations

import itertools
import subprocess
import sys
import uuid
from pathlib import Path

from ledger import MAX_PACKET, Route

import libraries
import tunring


class MemoryBench:
    """Links over loopback, or over the official DLL and the stand-in for its driver: cables."""

    def __init__(self, library: tunring.Library) -> None:
        self._library = library
        # The official driver drops what its ring has no room for.
        self.largest = 1500 if library.official else MAX_PACKET
        self.window = 32 if library.official else None
        self._names = itertools.count()

    def adapters(self, number: int) -> tuple[tunring.Adapter, tunring.Adapter]:
        return libraries.cable(self._library, f"link{number}a", f"link{number}b")

    def routes(self, number: int) -> tuple[Route, Route]:
        left, right = bytes([10, number >> 8 & 255, number & 255, 1]), bytes([10, number >> 8 & 255, number & 255, 2])
        return Route(left, right), Route(right, left)

    def ready(self, adapters: tuple[tunring.Adapter, tunring.Adapter], number: int) -> None:
        pass

    def adapter(self) -> tunring.Adapter:
        return tunring.Adapter.create(
            f"alone{next(self._names)}", guid=None if self._library.official else uuid.uuid4(), library=self._library
        )


class TunBench:
    """Links over tun_linux: the kernel forwards between two interfaces.

    All are in one network namespace, which has to be this process's own. The kernel drops what its queue, of 500
    packets, has no room for.
    """

    largest = 1500
    window = 200

    def __init__(self, library: tunring.Library) -> None:
        self._library = library
        self._names = itertools.count()
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)  # for the sockets
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        for scope in ("all", "default"):
            Path(f"/proc/sys/net/ipv4/conf/{scope}/rp_filter").write_text("0")
            # Otherwise the kernel's own solicitations would be among the packets.
            Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6").write_text("1")

    def adapters(self, number: int) -> tuple[tunring.Adapter, tunring.Adapter]:
        one = tunring.Adapter.create(f"c{number}a", library=self._library)
        try:
            return one, tunring.Adapter.create(f"c{number}b", library=self._library)
        except BaseException:
            one.close()
            raise

    def _networks(self, number: int) -> tuple[bytes, bytes]:
        block = 2 * (number % 16000)
        return bytes([10, block >> 8, block & 255, 0]), bytes([10, block + 1 >> 8, block + 1 & 255, 0])

    def routes(self, number: int) -> tuple[Route, Route]:
        left, right = (network[:3] + b"\x09" for network in self._networks(number))
        return Route(left, right, hops=1), Route(right, left, hops=1)

    def ready(self, adapters: tuple[tunring.Adapter, tunring.Adapter], number: int) -> None:
        for adapter, network in zip(adapters, self._networks(number), strict=True):
            host = ".".join(map(str, network[:3] + b"\x01"))
            adapter.configure(addresses=[f"{host}/24"], mtu=self.largest)

    def adapter(self) -> tunring.Adapter:
        return tunring.Adapter.create(f"alone{next(self._names)}", library=self._library)


def make(library: str) -> tuple[MemoryBench | TunBench, tunring.Library]:
    """Return the bench of a library, and the library."""
    if library != "tun_linux":
        loaded = libraries.load(library)
        return MemoryBench(loaded), loaded
    if sys.platform != "linux":
        raise SystemExit("tun_linux is for Linux")
    from tunring._system.namespace_linux import enter_own_network

    # Before other threads exist, so that all are in the namespace.
    enter_own_network()
    loaded = tunring.load(library)
    return TunBench(loaded), loaded
