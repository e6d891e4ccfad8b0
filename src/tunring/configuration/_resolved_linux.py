"""Name servers and domains of an interface, which on Linux are systemd-resolved's: it is asked over D-Bus."""

from __future__ import annotations

import errno
import itertools
import os
import socket
import time
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tunring._extras import import_advice
from tunring._win32 import Win32
from tunring.errors import AccessDenied, NotFound, WintunError

if TYPE_CHECKING:
    from tunring.configuration._checks import Host

_NAME, _PATH = "org.freedesktop.resolve1", "/org/freedesktop/resolve1"
_ANSWER_SECONDS, _LINK_SECONDS = 5.0, 3.0


#: The domain of all names.
_EVERYTHING = "~."

#: Names of D-Bus and systemd-resolved.
_DENIED = ("org.freedesktop.DBus.Error.AccessDenied", "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired")
_NO_LINK = "org.freedesktop.resolve1.NoSuchLink"


@dataclass(frozen=True)
class Dns:
    """DNS settings of an interface."""

    servers: tuple[Host, ...] = ()
    #: Domains that are searched; with ``~`` those that are only routed.
    domains: tuple[str, ...] = ()
    #: Its servers are asked about names that no domain of any interface covers.
    default_route: bool = False

    def changed(self, servers: tuple[Host, ...], domains: tuple[str, ...]) -> Dns:
        """The settings to reach once servers, or domains, have been asked for."""
        if not domains:
            return replace(self, servers=servers or self.servers)
        implied = self.default_route and _EVERYTHING not in self.domains
        return Dns(servers or self.servers, domains, _EVERYTHING in domains or implied)

    def __str__(self) -> str:
        servers, domains = (", ".join(map(str, items)) or "none" for items in (self.servers, self.domains))
        return f"the DNS servers {servers} and domains {domains}"


class Resolver:
    """A connection to the systemd-resolved that serves the calling thread's network namespace.

    Raises
    ------
    NotImplementedError
        There is none; the message names what is lacking.
    """

    def __init__(self) -> None:
        try:
            import jeepney
            from jeepney.bus import get_bus
            from jeepney.io.blocking import prep_socket
            from jeepney.low_level import Parser
        except ImportError as error:
            raise _unavailable(f"that {import_advice(error, 'jeepney')}") from error
        self._jeepney: Any = jeepney
        self._parser = Parser()
        self._serials = itertools.count(1)
        try:
            self._socket: socket.socket = prep_socket(get_bus("SYSTEM"))
        except (OSError, ValueError, RuntimeError, jeepney.AuthenticationError) as error:
            raise _unavailable(f"there is no D-Bus system bus ({error})") from error
        try:
            self._send(jeepney.message_bus.Hello())
            self._check_namespace()
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._socket.close()

    def wait_for(self, index: int) -> None:
        """Wait until it knows an interface: it hears of a new one a moment later than others."""
        limit = time.monotonic() + _LINK_SECONDS
        while True:
            try:
                self._call("GetLink", "i", (index,))
            except NotFound:
                if time.monotonic() >= limit:
                    raise
                time.sleep(0.01)
            else:
                return

    def read(self, index: int) -> Dns:
        """Settings of an interface, in its order."""
        (path,) = self._call("GetLink", "i", (index,))
        link = self._jeepney.DBusAddress(path, bus_name=_NAME, interface=f"{_NAME}.Link")
        (found,) = self._send(self._jeepney.Properties(link).get_all())
        servers, domains, default_route = (found[name][1] for name in ("DNS", "Domains", "DefaultRoute"))
        return Dns(
            tuple(ip_address(bytes(packed)) for _, packed in servers),
            tuple(f"~{name}" if routed else name for name, routed in domains),
            default_route,
        )

    def write(self, index: int, before: Dns, wanted: Dns) -> None:
        """Make what an interface has another."""
        if wanted.servers != before.servers:
            packed = [(_family(server), server.packed) for server in wanted.servers]
            self._call("SetLinkDNS", "ia(iay)", (index, packed))
        if wanted.domains != before.domains:
            domains = [(domain.removeprefix("~"), domain[0] == "~") for domain in wanted.domains]
            self._call("SetLinkDomains", "ia(sb)", (index, domains))
        if wanted.default_route != before.default_route:
            self._call("SetLinkDefaultRoute", "ib", (index, wanted.default_route))

    def _call(self, method: str, signature: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        manager = self._jeepney.DBusAddress(_PATH, bus_name=_NAME, interface=f"{_NAME}.Manager")
        return self._send(self._jeepney.new_method_call(manager, method, signature, arguments))

    def _send(self, message: Any) -> tuple[Any, ...]:
        try:
            reply = self._exchange(message, time.monotonic() + _ANSWER_SECONDS)
        except TimeoutError as error:
            raise WintunError(Win32.GEN_FAILURE, "systemd-resolved does not answer") from error
        except OSError as error:
            raise WintunError(Win32.GEN_FAILURE, f"the D-Bus system bus is gone ({error})") from error
        body: tuple[Any, ...] = reply.body
        if reply.header.message_type is self._jeepney.MessageType.error:
            raise _failure(reply.header.fields[self._jeepney.HeaderFields.error_name], body)
        return body

    def _exchange(self, message: Any, limit: float) -> Any:
        """Send a message and wait for the reply to it; jeepney's own connection would greet a dead bus for ever."""
        serial = next(self._serials)
        self._socket.settimeout(_ANSWER_SECONDS)
        self._socket.sendall(message.serialise(serial=serial))
        while True:
            while (received := self._parser.get_next_message()) is None:
                self._socket.settimeout(max(limit - time.monotonic(), 0.001))
                data = self._socket.recv(4096)
                if not data:
                    raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
                self._parser.add_data(data)
            if received.header.fields.get(self._jeepney.HeaderFields.reply_serial) == serial:
                return received

    def _check_namespace(self) -> None:
        """Look which namespace it is in: in another one, the same index is another interface."""
        try:
            (process,) = self._send(self._jeepney.message_bus.GetConnectionUnixProcessID(_NAME))
        except WintunError as error:
            raise _unavailable("no systemd-resolved is running") from error
        try:
            here = os.path.samestat(os.stat(f"/proc/{process}/ns/net"), Path("/proc/thread-self/ns/net").stat())
        except OSError as error:
            text = f"can't find out the network namespace of systemd-resolved ({error.strerror})"
            raise _unavailable(text) from error
        if not here:
            raise _unavailable("systemd-resolved serves another network namespace than the adapter is in")


def _family(server: Host) -> int:
    return socket.AF_INET if server.version == 4 else socket.AF_INET6


def _unavailable(why: str) -> NotImplementedError:
    return NotImplementedError(f"an interface's DNS requires systemd-resolved on Linux: {why}")


def _failure(name: str, body: tuple[Any, ...]) -> WintunError:
    text = f"systemd-resolved refuses to change an interface's DNS: {body[0] if body else name}"
    if name in _DENIED:
        return AccessDenied(Win32.ACCESS_DENIED, text)
    if name == _NO_LINK:
        return NotFound(Win32.NOT_FOUND, text)
    return WintunError(Win32.GEN_FAILURE, text)
