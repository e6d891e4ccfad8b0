"""The cross-platform protocol by which ``wg`` reads and changes a device: requests as text, and answers.

A request is parsed whole before anything changes, and carried out whole before the next one: of two clients that add
the same peer, the second one finds it. Errors are negated numbers of the system's.
"""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from tunring._core import Endpoint
from tunring._udp import check_mark
from tunring.errors import SessionClosed
from tunring.wireguard.keys import Key, PublicKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tunring.wireguard.device import Device
    from tunring.wireguard.peer import Peer

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


class ControlError(Exception):
    """A request is refused.

    Attributes
    ----------
    number : int
        The system's error number.
    """

    def __init__(self, number: int, text: str) -> None:
        super().__init__(text)
        self.number = number


def _invalid(text: str) -> ControlError:
    return ControlError(errno.EINVAL, text)


@dataclass
class PeerChange:
    """A request's changes to one peer. None changes nothing."""

    public_key: PublicKey
    remove: bool = False
    update_only: bool = False
    preshared_key: Key | None = None
    endpoint: Endpoint | None = None
    persistent_keepalive: int | None = None
    replace_allowed_ips: bool = False
    #: Networks, and whether each is added rather than removed.
    allowed_ips: list[tuple[Network, bool]] = field(default_factory=list)


@dataclass
class Change:
    """A whole request. None changes nothing."""

    private_key: Key | None = None
    listen_port: int | None = None
    mark: int | None = None
    replace_peers: bool = False
    peers: list[PeerChange] = field(default_factory=list)


# ---- Reading requests -------------------------------------------------------------------------------------------


def _number(name: str, text: str, maximum: int) -> int:
    if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) > maximum:
        raise _invalid(f"{name} must be 0 to {maximum}")
    return int(text)


def _mark(number: int) -> int:
    try:
        return check_mark(number)
    except NotImplementedError as error:
        raise ControlError(errno.ENOSYS, str(error)) from None


def _true(name: str, text: str) -> bool:
    if text != "true":
        raise _invalid(f"{name} must be true")
    return True


def _key(name: str, text: str) -> Key:
    try:
        return Key.from_hex(text)
    except ValueError as error:
        raise _invalid(f"{name}: {error}") from None


def _endpoint(text: str) -> Endpoint:
    found = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)(?:%([^\]\s/]+))?\]|([0-9.]+)):([0-9]{1,5})", text)
    if found:
        six, zone, four, port = found.groups()
        try:
            if 1 <= int(port) <= 65535:
                ipaddress.IPv6Address(six) if six else ipaddress.IPv4Address(four)
                return Endpoint(six or four, int(port), interface=_interface(zone) if zone else 0)
        except (ValueError, OSError, OverflowError):  # the last for the number of an interface
            pass
    raise _invalid(f"endpoint must be address:port or [address]:port, not {text!r}")


def _interface(zone: str) -> int:
    return int(zone) if zone.isascii() and zone.isdigit() else socket.if_nametoindex(zone)


def _network(text: str) -> tuple[Network, bool]:
    added = not text.startswith("-")
    try:
        return ipaddress.ip_network(text.removeprefix("-"), strict=False), added
    except ValueError:
        raise _invalid(f"allowed_ip must be address/length, not {text!r}") from None


def parse_set(lines: Iterable[str]) -> Change:
    """Read the lines of a set request, without its first. Raises :class:`ControlError`; no message has a secret."""
    change = Change()
    peer: PeerChange | None = None
    for line in lines:
        name, equals, text = line.partition("=")
        if not equals:
            raise _invalid("a line must be key=value")
        if name == "public_key":
            peer = PeerChange(PublicKey(_key(name, text)))
            change.peers.append(peer)
        elif peer is None:
            _set_device(change, name, text)
        else:
            _set_peer(peer, name, text)
    return change


def _set_device(change: Change, name: str, text: str) -> None:
    if name == "private_key":
        change.private_key = _key(name, text)
    elif name == "listen_port":
        change.listen_port = _number(name, text, 0xFFFF)
    elif name == "fwmark":
        change.mark = _mark(_number(name, text or "0", 0xFFFFFFFF))
    elif name == "replace_peers":
        change.replace_peers = _true(name, text)
    else:
        raise _invalid("a device has no such key")


def _set_peer(peer: PeerChange, name: str, text: str) -> None:
    if name == "remove":
        peer.remove = _true(name, text)
    elif name == "update_only":
        peer.update_only = _true(name, text)
    elif name == "preshared_key":
        peer.preshared_key = _key(name, text)
    elif name == "endpoint":
        peer.endpoint = _endpoint(text)
    elif name == "persistent_keepalive_interval":
        peer.persistent_keepalive = _number(name, text, 0xFFFF)
    elif name == "replace_allowed_ips":
        # This also replaces networks that came earlier in the request.
        peer.replace_allowed_ips = _true(name, text)
        peer.allowed_ips.clear()
    elif name == "allowed_ip":
        peer.allowed_ips.append(_network(text))
    elif name == "protocol_version":
        if text != "1":
            raise _invalid("protocol_version must be 1")
    else:
        raise _invalid("a peer has no such key")


# ---- Carrying them out ------------------------------------------------------------------------------------------


def apply(device: Device, change: Change) -> None:
    """Carry out a request. Raises :class:`ControlError` or OSError where the system refuses."""
    if change.listen_port is not None and (change.listen_port or not device.listen_port):
        device.listen_port = change.listen_port
    if change.mark is not None:
        device.mark = change.mark or None
    if change.private_key is not None:
        _set_private_key(device, change.private_key or None)
    if change.replace_peers:
        wanted = {peer.public_key for peer in change.peers if not peer.remove}
        for public_key in device.peers:
            if public_key not in wanted:
                _remove(device, public_key)
    seen: set[PublicKey] = set()
    for peer in change.peers:
        # One that stays keeps its sessions: `wg syncconf` and `wg setconf` of an unchanged file disturb nobody. If
        # it comes again in the request, it is changed, not replaced.
        _apply_peer(device, peer, anew=change.replace_peers and peer.public_key not in seen)
        seen.add(peer.public_key)


def _set_private_key(device: Device, key: Key | None) -> None:
    with device._engine.lock:  # noqa: SLF001 - or the program could add such a peer in between
        # As the kernel does: a peer with our key is removed.
        if key and device._peer(key.public):  # noqa: SLF001
            device.remove_peer(key.public)
        device.private_key = key


def _remove(device: Device, key: PublicKey) -> None:
    with suppress(KeyError):  # there is none, or the program has just removed it
        device.remove_peer(key)


def _apply_peer(device: Device, change: PeerChange, *, anew: bool) -> None:
    if change.remove:
        _remove(device, change.public_key)
        return
    with device._engine.lock:  # noqa: SLF001 - or the program could add it in between: its hook for strangers, for example
        peer = device._peer(change.public_key)  # noqa: SLF001
        is_new = peer is None
        if peer is None:
            if change.update_only or device.public_key == change.public_key:
                return
            peer = device.add_peer(change.public_key, allowed_ips=())
    try:
        _change_peer(peer, change, anew=anew and not is_new, is_new=is_new)
    except SessionClosed:
        if not peer._state.removed:  # noqa: SLF001 - else the program has removed it meanwhile
            raise


def _change_peer(peer: Peer, change: PeerChange, *, anew: bool, is_new: bool) -> None:
    if anew:
        peer.preshared_key, peer.persistent_keepalive = change.preshared_key, change.persistent_keepalive
    if change.preshared_key is not None:
        peer.preshared_key = change.preshared_key
    if change.endpoint is not None:
        peer.endpoint = change.endpoint
    # A new one has none to replace, which would be looked for among all the peers'.
    if (change.replace_allowed_ips or anew) and not is_new:
        _replace(peer, change.allowed_ips)
    else:
        for network, added in change.allowed_ips:
            if added:
                peer.add_allowed_ip(network)
            else:
                peer.allowed_ips = [other for other in peer.allowed_ips if other != network]
    if change.persistent_keepalive is not None:
        peer.persistent_keepalive = change.persistent_keepalive or None


def _replace(peer: Peer, networks: list[tuple[Network, bool]]) -> None:
    wanted: dict[Network, None] = {}
    for network, added in networks:
        if added:
            wanted[network] = None
        else:
            wanted.pop(network, None)
    peer.allowed_ips = list(wanted)


# ---- Answers ----------------------------------------------------------------------------------------------------


def _shown(endpoint: Endpoint) -> str:
    if ":" not in endpoint.host:
        return f"{endpoint.host}:{endpoint.port}"
    zone = f"%{endpoint.interface}" if endpoint.interface else ""
    return f"[{endpoint.host}{zone}]:{endpoint.port}"


def describe(device: Device) -> Iterator[str]:
    """The lines of an answer to a get request, without the last. They have the secrets."""
    if key := device.private_key:
        yield f"private_key={key.hex}"
    yield f"listen_port={device.listen_port}"
    if device.mark:
        yield f"fwmark={device.mark}"
    for peer in device.peers.values():
        try:
            lines = list(_describe_peer(peer))
        except SessionClosed:
            if not peer._state.removed:  # noqa: SLF001 - else the program has removed it meanwhile
                raise
        else:
            yield from lines


def _describe_peer(peer: Peer) -> Iterator[str]:
    preshared = peer.preshared_key
    endpoint = peer.endpoint
    handshake = peer.latest_handshake_ns
    yield f"public_key={peer.public_key.hex}"
    yield f"preshared_key={preshared.hex if preshared else '0' * 64}"
    yield "protocol_version=1"
    if endpoint:
        yield f"endpoint={_shown(endpoint)}"
    yield f"last_handshake_time_sec={handshake // 1_000_000_000}"
    yield f"last_handshake_time_nsec={handshake % 1_000_000_000}"
    yield f"tx_bytes={peer.sent_bytes}"
    yield f"rx_bytes={peer.received_bytes}"
    yield f"persistent_keepalive_interval={peer.persistent_keepalive or 0}"
    for network in peer.allowed_ips:
        yield f"allowed_ip={network}"


def answer(device: Device, request: list[str]) -> str:
    """Carry out a request, of lines without the empty one that ends it, and answer."""
    lines: list[str] = []
    number = 0
    try:
        if request == ["get=1"]:
            with device._requests:  # noqa: SLF001 - the device's own part
                lines = list(describe(device))
        elif request and request[0] == "set=1":
            change = parse_set(request[1:])
            with device._requests:  # noqa: SLF001
                apply(device, change)
        else:
            raise _invalid("a request must begin with get=1 or set=1")
    except ControlError as error:
        number = error.number
    except OSError as error:
        lines, number = [], error.errno or errno.EIO
    except (ValueError, TypeError, KeyError):
        lines, number = [], errno.EINVAL
    return "".join(f"{line}\n" for line in (*lines, f"errno={-number}")) + "\n"
