"""The output of the commands, and how a failure ends."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TextIO

from tunring import WintunError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tunring import Library, Stats


Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """One thing that doctor looked at; ``advice`` is what to do next, if anything."""

    topic: str
    level: Level
    text: str
    advice: str = ""


def say(text: str, stream: TextIO | None = None) -> None:
    """Print a line, at once."""
    print(text, file=stream or sys.stdout, flush=True)


def say_json(what: dict[str, Any]) -> None:
    """Print the one JSON object."""
    print(json.dumps(what), flush=True)


def reason_of(error: BaseException) -> str:
    """An exception in one line."""
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    if isinstance(error, OSError) and error.filename and not isinstance(error, WintunError):
        reason = f"{error.filename}: {reason}"
    return ": ".join(reason.splitlines())


#: Exit codes of the commands; 2, wrong usage, is argparse's.
FAILED, NOT_ALLOWED, INTERRUPTED = 1, 3, 130


def exit_code_of(command: Callable[[], int], *, as_json: bool = False) -> int:
    """Run a command; a failure becomes one line, with ``as_json`` also the one JSON object, and an exit code."""
    try:
        return command()
    except (OSError, ValueError, NotImplementedError, ImportError) as error:
        reason, code = reason_of(error), NOT_ALLOWED if isinstance(error, PermissionError) else FAILED
    except KeyboardInterrupt:
        reason, code = "interrupted", INTERRUPTED
    say(f"tunring: {reason}", sys.stderr)
    if as_json:
        say_json({"ok": False, "error": reason})
    return code


def describe(library: Library) -> str:
    """The library's name, version and place."""
    from tunring import __version__, running_driver_version

    return f"tunring {__version__} over {library.name} {running_driver_version(library)} ({library.path})"


def describe_json(library: Library) -> dict[str, str]:
    """The same for machines."""
    from tunring import __version__, running_driver_version

    version = str(running_driver_version(library))
    return {"version": __version__, "library": library.name, "library_version": version, "library_path": library.path}


def lost_packets(stats: Stats) -> int:
    """Packets that the session lost, as far as the library counts them."""
    return stats.dropped + (stats.host_dropped or 0) + (stats.write_errors or 0)
