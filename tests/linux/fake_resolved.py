"""A D-Bus with a systemd-resolved on it, as far as name servers of interfaces go: no daemon, one thread."""

from __future__ import annotations

import itertools
import os
import socket
import threading
from pathlib import Path
from typing import Any

from jeepney import HeaderFields, Message, MessageType, new_error, new_method_return
from jeepney.low_level import Parser

_RESOLVED = "org.freedesktop.resolve1"


class FakeResolved:
    """Serves one connection after the other, on a socket in a folder, until it is closed."""

    def __init__(self, folder: Path) -> None:
        path = folder / "bus"
        self.address = f"unix:path={path}"
        #: Process that the bus says it is; None: it isn't there.
        self.process: int | None = os.getpid()
        #: Interface index -> name servers as (family, packed); those that aren't here are unknown.
        self.links: dict[int, list[tuple[int, bytes]]] = {}
        #: Interface index -> domains as (name, routed only), and whether it has the default route.
        self.domains: dict[int, list[tuple[str, bool]]] = {}
        self.default_routes: dict[int, bool] = {}
        #: How many times an interface is still unknown.
        self.late = 0
        #: Method -> D-Bus error that it gives.
        self.errors: dict[str, str] = {}
        #: Servers are taken, and forgotten.
        self.forgetful = False
        #: After this many answers it hangs up, or sends nothing more; None: never.
        self.answers: int | None = None
        self.silent = False
        self.calls: list[str] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        # Wakes accept(), which closing alone would not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                self._greet(connection)
                self._answer_all(connection)

    @staticmethod
    def _greet(connection: socket.socket) -> None:
        file = connection.makefile("rb", buffering=0)
        while line := file.readline():
            if b"BEGIN" in line:
                return
            if b"AUTH" in line:
                connection.sendall(b"OK 00112233445566778899aabbccddeeff\r\n")

    def _answer_all(self, connection: socket.socket) -> None:
        parser = Parser()
        for number in itertools.count():
            while (message := parser.get_next_message()) is None:
                data = connection.recv(4096)
                if not data:
                    return
                parser.add_data(data)
            if number == self.answers:
                if self.silent:
                    connection.recv(1)  # until the other end goes
                return
            connection.sendall(self._answer(message).serialise(serial=number + 1))

    def _answer(self, message: Message) -> Message:
        method = message.header.fields[HeaderFields.member]
        assert message.header.message_type is MessageType.method_call
        self.calls.append(method)
        if method in self.errors:
            return new_error(message, self.errors[method], "s", ("it says no",))
        answer: Message = getattr(self, f"_{method}")(message, *message.body)
        return answer

    def _Hello(self, message: Message) -> Message:
        return new_method_return(message, "s", (":1.1",))

    def _GetConnectionUnixProcessID(self, message: Message, name: str) -> Message:
        assert name == _RESOLVED
        if self.process is None:
            return new_error(message, "org.freedesktop.DBus.Error.NameHasNoOwner", "s", ("nobody",))
        return new_method_return(message, "u", (self.process,))

    def _GetLink(self, message: Message, index: int) -> Message:
        self.late -= self.late > 0
        if self.late or index not in self.links:
            return new_error(message, f"{_RESOLVED}.NoSuchLink", "s", (f"Link {index} not known",))
        return new_method_return(message, "o", (f"/org/freedesktop/resolve1/link/_{index}",))

    def _GetAll(self, message: Message, interface: str) -> Message:
        assert interface == f"{_RESOLVED}.Link"
        index = int(message.header.fields[HeaderFields.path].rpartition("_")[2])
        properties = {
            "DNS": ("a(iay)", self.links[index]),
            "Domains": ("a(sb)", self.domains.get(index, [])),
            "DefaultRoute": ("b", self.default_routes.get(index, False)),
        }
        return new_method_return(message, "a{sv}", (properties,))

    def _SetLinkDomains(self, message: Message, index: int, domains: Any) -> Message:
        assert message.header.fields[HeaderFields.signature] == "ia(sb)"
        if not self.forgetful:
            self.domains[index] = [(name, routed) for name, routed in domains]
        return new_method_return(message)

    def _SetLinkDefaultRoute(self, message: Message, index: int, wanted: bool) -> Message:
        assert message.header.fields[HeaderFields.signature] == "ib"
        self.default_routes[index] = wanted
        return new_method_return(message)

    def _SetLinkDNS(self, message: Message, index: int, servers: Any) -> Message:
        assert message.header.fields[HeaderFields.signature] == "ia(iay)"
        if index not in self.links:
            return new_error(message, f"{_RESOLVED}.NoSuchLink", "s", (f"Link {index} not known",))
        if not self.forgetful:
            self.links[index] = [(family, bytes(packed)) for family, packed in servers]
        return new_method_return(message)
