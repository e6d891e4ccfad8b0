"""A second signal may come at any line of the first one's handler: a command ends nevertheless."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lines import BEGIN
from running import check_script

if TYPE_CHECKING:
    from pathlib import Path

#: A handler that is interrupted at each of its lines by the next signal's.
INTERRUPT = """
import signal

def interrupt_twice():
    at_each_line(
        lambda: None,
        lambda _: signal.raise_signal(signal.SIGTERM),
        lambda _: signal.raise_signal(signal.SIGINT),
    )
"""


def test_wireguard(tmp_path: Path) -> None:
    check_script(f"""{BEGIN}{INTERRUPT}
from pathlib import Path
from tunring.cli import wireguard_service
from tunring.wireguard import _control_place

_control_place.path_of = lambda name: Path({str(tmp_path)!r}, name)
create, loopback = tunring.Adapter.create, tunring.load("loopback")
tunring.Adapter.create = lambda name, **options: create(name, library=loopback, **options)
assert wireguard_service.serve("wg0", interrupt_twice) == 0
""")


def test_the_demo() -> None:
    check_script(f"""{BEGIN}{INTERRUPT}
import argparse
from tunring.cli.demo import _Demo

demo = _Demo(argparse.Namespace(seconds=1.0, library=None, json=True))
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, demo._interrupt)
interrupt_twice()
""")
