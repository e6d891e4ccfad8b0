"""``tunring wireguard``: a WireGuard interface, by wg-quick's file or for ``wg`` to control; and what one is doing."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from tunring.cli.arguments import JSON_HELP
from tunring.cli.report import say, say_json
from tunring.cli.wireguard_service import in_background, serve, set_up_log

if TYPE_CHECKING:
    import argparse
    from contextlib import ExitStack

    from tunring import Adapter
    from tunring.wireguard import Config, Device


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("name", metavar="NAME", help="the interface: a new one, or with --status an existing one")
    parser.add_argument("--config", metavar="FILE", help="set it up by a file in wg-quick's format")
    parser.add_argument(
        "--foreground", action="store_true", help="stay in the foreground until Ctrl-C; required on Windows"
    )
    parser.add_argument(
        "--hooks", action="store_true", help="run the file's PreUp, PostUp, PreDown and PostDown, by the shell"
    )
    parser.add_argument("--status", action="store_true", help="show peers, rates and handshakes until Ctrl-C")
    parser.add_argument("--json", action="store_true", help=f"{JSON_HELP}; with --status, the present state")


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    name: str = arguments.name
    if arguments.status and (arguments.config or arguments.hooks or arguments.foreground):
        arguments.error("--status takes neither --config, --hooks nor --foreground")
    if arguments.hooks and not arguments.config:
        arguments.error("--hooks needs --config")
    if arguments.status:
        from tunring.cli.wireguard_status import show

        return show(name, as_json=arguments.json)
    if arguments.json and not arguments.foreground:
        arguments.error("--json needs --foreground or --status")
    work = partial(serve, name, **(_by_file(name, arguments.config, arguments.hooks) if arguments.config else {}))
    if not arguments.foreground:
        return in_background(name, work)
    set_up_log()
    return _in_foreground(name, work, as_json=arguments.json)


def _by_file(name: str, path: str, with_hooks: bool) -> dict[str, Any]:
    """Read a file, and return the arguments by which :func:`serve` sets up the interface."""
    from tunring.wireguard import parse_config

    # The process in the background is in another folder.
    file = Path(path).resolve()
    config = parse_config(file.read_bytes(), file=file)
    _check(config)
    if not with_hooks and (config.pre_up or config.post_up or config.pre_down or config.post_down):
        say("tunring: the file's commands are not run without --hooks", sys.stderr)
    hooks = _hooks(name, Path.cwd()) if with_hooks else _no_hooks
    return {
        "before": partial(_before, config, hooks, name) if with_hooks else None,
        "set_up": partial(_set_up, config, hooks, partial(_save, file, config)),
    }


def _in_foreground(name: str, work: Callable[..., int], *, as_json: bool) -> int:
    reports: list[dict[str, Any]] = []

    def at_end(device: Device, reason: str) -> None:
        reports.append(_report(name, device, reason))

    stream = sys.stderr if as_json else sys.stdout
    code = work(lambda: say(f"interface {name} is ready; Ctrl-C ends", stream), at_end=at_end)
    # Not before all is undone: a command of the file may fail, and there is one object.
    for report in reports if as_json else ():
        say_json(report)
    return code


#: Functions that run the commands of one kind. They raise OSError for a command that fails.
_Hooks: TypeAlias = Callable[[tuple[str, ...]], None]


def _save(file: Path, config: Config, device: Device) -> None:
    """Write the file anew, with the device's keys and peers as they are now: all of it or nothing."""
    from tunring.wireguard.config import PeerConfig
    from tunring.wireguard.peer import host_of

    peers = []
    for peer in device.peers.values():
        endpoint = peer.endpoint
        peers.append(
            PeerConfig(
                peer.public_key,
                peer.preshared_key,
                peer.allowed_ips,
                (host_of(endpoint), endpoint.port) if endpoint else None,
                peer.persistent_keepalive,
            )
        )
    chosen = config.mark is None and device.mark == _FULL_TUNNEL_MARK and bool(_default(config))
    changed = replace(
        config,
        private_key=device.private_key,
        listen_port=device.listen_port,
        mark=None if chosen else device.mark,
        peers=tuple(peers),
    )
    # Nobody else may read the new file.
    descriptor, path = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.", text=True)
    try:
        with open(descriptor, "w", encoding="utf-8") as written:
            written.write(changed.to_text())
            written.flush()
            os.fsync(descriptor)
        os.replace(path, file)
    except BaseException:
        os.unlink(path)
        raise


def _report(name: str, device: Device, reason: str) -> dict[str, Any]:
    from tunring.wireguard.peer import describe

    return {
        "ok": True,
        "interface": name,
        "public_key": str(device.public_key) if device.public_key else None,
        "listen_port": device.listen_port,
        "ended_by": reason,
        "peers": [describe(peer) for peer in device.peers.values()],
    }


# ---- By a file --------------------------------------------------------------------------------------------------


def _check(config: Config) -> None:
    """Refuse what this system lacks, and mistakes, before there is an interface."""
    from tunring._udp import check_mark
    from tunring.cli.wireguard_endpoints import retries

    retries()
    check_mark(config.mark)
    if sys.platform == "win32" and config.table not in {"auto", "off", "main"}:
        raise NotImplementedError(f"Table = {config.table}: Windows has no routing tables; use auto or off")


def _before(config: Config, hooks: _Hooks, name: str, stack: ExitStack) -> None:
    """Run PreUp before there is an interface, and at the end PostDown when there is none any more."""
    if sys.platform != "win32":
        _refuse_existing(name)
    hooks(config.pre_up)
    stack.callback(hooks, config.post_down)


def _refuse_existing(name: str) -> None:
    """Refuse the name of an interface that is there, as creating it would: then no command is run."""
    if name in (existing for _, existing in socket.if_nameindex()):
        raise FileExistsError(errno.EEXIST, f"an interface {name} exists already")


def _set_up(
    config: Config,
    hooks: _Hooks,
    save: Callable[[Device], None],
    adapter: Adapter,
    device: Device,
    stack: ExitStack,
    stopped: Callable[[], bool],
) -> None:
    """Set up an interface and its device as a file describes. The stack's end undoes it in the reverse order."""
    from tunring.cli.wireguard_endpoints import find

    # After PreUp, which may be what makes names known.
    endpoints = [find(*peer.endpoint, stopped) if peer.endpoint else None for peer in config.peers]
    device.private_key = config.private_key
    if config.listen_port:
        device.listen_port = config.listen_port
    default = _default(config)
    device.mark = config.mark
    for peer, endpoint in zip(config.peers, endpoints, strict=True):
        device.add_peer(
            peer.public_key,
            allowed_ips=peer.allowed_ips,
            endpoint=endpoint,
            preshared_key=peer.preshared_key,
            persistent_keepalive=peer.persistent_keepalive,
        )
    options: dict[str, Any] = {}
    if table := _table(config):
        options = {"table": table}
    elif default and sys.platform == "win32":
        # A link-local one is on its link, where no default route leads.
        hosts = [endpoint.host for endpoint in endpoints if endpoint and not endpoint.interface]
        options = {"default": default, "bypass": hosts}
    elif default:
        device.mark = config.mark or _FULL_TUNNEL_MARK
        options = {"default": default, "mark": device.mark}
    adapter.configure(
        config.addresses,
        config.mtu,
        dns=map(str, config.dns),
        domains=_domains(config),
        routes=_routes(config),
        **options,
    )
    hooks(config.post_up)
    if config.save_config:
        stack.callback(save, device)
    stack.callback(hooks, config.pre_down)


#: wg-quick's own, where the file has none: the tunnel's datagrams go beside a tunnel that takes everything. Windows has
#: no marks: there, a route leads to each endpoint.
_FULL_TUNNEL_MARK = 51820


def _default(config: Config) -> tuple[int, ...]:
    """The IP versions of the default routes that the allowed IPs ask for.

    The interface gets them even if the file has no address of that version: else packets would go beside the tunnel.
    """
    if config.table != "auto":
        return ()
    families = {network.version for peer in config.peers for network in peer.allowed_ips if not network.prefixlen}
    return tuple(sorted(families))


def _domains(config: Config) -> tuple[str, ...]:
    """The search domains; and, as wg-quick has it, all names for the file's servers alone, else some would leak.

    Windows knows search domains only.
    """
    return (*config.dns_search, "~.") if config.dns and sys.platform != "win32" else config.dns_search


def _routes(config: Config) -> list[str]:
    if config.table == "off":
        return []
    networks = dict.fromkeys(network for peer in config.peers for network in peer.allowed_ips)
    if config.table != "auto":
        # Default routes among them: in a table of the user's own they are in nobody's way.
        return list(map(str, networks))
    connected = {own.network for own in config.addresses}
    return [str(network) for network in networks if network.prefixlen and network not in connected]


def _table(config: Config) -> int | None:
    """The number of the routing table that the file names; None for the main one, or none."""
    name = config.table
    if name in {"auto", "off", "main"} or not any(peer.allowed_ips for peer in config.peers):
        return None
    number = int(name) if name.isdecimal() else _named_tables().get(name)
    if number is None:
        raise ValueError(f"Table = {name}: iproute2's files have no routing table of this name")
    return None if number == _MAIN_TABLE else number


#: The main table's number, and where iproute2 has the names of others.
_MAIN_TABLE = 254
_TABLE_FILES = ("/usr/share/iproute2/rt_tables", "/etc/iproute2/rt_tables")


def _named_tables() -> dict[str, int]:
    found = {}
    for file in (*map(Path, _TABLE_FILES), *sorted(Path("/etc/iproute2/rt_tables.d").glob("*.conf"))):
        for line in file.read_text("utf-8", "replace").splitlines() if file.is_file() else ():
            words = line.partition("#")[0].split()
            if len(words) == 2 and words[0].isdecimal():
                found[words[1]] = int(words[0])
    return found


def _hooks(name: str, folder: Path) -> _Hooks:
    """Return the function that runs commands: in the user's folder, which a background process has left."""

    def run_all(commands: tuple[str, ...]) -> None:
        for command in commands:
            there = folder if folder.is_dir() else None
            done = subprocess.run(command.replace("%i", name), shell=True, check=False, cwd=there)
            if done.returncode:
                raise OSError(f"a command of the file failed with {done.returncode}: {command}")

    return run_all


def _no_hooks(_: tuple[str, ...]) -> None:
    """Run nothing."""
