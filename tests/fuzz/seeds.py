"""Makes the fuzz targets' first inputs: packets of every kind that the offloads know.

python3 tests/fuzz/seeds.py FOLDER
"""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import offload_reference as reference
from offload_reference import ACK, CWR, ECE, FIN, PSH, SYN, TCP, UDP, Virtio

COPY, SEAL = 1, 2


def packet(version: int, protocol: int, size: int, flags: int = ACK, options: bytes = b"", extra: bytes = b"") -> bytes:
    """A packet; `extra` is for IPv4 options or one IPv6 extension header, whose first byte gives its type."""
    if version == 4:
        length = 20 + len(extra)
        header = (
            bytes([0x40 + length // 4, 0, 0, 0, 1, 0, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]) + extra
        )
    else:
        first = extra[0] if extra else protocol
        header = bytes([0x60, 0, 0, 0, 0, 0, first, 64]) + bytes(15) + b"\1" + bytes(15) + b"\2"
        header += bytes([protocol]) + extra[1:] if extra else b""
    transport = bytes([0, 80, 0, 90])
    if protocol == TCP:
        transport += bytes([0, 0, 1, 0, 0, 0, 0, 7, (20 + len(options)) // 4 << 4, flags, 1, 0, 0, 0, 0, 0]) + options
    else:
        transport += bytes(4)
    return reference.seal(header + transport + bytes(i & 0xFF for i in range(size)))


def superpacket(whole: bytes, segment: int) -> bytes:
    """The input for a superpacket as the kernel hands it over."""
    headers = reference.parse(whole)
    assert headers
    at = reference.checksum_at(headers)
    data = bytearray(whole)
    reference.put16(data, at, reference.pseudo(whole, headers, len(whole) - headers.transport))
    kind = reference.GSO_UDP
    if headers.protocol == TCP:
        kind = reference.GSO_TCP4 if headers.version == 4 else reference.GSO_TCP6
        kind |= reference.GSO_ECN if whole[headers.transport + 13] & CWR else 0
    virtio = Virtio(1, kind, headers.length, segment, headers.transport, at - headers.transport)
    return virtio.pack() + bytes(data)


def split_inputs() -> list[bytes]:
    """Inputs of fuzz_split."""
    found = []
    timestamps = b"\1\1\x08\x0a" + bytes(8)
    extensions = [b"\0\0\1\4" + bytes(4), b"\x2b\0\1\0" + bytes(4), b"\x3c\1\1\x0c" + bytes(12), b"\x2c" + bytes(7)]
    for version, (size, segment) in product((4, 6), ((0, 10), (50, 100), (200, 48), (3000, 1400), (20000, 8000))):
        found += [
            superpacket(packet(version, TCP, size, ACK | PSH | FIN | CWR | ECE, timestamps), segment),
            superpacket(packet(version, UDP, size), segment),
            Virtio().pack() + packet(version, UDP, size),
            Virtio(1, 0, 0, 0, {4: 20, 6: 40}[version], 6).pack() + packet(version, UDP, size),
            Virtio(0, 5, 0, segment, 0, 0).pack() + packet(version, UDP, size),
            Virtio(0, {4: 1, 6: 4}[version], 0, segment, 0, 0).pack() + packet(version, TCP, size, SYN | ACK),
        ]
    for protocol in (TCP, UDP):
        plain = superpacket(packet(4, protocol, 200, extra=b"\1" * 8), 80)
        found.append(plain)
        for extension in extensions:
            data = bytearray(packet(6, protocol, 200, extra=extension))
            start = 40 + len(extension)
            reference.put16(data, 4, len(data) - 40)
            if protocol == UDP:
                reference.put16(data, start + 4, len(data) - start)
            kind, offset = (5, 6) if protocol == UDP else (4, 16)
            found.append(Virtio(1, kind, start + 20, 80, start, offset).pack() + bytes(data))
    return found


def step(how: int, data: bytes = b"") -> bytes:
    """One packet of an input of fuzz_coalesce."""
    return bytes([how]) + len(data).to_bytes(2, "little") + data


def coalesce_inputs() -> list[bytes]:
    """Inputs of fuzz_coalesce."""
    found = []
    for version, protocol, size in product((4, 6), (TCP, UDP), (0, 1, 100, 1400)):
        first = packet(version, protocol, size)
        again = step(COPY | SEAL)
        flags = bytes({4: 20, 6: 40}[version] + 13) + bytes([PSH])
        spoilt = step(COPY, bytes(len(first) - 1) + b"\1")
        other = step(SEAL, packet(version, TCP + UDP - protocol, size))
        found += [
            b"\7" + step(0, first) + again * 9,
            b"\7" + step(0, first) + again * 2 + step(COPY | SEAL, flags) + again * 2,
            b"\7" + step(0, first) + again + spoilt + again * 2,
            b"\7" + (step(0, first) + other) * 5,
            b"\7" + step(0, first) + again + step(0, first[:20]) + step(0) + again,
            b"\3" + step(0, first) + again * 70,
        ]
        if len(first) > 100:
            found.append(b"\7" + step(0, first) + again * 4 + step(0, packet(version, protocol, size // 2)))
    return found


def wireguard_inputs() -> list[bytes]:
    """Inputs of fuzz_wireguard."""
    inside = bytearray(packet(4, UDP, 50))
    inside[12:16] = bytes((10, 0, 0, 1))
    as_it_is, data, handshake = 0, 1, 2
    messages = [bytes([kind, 0, 0, 0]) + bytes(size - 4) for kind, size in ((1, 148), (2, 92), (3, 64), (4, 32))]
    return [
        step(data, bytes(inside)) * 3
        + step(data)
        + step(data, bytes(inside[:30]))
        + step(data, bytes(inside) + b"\0" * 9),
        step(data, packet(6, TCP, 50)) + step(as_it_is, b"\4") + step(as_it_is),
        *(step(handshake, message) + step(as_it_is, message) for message in messages),
    ]


def write(folder: Path) -> None:
    """Writes a folder of inputs for each target."""
    targets = {
        "split": split_inputs(),
        "coalesce": coalesce_inputs(),
        "complete": [data[10:] for data in split_inputs()],
        "wireguard": wireguard_inputs(),
    }
    for name, inputs in targets.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(inputs):
            (folder / name / f"seed-{number:03}").write_bytes(data)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
