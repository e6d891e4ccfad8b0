"""One peer of a device."""

from __future__ import annotations

import ipaddress
import operator
import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias

from tunring._core import Endpoint, wireguard_now
from tunring.wireguard.keys import Key

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tunring.wireguard._engine import Engine
    from tunring.wireguard._peer_state import PeerState
    from tunring.wireguard.keys import PublicKey

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
NetworkLike: TypeAlias = str | Network | ipaddress.IPv4Address | ipaddress.IPv6Address
EndpointLike: TypeAlias = Endpoint | tuple[str, int]


def check_networks(networks: Iterable[NetworkLike]) -> list[Network]:
    """Allowed IPs: networks, or addresses. Raises ValueError or TypeError."""
    if isinstance(networks, str):
        raise TypeError(f"allowed_ips must be a list of networks, not the text {networks!r}")
    found: list[Network] = []
    for network in networks:
        if not isinstance(network, str | ipaddress._BaseNetwork | ipaddress._BaseAddress):  # noqa: SLF001
            raise TypeError(f"allowed_ips must be networks such as '10.0.0.0/24', not {network!r}")
        try:
            found.append(ipaddress.ip_network(network, strict=False))
        except ValueError as error:
            raise ValueError(f"allowed_ips must be networks such as '10.0.0.0/24': {error}") from None
    return found


def check_endpoint(endpoint: EndpointLike | None) -> Endpoint | None:
    """An endpoint, or host and port. Raises ValueError or TypeError."""
    if endpoint is None or isinstance(endpoint, Endpoint):
        made = endpoint
    elif isinstance(endpoint, tuple):
        made = Endpoint(*endpoint)
    else:
        raise TypeError(f"endpoint must be a tunring.Endpoint, (host, port) or None, not {endpoint!r}")
    if made is not None and made.port == 0:
        raise ValueError("the endpoint's port must be 1 to 65535, not 0")
    return made


def check_keepalive(seconds: int | None) -> int:
    """Seconds between persistent keepalives, 0 for none. Raises ValueError or TypeError."""
    value = operator.index(seconds or 0)
    if not 0 <= value <= 65535:
        raise ValueError(f"persistent_keepalive must be 1 to 65535 seconds, or None, not {seconds}")
    return value


def check_preshared(key: Key | str | None) -> Key | None:
    """A preshared key; zeros are none. Raises ValueError or TypeError."""
    return (Key(key) or None) if key is not None else None


def packed(networks: Iterable[Network]) -> list[tuple[bytes, int]]:
    """Networks as C takes them."""
    return [(network.network_address.packed, network.prefixlen) for network in networks]


def _unpacked(network: tuple[bytes, int]) -> Network:
    address, length = network
    if len(address) == 4:
        return ipaddress.IPv4Network((address, length))
    return ipaddress.IPv6Network((address, length))


class Peer:
    """A peer of a device. :meth:`Device.add_peer` makes it."""

    def __init__(self, engine: Engine, state: PeerState) -> None:
        self._engine, self._state = engine, state

    def __repr__(self) -> str:
        return f"<tunring.wireguard.Peer {self._state.public_key}>"

    @property
    def public_key(self) -> PublicKey:
        """The peer's public key."""
        return self._state.public_key

    @property
    def preshared_key(self) -> Key | None:
        """The additional secret of both sides. It can be set: the next handshake uses it.

        Raises SessionClosed once the peer is removed or the device closed, which wipes it, and in a forked child.
        """
        with self._engine.lock:
            secret = self._state.preshared_key
            return Key(bytes(secret)) if secret is not None else None

    @preshared_key.setter
    def preshared_key(self, key: Key | str | None) -> None:
        made = check_preshared(key)
        with self._engine.lock:
            self._state.set_preshared_key(made)

    @property
    def endpoint(self) -> Endpoint | None:
        """The peer's address and port, as set or as the last authentic message came from. It can be set.

        Raises ValueError or TypeError for anything but an address and a port: names are not looked up.
        """
        return self._state.core.endpoint

    @endpoint.setter
    def endpoint(self, endpoint: EndpointLike | None) -> None:
        made = check_endpoint(endpoint)
        with self._engine.lock:
            self._engine.poke(self._state)
            self._state.core.endpoint = self._state.shown_endpoint = made
            self._state.timers.hurry(wireguard_now())

    @property
    def allowed_ips(self) -> tuple[Network, ...]:
        """The networks whose packets go to the peer, and may come from it.

        Setting it replaces them all; another peer that has one of them loses it in the same step.
        """
        return tuple(map(_unpacked, self._state.core.allowed_ips()))

    @allowed_ips.setter
    def allowed_ips(self, networks: Iterable[NetworkLike]) -> None:
        self._state.core.set_allowed_ips(packed(check_networks(networks)))

    def add_allowed_ip(self, network: NetworkLike) -> None:
        """Add one network to the allowed IPs. Another peer that has it loses it in the same step."""
        [(address, length)] = packed(check_networks([network]))
        self._state.core.add_allowed_ip(address, length)

    @property
    def persistent_keepalive(self) -> int | None:
        """Maximum seconds between two datagrams, or None. It can be set, to 1 to 65535."""
        return self._state.timers.persistent_keepalive or None

    @persistent_keepalive.setter
    def persistent_keepalive(self, seconds: int | None) -> None:
        value = check_keepalive(seconds)
        with self._engine.lock:
            self._engine.poke(self._state)
            self._state.timers.persistent_keepalive = value

    @property
    def latest_handshake(self) -> float | None:
        """When the last handshake was completed, in seconds since 1970; None before the first."""
        return self._state.handshake_time / 1e9 if self._state.handshake_time else None

    @property
    def latest_handshake_ns(self) -> int:
        """The same in whole nanoseconds; 0 before the first."""
        return self._state.handshake_time

    @property
    def received_bytes(self) -> int:
        """Bytes of authentic messages received."""
        return self._state.core.state().received_bytes

    @property
    def sent_bytes(self) -> int:
        """Bytes of messages sent."""
        return self._state.core.state().sent_bytes

    def handshake(self) -> None:
        """Begin a handshake now, or as soon as 5 s have passed since the last one."""
        self._engine.want(self._state)


def host_of(endpoint: Endpoint) -> str:
    """An endpoint's address as text, a link-local one with its zone: by name where that is a stable one."""
    if not endpoint.interface:
        return endpoint.host
    zone = str(endpoint.interface)
    if os.name != "nt":  # where resolvers know indices only
        with suppress(OSError):
            zone = socket.if_indextoname(endpoint.interface)
    return f"{endpoint.host}%{zone}"


def describe(peer: Peer) -> dict[str, Any]:
    """A peer's figures, for JSON; without secrets."""
    endpoint = peer.endpoint
    return {
        "public_key": peer.public_key.base64,
        "preshared_key": peer._state.preshared_key is not None,  # noqa: SLF001 - the key itself need not be read
        "endpoint": [host_of(endpoint), endpoint.port] if endpoint else None,
        "allowed_ips": [str(network) for network in peer.allowed_ips],
        "latest_handshake": peer.latest_handshake,
        "received_bytes": peer.received_bytes,
        "sent_bytes": peer.sent_bytes,
        "persistent_keepalive": peer.persistent_keepalive,
    }
