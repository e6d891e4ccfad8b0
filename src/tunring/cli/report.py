"""What the commands print, and how a failure ends."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any, TextIO

from tunring import WintunError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tunring import Library, Session, Stats


def say(text: str, stream: TextIO | None = None) -> None:
    """Print a line, at once."""
    print(text, file=stream or sys.stdout, flush=True)


def say_json(what: dict[str, Any]) -> None:
    """Print the one JSON object."""
    print(json.dumps(what), flush=True)


def reason_of(error: BaseException) -> str:
    """What an exception says, in one line."""
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    if isinstance(error, OSError) and error.filename and not isinstance(error, WintunError):
        reason = f"{error.filename}: {reason}"
    return ": ".join(reason.splitlines())


#: What the commands exit with; 2, wrong usage, is argparse's.
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


class Rates:
    """A session's rates while it runs: one line that changes on a terminal, elsewhere a line a second.

    Parameters
    ----------
    session : Session
        Whose.
    stream : file, optional
        Where to; None prints nothing.
    """

    def __init__(self, session: Session, stream: TextIO | None) -> None:
        self._session = session
        self._stream = stream
        self._terminal = stream is not None and stream.isatty()
        self._interval = 0.25 if self._terminal else 1.0
        self._started = self._last = time.monotonic()
        self._before = session.stats()

    def update(self) -> None:
        """Print, if it is time to."""
        now = time.monotonic()
        if self._stream is None or now - self._last < self._interval:
            return
        stats = self._session.stats()
        elapsed = now - self._last
        packets = stats.received_packets - self._before.received_packets
        size = stats.received_bytes - self._before.received_bytes
        answers = stats.sent_packets - self._before.sent_packets
        batches = max(1, stats.received_batches - self._before.received_batches)
        self._last, self._before = now, stats
        if not packets and not self._terminal:
            return
        line = (
            f"{now - self._started:6.1f} s   received {packets / elapsed:9,.0f} packets/s {size * 8e-6 / elapsed:8,.1f}"
            f" Mbit/s   sent {answers / elapsed:9,.0f} packets/s   {packets / batches:5.1f} packets a batch"
        )
        print(line, file=self._stream, end="\r" if self._terminal else "\n", flush=True)

    def end(self) -> None:
        """Leave the line as it is."""
        if self._terminal:
            print(file=self._stream, flush=True)


def lost_packets(stats: Stats) -> int:
    """Packets that the session lost, as far as the library can tell."""
    return stats.dropped + (stats.host_dropped or 0) + (stats.write_errors or 0)
