"""Windows programs under Wine, in a prefix of our own."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

from downloads import WINE, run

if TYPE_CHECKING:
    from collections.abc import Iterable

_SERVER = WINE.with_name("wineserver64")
#: Variables that a Windows program may see: PYTHONPATH or PIP_* would go through.
_KEPT = ("PATH", "HOME", "USER", "LANG", "TMPDIR", "HYPOTHESIS_PROFILE", "TUNRING_CHAOS_SECONDS")


def windows_path(path: Path) -> str:
    """The path as a Windows program sees it: drive Z: is the root."""
    return "Z:" + str(path.resolve()).replace("/", "\\")


class Wine:
    """A prefix. Its programs end with the ``with`` block in which it was started."""

    def __init__(self, prefix: Path) -> None:
        self.prefix = prefix
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        self.environment = {**kept, "WINEPREFIX": str(prefix), "WINEARCH": "win64", "WINEDEBUG": "-all"}

    def __enter__(self) -> Self:
        return self

    def start(self) -> None:
        """Makes the prefix unless it is there, and starts its server and services."""
        self._stop()  # one that was left over
        if not (self.prefix / ".made").exists():
            self._make()
        self._start()

    def _make(self) -> None:
        shutil.rmtree(self.prefix, ignore_errors=True)
        self.prefix.mkdir(parents=True)
        self._start()
        self._quietly(WINE, "winecfg", "-v", "win10")  # it is Windows 7 otherwise
        # The mount manager is asked about the drive whenever a file is looked at, by way of another process: without it
        # a stat() takes half as long, and nothing here needs it.
        services = r"HKLM\System\CurrentControlSet\Services"
        self._quietly(WINE, "reg", "add", rf"{services}\MountMgr", "/v", "Start", "/t", "REG_DWORD", "/d", "4", "/f")
        self._stop()
        (self.prefix / ".made").touch()

    def _start(self) -> None:
        # The server and Windows' services inherit the standard output of whoever starts them first, and who reads from
        # that would wait for them. So they start on /dev/null, and stay, which makes every later start quick.
        self._quietly(_SERVER, "-p")
        self._quietly(WINE, "wineboot")

    def __exit__(self, *exception: object) -> None:
        self._stop()

    def _quietly(self, *command: str | Path) -> None:
        subprocess.run(
            command, env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, check=True,
        )  # fmt: skip

    def _stop(self) -> None:
        """Ends every program in our prefix, and no other's."""
        if self.prefix.exists():
            subprocess.run([_SERVER, "-k"], env=self.environment, stderr=subprocess.DEVNULL, check=False)
            subprocess.run([_SERVER, "-w"], env=self.environment, stderr=subprocess.DEVNULL, check=False)

    def output(self, program: Path, *arguments: str) -> str:
        """Runs a program that must succeed, and returns what it printed."""
        return run(WINE, program, *arguments, env=self.environment).replace("\r\n", "\n")

    def run(
        self, program: Path, arguments: Iterable[str], variables: dict[str, str], cwd: Path, *, show: bool = True
    ) -> tuple[int, list[str]]:
        """Runs a program with a console, so that Ctrl-C can be pressed in it; its exit code and lines.

        Its input is a terminal, which gives it the console. Its output is a pipe: a plain file would not do, and a
        console would wrap the lines.
        """
        master, slave = pty.openpty()
        process = subprocess.Popen(
            [WINE, program, *arguments],
            env={**self.environment, **variables},
            cwd=cwd,
            stdin=slave,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        os.close(slave)
        # The console's output is of no interest, but has to be taken.
        threading.Thread(target=_drain, args=(master,), daemon=True).start()
        lines = []
        assert process.stdout
        for line in process.stdout:
            lines.append(line.decode("utf-8", "replace").rstrip("\r\n"))
            if show:
                sys.stdout.write(lines[-1] + "\n")
                sys.stdout.flush()
        code = process.wait()
        os.close(master)
        return code, lines


def _drain(master: int) -> None:
    try:
        while os.read(master, 4096):
            pass
    except OSError:
        pass  # the last program has let go of it
