"""``tunring doctor``: what is there, what is missing, and what to do about it."""

from __future__ import annotations

import platform
import sys
from dataclasses import asdict
from importlib import metadata
from typing import TYPE_CHECKING

from tunring import __version__, load, running_driver_version
from tunring.cli.arguments import JSON_HELP
from tunring.cli.report import Finding, reason_of, say, say_json

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("--json", action="store_true", help=JSON_HELP)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    findings = [_python(), *_libraries(), *_system(), _extra()]
    usable = all(finding.level != "problem" for finding in findings)
    if arguments.json:
        say_json({"ok": usable, "version": __version__, "findings": [asdict(finding) for finding in findings]})
        return 0 if usable else 1
    width = max(len(finding.topic) for finding in findings)
    for finding in findings:
        say(f"{finding.level:8} {finding.topic:{width}}  {finding.text}")
        if finding.advice:
            say(f"{'':8} {'':{width}}  -> {finding.advice}")
    say(
        "tunring can be used here" if usable else "tunring's default library can't be used here; see the problems above"
    )
    return 0 if usable else 1


def _python() -> Finding:
    text = f"{__version__} on {platform.python_implementation()} {platform.python_version()}, {platform.platform()}"
    return Finding("tunring", "ok", text)


def _libraries() -> list[Finding]:
    return [_library("default library", None), _library("loopback", "loopback")]


def _library(topic: str, which: str | None) -> Finding:
    try:
        library = load(which)
    except OSError as error:
        return Finding(topic, "problem", reason_of(error), _library_advice(which))
    try:
        version = f"driver version {running_driver_version(library)}"
    except OSError as error:
        # With Wintun that is so until the first adapter is made; elsewhere the system's findings say more.
        version = f"no driver version yet: {reason_of(error)}"
        return Finding(topic, "warning", f"{library.name} from {library.path}, {version}")
    return Finding(topic, "ok", f"{library.name} from {library.path}, {version}")


def _library_advice(which: str | None) -> str:
    if which is None and sys.platform == "win32":
        return "install a wheel of tunring for Windows, or put the official wintun.dll of this machine's kind there"
    if which is None and sys.platform != "linux":
        return "there is only loopback on this system: tunring.load('loopback')"
    return "it is part of tunring: install tunring again"


def _extra() -> Finding:
    try:
        return Finding("extra cli", "ok", f"rich {metadata.version('rich')}")
    except metadata.PackageNotFoundError:
        advice = "for more than plain text: pip install rich"
        return Finding("extra cli", "ok", "not installed, and not required", advice)


def _system() -> list[Finding]:
    if sys.platform == "linux":
        from tunring.cli.doctor_linux import look

        return list(look())
    elif sys.platform == "win32":
        from tunring.cli.doctor_windows import look

        return list(look())
    else:
        return []
