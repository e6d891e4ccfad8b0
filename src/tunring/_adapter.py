"""Adapters: network interfaces whose packets go through a program."""

from __future__ import annotations

import contextlib
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
            The kind of tunnel, for people to read: 1 to 128 UTF-16 units.
        guid : uuid.UUID or str, optional
            The adapter's identity from one creation to the next, on Windows, where None derives one from the name and
            the machine's own GUID. Two adapters of ``loopback`` with the same GUID are the ends of a cable.
        if_exists : str
            The reaction to an existing adapter of that name. ``"error"``: raise AlreadyExists. ``"open"``: open it, as
            :meth:`open` does. ``"recreate"``: remove it first, if no process uses it: on Windows an adapter whose
            process has died, in at most 5 seconds, and on Linux a persistent TUN interface.
        queues : int
            1 to 256: maximum number of simultaneous sessions, see :meth:`start_sessions`. More than 1 on Linux only.
        library : Library, optional
            The library that creates it; that of :func:`tunring.load` by default.

        Raises
        ------
        AlreadyExists
            The name is taken (a FileExistsError), on Windows by a network interface of any kind.
        AccessDenied
            The privilege is missing (a PermissionError); the message names it.
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
        """Open an existing adapter, which outlives its closing.

        On Linux that is a persistent TUN interface; its owner needs no privilege.

        Raises
        ------
        NotFound
            No adapter has that name (a FileNotFoundError).
        AccessDenied
            It belongs to another user (a PermissionError).
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

        For programs without privileges to which another one, such as a VPN service, hands a descriptor. Linux only.

        Parameters
        ----------
        fd : int
            A descriptor of ``/dev/net/tun`` after TUNSETIFF, in TUN mode and without packet information
            (``IFF_NO_PI``); with virtio headers (``IFF_VNET_HDR``) offloads are used. The adapter takes a copy. The
            caller keeps the original, which becomes non-blocking as well.

        Raises
        ------
        ValueError
            The descriptor is of another kind; the message names the fault.
        WintunError
            The library has no descriptors (ERROR_NOT_SUPPORTED).
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
        """The interface index, or None for an adapter that the system does not know (``loopback``), or not yet."""
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
        default: bool | Literal[4, 6] | Iterable[int] = False,
        bypass: Iterable[str | Host | Network] = (),
        mark: int | None = None,
        table: int | None = None,
        ipv6: bool | None = None,
        queue_length: int | None = None,
        up: bool = True,
    ) -> Configuration:
        """Give the interface addresses, an MTU and routes, and bring it up or down: all of it, or nothing.

        May be called again: existing settings are accepted, and settings that are not named stay, apart from ``up``.
        When the adapter is closed, an interface that stays gets its former configuration back.

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
            metric of each route; on Linux the metric of a :class:`Route` replaces it.
        dns : iterable of str or ipaddress addresses
            Name servers that belong to the adapter, in place of those it has. Windows 10 2004 or later; Linux with
            systemd-resolved and the extra ``dns``, which asks them beside those of other interfaces.
        domains : iterable of str
            DNS domains that belong to the adapter, in place of those it has. ``"corp.example"``: the adapter's servers
            look its names up, and it is appended to names without a dot. ``"~corp.example"``: only the former.
            ``"~."``: the adapter's servers look all names up. Windows: only without ``~``, and only appended.
        routes : iterable of str, ipaddress networks, (network, gateway) or Route
            Networks to be reached through the adapter, with one route per network: a later call's replaces it. A
            gateway that is behind another interface is refused.
        default : bool, 4, 6 or (4, 6)
            True: all traffic of each address family that the adapter has addresses of goes through it, although another
            interface has a default route. 4 or 6: that of this family only. (4, 6): that of both, even without an
            address: no traffic goes beside the adapter. A warning is logged if a family that is not covered keeps a
            default route elsewhere. Linux: by a table and rules as wg-quick makes them, for one adapter per network
            namespace. Windows: by a metric that beats those of other interfaces.
        bypass : iterable of str, ipaddress addresses or networks
            With ``default``, hosts and networks to be reached as before: first of all the other end of the tunnel.
            Linux: by the main table. Windows: by the next hop that they have at the time of the call.
        mark : int, optional
            Linux, with ``default``: a socket's packets with this mark go past the adapter, see :meth:`bypass`. The
            table's number by default.
        table : int, optional
            Linux, with ``default``: the routing table to use; by default the first free one from 51820 on. Without
            ``default``: the table for ``routes``, instead of the main one; add rules of your own that lead to it.
        ipv6 : bool, optional
            False: the system does not use IPv6 on the interface by itself: the interface gets no link-local address and
            sends no router solicitations. True: undoes False. None: no change.
        queue_length : int, optional
            Linux: maximum number of packets that wait for a slow session before the kernel drops others, 1 to 65536.
        up : bool
            False takes the interface down. While it is down it has no routes; those it was given, and its IPv6
            addresses, return with the call that brings it up. On Windows it is up while it has a session, and False is
            an error.

        Returns
        -------
        Configuration
            The configuration that the interface has now, as the system reports it.

        Raises
        ------
        ValueError
            A value is refused; nothing was changed.
        PermissionError
            The privilege is missing.
        AlreadyExists
            Another interface has the route, or the default route; the message names it.
        FamilyDisabled
            IPv6 (or IPv4) is off on the interface, and an argument needs it.
        WintunError
            The system refused a step; the steps before it are undone.
        NotImplementedError
            The system doesn't know the adapter, or can't do that; the message has the reason.

        Notes
        -----
        On Linux, a killed process leaves its configuration on an interface that stays. The next ``configure`` or
        ``close`` of an adapter that opens the interface removes addresses (since Linux 5.18), routes and rules, by a
        mark they bear. MTU and state stay, and everything stays on an interface of several queues, which another
        process may be using.
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
        """Let a socket's packets go past the adapter's default route, as the tunnel's own datagrams must.

        Linux: the socket gets the mark of that route, which requires CAP_NET_ADMIN. Windows: it is bound to the
        interface that has the best other default route at the time of the call.

        Parameters
        ----------
        sock : socket.socket
            Or anything else with its method ``setsockopt``.

        Raises
        ------
        RuntimeError
            The adapter has no default route by ``configure(default=...)``.
        PermissionError
            The privilege is missing.
        """
        self._configurator.bypass(sock)

    def configuration(self) -> Configuration:
        """Read the interface's configuration from the system. Requires no privilege.

        Raises
        ------
        NotImplementedError
            The system does not know the adapter.
        """
        return self._configurator.read()

    def start_session(self, capacity: int = 0x400000, *, coalesce: Coalesce = "all") -> _core.Session:
        """Open the adapter's rings, and connect its link.

        Parameters
        ----------
        capacity : int
            Bytes of each of the two rings: a power of two from 128 KiB to 64 MiB. On Linux packets wait in the kernel
            until they are received, and an interface has room for 500. For adapters that :meth:`create` made, that is
            raised to one packet per 2048 bytes of capacity, at most 8192; by default to 2048 packets.
        coalesce : {"all", "tcp", "none"}
            The packets of a flow that ``tun_linux``, with offloads, may merge when they are sent together: TCP segments
            and UDP datagrams, only TCP segments, or none. Sockets get the same data in any case. Raw sockets, packet
            sockets, the firewall's counters and the packet that an ICMP error quotes see merged datagrams. Datagrams
            with a TTL or hop limit of at most 32 are never merged. Other libraries ignore this argument.

        Raises
        ------
        ValueError
            The capacity is refused, or ``coalesce`` is none of these.
        AdapterBusy
            It has a session, or packets of its last one are still held.
        SessionClosed
            The adapter was closed, before or meanwhile (``reason`` is then ``"closed"``), or was made before a fork.
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

        The kernel assigns each flow to one queue: to the one that last sent a packet of it, or else to any. Packets of
        a queue that nobody reads are lost, so close the sessions together. The ``host_dropped`` of each counts for the
        whole interface. Linux only, for adapters with several queues; each queue after the first requires the privilege
        that opening the adapter does.

        Parameters
        ----------
        count : int
            1 to the adapter's ``queues``; for an adapter that was opened, to as many as the system allows.
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
        with contextlib.suppress(ValueError):  # another thread was first
            self._own_queues.remove(queue)

    def close(self) -> None:
        """Close the adapter's session, and the adapter; an interface that :meth:`create` made is removed.

        An interface that stays loses what :meth:`configure` gave it. Idempotent. May be called from any thread. Packets
        that are still held keep ring memory, and on Windows the adapter, until they are released.
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
        """Lend the interface's TUN descriptor. It still belongs to the adapter: do not close it or read from it.

        For ioctls, and for handing a copy to another process. Linux only.

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

        For a restart without an interruption: another program takes over with :meth:`from_fd`, and in the meantime the
        kernel queues packets. Link, offloads, addresses, routes and DNS stay, and the interface exists as long as the
        descriptor is open, which the caller has to close. Only packets that were already received, or wait in the
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
            try:
                warn(f"unclosed {self!r}", ResourceWarning, source=self)
            finally:  # also where warnings are errors
                self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<tunring.Adapter {self._name!r} of {self._library.name}, {state}>"
