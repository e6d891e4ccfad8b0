"""WireGuard, interoperable: handshakes, timers and peers in Python, every packet in C.

It needs the package ``cryptography``.
"""

from __future__ import annotations

from tunring.wireguard.config import Config, ConfigError, PeerConfig, parse_config
from tunring.wireguard.device import Device
from tunring.wireguard.keys import Key, PublicKey
from tunring.wireguard.peer import Peer

__all__ = ["Config", "ConfigError", "Device", "Key", "Peer", "PeerConfig", "PublicKey", "parse_config"]
