"""``python -m tunring``, and the ``tunring`` command."""

from __future__ import annotations

import argparse
import io
import sys
from typing import TYPE_CHECKING

from tunring import __version__
from tunring.cli import bench, bridge, demo, doctor, echo, wireguard
from tunring.cli.report import exit_code_of

if TYPE_CHECKING:
    from collections.abc import Sequence

_COMMANDS = {
    "bench": (bench, "measure tunring on this machine, beside os.read and os.write"),
    "bridge": (bridge, "forward packets between two interfaces, show the rates, and capture them to a file"),
    "demo": (demo, "send real packets through tunring and check every answer"),
    "doctor": (doctor, "report what this system has, and what to do about what it lacks"),
    "echo": (echo, "serve an interface behind which everything answers pings, UDP and TCP, until Ctrl-C"),
    "wireguard": (wireguard, "serve a WireGuard interface, for wg and wg-quick or by a file, or show its state"),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tunring",
        description="Batched, zero-copy packet I/O over the Wintun ABI.",
        epilog="Exit codes: 0 all right, also where Ctrl-C is the end that a command waits for (bridge, demo,"
        " echo, wireguard);"
        " 1 failed; 2 wrong usage; 3 a privilege is missing; 130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"tunring {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", dest="command")
    for name, (module, text) in _COMMANDS.items():
        command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        module.add_arguments(command)
        command.set_defaults(run=module.run, error=command.error)
    return parser


def _escape_unencodable() -> None:
    """Names may have any character, also one that a pipe's encoding lacks: it is escaped then."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, or show the help without one. Returns the exit code; wrong usage raises SystemExit(2)."""
    _escape_unencodable()
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_help()
        return 0
    return exit_code_of(lambda: arguments.run(arguments), as_json=arguments.json)


if __name__ == "__main__":
    sys.exit(main())
