"""wg-quick's configuration files."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from tunring.wireguard.keys import Key, PublicKey

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Interface: TypeAlias = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_DOMAIN = re.compile(
    r"(?=.{1,253}\.?$)[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?"
)


#: Of a key, or of most of one, which may be in the wrong place.
_KEY_LIKE = re.compile(r"[A-Za-z0-9+/]{32,}=*")

#: White space, which `wg` leaves out wherever it is in a line.
_SPACE = re.compile(r"\s+", re.ASCII)

#: Lines as Python reads them from a file. There are more in str.splitlines(), which a comment may contain.
_LINE_END = re.compile(r"\r\n|\r|\n")

#: Bytes that are not UTF-8, as "surrogateescape" has them.
_UNDECODED = re.compile("[\ud800-\udfff]")


class ConfigError(ValueError):
    """A configuration is wrong.

    Attributes
    ----------
    line : int
        The line, from 1.
    """

    def __init__(self, line: int, text: str, file: object = None) -> None:
        super().__init__(f"line {line}: {text}" if file is None else f"{file}, line {line}: {text}")
        self.line = line


@dataclass(frozen=True, slots=True)
class PeerConfig:
    """A ``[Peer]`` section.

    Attributes
    ----------
    public_key : PublicKey
        The peer's identity.
    preshared_key : Key or None
        The additional secret that both ends have, if any.
    allowed_ips : tuple of IPv4Network or IPv6Network
        Networks that are the peer's.
    endpoint : (str, int) or None
        Host, an address or a name, and port.
    persistent_keepalive : int or None
        Seconds; None if it is off.
    """

    public_key: PublicKey
    preshared_key: Key | None = None
    allowed_ips: tuple[Network, ...] = ()
    endpoint: tuple[str, int] | None = None
    persistent_keepalive: int | None = None


@dataclass(frozen=True, slots=True)
class Config:
    """A whole file: its ``[Interface]`` section, and its peers.

    Attributes
    ----------
    private_key : Key or None
        The device's own key.
    listen_port : int or None
        The port of the tunnel's datagrams; None: any.
    mark : int or None
        The mark of the tunnel's own datagrams; None if it is off.
    addresses : tuple of IPv4Interface or IPv6Interface
        Addresses of the interface, with the lengths of their prefixes.
    dns, dns_search : tuple
        Servers and search domains of the key DNS.
    mtu : int or None
        Bytes of the interface's largest packet, if the file has them.
    table : str
        ``"auto"``, ``"off"``, or a routing table's number or name.
    pre_up, post_up, pre_down, post_down : tuple of str
        Commands, in order.
    save_config : bool
        True: the file is rewritten at the end.
    peers : tuple of PeerConfig
        The ``[Peer]`` sections.
    """

    private_key: Key | None = None
    listen_port: int | None = None
    mark: int | None = None
    addresses: tuple[Interface, ...] = ()
    dns: tuple[Address, ...] = ()
    dns_search: tuple[str, ...] = ()
    mtu: int | None = None
    table: str = "auto"
    pre_up: tuple[str, ...] = ()
    post_up: tuple[str, ...] = ()
    pre_down: tuple[str, ...] = ()
    post_down: tuple[str, ...] = ()
    save_config: bool = False
    peers: tuple[PeerConfig, ...] = ()

    def to_text(self) -> str:
        r"""Return the configuration as the text of a file that :func:`parse_config` reads. It contains the secrets.

        Examples
        --------
        >>> from tunring.wireguard import Config
        >>> Config(listen_port=51820, table="off").to_text()
        '[Interface]\nListenPort = 51820\nTable = off\n'
        """
        return "".join(_written("Interface", _INTERFACE, self)) + "".join(
            line for peer in self.peers for line in ("\n", *_written("Peer", _PEER, peer))
        )


def parse_config(text: str | bytes, *, file: str | os.PathLike[str] | None = None) -> Config:
    r"""Read a configuration in wg-quick's format.

    It is read as ``wg`` and ``wg-quick`` read it:

    - Names of sections and keys are read in any case; ``#`` begins a comment, which may have any encoding.
    - Keys with lists (Address, DNS, AllowedIPs) and the commands may appear several times in a section, and add up. Of
      any other key, the last line counts.
    - In Address and DNS, commas and white space separate items; in AllowedIPs, commas do. White space within the values
      of ``wg``'s own keys is left out.
    - A second section of the same peer replaces its allowed IPs, and of its other settings those that it names.

    Parameters
    ----------
    text : str or bytes
        The file's content. Bytes are UTF-8, in which only comments may have errors.
    file : str or path, optional
        The file's name, for errors.

    Raises
    ------
    ConfigError
        Something in it is wrong: the message has the line, what is there and what is allowed, but no secret; and
        the file, if it was given.

    Examples
    --------
    >>> from tunring.wireguard import parse_config
    >>> config = parse_config('''
    ... [Interface]
    ... PrivateKey = AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHk8=
    ... Address = 10.0.0.1/24, fd00::1/64
    ... DNS = 10.0.0.53, example.org
    ... [Peer]
    ... PublicKey = L/U28zCzZzeAAWMj8pa0fYe7QGhHPnxnQwyianIWHUc=
    ... AllowedIPs = 10.0.0.2/32
    ... Endpoint = [2001:db8::2]:51820
    ... ''')
    >>> config.private_key, config.dns_search, config.peers[0].endpoint
    (Key(secret), ('example.org',), ('2001:db8::2', 51820))
    >>> parse_config("[Interface]\nMTU = big")
    Traceback (most recent call last):
      ...
    tunring.wireguard.config.ConfigError: line 2: MTU must be 576 to 65535, not 'big'
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    return _Reader(file).read(text)


# ---- Values -----------------------------------------------------------------------------------------------------


def _number(minimum: int, maximum: int, *, off: bool = False) -> Callable[[str, str], int | None]:
    def read(name: str, text: str) -> int | None:
        if off and text.lower() == "off":
            return None
        base = 16 if text[:2].lower() == "0x" else 10
        digits = text[2:] if base == 16 else text
        value = int(digits, base) if re.fullmatch(r"[0-9a-fA-F]+" if base == 16 else r"[0-9]+", digits) else -1
        if not minimum <= value <= maximum:
            raise ValueError(f"{name} must be {minimum} to {maximum}{' or off' if off else ''}, not {text!r}")
        return (value or None) if off else value

    return read


def _key(name: str, text: str) -> Key:
    try:
        return Key(text)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _public_key(name: str, text: str) -> PublicKey:
    return PublicKey(_key(name, text))


def _preshared_key(name: str, text: str) -> Key | None:
    return _key(name, text) or None


def _words(text: str) -> list[str]:
    return _SPACE.sub(" ", text.replace(",", " ")).split()


def _addresses(name: str, text: str) -> tuple[Interface, ...]:
    try:
        return tuple(ipaddress.ip_interface(item) for item in _words(text))
    except ValueError as error:
        raise ValueError(f"{name} must be addresses such as 10.0.0.1/24: {error}") from None


def _networks(name: str, text: str) -> tuple[Network, ...]:
    try:
        return tuple(ipaddress.ip_network(item, strict=False) for item in text.split(",") if text)
    except ValueError as error:
        raise ValueError(f"{name} must be networks such as 10.0.0.0/24 or ::/0: {error}") from None


def _dns(name: str, text: str) -> tuple[Address | str, ...]:
    found: list[Address | str] = []
    for item in _words(text):
        try:
            found.append(ipaddress.ip_address(item))
        except ValueError:
            if not _DOMAIN.fullmatch(item) or re.fullmatch(r"[0-9.]+", item):
                raise ValueError(f"{name} must be addresses or search domains, not {item!r}") from None
            found.append(item)
    return tuple(found)


def _endpoint(name: str, text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed:
        host = host[1:-1]
    good = bool(colon) and bool(host) and re.fullmatch(r"[0-9]{1,5}", port) and 1 <= int(port) <= 65535
    if good and (bracketed or ":" in host):
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            good = None
        else:
            good = good if bracketed else None
    elif good:
        good = None if re.search(r"[\s\[\]/]", host) else good
    if not good:
        raise ValueError(f"{name} must be host:port or [IPv6 address]:port, not {text!r}")
    return host, int(port)


def _truth(name: str, text: str) -> bool:
    if text.lower() not in {"true", "false"}:
        raise ValueError(f"{name} must be true or false, not {text!r}")
    return text.lower() == "true"


def _table(name: str, text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", text):
        raise ValueError(f"{name} must be auto, off, or a routing table's number or name, not {text!r}")
    return text.lower() if text.lower() in {"auto", "off"} else text


def _command(name: str, text: str) -> tuple[str, ...]:
    if not text:
        raise ValueError(f"{name} must be a command, and is empty")
    return (text,)


# ---- Sections ---------------------------------------------------------------------------------------------------

#: Of each section and key, by its name in lower case: its proper name, the field, and what reads its value.
_Keys: TypeAlias = "dict[str, tuple[str, str, Callable[[str, str], Any]]]"


def _keys(**readers: tuple[str, Callable[[str, str], Any]]) -> _Keys:
    return {name.lower(): (name, field, read) for name, (field, read) in readers.items()}


_INTERFACE = _keys(
    PrivateKey=("private_key", _key),
    ListenPort=("listen_port", _number(0, 65535)),
    FwMark=("mark", _number(0, 0xFFFFFFFF, off=True)),
    Address=("addresses", _addresses),
    DNS=("dns", _dns),
    MTU=("mtu", _number(576, 65535)),
    Table=("table", _table),
    PreUp=("pre_up", _command),
    PostUp=("post_up", _command),
    PreDown=("pre_down", _command),
    PostDown=("post_down", _command),
    SaveConfig=("save_config", _truth),
)
_PEER = _keys(
    PublicKey=("public_key", _public_key),
    PresharedKey=("preshared_key", _preshared_key),
    AllowedIPs=("allowed_ips", _networks),
    Endpoint=("endpoint", _endpoint),
    PersistentKeepalive=("persistent_keepalive", _number(0, 65535, off=True)),
)
#: Names of the keys that `wg` reads. The others are wg-quick's.
_OF_WG = {"privatekey", "listenport", "fwmark", *_PEER}
_COMMANDS = {"pre_up", "post_up", "pre_down", "post_down"}
#: Of these, all lines count; of others, the last.
_LISTS = {"addresses", "dns", "allowed_ips", *_COMMANDS}
_SECTIONS = {"interface": ("Interface", _INTERFACE), "peer": ("Peer", _PEER)}


def _written(section: str, keys: _Keys, values: Config | PeerConfig) -> Iterator[str]:
    """The lines of a section."""
    yield f"[{section}]\n"
    for name, field, _ in keys.values():
        value = getattr(values, field)
        if isinstance(values, Config) and field == "dns":
            value = (*value, *values.dns_search)
        if value in (None, ()) or value is False or (field, value) == ("table", "auto"):
            continue
        # A command may have commas of its own.
        for text in value if field in _COMMANDS else (_text(value),):
            yield f"{name} = {text}\n"


def _text(value: object) -> str:
    if isinstance(value, Key):
        return value.base64
    if value is True:
        return "true"
    if not isinstance(value, tuple):
        return str(value)
    if len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int):
        host, port = value
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return ", ".join(map(str, value))


class _Reader:
    """Reads one file."""

    def __init__(self, file: object) -> None:
        self._file = file
        self._line = 0
        self._interface: dict[str, Any] = {}
        self._peers: list[tuple[int, dict[str, Any]]] = []
        self._section = ""
        self._keys: _Keys = {}
        self._fields: dict[str, Any] = self._interface

    def read(self, text: str) -> Config:
        """Read it."""
        for self._line, line in enumerate(_LINE_END.split(text.removeprefix("\ufeff")), 1):
            line = line.partition("#")[0].strip()
            if _UNDECODED.search(line):
                raise self._error("there are bytes that are not UTF-8, which only a comment may have")
            if line.startswith("["):
                self._begin(line)
            elif line:
                self._take(line)
        return self._result()

    def _begin(self, line: str) -> None:
        found = _SECTIONS.get(line[1:-1].strip().lower()) if line.endswith("]") else None
        if not found:
            shown = _KEY_LIKE.sub("...", repr(line))
            raise self._error(f"a section must be [Interface] or [Peer], not {shown}")
        self._section, self._keys = found
        self._fields = self._interface
        if self._section == "Peer":
            self._fields = {}
            self._peers.append((self._line, self._fields))

    def _take(self, line: str) -> None:
        name, equals, text = (part.strip() for part in line.partition("="))
        if not self._section:
            raise self._error("the file must begin with a section, [Interface] or [Peer]")
        if not equals:
            raise self._error("a line must be Key = value")
        if name.lower() not in self._keys:
            allowed = ", ".join(proper for proper, _, _ in self._keys.values())
            # The value of a key without its name is not repeated: base64 ends with "=".
            shown = repr(name) if len(name) <= 24 else f"of {len(name)} characters"
            raise self._error(f"[{self._section}] has no key {shown}; it has {allowed}")
        proper, field, read = self._keys[name.lower()]
        try:
            value = read(proper, _SPACE.sub("", text) if name.lower() in _OF_WG else text)
        except ValueError as error:
            raise self._error(_KEY_LIKE.sub("...", str(error))) from None
        self._fields[field] = self._fields.get(field, ()) + value if field in _LISTS else value

    def _error(self, text: str, line: int | None = None) -> ConfigError:
        return ConfigError(line or self._line, text, self._file)

    def _result(self) -> Config:
        peers: dict[PublicKey, dict[str, Any]] = {}
        for line, fields in self._peers:
            if "public_key" not in fields:
                raise self._error("this [Peer] has no PublicKey", line)
            # The later section is the later change: it also takes its networks from the peers before it.
            earlier = peers.pop(fields["public_key"], {})
            peers[fields["public_key"]] = {**earlier, "allowed_ips": (), **fields}
        fields = dict(self._interface)
        dns = fields.pop("dns", ())
        return Config(
            **fields,
            dns=tuple(item for item in dns if not isinstance(item, str)),
            dns_search=tuple(item for item in dns if isinstance(item, str)),
            peers=tuple(PeerConfig(**fields) for fields in peers.values()),
        )
