"""Adapters: network interfaces whose packets go through a program."""

from __future__ import annotations

import operator
import os
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeAlias

from tunring import _core
from tunring._configurator import Configurator, index_of, locate, name_of
from tunring._library import the_library

if TYPE_CHECKING:
    import uuid
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from tunring._creation import IfExists
    from tunring.configuration import AddressLike, Configuration, RouteLike
    from tunring.configuration._checks import Host, Network

#: Which packets are handed to the kernel as one.
Coalesce: TypeAlias = Literal["all", "tcp", "none"]

#: Bytes of a ring: the minimum and the maximum of the ABI.
MIN_CAPACITY = 0x20000
MAX_CAPACITY = 0x4000000

#: UTF-16 units that the ABI allows.
_NAME_UNITS = 127
_TYPE_UNITS = 128

#: That Linux allows for an interface.
_MAX_QUEUES = 256


def _check_text(text: object, what: str, maximum: int) -> str:
    if not isinstance(text, str):
        raise TypeError(f"{what} must be a str, not {type(text).__name__}")
    units = len(text.encode("utf-16-le", "surrogatepass")) // 2
    if not 1 <= units <= maximum or "\0" in text:
        raise ValueError(f"{what} must have 1 to {maximum} UTF-16 units and no NUL, not {text!r}")
    return text


def _check_guid(guid: uuid.UUID | str | None) -> bytes | None:
    if guid is None:
        return None
    import uuid

    if isinstance(guid, str):
        guid = uuid.UUID(guid)
    if not isinstance(guid, uuid.UUID):
        raise TypeError(f"guid must be a uuid.UUID, its text or None, not {guid!r}")
    return guid.bytes_le


def _check_capacity(capacity: int) -> int:
    value = operator.index(capacity)
    if not MIN_CAPACITY <= value <= MAX_CAPACITY or value & (value - 1):
        raise ValueError(f"capacity must be a power of two from {MIN_CAPACITY:#x} to {MAX_CAPACITY:#x}, not {capacity}")
    return value


#: Where an adapter's interface comes from: :meth:`Adapter.create`, :meth:`Adapter.open` or :meth:`Adapter.from_fd`.
_Origin: TypeAlias = Literal["created", "opened", "adopted"]


def _check_queues(count: int, what: str, maximum: int) -> int:
    value = operator.index(count)
    if not 1 <= value <= maximum:
        raise ValueError(f"{what} must be 1 to {maximum}, not {count}")
    return value


def _require_queues(library: _core.Library) -> None:
    if library.name != "tun_linux":
        raise NotImplementedError(
            f"adapters of {library.name} have one queue; only those of tun_linux can have several"
        )


class Adapter:
    """A network interface that this program serves. :meth:`create` and :meth:`open` make it.

    Use it in a ``with`` block, or close it.

    Examples
    --------
    >>> import tunring
    >>> with tunring.Adapter.create("OfficeNet", library=tunring.load("loopback")) as adapter:
    ...     with adapter.start_session() as session:
    ...         adapter.name, session.capacity
    ('OfficeNet', 4194304)
    """

    #: By id() of each adapter that is open: its library's path and its LUID.
    _open_adapters: ClassVar[dict[int, tuple[str, int]]] = {}

    def __init__(
        self, handle: _core.AdapterHandle, name: str, library: _core.Library, *, origin: _Origin = "created"
    ) -> None:
        if not isinstance(handle, _core.AdapterHandle):
            raise TypeError("Adapter.create() and Adapter.open() make adapters")
        self._handle = handle
        self._name = name
        self._library = library
        self._luid = handle.luid
        self._queues = 1 if origin == "adopted" else _MAX_QUEUES  # as many as the system allows
        self._own_queues: list[_core.AdapterHandle] = []  # of sessions, beside the first
        self._configurator = Configurator(
            partial(locate, handle, library, self._luid, name),
            stays=origin != "created",
            opened=origin == "opened" and not handle.shared,
        )
        self._closed = False
        self._open_adapters[id(self)] = library.path, self._luid

    @classmethod
    def create(
        cls,
        name: str,
        tunnel_type: str = "Tunring",
        *,
        guid: uuid.UUID | str | None = None,
        if_exists: IfExists = "error",
        queues: int = 1,
        library: _core.Library | None = None,
    ) -> Adapter:
        """Create an adapter, which goes away when it is closed or the process ends.

        Parameters
        ----------
        name : str
            The interface's name. Windows: 1 to 127 UTF-16 units. Linux: 1 to 15 bytes, without ``%``, ``/``, ``:`` and
            white space, and neither ``.`` nor ``..``.
        tunnel_type : str
            What kind of tunnel this is, for people: 1 to 128 UTF-16 units.
        guid : uuid.UUID or str, optional
            The adapter's identity from one creation to the next, on Windows, where None makes one of the name and the
            machine's own. Two adapters of ``loopback`` with the same one are the ends of a cable.
        if_exists : str
            What to do about an adapter of that name. ``"error"``: raise AlreadyExists. ``"open"``: open it, as
            :meth:`open` does. ``"recreate"``: remove it, if no process uses it; on Windows that is
            one whose process has died, and takes up to 5 seconds, on Linux a persistent TUN interface.
        queues : int
            1 to 256: how many sessions it can have at a time, see :meth:`start_sessions`. More than 1 on Linux only.
        library : Library, optional
            What to create it with; :func:`tunring.load` by default.

        Raises
        ------
        AlreadyExists
            The name is taken (a FileExistsError), on Windows by a network interface of whatever kind.
        AccessDenied
            The privilege is lacking (a PermissionError); the message names it.
        ValueError
            A name, or the number of queues, is refused.
        NotImplementedError
            The library's adapters have one queue.
        """
        from tunring._creation import check_if_exists, create_handle

        _check_text(name, "name", _NAME_UNITS)
        _check_text(tunnel_type, "tunnel_type", _TYPE_UNITS)
        guid_bytes = _check_guid(guid)
        check_if_exists(if_exists)
        count = _check_queues(queues, "queues", _MAX_QUEUES)
        library = the_library(library)
        if count > 1:
            _require_queues(library)
        ours = {luid for path, luid in list(cls._open_adapters.values()) if path == library.path}
        handle, stays = create_handle(library, name, tunnel_type, guid_bytes, if_exists, ours, count)
        adapter = cls(handle, name, library, origin="opened" if stays else "created")
        if not stays:
            adapter._queues = count
        return adapter

    @classmethod
    def open(cls, name: str, *, library: _core.Library | None = None) -> Adapter:
        """Open an adapter that exists: closing it leaves it there.

        On Linux that is a persistent TUN interface; its owner needs no privilege.

        Raises
        ------
        NotFound
            There is none of that name (a FileNotFoundError).
        AccessDenied
            It is somebody else's (a PermissionError).
        AdapterBusy
            Another program has it, or it is being removed and still exists after 5 seconds.
        """
        from tunring._creation import explained, open_handle

        _check_text(name, "name", _NAME_UNITS)
        library = the_library(library)
        with explained(library):
            handle = open_handle(library, name)
        return cls(handle, name, library, origin="opened")

    @classmethod
    def from_fd(cls, fd: int, *, library: _core.Library | None = None) -> Adapter:
        """Serve a TUN descriptor that another process, or another part of this one, has attached to its interface.

        For programs without privileges that are handed one, as VPN services do. Linux only.

        Parameters
        ----------
        fd : int
            A descriptor of ``/dev/net/tun`` after TUNSETIFF, in TUN mode and without packet information
            (``IFF_NO_PI``); with virtio headers (``IFF_VNET_HDR``) offloads are used. It stays the caller's: a copy is
            taken, with which it becomes non-blocking.

        Raises
        ------
        ValueError
            It is not such a descriptor; the message names the fault.
        WintunError
            The library has no descriptors (``winerror`` 50).
        """
        number = operator.index(fd)
        if not 0 <= number <= 0x7FFFFFFF:
            raise ValueError(f"fd must be a file descriptor, not {fd}")
        library = the_library(library)
        handle = library.adopt_descriptor(number)
        return cls(handle, handle.name or f"fd {number}", library, origin="adopted")

    @property
    def library(self) -> _core.Library:
        """The library it was made with."""
        return self._library

    @property
    def name(self) -> str:
        """The interface's name, as the system knows it now, where the library reports it."""
        if not self._closed and (current := name_of(self._handle, self._library, self._luid)):
            self._name = current
        return self._name

    @property
    def luid(self) -> int:
        """The adapter's locally unique identifier, a NET_LUID."""
        return self._luid

    @property
    def ifindex(self) -> int | None:
        """The interface index, or None for an adapter that the system knows nothing of (``loopback``), or not yet."""
        return index_of(self._handle, self._library, self._luid)

    @property
    def closed(self) -> bool:
        """True once :meth:`close` was called."""
        return self._closed

    def configure(
        self,
        addresses: Iterable[AddressLike] = (),
        mtu: int | None = None,
        *,
        metric: int | None = None,
        dns: Iterable[str | Host] = (),
        domains: Iterable[str] = (),
        routes: Iterable[RouteLike] = (),
        default: bool | Literal[4, 6] = False,
        bypass: Iterable[str | Host | Network] = (),
        mark: int | None = None,
        table: int | None = None,
        ipv6: bool | None = None,
        queue_length: int | None = None,
        up: bool = True,
    ) -> Configuration:
        """Give the interface addresses, an MTU and routes, and bring it up or down: all of it, or nothing.

        May be called again: existing settings are accepted, and settings that are not named stay, apart from ``up``.
        When the adapter is closed, an interface that stays gets back what it had before.

        Parameters
        ----------
        addresses : iterable of str or ipaddress interfaces
            Such as ``"10.6.7.7/24"`` and ``"fd00::7/64"``, added to those it has. A network's own address, or its
            broadcast address, is refused. With the address or the network at the other end:
            ``"10.8.0.1 peer 10.8.0.2/32"``, or (local, peer); not on Windows.
        mtu : int, optional
            Largest packet in bytes: 68 to 65535, with IPv6 addresses at least 1280.
        metric : int, optional
            1 to 9999: of several routes to the same network, through this or other interfaces, the lowest wins. It is
            for the networks of ``addresses`` and for ``routes``, those of earlier calls too. Windows adds it to the
            metric of each route; on Linux a route that names one has just that.
        dns : iterable of str or ipaddress addresses
            Name servers that belong to the adapter, in place of those it has. Windows 10 2004 or later; Linux with
            systemd-resolved and the extra ``dns``, which asks them beside those of other interfaces.
        domains : iterable of str
            DNS domains that belong to the adapter, in place of those it has. ``"corp.example"``: its names are asked of
            the adapter's servers, and it is appended to names without a dot. ``"~corp.example"``: the former only.
            ``"~."``: all names are asked of the adapter's servers. Windows: without ``~``, and just appended.
        routes : iterable of str, ipaddress networks, (network, gateway) or Route
            What is to be reached through the adapter. It has one to each network; a later call's replaces it. A gateway
            that is behind another interface is refused.
        default : bool, 4 or 6
            True: all traffic of each family that the adapter has addresses of goes through it, though another interface
            has a default route; 4 or 6: of that one. A warning is logged if the other family keeps one. Linux: by a
            table and rules as wg-quick makes them, once in a network namespace. Windows: by a metric that beats those
            of other interfaces.
        bypass : iterable of str, ipaddress addresses or networks
            With ``default``, what is to be reached as before: first of all the host at the other end of the tunnel.
            Linux: it follows the main table. Windows: by the hop that leads there at the time of the call.
        mark : int, optional
            Linux, with ``default``: with this mark a socket's packets go beside the adapter, see :meth:`bypass`. The
            table's number by default.
        table : int, optional
            Linux, with ``default``: the routing table to use; the first that is free from 51820 on by default. Without
            it: the table that ``routes`` go to, instead of the main one; which packets look there is for rules of your
            own.
        ipv6 : bool, optional
            False: the system is to do nothing of IPv6 on the interface by itself: it gets no link-local address and
            sends no router solicitations. True: as it was before that. None: no change.
        queue_length : int, optional
            Linux: 1 to 65536 packets that wait for a session which does not keep up, before the kernel drops others.
        up : bool
            Whether the interface is to be up. While it is down there are no routes; those it was given, and its IPv6
            addresses, return with the call that brings it up. Windows: it is up while it has a session, False is not
            possible.

        Returns
        -------
        Configuration
            The configuration that the interface has now, as the system reports it.

        Raises
        ------
        ValueError
            A value is refused; nothing was changed.
        PermissionError
            The privilege is lacking.
        AlreadyExists
            Another interface has the route, or the default route; the message names it.
        FamilyDisabled
            IPv6 (or IPv4) is switched off there, and something of it was asked for.
        WintunError
            The system refused a step; what was done before it is undone.
        NotImplementedError
            The system doesn't know the adapter, or can't do that; the message has the reason.

        Notes
        -----
        What a killed process has left on an interface that stays, on Linux, the next ``configure`` or ``close`` of an
        adapter that opens it removes: addresses (since Linux 5.18), routes and rules, by a mark they bear. Its MTU and
        its state stay, and so does all of it on an interface of several queues, which another process may be using.
        """
        return self._configurator.configure(
            {
                "addresses": addresses,
                "mtu": mtu,
                "metric": metric,
                "dns": dns,
                "domains": domains,
                "routes": routes,
                "default": default,
                "bypass": bypass,
                "mark": mark,
                "table": table,
                "ipv6": ipv6,
                "queue_length": queue_length,
                "up": up,
            }
        )

    def bypass(self, sock: Any) -> None:
        """Let a socket's packets go beside the adapter's default route, as the tunnel's own datagrams must.

        Linux: it gets the mark of that route, which needs CAP_NET_ADMIN. Windows: it is bound to the interface that has
        the best other default route at the time of the call.

        Parameters
        ----------
        sock : socket.socket
            Or anything else with its method ``setsockopt``.

        Raises
        ------
        RuntimeError
            The adapter has no default route by ``configure(default=...)``.
        PermissionError
            The privilege is lacking.
        """
        self._configurator.bypass(sock)

    def configuration(self) -> Configuration:
        """Ask the system what the interface has. That takes no privilege.

        Raises
        ------
        NotImplementedError
            The adapter is none that the system knows.
        """
        return self._configurator.read()

    def start_session(self, capacity: int = 0x400000, *, coalesce: Coalesce = "all") -> _core.Session:
        """Open the adapter's rings, and connect its link.

        Parameters
        ----------
        capacity : int
            Bytes of each of the two rings: a power of two from 128 KiB to 64 MiB. On Linux packets wait in the kernel
            until they are received, and an interface has room for 500. For an adapter that :meth:`create` made it is
            raised to one packet per 2048 bytes of capacity, at most 8192: 2048 packets by default.
        coalesce : {"all", "tcp", "none"}
            Which packets of a flow that are sent together ``tun_linux`` hands to the kernel as one, and only with
            offloads: TCP segments and UDP datagrams, TCP segments, or none. Sockets get the same data as without. Raw
            sockets, packet sockets, the firewall's counters and the packet that an ICMP error quotes see merged
            datagrams. Datagrams with a TTL or hop limit of at most 32 are never merged. Other libraries ignore it.

        Raises
        ------
        ValueError
            The capacity is refused, or ``coalesce`` is none of these.
        AdapterBusy
            It has a session, or packets of its last one are still held.
        SessionClosed
            The adapter was closed, before or meanwhile (``reason`` is then ``"closed"``), or is the parent process's.
        """
        return self._start(capacity, coalesce, closes_adapter=False)

    def _start(self, capacity: int, coalesce: Coalesce = "all", *, closes_adapter: bool) -> _core.Session:
        return self._start_on(self._handle, capacity, coalesce, closes_adapter)

    def _start_on(
        self,
        handle: _core.AdapterHandle,
        capacity: int,
        coalesce: Coalesce,
        closes_adapter: bool = False,
        queue: _core.AdapterHandle | None = None,
    ) -> _core.Session:
        size = _check_capacity(capacity)
        keep = self._configurator.queue_length is not None
        return _core.Session._start(self, handle, size, coalesce, keep, closes_adapter, queue)  # noqa: SLF001

    def start_sessions(
        self, count: int, capacity: int = 0x400000, *, coalesce: Coalesce = "all"
    ) -> list[_core.Session]:
        """Start sessions, each on a queue of its own, for as many threads or processors: all of them or none.

        The kernel gives each flow to one queue: to the one that last sent a packet of it, or else to any. A queue that
        nobody reads loses its share, so close them together. ``host_dropped`` of each is the interface's. On Linux,
        for adapters with several queues; each queue but the first takes the privilege that opening the adapter takes.

        Parameters
        ----------
        count : int
            1 to the adapter's ``queues``; of an adapter that was opened as many as the system allows.
        capacity, coalesce
            As for :meth:`start_session`, as are the errors.

        Raises
        ------
        ValueError
            The adapter has fewer queues.
        NotImplementedError
            The library's adapters have one queue.

        Examples
        --------
        >>> import threading, tunring
        >>> def serve(adapter, work):
        ...     sessions = adapter.start_sessions(4)
        ...     threads = [threading.Thread(target=work, args=[session]) for session in sessions]
        ...     for thread in threads:
        ...         thread.start()
        """
        value = _check_queues(count, "count", self._queues)
        if value > 1:
            _require_queues(self._library)
        sessions = [self._start(capacity, coalesce, closes_adapter=False)]
        try:
            while len(sessions) < value:
                sessions.append(self._start_on_another_queue(capacity, coalesce))
        except BaseException:
            for session in reversed(sessions):
                session.close()
            raise
        return sessions

    def _start_on_another_queue(self, capacity: int, coalesce: Coalesce) -> _core.Session:
        from tunring._system.namespace_linux import call_in_network

        namespace = self._handle.open_namespace()
        try:
            queue = call_in_network(namespace, lambda: self._library.open_adapter(self.name))
        finally:
            if namespace >= 0:
                os.close(namespace)
        # Lists first: a close() that has looked through the list before has shut the adapter's own door before that.
        self._own_queues.append(queue)
        try:
            if self._closed:
                queue.close()
            return self._start_on(queue, capacity, coalesce, queue=queue)
        except BaseException:
            self._close_queue(queue)
            raise

    def _close_queue(self, queue: _core.AdapterHandle) -> None:
        """For sessions: what they have of their own goes with them."""
        queue.close()
        if queue in self._own_queues:
            self._own_queues.remove(queue)

    def close(self) -> None:
        """Close the adapter's session, and the adapter; one that :meth:`create` made goes away.

        One that stays loses what :meth:`configure` gave it. May be called any number of times, from any thread. Packets
        that are still held keep ring memory, and on Windows the adapter, until they are let go.
        """
        self._closed = True
        self._open_adapters.pop(id(self), None)
        problem = None
        try:
            for handle in (self._handle, *self._own_queues):
                handle.close_sessions()
        finally:
            for handle in list(self._own_queues):
                self._close_queue(handle)
            try:
                problem = self._configurator.close()
            finally:
                self._handle.close()
        if problem:
            warnings.warn(f"{self!r} leaves a part of its configuration behind: {problem}", RuntimeWarning)

    def fileno(self) -> int:
        """Lend the interface's TUN descriptor. It stays the adapter's: nobody else may close it, or read from it.

        For its ioctls, and for handing it to another process, which gets a copy. Linux only.

        Raises
        ------
        ValueError
            The adapter is closed.
        io.UnsupportedOperation
            The library has no descriptors.
        """
        return self._handle.descriptor(leave=False)

    def detach(self) -> int:
        """Close the adapter and its session, leave the interface as it is, and return its TUN descriptor.

        For a restart without an interruption: another program goes on by :meth:`from_fd`, and meanwhile the kernel
        queues what comes. Link, offloads, addresses, routes and DNS stay, and the interface does as long as the
        descriptor is open, which is the caller's to close. Only packets that were received already, or wait in the
        rings, are lost. Linux only.

        Raises
        ------
        ValueError
            The adapter is closed.
        io.UnsupportedOperation
            The library has no descriptors.

        Examples
        --------
        >>> import os, tunring
        >>> def hand_over(adapter):  # the next program gets the number as its argument
        ...     fd = adapter.detach()
        ...     os.set_inheritable(fd, True)
        ...     os.execv("/usr/bin/python3", ["python3", "-m", "service", str(fd)])
        """
        descriptor = self._handle.descriptor(leave=True)
        self._configurator.leave()
        self.close()
        return descriptor

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self, *, warn: Callable[..., None] = warnings.warn) -> None:  # at exit, modules may be empty already
        if not getattr(self, "_closed", True):
            warn(f"unclosed {self!r}", ResourceWarning, source=self)
            self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<tunring.Adapter {self._name!r} of {self._library.name}, {state}>"
