"""A default route beside another one, as wg-quick makes it: in a table of its own, which rules point to.

For each family these rules are added, in this order, before all others but the local one:

* ``to X lookup main`` for each host or network that is to bypass the tunnel;
* ``lookup main suppress_prefixlength 0``: the main table, but for its default route;
* ``not fwmark M lookup T``: the table that has the tunnel's, but for sockets with the mark.

So no route of anybody is touched, and what bypasses the tunnel follows the uplink when that changes. For IPv4, settings
of the reverse path filter come with it, which a killed process leaves as they are: they bear no mark of who set them.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pyroute2.netlink.rtnl.fibmsg import fibmsg

from tunring._system.namespace_linux import warn
from tunring._system.netlink_linux import ADD, Command, KernelError, decode, encode
from tunring._win32 import Win32
from tunring.configuration._snapshot_linux import (
    EVERYWHERE,
    OURS,
    TABLE_COMPAT,
    TABLE_MAIN,
    VERSIONS,
    TableRoute,
    family_of,
    found_route,
    match,
    read_routes,
)
from tunring.errors import AlreadyExists, WintunError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tunring._system.netlink_linux import Netlink
    from tunring.configuration._checks import Host, Network
    from tunring.configuration._request import Request
    from tunring.configuration._snapshot_linux import Snapshot

_RTM_NEWRULE, _RTM_DELRULE, _RTM_GETRULE = 32, 33, 34
_TO_TABLE = 1  # FR_ACT_TO_TBL
_INVERT = 2  # FIB_RULE_INVERT
_UNSET = 0xFFFFFFFF

#: The kernel's own rule for the main table.
_MAIN_PRIORITY = 32766

_FIRST_TABLE, _TABLES = 51820, 1000

_SETTINGS = Path("/proc/sys/net/ipv4/conf")
_LOOSE = "2"

#: Hosts that nobody has a route to but by default: of class E, and of a range that is not given out.
_NOBODY: dict[int, Host] = {4: ip_address("240.0.0.1"), 6: ip_address("3fff:ffff::1")}
_LONGEST_DEFAULT = {4: 0, 6: 3}  # "2000::/3" usually stands for all of IPv6


@dataclass(frozen=True)
class Rule:
    """A rule of policy routing, of the kinds that are used here."""

    version: int
    priority: int
    table: int = TABLE_MAIN
    #: Packets to there only.
    to: Network | None = None
    #: All packets but those with this mark.
    not_mark: int | None = None
    #: Routes of at most this prefix length don't count.
    suppress: int | None = None

    def __str__(self) -> str:
        words = [f"{self.priority}:"]
        words += [f"not fwmark {self.not_mark:#x}"] if self.not_mark is not None else []
        words += [f"to {self.to}"] if self.to else []
        words += ["lookup", "main" if self.table == TABLE_MAIN else str(self.table)]
        words += [f"suppress_prefixlength {self.suppress}"] if self.suppress is not None else []
        return " ".join(words)


class FoundRule(NamedTuple):
    """A rule as the kernel has it, of any kind."""

    rule: Rule
    ours: bool


def read_rules(netlink: Netlink, version: int) -> list[FoundRule]:
    """Read the rules of one family; none where the kernel has no policy routing, or not that family."""
    try:
        messages = netlink.dump(_RTM_GETRULE, encode(fibmsg, {"family": family_of(version)}))
    except KernelError:
        return []
    found = []
    for message in messages:
        rule = decode(fibmsg, message)
        target, suppress = rule.get_attr("FRA_DST"), rule.get_attr("FRA_SUPPRESS_PREFIXLEN", _UNSET)
        read = Rule(
            version,
            rule.get_attr("FRA_PRIORITY") or 0,
            rule.get_attr("FRA_TABLE") or rule["table"],
            ip_network(f"{target}/{rule['dst_len']}") if target else None,
            rule.get_attr("FRA_FWMARK") if rule["flags"] & _INVERT else None,
            None if suppress == _UNSET else suppress,
        )
        found.append(FoundRule(read, rule.get_attr("FRA_PROTOCOL") == OURS))
    return found


def add_rule(rule: Rule) -> Command:
    """The request that adds a rule of ours."""
    return Command(f"can't add the IPv{rule.version} rule {rule}", _RTM_NEWRULE, ADD, _encode(rule))


def remove_rule(rule: Rule) -> Command:
    """The request that removes a rule of ours."""
    return Command(f"can't remove the IPv{rule.version} rule {rule}", _RTM_DELRULE, 0, _encode(rule))


def _encode(rule: Rule) -> bytes:
    fields = {
        "family": family_of(rule.version),
        "dst_len": rule.to.prefixlen if rule.to else 0,
        "table": rule.table if rule.table < 256 else TABLE_COMPAT,
        "action": _TO_TABLE,
        "flags": 0 if rule.not_mark is None else _INVERT,
    }
    attributes: list[tuple[str, Any]] = [("FRA_PRIORITY", rule.priority), ("FRA_TABLE", rule.table)]
    if rule.to:
        attributes.append(("FRA_DST", str(rule.to.network_address)))
    if rule.not_mark is not None:
        attributes.append(("FRA_FWMARK", rule.not_mark))
    if rule.suppress is not None:
        attributes.append(("FRA_SUPPRESS_PREFIXLEN", rule.suppress))
    attributes.append(("FRA_PROTOCOL", OURS))
    return encode(fibmsg, fields, attributes)


# ---- What is there


class Default(NamedTuple):
    """A default route in a table of its own, and the rule that points to it."""

    rule: Rule
    interface: int


def find_defaults(netlink: Netlink, rules: Iterable[FoundRule]) -> tuple[list[Default], list[Rule]]:
    """Find what tunring has made: default routes with their rules, and rules whose table has none any more."""
    live, stale = [], []
    for rule, ours in rules:
        if not ours or rule.not_mark is None:
            continue
        index = _default_interface(netlink, rule.version, rule.table)
        if index is None:
            stale.append(rule)
        else:
            live.append(Default(rule, index))
    return live, stale


def _default_interface(netlink: Netlink, version: int, table: int) -> int | None:
    for route, found in _table(netlink, version, table).items():
        if route.route.network == EVERYWHERE[version]:
            interface: int | None = found.interface
            return interface
    return None


def _table(netlink: Netlink, version: int, table: int) -> dict[TableRoute, Any]:
    try:
        return read_routes(netlink, version, table=table)
    except KernelError:  # there is no such table
        return {}


def stale_rules(netlink: Netlink, rules: list[FoundRule]) -> list[Rule]:
    """Rules that a killed process left: all of tunring's in a family where the table that they lead to is empty.

    There is one default route of tunring's to a family and namespace, so all of its rules belong together.
    """
    live, stale = find_defaults(netlink, rules)
    gone = {rule.version for rule in stale} - {found.rule.version for found in live}
    return [rule for rule, ours in rules if ours and rule.version in gone]


def read_default(snapshot: Snapshot, rules: list[FoundRule]) -> tuple[tuple[int, ...], int | None, int | None]:
    """The versions whose default route an interface has by such rules; the mark, and the table."""
    found = [
        rule
        for rule, _ in rules
        if rule.not_mark is not None
        and any(
            route.table == rule.table and route.route.network == EVERYWHERE[rule.version] for route in snapshot.routes
        )
    ]
    if not found:
        return (), None, None
    return tuple(sorted({rule.version for rule in found})), found[0].not_mark, found[0].table


# ---- What is wanted


@dataclass(frozen=True)
class Plan:
    """The parts of a default route."""

    mark: int
    table: int
    routes: list[TableRoute]
    #: Those of tunring's that were left by a process which is gone.
    stale: list[Rule]
    #: All rules to be made, by family and in order.
    rules: list[Rule]


def plan(netlink: Netlink, name: str, index: int, wanted: Request, snapshot: Snapshot) -> Plan | None:
    """Look what is to be done for the default routes that are wanted, or None if none are.

    Raises
    ------
    AlreadyExists
        Another interface has one.
    """
    versions = wanted.versions(snapshot.addresses)
    if not wanted.default:
        return None
    if not versions:
        raise ValueError(f"default=True requires an address, and adapter {name!r} has none; or pass default=4 or 6")
    rules = {version: read_rules(netlink, version) for version in VERSIONS}
    mine = [found for version in versions for found in _mine(netlink, name, index, rules[version])]
    table = wanted.table or (mine[0].table if mine else _free_table(netlink, rules))
    mark = wanted.mark or (mine[0].not_mark if mine else None) or table
    stale: list[Rule] = []
    planned: list[Rule] = []
    for version in versions:
        last = next(
            (rule for rule in mine if (rule.version, rule.not_mark, rule.table) == (version, mark, table)), None
        )
        if last is None:
            old = [rule for rule, ours in rules[version] if ours]
            stale += old
            first = _first_priority(name, version, [rule for rule, _ in rules[version] if rule not in old])
            last = Rule(version, first - 1, table, not_mark=mark)
        planned += [Rule(version, last.priority - 2, to=to) for to in wanted.bypass if to.version == version]
        planned += [Rule(version, last.priority - 1, suppress=0), last]
    routes = [TableRoute(found_route(EVERYWHERE[version], None, None), table) for version in versions]
    return Plan(mark, table, routes, [rule for rule in stale if rule not in planned], planned)


def _mine(netlink: Netlink, name: str, index: int, rules: list[FoundRule]) -> list[Rule]:
    """The rules that point to an interface's own default route, of one family."""
    live, _ = find_defaults(netlink, rules)
    for found in live:
        if found.interface != index:
            raise _second(name, found.rule.version, found.interface)
    return [found.rule for found in live]


def _second(name: str, version: int, index: int) -> AlreadyExists:
    other = interface_name(index)
    text = f"adapter {name!r} can't have the default route of IPv{version}: {other!r} has it by default=..."
    return AlreadyExists(Win32.ALREADY_EXISTS, f"{text}, and one network namespace has room for one")


def interface_name(index: int) -> str:
    """The name of an interface in this namespace."""
    try:
        return socket.if_indextoname(index)
    except OSError:
        return f"interface {index}"


def _free_table(netlink: Netlink, rules: dict[int, list[FoundRule]]) -> int:
    used = {rule.table for found in rules.values() for rule, ours in found if not ours}
    for table in range(_FIRST_TABLE, _FIRST_TABLE + _TABLES):
        if table not in used and not any(_table(netlink, version, table) for version in VERSIONS):
            return table
    text = f"none of the routing tables {_FIRST_TABLE} to {_FIRST_TABLE + _TABLES - 1} is free: choose one by table=..."
    raise WintunError(Win32.GEN_FAILURE, text)


def _first_priority(name: str, version: int, rules: list[Rule]) -> int:
    """The priority of the first rule after the local one, before which three have room."""
    first = min((rule.priority for rule in rules if rule.priority), default=_MAIN_PRIORITY)
    if first <= 3:
        text = f"adapter {name!r} can't have the default route of IPv{version}: an IPv{version} rule has the priority"
        raise WintunError(
            Win32.GEN_FAILURE, f"{text} {first}, and before it there is no room for the three that it takes"
        )
    return first


def warn_of_others(netlink: Netlink, name: str, versions: Iterable[int]) -> None:
    """Warn if the family that isn't covered keeps a default route: its packets go beside the tunnel."""
    for version in set(VERSIONS).difference(versions):
        found = match(netlink, _NOBODY[version])
        if found and found.prefix_length <= _LONGEST_DEFAULT[version]:
            warn(
                "adapter %r has no default route of IPv%d: such traffic goes by %r, outside the tunnel",
                name,
                version,
                interface_name(found.interface),
            )


# ---- Replies to marked packets

# A reply to the tunnel's datagrams bears no mark. So the kernel looks its source up in the tunnel's table, and a strict
# reverse path filter drops it, as it came by another interface. wg-quick has netfilter give replies their mark back.
# Here the filter becomes loose instead, for as long as the tunnel stands. It is conf/all's, of which and an interface's
# own the kernel takes the higher value: so it is right for whatever interface becomes the uplink, too.


def wanted_settings() -> dict[str, str]:
    """The settings of IPv4 that a default route needs and that differ: names below conf/all, and values."""
    wanted = {}
    if read_setting("src_valid_mark") != "1":
        wanted["src_valid_mark"] = "1"  # for those who give replies their mark back
    if _is_strict():
        wanted["rp_filter"] = _LOOSE
    return wanted


def _is_strict() -> bool:
    """True if the reverse path filter is strict, for an interface that is there or for those to come ("default")."""
    if read_setting("rp_filter") == _LOOSE:
        return False
    try:
        return any(read_setting("rp_filter", folder.name) == "1" for folder in _SETTINGS.iterdir())
    except OSError:
        return False


def read_setting(name: str, scope: str = "all") -> str | None:
    """Read a setting of IPv4; None if it is unknown."""
    try:
        return (_SETTINGS / scope / name).read_text("ascii").strip()
    except OSError:
        return None


def write_setting(name: str, value: str, adapter: str) -> None:
    """Set one for all interfaces; a system that does not allow it gets a warning."""
    file = _SETTINGS / "all" / name
    try:
        file.write_text(value, "ascii")
    except OSError as error:
        warn(
            "adapter %r: %s can't be set to %s (%s); where rp_filter is 1, replies to marked packets are dropped",
            adapter,
            file,
            value,
            error.strerror,
        )


def restore_settings(settings: Mapping[str, tuple[str, str]], adapter: str) -> None:
    """Put back, by name, what was before; unless somebody else has changed what was set."""
    for name, (before, value) in settings.items():
        if read_setting(name) == value:
            write_setting(name, before, adapter)
