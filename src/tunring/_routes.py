"""A table of IP prefixes, for lookups of whole batches."""

from __future__ import annotations

import ipaddress
import operator
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING, TypeAlias

from tunring._core import Routes

if TYPE_CHECKING:
    from collections.abc import ItemsView, ValuesView
    from typing import Any, SupportsIndex

    from tunring._core import Batch

    Prefix: TypeAlias = str | IPv4Network | IPv6Network
    Address: TypeAlias = str | IPv4Address | IPv6Address
    #: A mapping's keys are Prefixes: of one type or of several, which annotations can't express.
    Numbers: TypeAlias = Mapping[Any, int] | Iterable[tuple[Prefix, int]]

#: The largest number of a prefix.
MAX_VALUE = 2**31 - 1

_MAPPED = IPv6Network("::ffff:0:0/96")
_MISSING = object()


def _network(prefix: object) -> IPv4Network | IPv6Network:
    """The prefix; one of IPv4-mapped addresses is that of IPv4."""
    network: IPv4Network | IPv6Network
    if isinstance(prefix, (IPv4Network, IPv6Network)):
        network = prefix
    elif isinstance(prefix, str):
        if "%" in prefix:
            raise ValueError(f"prefix {prefix!r} must not name an interface")
        try:
            network = ipaddress.ip_network(prefix)
        except ValueError as error:
            raise ValueError(f"prefix {prefix!r}: {error}") from None
    else:
        raise TypeError(f"a prefix must be a str such as '10.30.0.0/16', or a network of ipaddress, not {prefix!r}")
    if network.version == 6 and network.prefixlen >= 96 and network.subnet_of(_MAPPED):
        return IPv4Network((network.network_address.packed[12:], network.prefixlen - 96))
    return network


def _key(prefix: object) -> tuple[int, bytes, int]:
    network = _network(prefix)
    return network.version, network.network_address.packed, network.prefixlen


def _value(value: object, prefix: object) -> int:
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"the number of prefix {str(prefix)!r} must be an integer, not {value!r}") from None
    if not 0 <= number <= MAX_VALUE:
        raise ValueError(f"the number of prefix {str(prefix)!r} must be 0 to {MAX_VALUE}, not {value!r}")
    return number


def _text(version: int, packed: bytes, bits: int) -> str:
    network: type[IPv4Network | IPv6Network] = IPv4Network if version == 4 else IPv6Network
    return str(network((packed, bits)))


class RouteTable(MutableMapping["Prefix", int]):
    """Numbers by IP prefix: a batch's packets are looked up at once, each for the longest prefix that contains it.

    A dict whose keys are prefixes: strings, or networks of :mod:`ipaddress`; iteration gives strings, IPv4 first. A
    prefix of IPv4-mapped addresses (``::ffff:10.30.0.0/112``) is that of IPv4. Any thread may look up while another one
    changes the table: a packet finds its old prefix or its new one, and nobody waits. After ``del``, :meth:`clear`,
    :meth:`remove_value` or a change of a number no lookup that is still in progress uses what was there before. After a
    fork parent and child each have a table of their own.

    Parameters
    ----------
    routes : mapping of prefixes to int, or iterable of pairs, optional
        The prefixes that it begins with, and their numbers.

    Raises
    ------
    TypeError, ValueError
        A prefix is not valid, has bits set behind its length, or appears twice with different numbers; or a number is
        not 0 to 2147483647. Nothing was changed.

    Examples
    --------
    >>> import tunring, tunring.testing
    >>> table = tunring.RouteTable({"10.30.0.0/16": 7, "10.30.1.0/24": 8})
    >>> left, right = tunring.testing.pair()
    >>> left.send([bytes([0x45]) + bytes(15) + bytes([10, 30, third, 1]) for third in (0, 1, 2)])
    3
    >>> with right.receive() as batch:
    ...     numbers = table.lookup(batch)
    ...     numbers.tolist(), [(number, len(part)) for number, part in batch.split(numbers)]
    ([7, 8, 7], [(7, 2), (8, 1)])
    >>> left.close(); right.close()
    """

    __slots__ = ("__weakref__", "_routes")

    def __init__(self, routes: Numbers = (), /) -> None:
        self._routes = Routes()
        self.update(routes)

    def __repr__(self) -> str:
        return f"<tunring.RouteTable of {len(self)} prefixes>"

    def __reduce__(self) -> tuple[type[RouteTable], tuple[dict[str, int]]]:
        return RouteTable, (dict(self.items()),)

    # -- Looking up

    def lookup(self, batch: Batch, /) -> memoryview[int]:
        """The number of each packet's destination.

        Returns
        -------
        memoryview
            One number per packet, of format "i" (int32), with memory of its own: -1 where no prefix contains the
            address, and for packets that are not IP. ``batch.split`` and numpy take it as it is. A packet is looked
            up among the prefixes of its own version of IP.

        Raises
        ------
        ValueError
            The batch was released.
        """
        return self._routes.lookup(batch, False)

    def lookup_sources(self, batch: Batch, /) -> memoryview[int]:
        """The number of each packet's source, as :meth:`lookup` returns those of destinations."""
        return self._routes.lookup(batch, True)

    def lookup_address(self, address: Address, /) -> int:
        """The number of one address, or -1. An IPv4-mapped address is the IPv4 address.

        Examples
        --------
        >>> import tunring
        >>> table = tunring.RouteTable({"10.30.0.0/16": 7})
        >>> table.lookup_address("10.30.1.1"), table.lookup_address("::ffff:10.30.1.1"), table.lookup_address("::1")
        (7, 7, -1)
        """
        if not isinstance(address, (str, IPv4Address, IPv6Address)):
            raise TypeError(f"an address must be a str or an address of ipaddress, not {address!r}")
        found = ipaddress.ip_address(address)
        mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
        if mapped is not None:
            found = mapped
        return self._routes.lookup_address(found.version, found.packed)

    # -- A dict

    def __getitem__(self, prefix: Prefix, /) -> int:
        value = self._routes.get(*_key(prefix))
        if value is None:
            raise KeyError(prefix)
        return value

    def __contains__(self, prefix: object, /) -> bool:
        return self._routes.get(*_key(prefix)) is not None

    def __setitem__(self, prefix: Prefix, value: SupportsIndex, /) -> None:
        self._routes.set([(*_key(prefix), _value(value, prefix))])

    def __delitem__(self, prefix: Prefix, /) -> None:
        self.pop(prefix)

    def __len__(self) -> int:
        return len(self._routes)

    def __iter__(self) -> Iterator[str]:
        return iter(self._snapshot())

    def _snapshot(self) -> dict[str, int]:
        return {_text(version, packed, bits): value for version, packed, bits, value in self._routes.items()}

    def items(self) -> ItemsView[str, int]:
        """Pairs of prefixes and numbers, as they are now."""
        return self._snapshot().items()

    def values(self) -> ValuesView[int]:
        """The numbers, as they are now."""
        return self._snapshot().values()

    def pop(self, prefix: Prefix, /, default: Any = _MISSING) -> Any:
        """Remove a prefix and return its number; without it return ``default``, or raise KeyError."""
        value = self._routes.remove(*_key(prefix))
        if value is not None:
            return value
        if default is _MISSING:
            raise KeyError(prefix)
        return default

    def clear(self) -> None:
        """Remove every prefix. A lookup finds each address as it was before, or nothing."""
        self._routes.clear()

    def update(self, routes: Numbers = (), /) -> None:  # type: ignore[override]
        """Add prefixes, or give them other numbers. All are checked before the first is added."""
        pairs = routes.items() if isinstance(routes, Mapping) else routes
        wanted: dict[tuple[int, bytes, int], int] = {}
        for prefix, value in pairs:
            number = _value(value, prefix)
            if wanted.setdefault(_key(prefix), number) != number:
                raise ValueError(f"prefix {str(prefix)!r} appears twice, with different numbers")
        # In the table's own order, in which adding costs least.
        self._routes.set([(*key, value) for key, value in sorted(wanted.items())])

    def remove_value(self, value: SupportsIndex, /) -> int:
        """Remove every prefix that has this number; returns the number of prefixes removed.

        Examples
        --------
        >>> import tunring
        >>> table = tunring.RouteTable({"10.30.0.0/16": 7, "fd00:30::/64": 7, "10.31.0.0/16": 8})
        >>> table.remove_value(7), dict(table)
        (2, {'10.31.0.0/16': 8})
        """
        number = operator.index(value)
        return self._routes.remove_value(number) if 0 <= number <= MAX_VALUE else 0
