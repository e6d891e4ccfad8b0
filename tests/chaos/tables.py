"""Operations on one RouteTable that all threads change, look up, copy and share with forked children.

Each thread has networks of its own in it, of which it knows everything. In those that all change, a prefix has only
numbers with a stamp of its own.
"""

from __future__ import annotations

import contextlib
import pickle
import zlib
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING

import numpy
from engine import operation
from ledger import Wrong, identify
from traffic import receive

import tunring

if TYPE_CHECKING:
    from world import Actor, World

    Network = IPv4Network | IPv6Network

#: Numbers of threads' own prefixes begin here; below, a number's rest by STAMPS is its prefix's stamp.
OWN = 1 << 30
STAMPS = 997

#: Lengths of the prefixes that all threads change.
LENGTHS = (8, 16, 24, 31, 32)


def _stamp(network: Network) -> int:
    return zlib.crc32(str(network).encode()) % STAMPS


def _containing(address: bytes) -> list[Network]:
    return [ip_network((address, length), strict=False) for length in LENGTHS]


def _shared(actor: Actor) -> Network:
    """A prefix that all threads change: of packets that are under way."""
    addresses = [end.incoming.route.target for link in list(actor.world.links) for end in link.ends]
    return actor.random.choice(_containing(actor.random.choice(addresses or [bytes([10, 0, 0, 1])])))


def _numbered(actor: Actor, network: Network) -> int:
    return _stamp(network) + STAMPS * actor.random.randrange(50)


def _key(actor: Actor, network: Network) -> str | Network:
    return str(network) if actor.chance(0.5) else network


@operation(weight=15)
def change_routes(actor: Actor) -> None:
    table, network = actor.world.table, _shared(actor)
    kind = actor.random.choice(["set", "set", "update", "pop", "delete", "number"])
    actor.note(kind, network)
    if kind == "set":
        table[_key(actor, network)] = _numbered(actor, network)
    elif kind == "update":
        networks = {_shared(actor) for _ in range(20)}
        table.update({_key(actor, each): _numbered(actor, each) for each in networks})
    elif kind == "pop":
        table.pop(_key(actor, network), None)
    elif kind == "delete":
        with contextlib.suppress(KeyError):
            del table[_key(actor, network)]
    else:
        table.remove_value(_numbered(actor, network))


@operation(tunring.SessionClosed, weight=15)
def look_routes_up(actor: Actor) -> None:
    """Look up the destinations and sources of a batch: each finds a number of some prefix that contains it."""
    table = actor.world.table
    with actor.world.use(actor) as end, receive(actor, end, timeout=0.02) as batch:
        for numbers, place in ((table.lookup(batch), 16), (table.lookup_sources(batch), 12)):
            for number, packet in zip(numbers, batch.tobytes(), strict=True):
                if identify(packet):
                    _check(number, packet[place : place + 4])
        if sum(len(part) for _, part in batch.split(table.lookup(batch))) != len(batch):
            raise Wrong("a split by routes has another number of packets")


def _check(number: int, address: bytes) -> None:
    if number != -1 and number % STAMPS not in map(_stamp, _containing(address)):
        raise Wrong(f"{ip_address(address)} has the number {number}, which is not of a prefix that contains it")


@operation(weight=10)
def have_routes_of_its_own(actor: Actor) -> None:
    """What others do does not show in prefixes that only this thread changes."""
    table, random = actor.world.table, actor.random
    own = actor.world.own_routes[actor.number]
    networks = [f"172.{16 + actor.number}.0.0/16", f"fd00:{actor.number}::/32"]
    whole = ip_network(random.choice(networks))
    length = random.randint(whole.prefixlen, whole.max_prefixlen)
    address = whole[random.randrange(4) * (whole.num_addresses // 4) + random.randrange(3)]
    network = ip_network((address, length), strict=False)
    if actor.chance(0.6):
        table[_key(actor, network)] = own[network] = OWN + random.randrange(1000)
    elif own.pop(network, None) != table.pop(_key(actor, network), None):
        raise Wrong(f"{network} has another number")
    _check_own(table, own, address)


def _check_own(table: tunring.RouteTable, own: dict[Network, int], address: object) -> None:
    fitting = [network for network in own if ip_address(str(address)) in network]
    expected = own[max(fitting, key=lambda network: network.prefixlen)] if fitting else -1
    if (found := table.lookup_address(str(address))) != expected:
        raise Wrong(f"{address} has the number {found}, not {expected}")


@operation(weight=6)
def copy_routes(actor: Actor) -> None:
    """A copy is the table at one moment, and goes its own way."""
    table, own = actor.world.table, actor.world.own_routes[actor.number]
    taken = dict(table.items())
    found = {ip_network(prefix): number for prefix, number in taken.items() if number >= OWN}
    mine = [ip_network(f"172.{16 + actor.number}.0.0/16"), ip_network(f"fd00:{actor.number}::/32")]
    if own != {network: number for network, number in found.items() if _is_in(network, mine)}:
        raise Wrong("a table's own routes are not all in it")
    copy = actor.random.choice([tunring.RouteTable, lambda what: pickle.loads(pickle.dumps(tunring.RouteTable(what)))])(
        taken
    )
    if copy != taken or len(copy) != len(taken) or list(copy) != list(taken) or sum(copy.values()) != _sum(taken):
        raise Wrong("a copy is something else")
    repr((table, len(table), list(table)[:3]))
    if copy.remove_value(next(iter(taken.values()), 0)) == len(taken) and copy:
        raise Wrong("what was removed is there")
    copy.clear()
    if copy or any(number != -1 for number in (copy.lookup_address("10.0.0.1"), copy.lookup_address("fd00::1"))):
        raise Wrong("a table that was cleared has routes")


def _is_in(network: Network, others: list[Network]) -> bool:
    return any(
        other.version == network.version and other.supernet_of(network)  # type: ignore[arg-type]
        for other in others
    )


def _sum(taken: dict[str, int]) -> int:
    return int(numpy.fromiter(taken.values(), dtype="i8").sum())


def in_child(world: World, number: int) -> None:
    """Check in a forked child that the table is there, whoever changed it, and the child's own from now on."""
    table, own = world.table, world.own_routes[number]
    for network in list(own):
        _check_own(table, own, network.network_address)
    table["10.0.0.0/8"] = 5
    if table["10.0.0.0/8"] != 5 or len(table) != len(dict(table.items())):
        raise Wrong("a table does not work in a child")
    table.clear()
