"""Programs and libraries of others that read captures; tshark has a module of its own."""

from __future__ import annotations

import io
import re
import subprocess
import warnings
from typing import TYPE_CHECKING

import dpkt
import pcapng.blocks
import scapy.utils

if TYPE_CHECKING:
    from pathlib import Path

#: Of pcapng's link types, the one for packets that begin with their IP header.
LINKTYPE_RAW = 101


def tcpdump(path: Path) -> list[str]:
    """The lines that it prints about a file, a packet each, which it must read to its end without an error."""
    # As root it gives up its rights, and could not open a file in a private folder.
    command = ["env", "-u", "LD_PRELOAD", "tcpdump", "-Z", "root", "-n", "-tt", "-r", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"reading from file .*, link-type RAW \(Raw IP\), snapshot length \d+\n", done.stderr)
    return done.stdout.splitlines()


def by_scapy(data: bytes) -> list[bytes]:
    """The packets."""
    return [bytes(packet) for packet in scapy.utils.rdpcap(io.BytesIO(data))]


def by_dpkt(data: bytes) -> list[bytes]:
    """The packets."""
    reader = dpkt.pcapng.Reader(io.BytesIO(data))
    assert reader.datalink() == LINKTYPE_RAW
    return [packet for _, packet in reader]


def by_python_pcapng(data: bytes) -> list[bytes]:
    """The packets."""
    packets = []
    with warnings.catch_warnings():
        # Its own code uses what it deprecates.
        warnings.simplefilter("ignore", DeprecationWarning)
        for block in pcapng.FileScanner(io.BytesIO(data)):
            if isinstance(block, pcapng.blocks.EnhancedPacket):
                assert block.interface.link_type == LINKTYPE_RAW
                packets.append(block.packet_data)
    return packets


LIBRARIES = (by_scapy, by_dpkt, by_python_pcapng)
