"""The part that the programs have in common: how they end, and how they report a failure."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, NoReturn

from tunring._extras import import_advice
from tunring.cli.report import exit_code_of

if TYPE_CHECKING:
    from collections.abc import Callable


#: Of an interface, unless a program is given another. Every other host of its network is behind the interface.
ADDRESS = "10.7.0.1/24"


def run(main: Callable[[], int]) -> NoReturn:
    """Run a program. SIGTERM interrupts it as Ctrl-C does, and a failure becomes one sentence on standard error."""
    # SIGINT as well: a program that a shell puts in the background begins with that one ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    sys.exit(exit_code_of(main))


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def import_failure(error: ImportError, package: str, module: str) -> BaseException:
    """The exception to raise where a package can't be imported: for a program, one sentence that ends it."""
    reason = f"this example {import_advice(error, package)}"
    return SystemExit(f"tunring: {reason}") if module == "__main__" else ImportError(reason, name=package)
