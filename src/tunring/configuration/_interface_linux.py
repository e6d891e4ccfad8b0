"""One interface, configured over rtnetlink: each kind of thing is read in one list, and changed in one batch."""

from __future__ import annotations

import errno
import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunring._system.namespace_linux import warn
from tunring._system.netlink_linux import KernelError
from tunring._win32 import Win32
from tunring.configuration import Configuration
from tunring.configuration import _full_tunnel_linux as full_tunnel
from tunring.configuration import _snapshot_linux as snapshot_of
from tunring.configuration._networks import Networks
from tunring.configuration._resolved_linux import Dns, Resolver
from tunring.configuration._snapshot_linux import GEN_MODE_NONE, OURS, TABLE_MAIN, VERSIONS, Snapshot, TableRoute
from tunring.errors import AccessDenied, AlreadyExists, FamilyDisabled, InvalidArgument, NotFound, WintunError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from tunring._configurator import Changes, Key
    from tunring._system.netlink_linux import Command, Netlink
    from tunring.configuration import Route
    from tunring.configuration._checks import Host
    from tunring.configuration._full_tunnel_linux import Plan, Rule
    from tunring.configuration._request import InterfaceAddress, Request
    from tunring.configuration._snapshot_linux import Link

#: Within which the kernel makes the routes of an IPv6 address.
_SETTLE_SECONDS = 1.0


#: Errors of the kernel for a thing that is not there, or not any more.
_ABSENT = {errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL, errno.ENODEV}

#: Its errors for a family that it lacks.
_NO_FAMILY = {errno.EOPNOTSUPP, errno.EAFNOSUPPORT}


class LinuxInterface:
    """One interface as netlink sees it; without an index it is gone, and only what is beside it can be restored."""

    def __init__(self, netlink: Netlink, name: str, index: int | None) -> None:
        self._netlink = netlink
        self._name = name
        self._index = index or 0

    # ---- The face that both systems have

    def apply(self, request: Request, earlier: Request, changes: Changes) -> Configuration:
        """Apply a request, note what was there before it is changed, and compare with the kernel's state afterwards."""
        with ExitStack() as stack:
            # Before anything is changed: there may be none.
            dns = stack.enter_context(Resolver()) if request.dns or request.domains else None
            snapshot = self._apply(request, request.after(earlier), earlier, changes)
            if dns:
                self._change_dns(dns, request, changes)
        return self._configuration(snapshot)

    def read(self) -> Configuration:
        """Read the interface's configuration from the kernel."""
        return self._configuration(self._look())

    def sweep(self, *, interface: bool) -> None:
        """Remove what is marked as ours: from the interface too, unless other processes may be attached to it."""
        failed: list[tuple[Command, KernelError]] = []
        if interface and self._index:
            snapshot = self._look()
            if not snapshot.link.multi_queue:
                commands = [
                    snapshot_of.remove_route(self._index, route)
                    for route, found in snapshot.routes.items()
                    if found.protocol == OURS
                ]
                commands += [
                    snapshot_of.remove_address(self._index, address)
                    for address, found in snapshot.addresses.items()
                    if found.protocol == OURS
                ]
                failed += self._netlink.run(commands, to_the_end=True)
        rules = [found for version in VERSIONS for found in full_tunnel.read_rules(self._netlink, version)]
        stale = [full_tunnel.remove_rule(rule) for rule in full_tunnel.stale_rules(self._netlink, rules)]
        failed += self._netlink.run(stale, to_the_end=True)
        for command, error in failed:
            warn("can't remove from adapter %r what an ended process left: %s: %s", self._name, command.action, error)

    def restore(self, before: Mapping[Key, Any]) -> Exception | None:
        """Make things what they were; returns the first failure, which keeps the others from nothing."""
        of_kind: dict[str, dict[Any, Any]] = {}
        for key, value in before.items():
            of_kind.setdefault(key[0], {})[key[1] if len(key) > 1 else None] = value
        failures: list[Exception] = []
        steps: list[Callable[[], None]] = []
        # Before the rules: once those are gone, another adapter may have a default route, and needs the settings again.
        if settings := of_kind.get("sysctl"):
            steps.append(lambda: full_tunnel.restore_settings(settings, self._name))
        if rules := of_kind.get("rule"):
            steps.append(lambda: self._remove_rules(rules, failures))
        if dns := of_kind.get("dns"):
            steps.append(lambda: self._set_dns(dns[None]))
        if self._index and of_kind.keys() & {"link", "mode", "address", "route"}:
            steps.append(lambda: self._restore_interface(of_kind, failures))
        for step in steps:
            try:
                step()
            except OSError as error:
                failures.append(error)
        return failures[0] if failures else None

    # ---- Reading

    def _look(self) -> Snapshot:
        try:
            return snapshot_of.look(self._netlink, self._index)
        except KernelError as error:
            raise self._failure(error, "can't read the interface") from error

    def _configuration(self, snapshot: Snapshot) -> Configuration:
        link = snapshot.link
        rules = [found for version in VERSIONS for found in full_tunnel.read_rules(self._netlink, version)]
        versions, mark, table = full_tunnel.read_default(snapshot, rules)
        dns = self._dns()
        return Configuration(
            tuple(address.local for address in snapshot.addresses),
            link.mtu,
            snapshot.metric,
            dns.servers,
            tuple(route.route for route in snapshot.routes if route.table == TABLE_MAIN),
            link.up,
            {address.ip: address.network for address in snapshot.addresses if address.peer},
            dns.domains,
            versions,
            mark,
            table,
            link.queue_length,
            link.carrier,
        )

    # ---- Changing

    def _apply(self, request: Request, whole: Request, earlier: Request, changes: Changes) -> Snapshot:
        before = self._look()
        # The kernel forgets routes and IPv6 addresses of an interface that goes down: they return when it is back. A
        # metric is for all that the adapter has.
        wanted = whole if request.metric or (request.up and not before.link.up) else request
        routes = [_in_table(route, whole) for route in wanted.routes]
        self._check_gateways(wanted, before)
        tunnel = self._plan(whole, before) if request.up else None
        # The state comes first: going down takes addresses away, and without it there are no routes.
        now = self._change_link(before, self._wanted_link(request, before.link, changes), changes)
        if request.ipv6 is False:
            self._remove_kernel_made(now, whole, changes)
        self._change_addresses(wanted.addresses, whole.metric, now, changes)
        if request.up:
            self._settle(wanted.addresses)
        if tunnel:
            routes += tunnel.routes
        self._change_routes(routes, earlier, now, changes)
        if tunnel:
            self._change_rules(tunnel, changes)
        return self._compare(wanted.addresses, whole.metric, routes, request)

    # ---- The link

    def _wanted_link(self, request: Request, link: Link, changes: Changes) -> Link:
        mode = link.gen_mode
        if mode is not None and request.ipv6 is not None:
            mode = changes.original().get(("mode",), mode) if request.ipv6 else GEN_MODE_NONE
        return replace(
            link,
            mtu=link.mtu if request.mtu is None else request.mtu,
            up=request.up,
            queue_length=link.queue_length if request.queue_length is None else request.queue_length,
            gen_mode=mode,
        )

    def _change_link(self, before: Snapshot, wanted: Link, changes: Changes) -> Snapshot:
        """Change the link, and note the settings that this removes; returns the new snapshot."""
        link = before.link
        if wanted == link:
            return before
        if wanted.gen_mode != link.gen_mode:
            changes.note(("mode",), link.gen_mode)
        if (wanted.mtu, wanted.up, wanted.queue_length) != (link.mtu, link.up, link.queue_length):
            changes.note(("link",), (link.mtu, link.up, link.queue_length))
        self._set_link(link, wanted)
        now = self._look()
        # A small MTU takes IPv6 addresses away, and going down takes them and all routes.
        for address in before.addresses.keys() - now.addresses.keys():
            changes.note(("address", address), before.addresses[address])
        for route in before.routes.keys() - now.routes.keys():
            changes.note(("route", route), before.routes[route])
        return now

    def _set_link(self, link: Link, wanted: Link) -> None:
        if wanted.gen_mode not in (link.gen_mode, GEN_MODE_NONE):
            # This way the kernel makes an address at once, by netlink not before the interface comes up again.
            with suppress(OSError):
                Path("/proc/sys/net/ipv6/conf", link.name, "addr_gen_mode").write_text(str(wanted.gen_mode), "ascii")
                link = replace(link, gen_mode=wanted.gen_mode)
        self._run(snapshot_of.set_link(self._index, link, wanted))

    def _remove_kernel_made(self, now: Snapshot, whole: Request, changes: Changes) -> None:
        commands = []
        for address, found in now.addresses.items():
            if snapshot_of.is_made_by_kernel(address, found) and address not in whole.addresses:
                changes.note(("address", address), found)
                commands.append(snapshot_of.remove_address(self._index, address))
        self._run(commands)

    # ---- Addresses

    def _change_addresses(
        self, wanted: Iterable[InterfaceAddress], metric: int | None, now: Snapshot, changes: Changes
    ) -> None:
        commands = []
        for address in wanted:
            present = now.addresses.get(address)
            if present is None:
                changes.note(("address", address), None)
                commands.append(snapshot_of.add_address(self._index, address, metric))
            elif metric is not None and present.metric != metric:
                changes.note(("address", address), present)
                commands.append(snapshot_of.change_metric(address, present, metric))
        for command, error in self._netlink.run(commands, to_the_end=True):
            if error.code != errno.EEXIST:
                raise self._failure(error, command.action, command.subject) from error
            self._check_address_exists(command)

    def _check_address_exists(self, command: Command) -> None:
        """An address exists already: just as wanted, made a moment ago, or otherwise."""
        address: Any = command.subject
        present = self._look().addresses
        if address not in present:
            others = ", ".join(str(other) for other in present if other.ip == address.ip)
            where = f"it exists as {others}" if others else "it exists already"
            raise WintunError(Win32.GEN_FAILURE, f"{command.action} on adapter {self._name!r}: {where}", errno.EEXIST)

    def _settle(self, addresses: Iterable[InterfaceAddress]) -> None:
        """Wait until IPv6 addresses are this host's: the kernel makes their routes a moment after it has them."""
        limit = time.monotonic() + _SETTLE_SECONDS
        for address in addresses:
            while address.version == 6 and not self._is_local(address.ip) and time.monotonic() < limit:
                time.sleep(0.001)

    def _is_local(self, host: Host) -> bool:
        return snapshot_of.is_local(self._netlink, host)

    # ---- Routes

    def _check_gateways(self, wanted: Request, before: Snapshot) -> None:
        """Refuse a gateway that is behind another interface: packets to it would loop into the adapter."""
        gateways = {route.gateway: route for route in wanted.routes if route.gateway is not None}
        linked = Networks(address.network for address in (*before.addresses, *wanted.addresses))
        present = [route.route for route in before.routes if route.table == TABLE_MAIN]
        direct = Networks(route.network for route in (*present, *wanted.routes) if route.gateway is None)
        for gateway, route in gateways.items():
            best = None if gateway in linked else snapshot_of.match(self._netlink, gateway)
            if best and best.interface != self._index and direct.longest_prefix(gateway) < best.prefix_length:
                text = f"can't add the route to {route} on adapter {self._name!r}: its gateway is not on the adapter"
                raise InvalidArgument(
                    Win32.INVALID_PARAMETER, f"{text}, but behind {full_tunnel.interface_name(best.interface)!r}"
                )

    def _change_routes(self, wanted: list[TableRoute], earlier: Request, now: Snapshot, changes: Changes) -> None:
        """Add routes, and remove what earlier calls have made to the same networks: an adapter has one to each."""
        given = {_in_table(route, earlier) for route in earlier.routes}
        to_network = {(route.table, route.route.network): route for route in wanted}
        commands = []
        for present, found in now.routes.items():
            if present in given and to_network.get((present.table, present.route.network), present) != present:
                changes.note(("route", present), found)
                commands.append(snapshot_of.remove_route(self._index, present))
        for route in wanted:
            if route not in now.routes:
                changes.note(("route", route), None)
                commands.append(snapshot_of.add_route(self._index, route))
        for command, error in self._netlink.run(commands, to_the_end=True):
            if command.subject is None and error.code in _ABSENT:
                continue
            if command.subject is not None and error.code == errno.EEXIST:
                self._check_route_exists(command)
                continue
            raise self._failure(error, command.action, command.subject) from error

    def _check_route_exists(self, command: Command) -> None:
        """A route exists already: just as wanted, made a moment ago, or by another interface."""
        route: Any = command.subject
        index = snapshot_of.owner_of_route(self._netlink, route)
        if index == self._index:
            if route in self._look().routes:
                return
            where = "it exists with another gateway"
        else:
            where = "another interface has it" if index is None else f"{full_tunnel.interface_name(index)!r} has it"
        advice = (
            "default=True lets both have it" if not route.route.network.prefixlen else "metric=... tells them apart"
        )
        text = f"{command.action} on adapter {self._name!r}: {where} with the same metric; {advice}"
        raise AlreadyExists(Win32.ALREADY_EXISTS, text, errno.EEXIST)

    # ---- A default route beside another one

    def _plan(self, whole: Request, before: Snapshot) -> Plan | None:
        try:
            return full_tunnel.plan(self._netlink, self._name, self._index, whole, before)
        except KernelError as error:
            raise self._failure(error, "can't read the routing rules") from error

    def _change_rules(self, plan: Plan, changes: Changes) -> None:
        versions = sorted({rule.version for rule in plan.rules})
        present = {found.rule for version in versions for found in full_tunnel.read_rules(self._netlink, version)}
        missing = [rule for rule in plan.rules if rule not in present]
        if not missing and not plan.stale:
            return
        for name, value in full_tunnel.wanted_settings().items() if 4 in versions else ():
            if setting := full_tunnel.read_setting(name):
                changes.note(("sysctl", name), (setting, value))
            full_tunnel.write_setting(name, value, self._name)
        for rule in missing:
            changes.note(("rule", rule), None)
        commands = [full_tunnel.remove_rule(rule) for rule in plan.stale if rule in present]
        self._run([*commands, *map(full_tunnel.add_rule, missing)])
        full_tunnel.warn_of_others(self._netlink, self._name, versions)

    def _remove_rules(self, rules: dict[Rule, Any], failures: list[Exception]) -> None:
        self._try([full_tunnel.remove_rule(rule) for rule in reversed(rules)], failures)

    # ---- Restoring

    def _restore_interface(self, of_kind: Mapping[str, Mapping[Any, Any]], failures: list[Exception]) -> None:
        now = start = self._look()
        addresses, routes = of_kind.get("address", {}), of_kind.get("route", {})
        wanted = now.link
        if "link" in of_kind:
            mtu, up, queue_length = of_kind["link"][None]
            wanted = replace(wanted, mtu=mtu, up=up, queue_length=queue_length)
        if "mode" in of_kind:
            wanted = replace(wanted, gen_mode=of_kind["mode"][None])
        if wanted != now.link:
            self._set_link(now.link, wanted)
            now = self._look()
        removals = [
            snapshot_of.remove_route(self._index, route)
            for route, before in routes.items()
            if before is None and route in now.routes
        ]
        gone = {address for address, before in addresses.items() if before is None and address in now.addresses}
        removals += [snapshot_of.remove_address(self._index, address) for address in gone]
        self._try(removals, failures)
        # With an address the kernel removes others of its network, too, and with the link's state those of IPv6.
        present = self._look().addresses if gone else now.addresses
        lost = {
            address: found
            for address, found in start.addresses.items()
            if address not in addresses and not snapshot_of.is_made_by_kernel(address, found)
        }
        lost |= {address: before for address, before in addresses.items() if before is not None}
        self._try(
            [
                snapshot_of.put_address_back(address, found)
                for address, found in lost.items()
                if address not in present or present[address].metric != found.metric
            ],
            failures,
        )
        if wanted.up:
            present_routes = self._look().routes
            back = [
                snapshot_of.put_route_back(route, before)
                for route, before in routes.items()
                if before is not None and route not in present_routes
            ]
            # A route by a gateway takes the route to it: once more for those that came too early.
            self._try([command for command, _ in self._netlink.run(back, to_the_end=True)], failures)

    def _try(self, commands: Sequence[Command], failures: list[Exception]) -> None:
        """Make requests that may be of no use any more, and keep what else goes wrong."""
        for command, error in self._netlink.run(commands, to_the_end=True):
            if error.code not in (_ABSENT | {errno.EEXIST}):
                failures.append(self._failure(error, command.action, command.subject))

    # ---- Name servers, of which the kernel knows nothing

    def _dns(self) -> Dns:
        try:
            with Resolver() as resolver:
                return resolver.read(self._index)
        except (NotImplementedError, WintunError):
            return Dns()

    def _change_dns(self, resolver: Resolver, request: Request, changes: Changes) -> None:
        resolver.wait_for(self._index)
        before = resolver.read(self._index)
        wanted = before.changed(request.dns, request.domains)
        if wanted == before:
            return
        changes.note(("dns",), before)
        resolver.write(self._index, before, wanted)
        if (found := resolver.read(self._index)) != wanted:
            raise WintunError(Win32.GEN_FAILURE, f"adapter {self._name!r} should have {wanted}, but has {found}")

    def _set_dns(self, dns: Dns) -> None:
        with suppress(NotFound, NotImplementedError), Resolver() as resolver:
            resolver.write(self._index, resolver.read(self._index), dns)

    # ---- All of it

    def _run(self, commands: Sequence[Command]) -> None:
        for command, error in self._netlink.run(commands):
            raise self._failure(error, command.action, command.subject) from error

    def _failure(self, error: KernelError, action: str, subject: Any = None) -> WintunError:
        code = error.code
        text = f"{action} on adapter {self._name!r}: "
        if code == errno.EEXIST:
            return AlreadyExists(Win32.ALREADY_EXISTS, text + "it exists already", code)
        if code == errno.EPERM:
            return AccessDenied(Win32.ACCESS_DENIED, text + "that needs the capability CAP_NET_ADMIN", code)
        if code == errno.EACCES:
            return FamilyDisabled(
                Win32.NOT_SUPPORTED, text + "IPv6 is disabled there (net.ipv6.conf.*.disable_ipv6)", code
            )
        if code in _NO_FAMILY and subject is not None:
            version = _version_of(subject)
            disabled = FamilyDisabled(
                Win32.NOT_SUPPORTED, f"{text}the kernel has no IPv{version} (ipv6.disable=1)", code
            )
            disabled.version = version
            return disabled
        if code == errno.ENODEV:
            return NotFound(Win32.NOT_FOUND, text + "the interface is gone", code)
        return WintunError(Win32.GEN_FAILURE, f"{text}the kernel reports: {error}", code)

    def _compare(
        self, addresses: Iterable[InterfaceAddress], metric: int | None, routes: list[TableRoute], request: Request
    ) -> Snapshot:
        """Read everything back."""
        found = self._look()
        lacking: list[object] = [address for address in addresses if address not in found.addresses]
        if metric:
            other = [a for a in addresses if a in found.addresses and found.addresses[a].metric != metric]
            lacking += [f"{address} with metric {metric}" for address in other]
        lacking += [f"the route to {route}" for route in routes if route not in found.routes]
        if lacking:
            text = f"can't add {lacking[0]} on adapter {self._name!r}: the kernel accepted it, but does not have it"
            raise WintunError(Win32.GEN_FAILURE, text)
        self._compare_link(found.link, request)
        return found

    def _compare_link(self, link: Link, request: Request) -> None:
        wanted: dict[str, Any] = {"MTU": request.mtu, "up": request.up, "queue length": request.queue_length}
        has = {"MTU": link.mtu, "up": link.up, "queue length": link.queue_length}
        for what, value in wanted.items():
            if value not in (None, has[what]):
                text = f"adapter {self._name!r} should have the {what} {value}, but has {has[what]}"
                raise WintunError(Win32.GEN_FAILURE, text)


def _version_of(subject: Any) -> int:
    """The IP version of an address, a route or a rule."""
    version: int = subject.route.network.version if isinstance(subject, TableRoute) else subject.version
    return version


def _in_table(route: Route, request: Request) -> TableRoute:
    """A route as the kernel will have it."""
    found = snapshot_of.found_route(route.network, route.gateway, route.metric or request.metric)
    return TableRoute(found, request.table_of_routes or TABLE_MAIN)
